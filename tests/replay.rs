//! `replay` and `check --line`, run as a person or a program runs them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use common::Run;
use serde_json::Value;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let lab = Lab { dir: common::private_dir() };
        fs::write(lab.path("settings"), format!("database = {}\n", lab.path("q.db"))).unwrap();
        lab
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = common::command();
        command.env("TZ", "UTC").args(["--config", &self.path("settings")]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Run::from(child.wait_with_output().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--format", "json"]].concat()).json()
    }
}

/// Five guesses from one address, and two logins.
fn log() -> String {
    let failed = |second: u32| {
        format!(
            "2026-11-20T10:00:0{second}Z web sshd[7]: Failed password for root from 2001:db8::7 port 4 ssh2\n"
        )
    };
    let accepted = |second: u32, user: &str, address: &str| {
        format!(
            "2026-11-20T10:00:0{second}Z web sshd[8]: Accepted password for {user} from {address} port 4 ssh2\n"
        )
    };
    (0..5).map(failed).collect::<String>()
        + "2026-11-20T10:00:05Z web kernel: a line that does not matter\n"
        + &accepted(6, "ann", "2001:db8::7")
        + &accepted(7, "bob", "2001:db8::8")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn the_report_says_what_would_have_been_denied() {
    let lab = Lab::new();
    let file = lab.file("auth.log", log());
    let run = lab.run(&["replay", &file]);
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    for line in [
        "8 lines: 7 attempts (5 failures, 2 logins) from 2 sources, from 2026-11-20 10:00:00 to 2026-11-20 10:00:07 (7s).",
        "prefixquota                   2                    3               1",
        "fail2ban (5 in 10m, ban 10m)  5                    0               1",
        "2026-11-20 10:00:06  ann   2001:db8::7  2001:db8::7/128 was full",
        "2001:db8::7/128  4       2026-11-20 10:00:02  2026-11-20 10:00:06",
    ] {
        assert!(run.out.contains(line), "{line}\n{}", run.out);
    }
    assert!(!fs::exists(lab.path("q.db")).unwrap(), "nothing is counted");
    let json = lab.json(&["replay", &file]);
    let count = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(count("attempts"), count("failures") + count("accepted"));
    let counts =
        ["lines", "failures", "accepted", "sources", "denied", "accepted_denied"].map(count);
    assert_eq!(counts, [8, 5, 2, 2, 4, 1]);
}

#[test]
fn files_are_read_packed_or_not_and_from_standard_input() {
    let lab = Lab::new();
    let plain = lab.json(&["replay", &lab.file("auth.log", log())]);
    let log = log();
    let packed = lab.file("auth.log.1.gz", gzip(log.as_bytes()));
    assert_eq!(lab.json(&["replay", &packed]), plain);
    let (first, second) = log.split_at(log.find("2026-11-20T10:00:03Z").unwrap());
    let two = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(lab.json(&["replay", &lab.file("two", two)]), plain, "packed piece by piece");
    let input = lab.run_with(&["replay", "-", "--format", "json"], log.as_bytes()).json();
    assert_eq!(input, plain);
    let input = lab.run_with(&["replay", "-", "--format", "json"], &gzip(log.as_bytes())).json();
    assert_eq!(input, plain);
    // Several logs, in whatever order.
    let (new, old) = (lab.file("new", second), lab.file("old", first));
    assert_eq!(lab.json(&["replay", &new, &old]), plain);
    assert_eq!(lab.json(&["replay", &old, &new]), plain);
}

#[test]
fn long_lines_and_bytes_that_are_no_text_are_passed_over() {
    let lab = Lab::new();
    let mut bytes = log().into_bytes();
    bytes.extend(vec![b'x'; 1_000_000]);
    bytes.extend(b"\n\xff\xfe\0\n\n");
    bytes.extend(log().replace("10:00", "11:00").into_bytes());
    bytes.pop();
    let json = lab.json(&["replay", &lab.file("auth.log", bytes)]);
    assert_eq!((&json["lines"], &json["failures"]), (&19.into(), &10.into()));
}

/// 2024-01-15, in the winter after.
#[test]
fn a_log_without_years_ends_before_it_was_written() {
    let lab = Lab::new();
    let line = |day: &str| {
        format!("{day} 10:00:00 web sshd[7]: Failed password for root from 192.0.2.7 port 4 ssh2\n")
    };
    let file = lab.file("auth.log", line("Nov 20") + &line("Jan 14"));
    let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_705_276_800 + 86_400);
    fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
    let json = lab.json(&["replay", &file]);
    assert_eq!(json["first_unix_ms"], 1_700_474_400_000_i64, "2023-11-20");
    assert_eq!(json["last_unix_ms"], 1_705_226_400_000_i64, "2024-01-14");
}

#[test]
fn a_journal_is_a_log() {
    let lab = Lab::new();
    let plain = lab.json(&["replay", &lab.file("auth.log", log())]);
    let mut journal = String::new();
    for (second, line) in log().lines().enumerate() {
        let (_, said) = line.split_once(" web ").unwrap();
        let (name, message) = said.split_once(": ").unwrap();
        let (name, pid) = name.trim_end_matches(']').split_once('[').unwrap_or((name, "0"));
        let microseconds = 1_795_168_800_000_000 + second * 1_000_000;
        let entry = serde_json::json!({
            "MESSAGE": message, "SYSLOG_IDENTIFIER": name, "_PID": pid, "_HOSTNAME": "web",
            "__REALTIME_TIMESTAMP": microseconds.to_string(),
        });
        journal += &format!("{entry}\n");
    }
    let run = lab.run_with(&["replay", "--journal", "--format", "json"], journal.as_bytes());
    assert_eq!(run.json(), plain);
    let file = lab.file("journal", &journal);
    assert_eq!(lab.json(&["replay", "--journal", &file]), plain);
}

#[test]
fn the_picture_and_the_curve() {
    let lab = Lab::new();
    let (file, picture) = (lab.file("auth.log", log()), lab.path("out.svg"));
    let run = lab.run(&["replay", &file, "--plot", &picture, "--fit", "0.1%"]);
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg "));
    assert!(run.out.contains("\nipv6_base = 6\nipv6_growth = 0\n"), "{}", run.out);
    // What it proposes can be set, and does as it says.
    let settings = fs::read_to_string(lab.path("settings")).unwrap();
    let proposed: Vec<&str> = run.out.lines().filter(|line| line.starts_with("ipv")).collect();
    lab.file("settings", settings + &proposed.join("\n"));
    assert_eq!(lab.json(&["replay", &file])["accepted_denied"], 0);
    assert_eq!(lab.json(&["replay", &file, "--fit", "50%"])["fit"][0]["base"], 2);
}

#[test]
fn one_line_is_explained() {
    let lab = Lab::new();
    let line = "Nov 20 10:00:00 web sshd[7]: message repeated 2 times: [ Failed password for invalid user ann from ::ffff:192.0.2.7 port 4 ssh2]";
    let run = lab.run(&["check", "--line", line]);
    assert_eq!(run.status, 0, "{}", run.err);
    for row in [
        "pattern   sshd-password-failed-invalid",
        "service   sshd",
        "outcome   failed",
        "attempts  2",
        "source    192.0.2.7",
        "user      ann",
    ] {
        assert!(run.out.contains(&format!("{row}\n")), "{row}\n{}", run.out);
    }
    let json = lab.json(&[
        "check",
        "--line",
        "2026-11-20T10:00:00Z web sshd[7]: Accepted publickey for ann from 192.0.2.7 port 4 ssh2",
    ]);
    assert_eq!(
        (&json["outcome"], &json["unix_ms"]),
        (&"accepted by key".into(), &1_795_168_800_000_i64.into())
    );
    let journal =
        "{\"SYSLOG_IDENTIFIER\":\"sshd\",\"MESSAGE\":\"Invalid user ann from 192.0.2.7\"}";
    assert_eq!(lab.json(&["check", "--line", journal])["pattern"], "sshd-invalid-user-old");
    let nothing = lab.run(&["check", "--line", "Nov 20 10:00:00 web kernel: nothing"]);
    assert_eq!((nothing.status, nothing.err.as_str()), (1, ""));
    assert!(nothing.out.starts_with("Not recognised"), "{}", nothing.out);
    assert_eq!(lab.run(&["check", "--line", line, "192.0.2.7"]).status, 2);
    assert_eq!(lab.run(&["check"]).status, 2);
}

#[test]
fn what_cannot_be_done_is_said_in_one_sentence() {
    let lab = Lab::new();
    let file = lab.file("auth.log", log());
    let mut damaged = gzip(&log().repeat(100).into_bytes());
    damaged.truncate(damaged.len() - 20);
    let damaged = lab.file("damaged.gz", damaged);
    let picture = lab.path("no/out.svg");
    for (arguments, says) in [
        (vec!["replay", "/nowhere/auth.log"], "/nowhere/auth.log"),
        (vec!["replay", "/"], "/: is a directory"),
        (vec!["replay", &file, &damaged], "damaged.gz"),
        (vec!["replay", &file, "--plot", &picture], "out.svg"),
        (vec!["replay", &file, "--fit", "1"], "for example 0.1%"),
        (vec!["replay", &file, "--fit", "101%"], "for example 0.1%"),
        (vec!["replay"], "FILE"),
    ] {
        let run = lab.run(&arguments);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{arguments:?}");
        assert!(run.err.contains(says), "{arguments:?}: {}", run.err);
    }
    let empty = lab.run(&["replay", &lab.file("empty", "")]);
    assert_eq!(empty.status, 0);
    assert!(empty.out.starts_with("0 lines, and no attempt"), "{}", empty.out);
    assert_eq!(lab.json(&["replay", &lab.path("empty")])["attempts"], 0);
}
