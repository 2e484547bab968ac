//! What the documents show is what happens: the commands in `README.md`, in
//! `pam.d-examples/README.md` and in the examples of prefixquota(8) are run as they are written.
//!
//! **What is run.** Every block (between fences, or indented by four blanks) with a line that
//! starts with `# prefixquota ` or `# sqlite3 `. In such a block each line that starts with `# ` is
//! a command, with the lines behind it as long as they end in a backslash; what follows, up to the
//! next command, is its output. All blocks of a document run in order, as root of one throw-away
//! machine where [`prepare`] has made an attack happen; what a new example needs besides is made
//! there. A command may end with status 0, or with 1 for "denied", and must not write to standard
//! error.
//!
//! **How it is compared.** Without shown output, not at all. Else line by line and word by word,
//! however wide the columns; addresses and prefixes must be the same, and elsewhere a number may
//! stand for a number and a time to wait (`8s`, `1h 5m`) for another. A line `...` stands for any
//! lines.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use common::lab::{self, Lab};
use common::mmdb::Mmdb;
use common::store::{TestClock, is_charged, login, stranger};
use pam_prefixquota::config::{Config, SETTINGS, Settings};
use pam_prefixquota::guard::{Clock, Guard, Pass, SystemClock};
use pam_prefixquota::source::{parse_host, parse_prefix};
use pam_prefixquota::store::Store;

const SQLITE3: &str = "/usr/bin/sqlite3";
const MINUTE: i64 = 60_000;

/// What may begin a command. Nothing that could reach beyond the machine of the test.
const PROGRAMS: [&str; 5] = ["prefixquota", "sqlite3", "echo", "printf", "cat"];

#[test]
fn readme_shows_what_happens() {
    let Some(lab) = lab::enter("readme_shows_what_happens", &[SQLITE3]) else { return };
    let done = run_all(&lab, "README.md", include_str!("../README.md"));
    assert!(done >= 4, "README.md: only {done} commands were found");
}

#[test]
fn settings_that_the_documents_show_are_understood() {
    let dir = common::private_dir();
    let file = dir.path().join("settings");
    let mut found = 0;
    for text in [include_str!("../README.md"), include_str!("../pam.d-examples/README.md")] {
        // `key = value` lines and nothing else: neither commands nor stacks.
        let blocks = blocks(text).into_iter().filter(|block| {
            let is_setting = |line: &str| {
                SETTINGS.iter().any(|s| line.starts_with(s.name) && line.contains('='))
            };
            !block.is_empty() && block.iter().all(|(_, line)| is_setting(line))
        });
        for block in blocks {
            let lines: Vec<&str> = block.iter().map(|(_, line)| *line).collect();
            fs::write(&file, lines.join("\n")).unwrap();
            let problems = Config::load(Some(&file), &[]).problems;
            assert!(problems.is_empty(), "{lines:?}: {problems:?}");
            found += 1;
        }
    }
    assert!(found >= 1, "no settings were found");
}

#[test]
fn readme_of_the_stacks_shows_what_happens() {
    let Some(lab) = lab::enter("readme_of_the_stacks_shows_what_happens", &[SQLITE3]) else {
        return;
    };
    run_all(&lab, "pam.d-examples/README.md", include_str!("../pam.d-examples/README.md"));
}

#[test]
fn examples_of_the_manual_page_work() {
    let Some(lab) = lab::enter("examples_of_the_manual_page_work", &[SQLITE3]) else { return };
    let done = run_all(&lab, "src/man/examples.md", include_str!("../src/man/examples.md"));
    assert!(done >= 4, "src/man/examples.md: only {done} commands were found");
}

#[test]
fn what_is_compared_and_what_is_not() {
    let same = |shown: &str, printed: &str| matches(&lines(shown), &lines(printed));
    assert!(same("a  625.984  8s", "a 626.0 7s"));
    assert!(same("in 1h 5m.", "in 59m."));
    assert!(same("at 2026-01-02 03:04:05", "at 2027-11-12 13:14:15"));
    assert!(same("------  ---", "---  -----"));
    assert!(same("a\n...\nb", "a\nx\ny\nb") && same("a\n...", "a\nx") && same("...\nb", "b"));
    assert!(!same("a\n...\nb", "a\nx"));
    assert!(!same("2001:db8::1", "2001:db8::2") && !same("192.0.2.1,", "192.0.2.2,"));
    assert!(!same("(2001:db8::/32)", "(2001:db8::/33)") && !same("fe80::1:", "fe80::2:"));
    assert!(!same("a 1", "b 1") && !same("a", "a\nb") && !same("a 8s", "a now"));
}

/// One command of a document.
#[derive(Debug)]
struct Step<'t> {
    /// Where it stands, counted from 1.
    line: usize,
    command: String,
    output: Vec<&'t str>,
}

/// Runs all commands of a document, and says how many there were.
fn run_all(lab: &Lab, name: &str, text: &str) -> usize {
    prepare(lab);
    let steps: Vec<Step<'_>> = blocks(text).into_iter().flat_map(steps).collect();
    for step in &steps {
        let place = format!("{name}, line {}: {}", step.line, step.command);
        let program = step.command.split_whitespace().next().unwrap_or_default();
        assert!(PROGRAMS.contains(&program), "{place}\nis none of {PROGRAMS:?}");
        let path = std::env::var("PATH").unwrap_or_default();
        let run = Command::new("sh")
            .args(["-c", &step.command])
            .env("PATH", format!("{}:{path}", lab.dir().join("bin").display()))
            .current_dir(lab.dir().join("home"))
            .output()
            .unwrap();
        let out = String::from_utf8(run.stdout).unwrap();
        let error = String::from_utf8_lossy(&run.stderr);
        let done = matches!(run.status.code(), Some(0 | 1)) && error.is_empty();
        assert!(done, "{place}\nended with {}: {out}{error}", run.status);
        assert!(
            step.output.is_empty() || matches(&step.output, &lines(&out)),
            "{place}\n--- should print\n{}\n--- and prints\n{out}",
            step.output.join("\n")
        );
    }
    steps.len()
}

/// The blocks of a Markdown text, as numbered lines without their indentation.
fn blocks(text: &str) -> Vec<Vec<(usize, &str)>> {
    let mut blocks = vec![Vec::new()];
    let mut fence = None;
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_fence = line.trim_start().starts_with("```");
        let inside = match fence {
            Some(width) => Some(indent.min(width)),
            None => (indent >= 4).then_some(4),
        };
        match inside {
            Some(width) if !is_fence => {
                blocks.last_mut().unwrap().push((index + 1, &line[width..]))
            }
            _ => blocks.push(Vec::new()),
        }
        if is_fence {
            fence = if fence.is_some() { None } else { Some(indent) };
        }
    }
    blocks
}

/// The commands of a block; none if it is not one to be run.
fn steps(block: Vec<(usize, &str)>) -> Vec<Step<'_>> {
    let ours = |line: &str| line.starts_with("# prefixquota ") || line.starts_with("# sqlite3 ");
    let mut steps: Vec<Step<'_>> = Vec::new();
    if !block.iter().any(|(_, line)| ours(line)) {
        return steps;
    }
    for (number, text) in block {
        match (text.strip_prefix("# "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { line: number, command: command.to_owned(), output: Vec::new() });
            }
            (None, Some(step)) if step.output.is_empty() && step.command.ends_with('\\') => {
                step.command = format!("{}\n{text}", step.command);
            }
            (None, Some(step)) => step.output.push(text),
            (None, None) => panic!("line {number}: no command before \"{text}\""),
        }
    }
    for step in &mut steps {
        while step.output.last().is_some_and(|line| line.is_empty()) {
            step.output.pop();
        }
    }
    steps
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().collect()
}

fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (Some((&"...", rest)), _) => (0..=printed.len()).any(|n| matches(rest, &printed[n..])),
        (Some((a, shown)), Some((b, printed))) => loose(a) == loose(b) && matches(shown, printed),
        (None, None) => true,
        _ => false,
    }
}

/// A line with all in it that may differ made equal.
fn loose(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let word = loose_word(word);
        // `1h 5m` is one time.
        if word.starts_with("TIME") && words.last().is_some_and(|last| last == "TIME") {
            words.pop();
        }
        words.push(word);
    }
    words.join(" ")
}

fn loose_word(word: &str) -> String {
    let core = word.trim_start_matches(['(', '"']);
    let core = core.trim_end_matches([')', '"', '.', ',', ';', ':']);
    let is_address =
        |text: &str| parse_host(text.as_bytes()).is_some() || parse_prefix(text).is_ok();
    if is_address(word) || is_address(core) {
        return word.to_owned();
    }
    if core.len() > 1 && core.bytes().all(|b| b == b'-') {
        return "-".to_owned();
    }
    let number = core.trim_end_matches(['s', 'm', 'h', 'd']);
    if number.len() + 1 == core.len() && number.bytes().all(|b| b.is_ascii_digit()) {
        return word.replacen(core, "TIME", 1);
    }
    let mut out = String::new();
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('0') => {}
            true => out.push('0'),
            false => out.push(c),
        }
    }
    out
}

/// Makes the machine that the documents speak of: the command is installed, sshd and Dovecot have
/// their stacks, alice has logged in from 2001:db8:cafe:1::/64, a file with countries is in the
/// working directory, and an attack from random addresses has filled 2001:db8::/32.
fn prepare(lab: &Lab) {
    let bin = lab.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    // Before /var/lib is covered: the build may be in there.
    fs::copy(env!("CARGO_BIN_EXE_prefixquota"), bin.join("prefixquota")).unwrap();
    lab::run("mount", &["-t", "tmpfs", "-o", "mode=755", "lab", "/var/lib"]);
    lab::run("install", &["-d", "-m", "0700", "/var/lib/prefixquota"]);
    lab.etc("security/prefixquota.conf", include_str!("../pam.d-examples/prefixquota.conf"));
    for service in ["sshd", "dovecot"] {
        lab.etc(&format!("pam.d/{service}"), "@include common-auth\n@include common-account\n");
    }
    let networks = [("192.0.2.0/24", "KP"), ("2001:db8::/32", "DE"), ("198.51.100.0/24", "DE")];
    let mut countries = Mmdb::of(6, 24, &networks);
    countries.database_type = "GeoLite2-Country".to_owned();
    fs::write(lab.dir().join("home/GeoLite2-Country.mmdb"), countries.write()).unwrap();
    log_in("alice", "2001:db8:cafe:1::5");
    attack();
}

/// A login with a key.
fn log_in(user: &str, address: &str) {
    let settings = Settings::default();
    let rules = settings.rules();
    let mut store = Store::open(&settings.database, Duration::from_secs(5)).unwrap();
    let guard = Guard::new(&settings, &rules, &SystemClock);
    guard.succeed(&mut store, &login(user, address), &Pass::default()).unwrap().unwrap();
}

/// The addresses that failed, beside those of the /32.
const BAD: [&str; 2] = ["3fff:0:1:2::bad", "3fff:0:1:3::bad"];

/// How many failures the prefixes of one address in the /32 have, by their length, as in the README.
const SHAPE: [(u8, u128); 10] = [
    (42, 1),
    (40, 4),
    (39, 6),
    (38, 8),
    (37, 19),
    (36, 33),
    (35, 76),
    (34, 162),
    (33, 335),
    (32, 651),
];

/// The /32 gets more than its 626 failures, as if the quotas had been higher at the time: so it
/// stays full for three minutes, and its place in `top` is certain however slow this machine is.
fn attack() {
    let settings = Settings::default();
    let mut patient = settings.clone();
    patient.ipv6.base += 25;
    let now = SystemClock.now();
    let mut store = Store::open(&settings.database, Duration::from_secs(5)).unwrap();
    let mut fail = |address: &str, settings: &Settings, now: i64| {
        let clock = TestClock { now: Cell::new(now), asleep: RefCell::new(Box::new(|_| {})) };
        let rules = settings.rules();
        let guard = Guard::new(settings, &rules, &clock);
        let admission = guard.record(&mut store, &stranger(address)).unwrap();
        assert!(is_charged(&admission), "{address}: {admission:?}");
    };
    let target = "2001:db8:dead:beef::1".parse::<Ipv6Addr>().unwrap().to_bits();
    let mut made = 0;
    for (length, count) in SHAPE {
        // Exactly `length` bits in common with it, and the rest at random.
        let differs = 1 << (127 - length);
        for n in made..count {
            let random = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let address = (target ^ differs) & !(differs - 1) | random & (differs - 1);
            fail(&Ipv6Addr::from_bits(address).to_string(), &patient, now);
        }
        made = count;
    }
    // Last, since the quotas that the view shows are those of the last attempt.
    for (address, age) in BAD.into_iter().zip([MINUTE, 0]) {
        fail(address, &settings, now - age);
        fail(address, &settings, now - age);
    }
}
