//! `known`, `rule`, `grant` and `check --user`, run as a person or a program runs them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::Run;
use common::store::{Lab, is_charged, login};
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::login::Login;
use serde_json::{Value, json};

/// A store at the real time, in which `alice` and `bob` are known.
fn lab() -> Lab {
    let lab = Lab::new(|s| s.settle = 0);
    lab.clock.now.set(SystemClock.now());
    lab.log_in(&login("alice", "2001:db8:a:b::1"));
    lab.log_in(&login("bob", "192.0.2.7"));
    lab
}

/// Exit status, standard output, standard error.
fn run(lab: &Lab, arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(lab.dir.path().join("settings"), "settle = 0s\n").unwrap();
    let mut command = common::command();
    command.arg("--config").arg(lab.dir.path().join("settings"));
    command.arg("--database").arg(&lab.settings.database).args(arguments);
    Run::of(&mut command).parts()
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let (_, out, err) = run(lab, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

fn places(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    let rows = json(lab, arguments);
    rows.as_array().unwrap().iter().map(|row| row["place"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn known_places_are_listed_and_forgotten() {
    let lab = lab();
    assert_eq!(places(&lab, &["known", "list", "alice"]), ["2001:db8::/32", "2001:db8:a:b::/64"]);
    assert_eq!(places(&lab, &["known", "list", "192.0.0.0/8"]).len(), 2);
    assert_eq!(places(&lab, &["known", "list"]).len(), 4);
    let (status, text, _) = run(&lab, &["known", "list"]);
    assert_eq!(status, 0);
    assert!(text.starts_with("user   place "), "{text}");
    // An address stands for the nearest place around it.
    assert_eq!(json(&lab, &["known", "forget", "192.0.2.99"])["forgotten"], 1);
    assert_eq!(places(&lab, &["known", "list", "bob"]), ["192.0.0.0/16"]);
    assert_eq!(json(&lab, &["known", "forget", "alice"])["forgotten"], 2);
    let (status, text, _) = run(&lab, &["known", "forget", "alice"]);
    assert_eq!((status, text.as_str()), (0, "No places are known for alice.\n"));
    // Any bytes are a name.
    let odd = Login { user: b"\xff\x1b[m".to_vec(), ..login("", "2001:db9::1") };
    lab.log_in(&odd);
    let (_, text, _) = run(&lab, &["known", "list", "2001:db9::/32"]);
    assert!(text.contains("\u{fffd}?[m"), "{text}");
    let mut command = common::command();
    command.args(["known", "forget"]).arg(OsStr::from_bytes(b"\xff\x1b[m"));
    command.arg("--database").arg(&lab.settings.database);
    assert!(command.output().unwrap().stdout.starts_with(b"Forgot 2 places"));
}

#[test]
fn check_says_where_a_user_is_known() {
    let lab = lab();
    let (status, text, _) = run(&lab, &["check", "2001:db8:a:b::9", "--user", "alice"]);
    let sentence = "2001:db8:a:b::9 is admitted: alice is known at 2001:db8:a:b::/64.";
    assert_eq!((status, text.lines().next()), (0, Some(sentence)));
    let elsewhere = json(&lab, &["check", "2001:db8:c::9", "--user", "alice"]);
    assert_eq!(elsewhere["known_place"], "2001:db8::/32");
    assert_eq!(json(&lab, &["check", "2001:db8:a:b::9"])["known_place"], Value::Null);
    while is_charged(&lab.admit_login(&login("alice", "2001:db8:a:b::9"))) {}
    let full = json(&lab, &["check", "2001:db8:a:b::9", "--user", "alice"]);
    assert_eq!((&full["admitted"], &full["quota"]), (&json!(false), &json!(10)));
    assert!(full["reason"].as_str().unwrap().contains("forgive --user alice"));
    let (status, text, _) = run(&lab, &["forgive", "--user", "alice"]);
    assert_eq!((status, text.as_str()), (0, "Forgave all that was counted for alice.\n"));
    assert_eq!(json(&lab, &["check", "2001:db8:a:b::9", "--user", "alice"])["admitted"], true);
}

#[test]
fn rules_are_added_listed_and_removed() {
    let lab = lab();
    let added = json(&lab, &["rule", "add", "2001:db8::/32", "deny", "--for", "30d"]);
    assert_eq!((&added["action"], &added["prefix"]), (&json!("deny"), &json!("2001:db8::/32")));
    assert_eq!(added["ends_in_s"], 30 * 86_400);
    run(&lab, &["rule", "add", "2001:db8:1::/48", "exempt", "--uses", "2", "--note", "a\u{7}b"]);
    let rules = json(&lab, &["rule", "list"]);
    assert_eq!(rules.as_array().unwrap().len(), 2);
    assert_eq!((&rules[1]["uses"], &rules[1]["user"]), (&json!(2), &Value::Null));
    let (_, text, _) = run(&lab, &["rule", "list"]);
    assert!(text.contains("a?b") && text.contains("never"), "{text}");
    let (status, text, _) = run(&lab, &["check", "2001:db8::1"]);
    assert_eq!(status, 1);
    assert!(text.starts_with("2001:db8::1 is denied by the rule \"deny 2001:db8::/32\"."));
    // What has no effect is said.
    let (_, text, _) = run(&lab, &["rule", "add", "2001:db8::/32", "count"]);
    assert!(text.contains("no effect beside deny"), "{text}");
    let removed = json(&lab, &["rule", "remove", "2001:db8::/32"]);
    assert_eq!(removed["removed"], json!(["count", "deny"]));
    let (status, text, _) = run(&lab, &["rule", "remove", "2001:db8::/32"]);
    assert_eq!((status, text.as_str()), (0, "No rule for 2001:db8::/32.\n"));
}

#[test]
fn wrong_rules_get_one_sentence() {
    let lab = lab();
    let cases: [(&[&str], &str); 6] = [
        (&["rule", "add", "2001:db8::1/32", "deny"], "has bits set beyond its length"),
        (&["rule", "add", "2002::/16", "deny"], "count as the IPv4 address in them"),
        (&["rule", "add", "2001:db8::/32", "deny", "--uses", "1"], "expected exempt or count"),
        (&["rule", "add", "2001:db8::/32", "deny", "--for", "5"], "expected a number with s, m"),
        (&["rule", "add", "2001:db8::/32", "allow"], "invalid value 'allow'"),
        (&["rule", "remove", "x"], "is not an address or a prefix"),
    ];
    for (arguments, expected) in cases {
        let (status, out, err) = run(&lab, arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    assert_eq!(json(&lab, &["rule", "list"]), json!([]));
}

#[test]
fn grants_come_and_go() {
    let lab = lab();
    let granted = json(&lab, &["grant", "2001:db8::5"]);
    assert_eq!((&granted["prefix"], &granted["granted"]), (&json!("2001:db8::/64"), &json!(true)));
    assert_eq!((&granted["uses"], &granted["ends_in_s"]), (&json!(1), &json!(60)));
    assert_eq!(json(&lab, &["grant", "192.0.2.9", "--user", "bob"])["prefix"], "192.0.2.9/32");
    assert_eq!(json(&lab, &["grant", "::ffff:192.0.2.9"])["prefix"], "192.0.2.9/32");
    assert_eq!(json(&lab, &["grant", "192.0.2.9"])["uses"], 2, "added to the one before");
    assert_eq!(json(&lab, &["rule", "list"]).as_array().unwrap().len(), 3);
    assert_eq!(json(&lab, &["grant", "--toggle", "2001:db8::77"])["granted"], false);
    assert_eq!(json(&lab, &["grant", "--toggle", "2001:db8::77"])["granted"], true);
    // What a web page passes on is an address, or nothing.
    for text in ["", "192.0.2.1/24", "[::1]:80", "fe80::1%eth0", "1.2.3", "a;b", "2001:db8::1 x"] {
        let (status, out, err) = run(&lab, &["grant", text]);
        assert_eq!((status, out.as_str()), (2, ""), "{text}");
        assert!(err.contains("is not an address: expected"), "{text}: {err}");
    }
}
