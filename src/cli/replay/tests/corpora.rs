//! Real logs, where they are: `PREFIXQUOTA_CORPORA` names their directory, else it is
//! `../shared/corpora` beside the repository.

use std::path::{Path, PathBuf};

use pam_prefixquota::config::Settings;
use pam_prefixquota::source::{Source, parse_host};

use super::super::line::Line;
use super::super::parse::parse;
use super::super::patterns::Sign;
use super::super::summary::Summary;
use super::{at, history};

fn corpus(name: &str) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let directory = std::env::var_os("PREFIXQUOTA_CORPORA").map_or(beside, PathBuf::from);
    let file = directory.join(name);
    match std::fs::read(&file) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            eprintln!("skipped: {} ({error})", file.display());
            None
        }
    }
}

#[test]
fn a_log_of_sshd_has_its_guesses_each_once() {
    let Some(log) = corpus("loghub/OpenSSH_2k.log") else { return };
    let json = Summary::of(&history(&[&log]), &Settings::default()).unwrap().json();
    assert_eq!((&json["failures"], &json["accepted"]), (&528.into(), &1.into()));
    assert_eq!((&json["sources"], &json["lines"]), (&24.into(), &2000.into()));
    assert_eq!(json["by_host_name"], 0, "every name has its address");
}

#[test]
fn an_old_log_has_the_failures_of_pam_unix() {
    let Some(log) = corpus("loghub/Linux_2k.log") else { return };
    let json = Summary::of(&history(&[&log]), &Settings::default()).unwrap().json();
    assert_eq!((&json["failures"], &json["accepted"]), (&490.into(), &0.into()));
    assert_eq!(json["without_address"], 1, "a console");
}

#[test]
fn logs_of_different_kinds_lose_nothing_together() {
    let [Some(new), Some(old)] =
        ["OpenSSH", "Linux"].map(|name| corpus(&format!("loghub/{name}_2k.log")))
    else {
        return;
    };
    for logs in [[&*new, &*old], [&*old, &*new]] {
        let json = Summary::of(&history(&logs), &Settings::default()).unwrap().json();
        assert_eq!((&json["failures"], &json["accepted"]), (&(528 + 490).into(), &1.into()));
    }
}

/// A labelled case: the line, and the service and the address that it is about.
struct Case<'t> {
    line: &'t str,
    service: &'t str,
    address: &'t str,
}

fn cases(text: &str) -> (Vec<Case<'_>>, Vec<&str>) {
    let (mut attacks, mut others) = (Vec::new(), Vec::new());
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    while let (Some(line), Some(label), Some(_how)) = (lines.next(), lines.next(), lines.next()) {
        let mut label = label.split(' ');
        match (label.next(), label.next()) {
            (Some(service), Some(address)) => attacks.push(Case { line, service, address }),
            _ => others.push(line),
        }
    }
    (attacks, others)
}

/// The services that replay knows: sshd, Dovecot, Postfix, ProFTPD, vsftpd, pam_unix of Cockpit.
const SERVICES: [&str; 6] = ["100", "210", "260", "310", "330", "340"];
/// Of these, what is no failed authentication: scans, protocol errors, limits, spam.
const NO_AUTHENTICATION: [&str; 15] = [
    "identification",
    "banner exchange",
    "Unable to negotiate",
    "drop connection",
    "Timeout before",
    "Connection closed by 66.240.236.119",
    "Connection closed by 2001:db8::a11:beef:7ac0",
    "Disconnected from 1.2.3.4 ",
    "non-SMTP command",
    "lost connection after",
    "postgrey",
    "PREGREET",
    "DNSBL",
    "HANGUP",
    "Relaying denied",
];

#[test]
fn labelled_lines_are_recognised() {
    let Some(text) = corpus("sshguard/tests.txt") else { return };
    let (attacks, others) = cases(&text);
    assert!(attacks.len() > 150 && others.len() > 30, "{} {}", attacks.len(), others.len());
    let concerns = |case: &&Case<'_>| {
        SERVICES.contains(&case.service)
            && !NO_AUTHENTICATION.iter().any(|no| case.line.contains(no))
    };
    let source = |host: &[u8]| parse_host(host).map(|address| Source::of(address, &[]));
    let is_right = |case: &&Case<'_>| {
        let line = Line::of(case.line.as_bytes());
        let host = parse(&line).and_then(|found| found.fields.host);
        host.and_then(source) == source(case.address.as_bytes())
    };
    let all: Vec<Case<'_>> = attacks.into_iter().filter(|case| concerns(&case)).collect();
    let (right, rest): (Vec<_>, Vec<_>) = all.iter().partition(|case| is_right(case));
    eprintln!("{} of {} recognised; not:", right.len(), all.len());
    rest.iter().for_each(|case| eprintln!("  {} {}: {}", case.service, case.address, case.line));
    assert!(all.len() >= 50, "{}", all.len());
    assert!(right.len() * 100 >= all.len() * 95);
    for line in others {
        let found = parse(&Line::of(line.as_bytes()));
        let is_failure = found.is_some_and(|found| matches!(found.pattern.sign, Sign::Failed(_)));
        assert!(!is_failure, "{line}");
    }
}

/// Addresses that really attacked, each in another /48 of one /32: no rule that counts addresses
/// sees more than one attempt of each.
#[test]
fn a_whole_provider_attacks() {
    let Some(text) = corpus("prefixes/abuseipdb-2025-06-15.ipv6") else { return };
    let addresses: Vec<&str> =
        text.lines().filter(|line| parse_host(line.trim().as_bytes()).is_some()).collect();
    assert!(addresses.len() >= 30, "{}", addresses.len());
    let log: String = (0..1_000)
        .map(|i| (i, addresses[i as usize % addresses.len()].trim()))
        .map(|(i, address)| {
            format!(
                "{} web sshd[{i}]: Failed password for root from {address} port 4 ssh2\n",
                at(i)
            )
        })
        .collect();
    let json = Summary::of(&history(&[&log]), &Settings::default()).unwrap().json();
    assert_eq!(json["sources"], addresses.len());
    assert!(json["denied"].as_u64().unwrap() > 800, "{json}");
}
