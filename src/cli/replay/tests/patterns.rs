//! The table of patterns, and what user names cannot make of it.

use std::collections::HashSet;

use super::super::line::{Entry, Line, repeats_last};
use super::super::parse::{Found, parse};
use super::super::patterns::{PATTERNS, Program, Sign};
use super::super::template::Template;
use proptest::prelude::*;

fn found(line: &str) -> Option<(&'static str, String, String)> {
    let line = Line::of(line.as_bytes());
    let Found { pattern, fields } = parse(&line)?;
    let text =
        |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    Some((pattern.name, text(fields.host), text(fields.user)))
}

#[test]
fn every_example_matches_its_own_pattern_and_none_before_it() {
    for pattern in PATTERNS {
        let (name, host, user) =
            found(pattern.example).unwrap_or_else(|| panic!("{}", pattern.name));
        assert_eq!(name, pattern.name);
        assert_eq!(pattern.template.contains("<host>"), !host.is_empty(), "{name}");
        assert_eq!(pattern.template.contains("<user>"), !user.is_empty(), "{name}");
        if !host.is_empty() {
            let host = host.trim_start_matches("::ffff:");
            assert!(["192.0.2.7", "2001:db8::7"].contains(&host), "{name}: {host}");
        }
    }
}

#[test]
fn every_pattern_has_a_name_of_its_own_and_stands_with_its_program() {
    let names: HashSet<&str> = PATTERNS.iter().map(|pattern| pattern.name).collect();
    assert_eq!(names.len(), PATTERNS.len());
    let programs: Vec<Program> =
        PATTERNS.chunk_by(|a, b| a.by == b.by).map(|group| group[0].by).collect();
    for (index, program) in programs.iter().enumerate() {
        assert!(!programs[index + 1..].contains(program), "{program:?} stands apart");
    }
    // Whatever tells of an attempt says from where, or that there is no where.
    for pattern in PATTERNS.iter().filter(|p| matches!(p.sign, Sign::Failed(_) | Sign::Accepted(_)))
    {
        assert!(pattern.template.contains("<host>") || pattern.name.contains("local"));
    }
}

#[test]
fn a_program_is_believed_only_about_itself() {
    let password = "Failed password for root from 192.0.2.7 port 4 ssh2";
    let of = |name: &str| found(&format!("Nov 20 10:00:00 web {name}[7]: {password}"));
    assert!(of("sshd").is_some() && of("sshd-session").is_some());
    assert!(of("nginx").is_none() && of("dovecot").is_none() && of("CRON").is_none());
    assert!(found(password).is_some(), "nobody is named");
    let pam = "pam_unix(cockpit:auth): authentication failure; logname= uid=0 rhost=192.0.2.7";
    let pam = |name: &str| found(&format!("Nov 20 10:00:00 web {name}[7]: {pam}")).unwrap().0;
    assert_eq!((pam("cockpit-session"), pam("sshd")), ("pam-unix-failed", "pam-unix-failed"));
    let session = "pam_unix(sshd:session): session opened for user ann";
    assert!(found(&format!("Nov 20 10:00:00 web sshd[7]: {session}")).is_none());
}

#[test]
fn a_user_name_cannot_name_another_address() {
    for (line, name, user) in [
        (
            "sshd[1]: Failed password for invalid user x from 203.0.113.9 port 22 ssh2 from 192.0.2.7 port 40 ssh2",
            "sshd-password-failed-invalid",
            "x from 203.0.113.9 port 22 ssh2",
        ),
        (
            "sshd[1]: Failed password for invalid user Accepted password for root from 203.0.113.9 port 1 ssh2 from 192.0.2.7 port 40 ssh2",
            "sshd-password-failed-invalid",
            "Accepted password for root from 203.0.113.9 port 1 ssh2",
        ),
        (
            "sshd[1]: error: PAM: Authentication failure for illegal user x from 203.0.113.9 from 192.0.2.7",
            "sshd-pam-failed-illegal",
            "x from 203.0.113.9",
        ),
        (
            "sshd[1]: Connection closed by invalid user x 203.0.113.9 port 1 [preauth] 192.0.2.7 port 40 [preauth]",
            "sshd-connection-invalid",
            "x 203.0.113.9 port 1 [preauth]",
        ),
        (
            "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=x rhost=203.0.113.9  user=root rhost=192.0.2.7",
            "pam-unix-failed",
            "",
        ),
        (
            "dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=203.0.113.9, lip=>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, session=<a>",
            "dovecot-login-failed",
            "x>, method=PLAIN, rip=203.0.113.9, lip=",
        ),
        (
            "vsftpd[1]: [x] OK LOGIN: Client \"203.0.113.9\"] FAIL LOGIN: Client \"192.0.2.7\"",
            "vsftpd-failed",
            "x] OK LOGIN: Client \"203.0.113.9\"",
        ),
        (
            "proftpd[1]: ftp (a.example[192.0.2.7]) - USER ftp (b.example[203.0.113.9]): no such user found from a.example [192.0.2.7] to 192.0.2.1:21",
            "proftpd-unknown",
            "ftp (b.example[203.0.113.9])",
        ),
    ] {
        let (found, host, who) = found(&format!("Nov 20 10:00:00 web {line}")).expect(line);
        assert_eq!((found, host.as_str()), (name, "192.0.2.7"), "{line}");
        assert_eq!(who, user, "{line}");
    }
    // A file name, uploaded by somebody who is logged in.
    let upload = "Nov 20 10:00:00 ftp vsftpd[1]: [ann] OK UPLOAD: Client \"192.0.2.7\", \
                  \"/x] FAIL LOGIN: Client \"203.0.113.9\"\", 12 bytes, 3.00Kbyte/sec";
    assert!(found(upload).is_none_or(|(name, ..)| name != "vsftpd-failed"));
}

#[test]
fn a_name_that_offers_many_ends_takes_no_time_to_speak_of() {
    let template = Template::new("<any>(<any>[<host>])<any>USER <user> (Login failed)<any>");
    let message = format!("{} USER x (Login failed)", "([(".repeat(1_300));
    let started = std::time::Instant::now();
    assert!(template.fields(message.as_bytes()).is_none());
    // Without a limit it would be hours.
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn what_stands_for_several_lines_says_for_how_many() {
    let line = Line::of(b"Nov 20 10:00:00 web sshd[1]: message repeated 5 times: [ Failed password for root from 192.0.2.7 port 4 ssh2]");
    assert_eq!((line.times, parse(&line).unwrap().pattern.name), (5, "sshd-password-failed"));
    let line = Line::of(b"Nov 20 10:00:00 web last message repeated 3 times");
    assert_eq!(repeats_last(&line), Some(3));
    let line = Line::of(b"Nov 20 10:00:00 web sshd[1]: last message repeated 3 times");
    assert_eq!(repeats_last(&line), None, "only the log itself says so");
}

#[test]
fn entries_of_the_journal_are_lines() {
    let json = br#"{"__REALTIME_TIMESTAMP":"1790000000123456","SYSLOG_IDENTIFIER":"sshd-session","_PID":"812","_HOSTNAME":"web","MESSAGE":"Failed password for r\u00f6\"t from 2001:db8::7 port 4 ssh2","_UID":"0"}"#;
    let entry = Entry::that_matters(json).unwrap();
    let line = entry.line();
    assert_eq!((line.pid, line.node), (812, &b"web"[..]));
    let found = parse(&line).unwrap();
    assert_eq!(found.fields.user, Some("rö\"t".as_bytes()));
    let bytes = "Failed password for a\\b from 192.0.2.7 port 4 ssh2".as_bytes();
    let bytes = format!("{{\"SYSLOG_IDENTIFIER\":\"sshd\",\"MESSAGE\":{bytes:?}}}");
    let entry = Entry::that_matters(bytes.as_bytes()).unwrap();
    assert_eq!(parse(&entry.line()).unwrap().fields.user, Some(&b"a\\b"[..]));
    for none in ["", "{", "[]", "{\"MESSAGE\":null}", "{\"_COMM\":\"sshd\",\"MESSAGE\":7}"] {
        let found = Entry::that_matters(none.as_bytes());
        assert!(found.is_none_or(|entry| parse(&entry.line()).is_none()), "{none}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn any_bytes_are_a_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let line = Line::of(&bytes);
        let _ = (parse(&line), repeats_last(&line));
        let _ = Entry::parse(&bytes).map(|entry| parse(&entry.line()).is_some());
    }

    #[test]
    fn any_damage_to_a_line_is_borne(
        index in 0..PATTERNS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = PATTERNS[index].example.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = parse(&Line::of(&bytes));
        let mut gatherer = super::super::gather::Gatherer::new(&[], super::Zone::of(jiff::tz::TimeZone::UTC));
        gatherer.begin(super::END);
        gatherer.line(&Line::of(&bytes));
        gatherer.end();
    }

    #[test]
    fn any_user_name_is_the_user(user in "[ -~]{1,60}") {
        prop_assume!(user.trim() == user && !user.contains("invalid user"));
        let line = format!("Nov 20 10:00:00 web sshd[1]: Failed password for invalid user {user} from 192.0.2.7 port 4 ssh2");
        prop_assert_eq!(found(&line), Some(("sshd-password-failed-invalid", "192.0.2.7".to_owned(), user)));
    }
}
