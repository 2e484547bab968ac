//! What SECURITY.md promises and no other test shows; and that each promise names the tests that
//! show it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::Path;

use common::pam::{
    CONV_ERR, ERROR_MSG, MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, guess, stack, write_stack,
};
use proptest::prelude::*;

/// Writes a stack where this module is all that there is. For libpam its PAM_SUCCESS would be
/// enough, any other code is the answer, and after nothing but PAM_IGNORE libpam itself answers
/// PAM_PERM_DENIED.
fn write_bare_stack(confdir: &Path, service: &str, arguments: &str) {
    let module = common::module();
    let line = |hook: &str| {
        format!(
            "{hook} [success=done ignore=ignore default=die] {} {arguments}\n",
            module.display()
        )
    };
    let lines = ["auth", "account", "session", "password"].map(line);
    write_stack(confdir, service, &lines.concat());
}

/// What every hook answers to one transaction of whoever this is.
fn answers(pam: &mut Pam) -> Vec<c_int> {
    let mut answers = vec![pam.authenticate(), pam.account()];
    answers.extend([2, 8, 16, 4].map(|flags| pam.setcred(flags)));
    let (opened, closed) = pam.session();
    answers.extend([opened, closed, pam.authenticate(), pam.account()]);
    answers
}

/// Ignored, refused, or ended for want of a password.
fn lets_nobody_in(answers: &[c_int]) -> bool {
    answers.iter().all(|answer| [PERM_DENIED, MAXTRIES, CONV_ERR].contains(answer))
}

#[test]
fn the_module_alone_lets_nobody_in() {
    let _alone = common::alone();
    let dir = common::pam::lab("settle=0s");
    let database = dir.path().join("q.db");
    let store = format!("database={} settle=0s", database.display());
    fs::write(dir.path().join("noise.db"), vec![0xa5; 8_192]).unwrap();
    let noise = format!("database={} settle=0s", dir.path().join("noise.db").display());
    // Somebody is known, and somebody has a grant.
    let mut pam = Pam::start(dir.path(), "right", b"alice", Some(b"right")).rhost(b"2001:db8::1");
    assert_eq!((pam.authenticate(), pam.account()), (SUCCESS, SUCCESS));
    drop(pam);
    let grant = ["grant", "192.0.2.1", "--uses", "1000"];
    let made = common::command().arg("--database").arg(&database).args(grant).output().unwrap();
    assert!(made.status.success(), "{made:?}");

    let settings = [
        store.clone(),
        format!("{store} exempt=::/0 enforce"),
        format!("{store} deny=::/0 enforce"),
        format!("{store} enforcing=no"),
        format!("{store} prompt=no repeat=no"),
        format!("{store} nonsense half_life=never enforce"),
        format!("{noise} on_error=ignore enforce"),
        format!("{noise} on_error=deny enforce"),
        "database=/nonexistent/q.db on_error=deny enforce".to_owned(),
    ];
    // No name: libpam itself would ask the resolver for it.
    let rhosts: [&[u8]; 6] = [b"2001:db8::1", b"192.0.2.1", b"127.0.0.1", b"::1", b"", b"\xff"];
    for arguments in &settings {
        write_bare_stack(dir.path(), "bare", arguments);
        for rhost in rhosts {
            for password in [Some(&b"right"[..]), Some(b""), None] {
                let pam = Pam::start(dir.path(), "bare", b"alice", password).rhost(rhost);
                let mut pam = pam.env("SSH_CONNECTION=2001:db8::1 1 ::1 22");
                pam = pam.env("SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAA");
                let answers = answers(&mut pam);
                assert!(lets_nobody_in(&answers), "{arguments}, {rhost:?}: {answers:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_bytes_let_anybody_in(
        user in prop::collection::vec(1..=255_u8, 0..40),
        rhost in prop_oneof!["[0-9a-f:.%]{0,40}", "\\PC{0,40}"],
        password in prop::option::of(prop::collection::vec(1..=255_u8, 0..40)),
        argument in "[a-z_]{0,12}=?[!-Z^-~]{0,12}",
    ) {
        let _alone = common::alone();
        let dir = common::private_dir();
        let database = dir.path().join("q.db");
        write_bare_stack(dir.path(), "bare", &format!("{argument} database={} settle=0s", database.display()));
        let mut pam = Pam::start(dir.path(), "bare", &user, password.as_deref()).rhost(rhost.as_bytes());
        let answers = answers(&mut pam);
        prop_assert!(lets_nobody_in(&answers), "{answers:?}");
    }
}

/// Between the calls of one transaction, and after it.
#[test]
fn nothing_stays_open_between_calls() {
    let _alone = common::alone();
    let dir = common::pam::lab("settle=0s");
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let own = || {
        let id = format!(" {} ", std::process::id());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        (count("fd"), count("task"), locks.lines().filter(|line| line.contains(&id)).count())
    };
    // In a child, which holds nothing of other tests.
    let codes = at_once(1, |_| {
        let start = |service: &str, rhost: &str| {
            Pam::start(dir.path(), service, b"alice", Some(&guess())).rhost(rhost.as_bytes())
        };
        // A denial, so that syslog is connected.
        for _ in 0..3 {
            start("wrong", "192.0.2.1").authenticate();
            start("wrong", "2001:db8::1").authenticate();
        }
        let before = own();
        assert_eq!((before.1, before.2), (1, 0), "one thread, no lock");
        let mut right = start("right", "3fff::1");
        let mut denied = start("right", "2001:db8::1");
        let mut wrong = start("wrong", "2001:db8:2::1");
        let after = [
            (right.authenticate() == SUCCESS, own()),
            (right.account() == SUCCESS, own()),
            (right.setcred(2) == SUCCESS, own()),
            (denied.authenticate() == MAXTRIES, own()),
            (wrong.authenticate() == PERM_DENIED, own()),
        ];
        drop((right, denied, wrong));
        let is_same = after.iter().all(|&(is_expected, found)| is_expected && found == before);
        c_int::from(!is_same || own() != before)
    });
    assert_eq!(codes, [0]);
}

/// A place that is full, a user's own count, the strangers of a user, a whole /64: nobody learns
/// from the message which it was.
#[test]
fn the_client_is_told_the_same_of_every_count() {
    let _alone = common::alone();
    let dir = common::private_dir();
    let arguments = format!(
        "database={} settle=0s repeat=no half_life=24h known_half_life=24h \
         [stranger_quota=1 per 24h]",
        dir.path().join("q.db").display()
    );
    write_stack(dir.path(), "wrong", &stack(&arguments, "perm_denied"));
    write_stack(dir.path(), "right", &stack(&arguments, "success"));
    let start = |service: &str, user: &str, rhost: &str| {
        Pam::start(dir.path(), service, user.as_bytes(), Some(&guess())).rhost(rhost.as_bytes())
    };
    let mut pam = start("right", "alice", "2001:db8::1");
    assert_eq!((pam.authenticate(), pam.account()), (SUCCESS, SUCCESS));
    let told = |user: &str, rhost: &str| {
        (0..100).find_map(|_| {
            let mut pam = start("wrong", user, rhost);
            (pam.authenticate() == MAXTRIES).then(|| pam.talk().messages.clone())
        })
    };
    let hours = |text: &str| {
        let (before, wait) = text.rsplit_once(" in ").unwrap();
        assert!(wait.ends_with(" hours."), "{text}");
        before.to_owned()
    };
    for (user, rhost) in [
        ("bob", "2001:db8:1::1"),
        ("alice", "2001:db8::1"),
        ("alice", "2a00::1"),
        ("bob", "192.0.2.1"),
    ] {
        let messages = told(user, rhost).expect("a denial");
        let [(style, text)] = messages.as_slice() else { panic!("{messages:?}") };
        let expected = "Too many failed attempts from your network. Try again".to_owned();
        assert_eq!((*style, hours(text)), (ERROR_MSG, expected), "{user} from {rhost}");
    }
}

/// `` `tests/file.rs` (`name`, `name`) `` names tests of that file: each must be there, and
/// whatever SECURITY.md promises has a note that names one.
#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let security = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let promised =
        security.split("\n## ").find(|part| part.starts_with("What is promised")).unwrap();
    let promises: Vec<&str> = promised.lines().filter(|line| line.starts_with("* **")).collect();
    assert!(promises.len() >= 7, "{promises:?}");
    for promise in promises {
        let note = promise.rsplit_once("[^").map(|(_, note)| format!("\n[^{note}: "));
        let note = note.unwrap_or_else(|| panic!("no test shows: {promise}"));
        let tests = security.split_once(&note).and_then(|(_, rest)| rest.lines().next());
        assert!(!named_tests(tests.unwrap()).is_empty(), "no test shows: {promise}");
    }
    let mut documents = vec![root.join("SECURITY.md")];
    documents.extend(fs::read_dir(root.join("docs")).unwrap().map(|file| file.unwrap().path()));
    documents.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    for document in documents {
        for (file, test) in named_tests(&fs::read_to_string(&document).unwrap()) {
            let source = fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{document:?}: {file}: {error}"));
            let is_test = |place: usize| source[..place].trim_end().ends_with("#[test]");
            let found = test.is_none_or(|test| {
                source.match_indices(&format!("fn {test}(")).any(|(place, _)| is_test(place))
            });
            assert!(found, "{document:?}: no test {test:?} in {file}");
        }
    }
}

/// The files of tests that a text names, with the tests behind them in brackets.
fn named_tests(text: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    for directory in ["`tests/", "`src/"] {
        for (place, _) in text.match_indices(directory) {
            let (file, rest) = text[place + 1..].split_once('`').expect("a closed code span");
            let Some(names) = rest.strip_prefix(" (`").and_then(|rest| rest.split_once(')')) else {
                found.push((file, None));
                continue;
            };
            let names = names.0.split(['`', ',', ' ']).filter(|name| !name.is_empty());
            found.extend(names.filter(|name| *name != "and").map(|name| (file, Some(name))));
        }
    }
    found
}
