//! What the command shows beyond one address: who is hurt, exports, curves, simulations, and `top`
//! as it is watched.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::Run;
use common::store::{Lab, login, stranger};
use pam_prefixquota::guard::SystemClock;
use serde_json::Value;

/// A store with today's time, whose counts stay as they are.
fn lab() -> Lab {
    use pam_prefixquota::guard::Clock;
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.half_life = 36_500 * 86_400_000;
    });
    lab.clock.now.set(SystemClock.now());
    let settings = format!(
        "database = {}\nsettle = 0s\nhalf_life = 36500d\n",
        lab.settings.database.display()
    );
    fs::write(lab.dir.path().join("settings"), settings).unwrap();
    lab
}

fn set(lab: &Lab, line: &str) {
    let file = lab.dir.path().join("settings");
    fs::write(&file, fs::read_to_string(&file).unwrap() + line + "\n").unwrap();
}

fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = common::command();
    command.arg("--config").arg(lab.dir.path().join("settings")).args(arguments);
    command
}

/// Exit status, standard output and standard error.
fn run(lab: &Lab, arguments: &[&str]) -> (i32, String, String) {
    Run::of(&mut command(lab, arguments)).parts()
}

fn out(lab: &Lab, arguments: &[&str]) -> String {
    let (status, out, error) = run(lab, arguments);
    assert!(status == 0 && error.is_empty(), "{arguments:?}: {error}");
    out
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let (_, out, error) = run(lab, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|wrong| panic!("{wrong}: {out}{error}"))
}

fn fail(lab: &Lab, address: &str, times: usize) {
    for _ in 0..times {
        let _ = lab.guard().record(&mut lab.store(), &stranger(address)).unwrap();
    }
}

/// 66 failures, of which two addresses have two each.
fn fill_64(lab: &Lab) {
    for i in (0..64).chain([0, 32]) {
        fail(lab, &format!("2001:db8:0:1:{:x}::", i << 10), 1);
    }
}

#[test]
fn hurt_names_who_is_known_under_a_full_prefix_and_whether_he_gets_in() {
    let lab = lab();
    assert_eq!(out(&lab, &["hurt"]), "No known place is under a full prefix.\n");
    for (user, address) in
        [("ann", "2001:db8:0:1::a"), ("bob", "2001:db8:0:1::b"), ("far", "2001:db8:0:2::c")]
    {
        lab.log_in(&login(user, address));
    }
    // One address of the place is full, and none of them.
    fail(&lab, "2001:db8:0:1::bad", 2);
    assert_eq!(json(&lab, &["hurt"]), Value::Array(Vec::new()));
    for i in 0..64 {
        fail(&lab, &format!("2001:db8:0:1:{:x}::", i << 10), 1);
    }
    let (status, text, _) = run(&lab, &["hurt"]);
    assert_eq!(status, 0, "{text}");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{text}");
    for (row, user) in rows[1..].iter().zip(["ann", "bob"]) {
        assert_eq!(row[..3], [user, "2001:db8:0:1::/64", "2001:db8:0:1::/64"]);
        assert_eq!(row.last(), Some(&"yes"), "{text}");
    }
    // Bob fills his own count as well.
    for _ in 0..10 {
        lab.charge_login(&login("bob", "2001:db8:0:1::b"));
    }
    let (status, text, _) = run(&lab, &["hurt"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.lines().nth(2).unwrap().contains("  no, in "), "{text}");
    let hurt = json(&lab, &["hurt"]);
    assert_eq!((&hurt[0]["user"], &hurt[0]["admitted"]), (&"ann".into(), &true.into()));
    assert_eq!((&hurt[1]["user"], &hurt[1]["admitted"]), (&"bob".into(), &false.into()));
    assert_eq!(hurt[1]["prefix"], "2001:db8:0:1::/64");
    set(&lab, "enforcing = no");
    let (status, text, _) = run(&lab, &["hurt"]);
    assert!(status == 0 && text.contains("yes, but would be denied"), "{text}");
}

#[test]
fn top_shows_the_full_ones_first_the_wider_before_the_narrower() {
    let lab = lab();
    fail(&lab, "2001:db8:8000::2", 2);
    fail(&lab, "2001:db8:4000::1", 2);
    fill_64(&lab);
    fail(&lab, "198.51.100.7", 9);
    fail(&lab, "198.51.100.77", 1);
    let prefixes = |limit: &str| -> Vec<String> {
        let top = json(&lab, &["top", "-n", limit]);
        let rows = top.as_array().unwrap().iter();
        rows.map(|row| row["prefix"].as_str().unwrap().to_owned()).collect()
    };
    let expected = ["2001:db8:0:1::/64", "2001:db8:0:1::/128", "2001:db8:0:1:8000::/128"];
    assert_eq!(prefixes("3"), expected);
    assert_eq!(prefixes("5")[3..], ["2001:db8:4000::1/128", "2001:db8:8000::2/128"]);
    assert!(prefixes("100").contains(&"198.51.100.0/25".to_owned()));
    assert_eq!(prefixes("100"), prefixes("100"));
}

#[test]
fn top_leaves_out_what_only_repeats_its_child() {
    let lab = lab();
    fail(&lab, "198.51.100.7", 5);
    fail(&lab, "198.51.100.99", 1);
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    conn.execute("UPDATE failure SET level = 0.01 WHERE source = '198.51.100.99'", []).unwrap();
    let top = json(&lab, &["top"]);
    let shown: Vec<_> = top.as_array().unwrap().iter().map(|row| &row["prefix"]).collect();
    assert_eq!(shown, ["198.51.100.7/32", "198.51.100.99/32"]);
}

/// Full: an IPv4 address, an IPv6 address, a /64 with full addresses inside. Not full: one more.
fn for_export() -> Lab {
    let lab = lab();
    fail(&lab, "198.51.100.7", 10);
    fail(&lab, "198.51.100.8", 1);
    fail(&lab, "2001:db8:0:a::bad", 2);
    fill_64(&lab);
    lab
}

#[test]
fn exports_for_firewalls_have_each_full_prefix_once() {
    let lab = for_export();
    let list = "198.51.100.7/32\n2001:db8:0:1::/64\n2001:db8:0:a::bad/128\n";
    assert_eq!(out(&lab, &["export", "--as", "list"]), list);
    let nft = "add table inet prefixquota\n\
               add set inet prefixquota full4 { type ipv4_addr; flags interval, timeout; }\n\
               flush set inet prefixquota full4\n\
               add element inet prefixquota full4 {\n\
               \t198.51.100.7/32 timeout 2147483s\n\
               }\n\
               add set inet prefixquota full6 { type ipv6_addr; flags interval, timeout; }\n\
               flush set inet prefixquota full6\n\
               add element inet prefixquota full6 {\n\
               \t2001:db8:0:1::/64 timeout 2147483s,\n\
               \t2001:db8:0:a::bad/128 timeout 2147483s\n\
               }\n";
    assert_eq!(out(&lab, &["export", "--as", "nft"]), nft);
    let ipset = "create -exist prefixquota4 hash:net family inet timeout 0 maxelem 65536\n\
                 flush prefixquota4\n\
                 add -exist prefixquota4 198.51.100.7/32 timeout 2147483\n\
                 create -exist prefixquota6 hash:net family inet6 timeout 0 maxelem 65536\n\
                 flush prefixquota6\n\
                 add -exist prefixquota6 2001:db8:0:1::/64 timeout 2147483\n\
                 add -exist prefixquota6 2001:db8:0:a::bad/128 timeout 2147483\n";
    assert_eq!(out(&lab, &["export", "--as", "ipset"]), ipset);
    let json = json(&lab, &["export", "--as", "list"]);
    assert_eq!(json["text"], list);
}

#[test]
fn exports_for_firewalls_leave_out_what_is_exempt() {
    let lab = for_export();
    set(&lab, "exempt = 198.51.100.0/24 2001:db8:0:1:8000::/66\ncount = 2001:db8:0:1:8000::/67");
    let expected = "2001:db8:0:1::/65\n2001:db8:0:1:8000::/67\n2001:db8:0:1:c000::/66\n\
                    2001:db8:0:a::bad/128\n";
    assert_eq!(out(&lab, &["export", "--as", "list"]), expected);
    set(&lab, "exempt = ::/0");
    // What is counted all the same still is.
    assert_eq!(out(&lab, &["export", "--as", "list"]), "2001:db8:0:1:8000::/67\n");
}

#[test]
fn exports_for_programs_have_all_counts() {
    let lab = lab();
    fail(&lab, "198.51.100.7", 10);
    fail(&lab, "198.51.100.8", 1);
    lab.log_in(&login("ann", "192.0.2.1"));
    let csv = out(&lab, &["export", "--as", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "prefix,failures,quota,full,retry_after_s");
    assert!(lines[2].starts_with("198.51.100.7/32,10.0,10,1,"), "{csv}");
    assert_eq!(lines[1], "198.51.100.0/28,11.0,38,0,0");
    assert_eq!(lines[3..], ["198.51.100.8/32,1.0,10,0,0"]);
    let json: Value = serde_json::from_str(&out(&lab, &["export", "--as", "json"])).unwrap();
    assert_eq!(json["prefixes"].as_array().unwrap().len(), 3);
    assert_eq!(json["addresses"][1]["source"], "198.51.100.8");
    assert_eq!((&json["known_places"], &json["enforcing"]), (&2.into(), &true.into()));
    let metrics = out(&lab, &["export", "--as", "prometheus"]);
    let size = fs::metadata(&lab.settings.database).unwrap().len();
    let expected = format!(
        "# HELP prefixquota_full_prefixes Prefixes that are refused now.\n\
         # TYPE prefixquota_full_prefixes gauge\n\
         prefixquota_full_prefixes{{family=\"6\"}} 0\n\
         prefixquota_full_prefixes{{family=\"4\"}} 1\n\
         # HELP prefixquota_failing_addresses Addresses with failures.\n\
         # TYPE prefixquota_failing_addresses gauge\n\
         prefixquota_failing_addresses{{family=\"6\"}} 0\n\
         prefixquota_failing_addresses{{family=\"4\"}} 2\n\
         # HELP prefixquota_failures Failures, decayed to now.\n\
         # TYPE prefixquota_failures gauge\n\
         prefixquota_failures{{family=\"6\"}} 0\n\
         prefixquota_failures{{family=\"4\"}} 11\n\
         # HELP prefixquota_known_places Places from which users are known to log in.\n\
         # TYPE prefixquota_known_places gauge\n\
         prefixquota_known_places 2\n\
         # HELP prefixquota_rules Rules and grants in the store.\n\
         # TYPE prefixquota_rules gauge\n\
         prefixquota_rules 0\n\
         # HELP prefixquota_store_size_bytes Size of the store.\n\
         # TYPE prefixquota_store_size_bytes gauge\n\
         prefixquota_store_size_bytes {size}\n\
         # HELP prefixquota_enforcing 1 if attempts are denied, 0 if only counted.\n\
         # TYPE prefixquota_enforcing gauge\n\
         prefixquota_enforcing 1\n"
    );
    assert_eq!(metrics, expected);
}

/// Feeds `text` to a program in a network of its own.
fn accepts(program: &[&str], text: &str) {
    let mut child = Command::new("unshare")
        .arg("-n")
        .args(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let run = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && error.is_empty(), "{program:?}: {error}\n{text}");
}

#[test]
fn the_firewalls_read_what_is_exported_for_them() {
    const TEST: &str = "the_firewalls_read_what_is_exported_for_them";
    if !common::root_or_skip(TEST) {
        return;
    }
    let there = |program: &str| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
        if !found.status.success() {
            eprintln!("{TEST}: {program} skipped, it is not installed");
        }
        found.status.success()
    };
    for lab in [for_export(), lab()] {
        if there("nft") {
            let text = out(&lab, &["export", "--as", "nft"]);
            accepts(&["nft", "-c", "-f", "-"], &text);
            // Again, over what is there already.
            accepts(
                &["sh", "-c", "cat >\"$0\" && nft -f \"$0\" && nft -f \"$0\"", &file(&lab)],
                &text,
            );
        }
        // The kernel may lack it, where there are no modules to load.
        let has_sets = || {
            let probe = Command::new("unshare").args(["-n", "ipset", "list"]).output().unwrap();
            if !probe.status.success() {
                eprintln!("{TEST}: ipset skipped, the kernel has none");
            }
            probe.status.success()
        };
        if there("ipset") && has_sets() {
            let text = out(&lab, &["export", "--as", "ipset"]);
            let twice = "cat >\"$0\" && ipset restore <\"$0\" && ipset restore <\"$0\"";
            accepts(&["sh", "-c", twice, &file(&lab)], &text);
        }
    }
}

fn file(lab: &Lab) -> String {
    lab.dir.path().join("exported").display().to_string()
}

#[test]
fn the_curve_is_drawn_in_ascii_in_a_pipe_and_into_a_file() {
    let lab = lab();
    let drawn = out(&lab, &["policy", "--plot"]);
    assert!(drawn.is_ascii(), "{drawn}");
    assert_eq!(drawn.matches("failures that a prefix may have").count(), 2);
    let lines: Vec<&str> = drawn.lines().collect();
    assert!(lines.iter().all(|line| line.len() <= 78), "{drawn}");
    assert!(lines[1].starts_with("   640 |") && lines[17].starts_with("     0 +---"), "{drawn}");
    assert_eq!(
        lines[18].split_whitespace().collect::<Vec<_>>(),
        ["/128", "/104", "/80", "/56", "/32"]
    );
    // It rises, from the left to the right.
    let columns: Vec<usize> = lines[1..17].iter().filter_map(|line| line.rfind('*')).collect();
    assert!(columns.len() > 12 && columns.is_sorted_by(|a, b| a >= b), "{drawn}");

    let file = lab.dir.path().join("out.svg").display().to_string();
    assert!(out(&lab, &["policy", "--plot", &file]).contains(&file));
    let svg = fs::read_to_string(&file).unwrap();
    assert!(
        svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n")
    );
    assert_eq!(svg.matches("<polyline").count(), 2);
    for text in ["IPv6: failures", "IPv4: failures", ">prefix length<", ">/128<", ">640<"] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(points.split(' ').count(), 97);
    let missing = run(&lab, &["policy", "--plot", "/nowhere/out.svg"]);
    assert!(missing.0 == 2 && missing.2.contains("/nowhere/out.svg"), "{}", missing.2);
    assert_eq!(json(&lab, &["policy", "--plot"]), json(&lab, &["policy"]));
}

#[test]
fn simulate_gives_the_same_figures_for_the_same_seed() {
    let lab = lab();
    set(&lab, "half_life = 1h");
    let slow = ["simulate", "--attack", "slow", "--days", "1"];
    assert_eq!(json(&lab, &slow), json(&lab, &slow));
    let other = json(&lab, &[&slow[..], &["--seed", "7"]].concat());
    assert_ne!(json(&lab, &slow)["attacks"], other["attacks"]);
    let first = json(&lab, &slow);
    let attack = &first["attacks"][0];
    assert_eq!((&attack["attack"], &attack["tries_per_day"]), (&"slow".into(), &573.into()));
    let policies = attack["policies"].as_array().unwrap();
    assert_eq!((policies.len(), &policies[0]["policy"]), (7, &"prefixquota".into()));
    for policy in policies {
        let (familiar, strangers) = (&policy["familiar"], &policy["strangers"]);
        assert!(familiar["logins"].as_u64() > strangers["logins"].as_u64(), "{policy}");
        assert!(policy["guesses_per_day"].as_u64().is_some_and(|n| n > 450), "{policy}");
    }
    assert_eq!(policies[0]["familiar"]["refused"], 0);
    let text = out(&lab, &slow);
    let header = text.lines().nth(2).unwrap();
    assert!(header.starts_with("attack  tries  prefixquota  fail2ban /128"), "{text}");
    assert!(text.contains("\nslow    573    all "), "{text}");
    let wrong = run(&lab, &["simulate", "--attack", "nobody"]);
    assert!(wrong.0 == 2 && wrong.2.contains("world-botnet"), "{}", wrong.2);
}

/// A terminal, and the command that runs in it.
struct Watched {
    terminal: fs::File,
    /// The other end, kept open so that its modes can be looked at.
    inside: OwnedFd,
    before: (u32, u32, u32),
    child: Child,
}

/// The modes of a terminal that a program may change.
fn modes(terminal: &OwnedFd) -> (u32, u32, u32) {
    // SAFETY: a zeroed termios is a valid place to write one to.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `modes` outlives the call.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes) }, 0);
    (modes.c_iflag, modes.c_oflag, modes.c_lflag)
}

fn watch(lab: &Lab) -> Watched {
    let (mut outside, mut inside) = (0, 0);
    let null = std::ptr::null_mut();
    let size = libc::winsize { ws_row: 12, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two places to write descriptors to; name and modes may be null.
    let made = unsafe {
        libc::openpty(&raw mut outside, &raw mut inside, null, null.cast(), &raw const size)
    };
    assert_eq!(made, 0);
    // SAFETY: both were just opened, and belong to nobody else.
    let (terminal, inside) =
        unsafe { (fs::File::from_raw_fd(outside), OwnedFd::from_raw_fd(inside)) };
    let before = modes(&inside);
    let end = || Stdio::from(inside.try_clone().unwrap());
    let child =
        command(lab, &["top", "--watch"]).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    Watched { terminal, inside, before, child }
}

/// What was drawn until it ended, after `act` at the second picture.
fn drawn(mut watched: Watched, act: impl FnOnce(&mut fs::File, &Child)) -> (Option<i32>, String) {
    let before = watched.before;
    let mut reader = watched.terminal.try_clone().unwrap();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut bytes) {
            let _ = sender.send(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
    });
    let mut text = String::new();
    while text.matches("(q quits)").count() < 2 {
        text += &received.recv_timeout(Duration::from_secs(20)).expect("it draws again");
    }
    assert_ne!(modes(&watched.inside).2, before.2, "keys come one by one");
    act(&mut watched.terminal, &watched.child);
    let status = watched.child.wait().unwrap();
    while let Ok(more) = received.recv_timeout(Duration::from_millis(100)) {
        text += &more;
    }
    assert_eq!(modes(&watched.inside), before, "the terminal is as it was");
    (status.code(), text)
}

#[test]
fn top_is_watched_until_q_or_a_signal_and_leaves_the_terminal_as_it_was() {
    let lab = lab();
    fail(&lab, "2001:db8::1", 2);
    fail(&lab, "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe", 1);
    let signal = |signal: i32| {
        move |_: &mut fs::File, child: &Child| {
            // SAFETY: the child is ours and not waited for yet.
            assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
        }
    };
    let (status, text) = drawn(watch(&lab), |terminal, _| terminal.write_all(b"q").unwrap());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("2001:db8::1/128") && text.contains("\u{1b}[J"), "{text}");
    assert!(!text.contains("\u{1b}[?"), "no other screen, no hidden cursor: {text}");
    // 40 columns: what is longer would break the lines, and with them the next picture.
    let cut = text.lines().find(|line| line.starts_with("2001:db8:ffff")).unwrap();
    assert_eq!(cut.trim_end().chars().count(), 40, "{cut}");
    for number in [libc::SIGINT, libc::SIGTERM] {
        assert_eq!(drawn(watch(&lab), signal(number)).0, Some(0));
    }
    let (status, _, error) = run(&lab, &["top", "--watch"]);
    assert!(status == 2 && error.contains("--watch draws on a terminal"), "{error}");
}
