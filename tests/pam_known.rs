//! Known places, grants and repeats through libpam: what each hook does about them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::PathBuf;

use common::pam::{
    AUTH_ERR, ERROR_MSG, MAXTRIES, PERM_DENIED, Pam, SUCCESS, failures, guess, stack, stack_of,
    write_stack,
};

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(settings: &str) -> Lab {
        let lab = Lab { dir: common::private_dir() };
        fs::write(lab.dir.path().join("settings"), format!("settle = 0s\nrepeat = no\n{settings}"))
            .unwrap();
        write_stack(lab.dir.path(), "wrong", &stack(&lab.arguments(), "perm_denied"));
        write_stack(lab.dir.path(), "right", &stack(&lab.arguments(), "success"));
        lab
    }

    fn arguments(&self) -> String {
        let settings = self.dir.path().join("settings");
        format!("config={} database={}", settings.display(), self.database().display())
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("q.db")
    }

    fn start(&self, service: &str, user: &str, rhost: &str) -> Pam {
        let pam = Pam::start(self.dir.path(), service, user.as_bytes(), Some(&guess()));
        pam.rhost(rhost.as_bytes())
    }

    fn guess(&self, user: &str, rhost: &str) -> c_int {
        self.start("wrong", user, rhost).authenticate()
    }

    fn login(&self, user: &str, rhost: &str) -> c_int {
        let mut pam = self.start("right", user, rhost);
        match pam.authenticate() {
            SUCCESS => pam.account(),
            code => code,
        }
    }

    /// Key logins reach only `account`.
    fn key_login(&self, user: &str, rhost: &str) -> c_int {
        self.start("right", user, rhost).account()
    }

    fn guesses(&self, user: &str, rhost: &str) -> usize {
        (0..50).take_while(|_| self.guess(user, rhost) == PERM_DENIED).count()
    }

    fn known(&self) -> i64 {
        self.ask("SELECT count(*) FROM known")
    }

    fn ask(&self, sql: &str) -> i64 {
        let conn = rusqlite::Connection::open(self.database()).unwrap();
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn prefixquota(&self, arguments: &[&str]) {
        let mut command = common::command();
        command.arg("--config").arg(self.dir.path().join("settings"));
        command.arg("--database").arg(self.database()).args(arguments);
        let run = command.output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn a_password_and_a_key_teach_alike_and_only_their_user() {
    for by_key in [false, true] {
        let lab = Lab::new("");
        let taught = if by_key {
            lab.key_login("alice", "2001:db8:a:b::1")
        } else {
            lab.login("alice", "2001:db8:a:b::1")
        };
        assert_eq!((taught, lab.known()), (SUCCESS, 2));
        assert_eq!(lab.guesses("bob", "2001:db8:a:b::1"), 2);
        assert_eq!(lab.login("bob", "2001:db8:a:b::1"), MAXTRIES);
        assert_eq!(lab.login("alice", "2001:db8:a:b::1"), SUCCESS, "by key: {by_key}");
        assert_eq!(lab.guesses("alice", "2001:db8:a:b::1"), 10);
    }
}

#[test]
fn what_fails_teaches_nothing() {
    let lab = Lab::new("");
    lab.guess("alice", "2001:db8::1");
    let mut pam = lab.start("right", "alice", "2001:db8::1");
    assert_eq!(pam.authenticate(), SUCCESS);
    assert_eq!(lab.known(), 0, "before `account` nothing is right");
    drop(pam);
    // Who is exempt is never judged; who has no address has no place.
    assert_eq!(lab.login("alice", "127.0.0.1"), SUCCESS);
    assert_eq!(lab.key_login("alice", "::1"), SUCCESS);
    assert_eq!(lab.login("alice", "host.example"), SUCCESS);
    assert_eq!(lab.known(), 0);
}

#[test]
fn known_users_pass_where_the_account_line_enforces() {
    let lab = Lab::new("");
    let arguments = lab.arguments();
    let account = format!("{arguments} enforce");
    let lines = stack_of(&common::module(), &arguments, &account, "success");
    write_stack(lab.dir.path(), "right", &lines);
    assert_eq!(lab.key_login("alice", "2001:db8::1"), SUCCESS);
    assert_eq!(lab.guesses("bob", "2001:db8::1"), 2);
    assert_eq!(lab.key_login("bob", "2001:db8::1"), MAXTRIES);
    assert_eq!(lab.key_login("alice", "2001:db8::1"), SUCCESS);
}

#[test]
fn a_used_up_grant_refuses_however_often_one_asks() {
    let lab = Lab::new("deny = 2001:db8::/32\n");
    lab.prefixquota(&["grant", "2001:db8::1"]);
    let mut alice = lab.start("right", "alice", "2001:db8::1");
    let mut bob = lab.start("right", "bob", "2001:db8::1");
    assert_eq!((alice.authenticate(), bob.authenticate()), (SUCCESS, SUCCESS));
    assert_eq!((alice.account(), bob.account()), (SUCCESS, MAXTRIES));
    assert_eq!(bob.account(), MAXTRIES);
    let told = (ERROR_MSG, "Logins from your network are not allowed.".to_owned());
    assert!(bob.talk().messages.contains(&told));
    assert_eq!(
        lab.ask("SELECT count(DISTINCT user) FROM known"),
        1,
        "who is refused teaches nothing"
    );
    assert!(failures(lab.dir.path()) < 1e-3, "and a right password is no failure");
    assert_eq!(lab.login("alice", "2001:db8::1"), MAXTRIES);
}

#[test]
fn keys_and_exempt_networks_wait_for_nobody() {
    let lab = Lab::new("lock_wait = 30s\nexempt = 2001:db8:e::/48\n");
    assert_eq!(lab.login("alice", "2001:db8::1"), SUCCESS);
    let mut other = common::hold_lock(&lab.database());
    // The lock is held until after the last of these: whoever waited for it would fail.
    assert_eq!(lab.login("alice", "2001:db8:e::1"), SUCCESS, "exempt");
    assert_eq!(lab.login("alice", "127.0.0.1"), SUCCESS, "loopback");
    assert_eq!(lab.key_login("alice", "2001:db8::1"), SUCCESS, "a key at a place known lately");
    assert_eq!(lab.key_login("alice", "2001:db9::1"), SUCCESS, "a key at a new place");
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(lab.known(), 2);
    assert_eq!(lab.key_login("alice", "2001:db9::1"), SUCCESS);
    assert_eq!(lab.known(), 4, "learnt the next time");
}

#[test]
fn a_key_login_is_refused_by_no_broken_store() {
    let lab = Lab::new("on_error = deny\n");
    fs::write(lab.database(), vec![0xa5; 8192]).unwrap();
    assert_eq!(lab.key_login("alice", "2001:db8::1"), SUCCESS);
    assert_eq!(lab.login("alice", "2001:db8::1"), MAXTRIES);
}

#[test]
fn rules_of_the_settings_hold_without_the_store() {
    let lab = Lab::new("deny = 2001:db8::/32\nexempt = 2001:db9::/32\n");
    fs::write(lab.database(), vec![0xa5; 8192]).unwrap();
    assert_eq!(lab.login("alice", "2001:db8::1"), MAXTRIES);
    assert_eq!(lab.login("alice", "2001:db9::1"), SUCCESS);
    assert_eq!(lab.login("alice", "2001:dba::1"), SUCCESS, "on_error = ignore");
}

#[test]
fn the_same_wrong_password_is_charged_once() {
    let lab = Lab::new("repeat = yes\n");
    let again = |service: &str, password: &[u8]| {
        let pam = Pam::start(lab.dir.path(), service, b"alice", Some(password));
        pam.rhost(b"2001:db8::1").authenticate()
    };
    for _ in 0..50 {
        assert_eq!(again("wrong", b"stale"), PERM_DENIED);
    }
    assert!((failures(lab.dir.path()) - 1.0).abs() < 1e-3);
    assert_eq!(again("wrong", b"other"), PERM_DENIED);
    assert_eq!(again("wrong", b"stale"), MAXTRIES, "the address is full");
}

#[test]
fn with_repeat_no_guesses_at_a_second_factor_are_counted() {
    for (repeat, reached) in [("yes", 20), ("known", 2), ("no", 2)] {
        let lab = Lab::new(&format!("repeat = {repeat}\n"));
        let password = "auth required pam_debug.so auth=success\n";
        let code = "auth required pam_debug.so auth=auth_err\n";
        let stack =
            stack(&lab.arguments(), "success").replace(password, &format!("{password}{code}"));
        write_stack(lab.dir.path(), "code", &stack);
        let tries = (0..20).filter(|_| {
            let pam = Pam::start(lab.dir.path(), "code", b"alice", Some(b"right"));
            pam.rhost(b"2001:db8::1").authenticate() == AUTH_ERR
        });
        assert_eq!(tries.count(), reached, "repeat = {repeat}");
    }
}
