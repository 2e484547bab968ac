//! Many processes at once: no guess gets past a quota, and no right password is lost to others.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::path::Path;

use common::book::{inside, v6};
use common::pam::{MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, failures, lab};

/// One attempt in a process of its own: 0 let in, else what libpam said.
fn attempt(confdir: &Path, service: &str, rhost: &str, password: &str) -> c_int {
    // Who guesses is nobody who is known here.
    let user: &[u8] = if service == "right" { b"alice" } else { b"mallory" };
    let mut pam = Pam::start(confdir, service, user, Some(password.as_bytes()));
    pam = pam.rhost(rhost.as_bytes());
    match pam.authenticate() {
        SUCCESS => pam.account(),
        code => code,
    }
}

fn count(codes: &[c_int], code: c_int) -> usize {
    codes.iter().filter(|&&c| c == code).count()
}

/// All tests of this binary load the machine to its limit: one after another.
#[test]
fn i21_parallel_attempts() {
    for processes in [50, 200] {
        wrong_guesses_reach_the_check(processes, &|_| "2001:db8::1".to_owned(), 2);
        wrong_guesses_reach_the_check(processes, &|_| "192.0.2.1".to_owned(), 10);
        let hop = |i: usize| inside(v6("2001:db8::"), 64, u32::try_from(i).unwrap()).to_string();
        wrong_guesses_reach_the_check(processes, &hop, processes.min(66));
    }
    right_passwords_all_succeed();
    right_and_wrong_do_not_disturb_each_other();
}

fn wrong_guesses_reach_the_check(
    processes: usize,
    rhost: &dyn Fn(usize) -> String,
    expected: usize,
) {
    // The store does not exist yet either: they also race to make it.
    let dir = lab("");
    let codes =
        at_once(processes, |i| attempt(dir.path(), "wrong", &rhost(i), &format!("guess {i}")));
    assert_eq!(count(&codes, PERM_DENIED), expected, "{processes} at once: {codes:?}");
    assert_eq!(count(&codes, MAXTRIES), processes - expected, "{codes:?}");
    assert!((failures(dir.path()) - expected as f64).abs() < 0.5);
}

fn right_passwords_all_succeed() {
    let dir = lab("");
    let codes = at_once(10, |_| attempt(dir.path(), "right", "2001:db8::1", "right"));
    assert_eq!(count(&codes, SUCCESS), 10, "{codes:?}");
    assert!(failures(dir.path()) < 1e-3);
}

fn right_and_wrong_do_not_disturb_each_other() {
    let dir = lab("");
    let codes = at_once(100, |i| match i % 2 {
        0 => attempt(dir.path(), "wrong", "2001:db8:1::1", &format!("guess {i}")),
        _ => attempt(dir.path(), "right", &format!("2001:db8:2:{i:x}::1"), "right"),
    });
    assert_eq!(count(&codes, SUCCESS), 50, "{codes:?}");
    assert_eq!(count(&codes, PERM_DENIED), 2, "{codes:?}");
    assert!((failures(dir.path()) - 2.0).abs() < 0.5);
}
