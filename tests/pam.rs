//! The module through libpam: what it answers, charges and refunds, and what hostile callers and
//! clients cannot make it do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::PathBuf;

use common::pam::{
    AUTH_ERR, CONV_ERR, DISALLOW_NULL_AUTHTOK, ERROR_MSG, MAXTRIES, PERM_DENIED, Pam, SUCCESS,
    guess, stack, stack_of, write_stack,
};

/// A folder of PAM stacks around one store: `wrong` and `right` play the password check.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// Every line has `arguments`. Guesses follow each other at once here, so nobody waits for an
    /// open one unless a test says so, and each is counted ([`guess`]).
    fn new(arguments: &str) -> Lab {
        let lab = Lab { dir: common::private_dir() };
        let arguments = lab.arguments(arguments);
        write_stack(lab.dir.path(), "wrong", &stack(&arguments, "perm_denied"));
        write_stack(lab.dir.path(), "right", &stack(&arguments, "success"));
        lab
    }

    fn arguments(&self, more: &str) -> String {
        let settings = self.dir.path().join("settings");
        if !settings.exists() {
            fs::write(&settings, "settle = 0s\nrepeat = no\n").unwrap();
        }
        format!("config={} database={} {more}", settings.display(), self.database().display())
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("q.db")
    }

    fn start(&self, service: &str, rhost: &str) -> Pam {
        Pam::start(self.dir.path(), service, b"alice", Some(&guess())).rhost(rhost.as_bytes())
    }

    fn guess(&self, rhost: &str) -> c_int {
        self.start("wrong", rhost).authenticate()
    }

    fn login(&self, rhost: &str) -> (c_int, c_int) {
        let mut pam = self.start("right", rhost);
        let code = pam.authenticate();
        (code, if code == SUCCESS { pam.account() } else { code })
    }

    fn failures(&self) -> f64 {
        if !self.database().exists() {
            return 0.0;
        }
        common::pam::failures(self.dir.path())
    }

    fn assert_failures(&self, expected: f64) {
        let failures = self.failures();
        assert!((failures - expected).abs() < 0.1, "{failures} failures, expected {expected}");
    }
}

#[test]
fn an_ipv6_address_has_two_guesses_and_its_neighbour_its_own() {
    let lab = Lab::new("");
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    assert_eq!(lab.guess("2001:db8::1"), MAXTRIES);
    assert_eq!(lab.login("2001:db8::1"), (MAXTRIES, MAXTRIES), "not even the right password");
    assert_eq!(lab.login("2001:db8::9"), (SUCCESS, SUCCESS));
    lab.assert_failures(2.0);
}

#[test]
fn an_ipv4_address_has_ten() {
    let lab = Lab::new("");
    for _ in 0..10 {
        assert_eq!(lab.guess("::ffff:192.0.2.1"), PERM_DENIED);
    }
    assert_eq!(lab.guess("192.0.2.1"), MAXTRIES);
    assert_eq!(lab.login("192.0.2.2"), (SUCCESS, SUCCESS));
}

#[test]
fn a_right_password_costs_nothing_however_often() {
    let lab = Lab::new("");
    for _ in 0..20 {
        assert_eq!(lab.login("2001:db8::1"), (SUCCESS, SUCCESS));
    }
    lab.assert_failures(0.0);
}

#[test]
fn the_client_is_told_unless_silent() {
    let expected = "Too many failed attempts from your network. Try again in 60 minutes.";
    for (arguments, flags, told) in [("", 0, true), ("silent", 0, false), ("", 0x8000, false)] {
        let lab = Lab::new(arguments);
        lab.guess("2001:db8::1");
        lab.guess("2001:db8::1");
        let mut pam = lab.start("wrong", "2001:db8::1");
        assert_eq!(pam.authenticate_with(flags), MAXTRIES);
        let messages = pam.talk().messages.clone();
        assert_eq!(messages == [(ERROR_MSG, expected.to_owned())], told, "{messages:?}");
        assert_eq!(pam.talk().prompts, 0, "a denied client is not asked for a password");
    }
}

#[test]
fn a_prompt_given_up_charges_nothing_and_ends_the_stack() {
    let lab = Lab::new("");
    for _ in 0..5 {
        let mut pam = Pam::start(lab.dir.path(), "right", b"alice", None).rhost(b"2001:db8::1");
        assert_eq!(pam.authenticate(), CONV_ERR, "the check behind must not be reached");
    }
    lab.assert_failures(0.0);
}

#[test]
fn without_a_prompt_the_attempt_itself_is_charged() {
    let lab = Lab::new("prompt=no");
    let mut pam = Pam::start(lab.dir.path(), "wrong", b"alice", None).rhost(b"2001:db8::1");
    assert_eq!(pam.authenticate(), PERM_DENIED);
    assert_eq!(pam.talk().prompts, 0);
    lab.assert_failures(1.0);
}

#[test]
fn only_the_last_charge_of_a_handle_is_refunded_and_only_once() {
    let lab = Lab::new("ipv6_base=5");
    // One handle, as sshd's password method: wrong, wrong, right. The stack plays all as right.
    let mut pam = lab.start("right", "2001:db8::1");
    for _ in 0..3 {
        assert_eq!(pam.authenticate(), SUCCESS);
    }
    for _ in 0..3 {
        assert_eq!(pam.account(), SUCCESS);
        lab.assert_failures(2.0);
    }
    // A key login later on another handle refunds nothing.
    assert_eq!(lab.start("right", "2001:db8::1").account(), SUCCESS);
    lab.assert_failures(2.0);
}

#[test]
fn nothing_but_account_refunds() {
    let lab = Lab::new("ipv6_base=9");
    let mut pam = lab.start("right", "2001:db8::1");
    assert_eq!(pam.authenticate(), SUCCESS);
    for flags in [2, 8, 16, 4] {
        pam.setcred(flags);
    }
    assert_eq!(pam.session(), (SUCCESS, SUCCESS));
    // nginx and Exim end a failed login so.
    pam.end(SUCCESS);
    lab.assert_failures(1.0);
    let mut pam = lab.start("right", "2001:db8::1");
    assert_eq!(pam.authenticate(), SUCCESS);
    pam.forget();
    lab.assert_failures(2.0);
}

/// As sshd does it: credentials are set before it says how the user got in, and once more after.
#[test]
fn a_key_behind_a_guess_takes_the_refund_back_but_for_root() {
    for (user, left) in [("alice", 1.0), ("root", 0.0)] {
        let lab = Lab::new("");
        let pam = Pam::start(lab.dir.path(), "right", user.as_bytes(), Some(&guess()));
        let mut pam = pam.rhost(b"2001:db8::1");
        assert_eq!((pam.authenticate(), pam.account()), (SUCCESS, SUCCESS));
        pam.setcred(2);
        lab.assert_failures(0.0);
        let mut pam = pam.env("SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAA");
        pam.setcred(2);
        lab.assert_failures(left);
    }
}

#[test]
fn two_lines_of_one_stack_charge_and_refund_once() {
    let lab = Lab::new("");
    let twice = |verdict: &str| {
        let lines = stack(&lab.arguments("known_quota=0 known_wide_quota=0"), verdict);
        let (first, rest) = lines.split_once('\n').unwrap();
        format!("{first}\n{first}\n{rest}{}\n", first.replacen("auth", "account", 1))
    };
    write_stack(lab.dir.path(), "wrong", &twice("perm_denied"));
    write_stack(lab.dir.path(), "right", &twice("success"));
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    lab.assert_failures(1.0);
    assert_eq!(lab.login("2001:db8::1"), (SUCCESS, SUCCESS));
    lab.assert_failures(1.0);
    // The second attempt of one handle is charged anew.
    let mut pam = lab.start("wrong", "2001:db8::2");
    assert_eq!(pam.authenticate(), PERM_DENIED);
    assert_eq!(pam.authenticate(), PERM_DENIED);
    assert_eq!(pam.authenticate(), MAXTRIES);
    lab.assert_failures(3.0);
}

#[test]
fn a_module_that_asks_before_us_gives_no_free_guess() {
    let lab = Lab::new("");
    let asks_first =
        format!("auth optional pam_unix.so nodelay\n{}", stack(&lab.arguments(""), "perm_denied"));
    write_stack(lab.dir.path(), "wrong", &asks_first);
    let mut pam = lab.start("wrong", "2001:db8::1");
    for expected in [1.0, 2.0] {
        assert_eq!(pam.authenticate(), PERM_DENIED);
        lab.assert_failures(expected);
    }
    assert_eq!(pam.authenticate(), MAXTRIES);
}

#[test]
fn who_has_no_address_is_not_our_business() {
    let lab = Lab::new("");
    for rhost in [None, Some("UNKNOWN"), Some("")] {
        for _ in 0..5 {
            let mut pam = Pam::start(lab.dir.path(), "wrong", b"alice", Some(&guess()));
            if let Some(rhost) = rhost {
                pam = pam.rhost(rhost.as_bytes());
            }
            assert_eq!(pam.authenticate(), PERM_DENIED, "{rhost:?}");
        }
    }
    assert!(!lab.database().exists());
}

#[test]
fn loopback_is_exempt_unless_counted() {
    let lab = Lab::new("");
    for _ in 0..20 {
        assert_eq!(lab.guess("127.0.0.1"), PERM_DENIED);
        assert_eq!(lab.guess("::1"), PERM_DENIED);
    }
    let lab = Lab::new("loopback=count");
    lab.guess("::1");
    lab.guess("::1");
    assert_eq!(lab.guess("::1"), MAXTRIES);
}

#[test]
fn a_name_counts_as_the_address_that_sshd_knows() {
    let lab = Lab::new("");
    let guess = || {
        let ssh = "SSH_CONNECTION=2001:db8::7 50000 2001:db8::22 22";
        lab.start("wrong", "host.attacker.example").env(ssh).authenticate()
    };
    assert_eq!([guess(), guess(), guess()], [PERM_DENIED, PERM_DENIED, MAXTRIES]);
    assert_eq!(lab.guess("2001:db8::7"), MAXTRIES);
}

#[test]
fn names_without_address_share_one_bucket_with_the_quota_of_a_64() {
    let lab = Lab::new("");
    for i in 0..66 {
        assert_eq!(lab.guess(&format!("host{i}.example")), PERM_DENIED, "{i}");
    }
    assert_eq!(lab.guess("another.example"), MAXTRIES);
    write_stack(lab.dir.path(), "other", &stack(&lab.arguments(""), "perm_denied"));
    assert_eq!(lab.start("other", "another.example").authenticate(), PERM_DENIED, "per service");
}

#[test]
fn rules_of_the_settings_decide_by_the_longest_match() {
    let lab = Lab::new(
        "[deny=::/0 0.0.0.0/0] [count=2001:db8::/32] [exempt=2001:db8:5::/48] deny=2001:db8:5:1::/64",
    );
    assert_eq!(lab.guess("2a00::1"), MAXTRIES);
    assert_eq!(lab.login("192.0.2.1"), (MAXTRIES, MAXTRIES));
    assert_eq!(lab.guess("2001:db8:1::1"), PERM_DENIED);
    assert_eq!(lab.guess("2001:db8:5:1::1"), MAXTRIES);
    for _ in 0..5 {
        assert_eq!(lab.guess("2001:db8:5::1"), PERM_DENIED);
    }
    lab.assert_failures(1.0);
    assert_eq!(lab.guess("host.example"), MAXTRIES, "who has no address is not approved");
    let mut pam = lab.start("wrong", "2a00::1");
    pam.authenticate();
    assert_eq!(pam.talk().messages[0].1, "Logins from your network are not allowed.");
}

#[test]
fn enforce_on_the_account_line_denies_keys_too() {
    for (argument, expected) in [("", SUCCESS), ("enforce", MAXTRIES)] {
        let lab = Lab::new("");
        let arguments = lab.arguments("");
        let lines =
            stack_of(&common::module(), &arguments, &format!("{arguments} {argument}"), "success");
        write_stack(lab.dir.path(), "right", &lines);
        lab.guess("2001:db8::1");
        lab.guess("2001:db8::1");
        assert_eq!(lab.start("right", "2001:db8::1").account(), expected, "{argument}");
        assert_eq!(lab.start("right", "2001:db8::2").account(), SUCCESS);
        assert_eq!(lab.login("2001:db8::2"), (SUCCESS, SUCCESS), "{argument}");
        lab.assert_failures(2.0);
    }
}

#[test]
fn without_enforcing_nothing_is_denied_and_counts_stay_true() {
    let lab = Lab::new("enforcing=no");
    for _ in 0..10 {
        assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    }
    assert_eq!(lab.login("2001:db8::1"), (SUCCESS, SUCCESS));
    lab.assert_failures(2.0);
}

#[test]
fn an_attempt_that_was_not_charged_refunds_no_earlier_one() {
    let lab = Lab::new("enforcing=no");
    let mut pam = lab.start("right", "2001:db8::1");
    for _ in 0..3 {
        assert_eq!(pam.authenticate(), SUCCESS);
    }
    assert_eq!(pam.account(), SUCCESS);
    lab.assert_failures(2.0);
}

#[test]
fn an_unusable_store_is_answered_as_on_error_says() {
    type Spoil = fn(&Lab);
    let spoils: [(&str, Spoil); 4] = [
        ("directory missing", |lab| {
            let arguments = lab.arguments("").replace("q.db", "missing/deep/q.db");
            write_stack(lab.dir.path(), "wrong", &stack(&arguments, "perm_denied"));
        }),
        ("noise", |lab| fs::write(lab.database(), vec![0xa5; 8192]).unwrap()),
        ("a symbolic link", |lab| std::os::unix::fs::symlink("/dev/zero", lab.database()).unwrap()),
        ("a directory", |lab| fs::create_dir(lab.database()).unwrap()),
    ];
    for (what, spoil) in spoils {
        let lab = Lab::new("");
        spoil(&lab);
        assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED, "{what}");
        let lab = Lab::new("");
        fs::write(lab.dir.path().join("settings"), "settle = 0s\non_error = deny\n").unwrap();
        spoil(&lab);
        assert_eq!(lab.guess("2001:db8::1"), MAXTRIES, "{what}");
    }
}

#[test]
fn a_locked_store_is_waited_for_no_longer_than_lock_wait() {
    let lab = Lab::new("lock_wait=1s on_error=deny");
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    let mut other = common::hold_lock(&lab.database());
    assert_eq!(lab.guess("2001:db8::1"), MAXTRIES);
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED, "mended");
}

#[test]
fn a_store_deleted_between_attempts_begins_anew() {
    let lab = Lab::new("");
    lab.guess("2001:db8::1");
    // Its log stays behind, and must not be taken for the log of the new one.
    fs::remove_file(lab.database()).unwrap();
    assert_eq!(lab.guess("2001:db8::1"), PERM_DENIED);
    lab.assert_failures(1.0);
}

#[test]
fn wrong_settings_are_skipped_and_the_rest_is_kept() {
    let lab = Lab::new("bogus=1 ipv6_base=1 half_life=0s");
    let text = "ipv6_base = 3\nnonsense\n\u{1}\u{2}\nsettle = 0s\nhalf_life = 1y\n";
    let bytes = [text.as_bytes(), b"\xff\xfe = \xff\n"].concat();
    fs::write(lab.dir.path().join("settings"), bytes).unwrap();
    let codes: Vec<c_int> = (0..4).map(|_| lab.guess("2001:db8::1")).collect();
    assert_eq!(codes, [PERM_DENIED, PERM_DENIED, PERM_DENIED, MAXTRIES]);
}

#[test]
fn hostile_items_are_only_bytes() {
    let lab = Lab::new("");
    // Far longer ones fail in libpam itself, which cannot write them to the audit log.
    let long = vec![b'a'; 4_000];
    let users: [&[u8]; 5] = [b"", b"\xff\xfe", b"%s%n%s%n", b"alice\nroot", &long];
    for user in users {
        let mut pam =
            Pam::start(lab.dir.path(), "wrong", user, Some(&guess())).rhost(b"2001:db8:1::1");
        let code = pam.authenticate();
        assert!(matches!(code, PERM_DENIED | MAXTRIES), "{code}");
    }
    lab.assert_failures(2.0);
    let rhosts: [&[u8]; 6] =
        [b"\xff\xfe", b"%s%n", b"2001:db8::1\n", b"'; DROP TABLE failure; --", b"[", &long];
    for rhost in rhosts {
        let mut pam = Pam::start(lab.dir.path(), "wrong", b"alice", Some(&guess())).rhost(rhost);
        assert_eq!(pam.authenticate(), PERM_DENIED);
    }
    lab.assert_failures(8.0);
    for password in [vec![], vec![0xff; 4_000]] {
        let mut pam =
            Pam::start(lab.dir.path(), "wrong", b"alice", Some(&password)).rhost(b"2001:db8:2::1");
        assert_eq!(pam.authenticate(), PERM_DENIED);
    }
    lab.assert_failures(10.0);
}

#[test]
fn sshd_asking_without_a_password_is_not_an_attempt() {
    let lab = Lab::new("");
    let flags = c_int::try_from(DISALLOW_NULL_AUTHTOK).unwrap();
    let empty = |flags, sshd: bool| {
        let mut pam =
            Pam::start(lab.dir.path(), "wrong", b"alice", Some(b"")).rhost(b"2001:db8::1");
        if sshd {
            pam = pam.env("SSH_CONNECTION=2001:db8::1 50000 2001:db8::22 22");
        }
        pam.authenticate_with(flags)
    };
    assert_eq!(empty(0, true), PERM_DENIED);
    lab.assert_failures(0.0);
    // From everybody else, and where empty passwords are refused anyway, it is a guess.
    empty(flags, true);
    lab.assert_failures(1.0);
    empty(0, false);
    lab.assert_failures(2.0);
}

#[test]
fn behind_pam_unix_one_prompt_serves_both() {
    let lab = Lab::new("");
    let lines = stack(&lab.arguments(""), "perm_denied").replace(
        "auth required pam_debug.so auth=perm_denied",
        "auth required pam_unix.so nodelay",
    );
    write_stack(lab.dir.path(), "wrong", &lines);
    let mut pam =
        Pam::start(lab.dir.path(), "wrong", b"no-such-user", Some(&guess())).rhost(b"2001:db8::1");
    assert!(matches!(pam.authenticate(), AUTH_ERR | 9 | 10));
    assert_eq!(pam.talk().prompts, 1);
}
