//! The module under valgrind: it reads and writes only what is its own, and what it forgets to free
//! does not grow with the logins.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::pam::{
    AUTH_ERR, CONV_ERR, MAXTRIES, PERM_DENIED, Pam, SUCCESS, guess, lab, stack, write_stack,
};
use pam_prefixquota::rules::{Kind, RuleId, StoredRule};
use pam_prefixquota::store::Store;

/// Rounds of all logins, as the process under valgrind is told.
const ROUNDS: &str = "PREFIXQUOTA_VALGRIND_ROUNDS";

/// What eighteen more rounds, of fifteen logins each, may hold besides, in bytes: less than one each.
const GROWTH: usize = 200;

#[test]
fn no_invalid_access_and_no_leak_that_grows() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        let test = "no_invalid_access_and_no_leak_that_grows";
        assert!(std::env::var_os("CI").is_none(), "{test} must run in CI, and needs valgrind");
        eprintln!("{test}: skipped, needs valgrind");
        return;
    }
    let [few, many] = [2, 20].map(left);
    eprintln!("left after 2 rounds {few:?}, after 20 rounds {many:?}");
    assert_eq!((few.lost, many.lost), (0, 0), "bytes that nothing points to");
    assert!(many.held <= few.held + GROWTH, "what is held grows: {few:?}, {many:?}");
}

/// Bytes that are not freed at the end.
#[derive(Debug)]
struct Left {
    /// That nothing points to any more.
    lost: usize,
    /// All of them.
    held: usize,
}

/// Runs so many rounds under valgrind, which must find no wrong access.
fn left(rounds: usize) -> Left {
    let run = Command::new("valgrind")
        .args(["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=none"])
        .args(["--error-exitcode=99", "--num-callers=25"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "driver", "--test-threads=1"])
        .env(ROUNDS, rounds.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{}\n{said}", String::from_utf8_lossy(&run.stdout));
    assert!(said.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{said}");
    let bytes = |what: &str| -> usize {
        let line = said.lines().find_map(|line| line.split_once(what));
        let (_, rest) = line.unwrap_or_else(|| panic!("no \"{what}\" in\n{said}"));
        rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    let held = bytes("in use at exit: ");
    // Without any there is no summary.
    Left { lost: if held == 0 { 0 } else { bytes("definitely lost: ") }, held }
}

/// What runs under valgrind; nothing without it.
#[test]
fn driver() {
    let Some(rounds) = std::env::var_os(ROUNDS) else { return };
    let rounds: usize = rounds.to_str().unwrap().parse().unwrap();
    let lab = lab("settle=0s strict=yes repeat=no [stranger_quota=1000 per 24h]");
    let dir = lab.path();
    let services = [
        ("missing", "database=/nonexistent/q.db".to_owned()),
        ("foreign", format!("database={} on_error=deny", dir.join("foreign.db").display())),
        ("wrong_settings", format!("database={} half_life=no nonsense", store_of(dir))),
        ("again", format!("database={} settle=0s", store_of(dir))),
        ("rule", format!("database={} deny=192.0.2.0/24", store_of(dir))),
        ("country", format!("database={} country_deny=KP country_database=/none", store_of(dir))),
    ];
    for (service, arguments) in &services {
        write_stack(dir, service, &stack(arguments, "perm_denied"));
    }
    std::fs::write(dir.join("foreign.db"), "no database").unwrap();
    grant(dir);
    wait(dir);
    for round in 0..rounds {
        logins(dir, round);
        key_logins(dir, round);
        errors(dir);
    }
}

fn store_of(dir: &Path) -> String {
    dir.join("q.db").display().to_string()
}

/// For as many logins as come.
fn grant(dir: &Path) {
    let prefix = "192.0.2.9/32".parse().unwrap();
    let id = RuleId { prefix, kind: Kind::Grant, user: Vec::new() };
    let rule = StoredRule { id, until: None, uses: Some(1_000_000), tries: 0, note: String::new() };
    let mut store = Store::open(&dir.join("q.db"), Duration::from_secs(5)).unwrap();
    let write = store.begin().unwrap();
    write.put_rule(&rule, 1).unwrap();
    write.commit().unwrap();
}

/// A third guess while the two before it may still turn out right.
fn wait(dir: &Path) {
    let arguments = format!("database={} settle=1s", store_of(dir));
    write_stack(dir, "patient", &stack(&arguments, "perm_denied"));
    let answers = [0; 3].map(|_| {
        let mut pam = Pam::start(dir, "patient", b"erin", Some(&guess())).rhost(b"2001:dbb::1");
        pam.authenticate()
    });
    assert_eq!(answers, [PERM_DENIED, PERM_DENIED, MAXTRIES]);
}

/// Charged, denied, right, granted, given up.
fn logins(dir: &Path, round: usize) {
    let rhost = format!("2001:db8:{round:x}::1");
    let log_in = |service: &str, rhost: &str| {
        let mut pam = Pam::start(dir, service, b"alice", Some(&guess())).rhost(rhost.as_bytes());
        let answer = pam.authenticate();
        if answer == SUCCESS {
            assert_eq!((pam.account(), pam.setcred(2)), (SUCCESS, SUCCESS));
            assert_eq!((pam.session(), pam.setcred(4)), ((SUCCESS, SUCCESS), SUCCESS));
        }
        answer
    };
    assert_eq!(log_in("right", &format!("3fff:{round:x}::1")), SUCCESS);
    assert_eq!(log_in("wrong", &rhost), PERM_DENIED);
    assert_eq!(log_in("wrong", &rhost), PERM_DENIED);
    assert_eq!(log_in("wrong", &rhost), MAXTRIES);
    assert_eq!(log_in("right", "192.0.2.9"), SUCCESS);
    let elsewhere = format!("2001:dbc:{round:x}::1");
    for _ in 0..3 {
        let mut pam = Pam::start(dir, "again", b"frank", Some(b"stale"));
        pam = pam.rhost(elsewhere.as_bytes());
        assert_eq!(pam.authenticate(), PERM_DENIED, "the same wrong password");
    }
    let mut pam = Pam::start(dir, "wrong", b"bob", None).rhost(b"2001:db9::1");
    assert_eq!(pam.authenticate(), CONV_ERR);
}

/// A key alone, and a key after a wrong password.
fn key_logins(dir: &Path, round: usize) {
    let rhost = format!("2001:dba:{round:x}::1");
    let mut pam = Pam::start(dir, "right", b"carol", None).rhost(rhost.as_bytes());
    assert_eq!(pam.account(), SUCCESS);
    // What the module behind makes of this does not matter.
    pam.setcred(2);
    let mut pam = Pam::start(dir, "wrong", b"carol", Some(&guess())).rhost(b"\xfe");
    pam = pam.env(&format!("SSH_CONNECTION={rhost} 1 ::1 22"));
    assert_eq!(pam.authenticate(), PERM_DENIED);
    assert_eq!(pam.account(), SUCCESS);
    pam.setcred(2);
    pam = pam.env("SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAA");
    pam.setcred(2);
}

/// Whatever else may happen in a hook. (For a name libpam itself would ask the resolver.)
fn errors(dir: &Path) {
    let answer = |service: &str, rhost: &[u8]| {
        Pam::start(dir, service, b"dave", Some(&guess())).rhost(rhost).authenticate()
    };
    assert_eq!(answer("missing", b"192.0.2.1"), PERM_DENIED);
    assert_eq!(answer("foreign", b"192.0.2.1"), MAXTRIES);
    assert_eq!(answer("wrong_settings", b"127.0.0.1"), PERM_DENIED);
    assert_eq!(answer("rule", b"192.0.2.1"), MAXTRIES);
    assert_eq!(answer("country", b"127.0.0.1"), PERM_DENIED);
    for rhost in [&b""[..], b"::1%lo", b"\xff\xfe"] {
        assert!([PERM_DENIED, AUTH_ERR, MAXTRIES].contains(&answer("wrong", rhost)));
    }
}
