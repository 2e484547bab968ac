//! Many processes at once: no guess gets past a quota, and no right password is lost to others.
//!
//! PREFIXQUOTA_ROUNDS makes so many rounds of each race, however long they take.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::book::{inside, v6};
use common::lab::{self, Lab, MATE, RIGHT, USER};
use common::pam::{AUTH_ERR, MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, failures};

/// So many at once.
const CROWD: usize = 200;

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

/// How many of `codes` are `code`.
fn count(codes: &[c_int], code: c_int) -> usize {
    codes.iter().filter(|&&c| c == code).count()
}

/// Waiting for open attempts as in the default settings: whoever waits looks again and again.
#[test]
fn i21_parallel_attempts() {
    let _alone = common::alone();
    for _ in 0..at_least(1) {
        wrong_guesses_reach_the_check(&|_| "2001:db8::1".to_owned(), 2);
        wrong_guesses_reach_the_check(&|_| "192.0.2.1".to_owned(), 10);
        wrong_guesses_reach_the_check(&hop, 66);
        right_passwords_all_succeed();
        right_and_wrong_do_not_disturb_each_other();
    }
}

/// How many rounds are made even if time is short.
fn at_least(usual: usize) -> usize {
    let rounds = std::env::var("PREFIXQUOTA_ROUNDS").ok();
    rounds.map_or(usual, |rounds| rounds.parse().expect("a number in PREFIXQUOTA_ROUNDS"))
}

/// Address number `i` of one /64.
fn hop(i: usize) -> String {
    inside(v6("2001:db8::"), 64, u32::try_from(i).unwrap()).to_string()
}

fn wrong_guesses_reach_the_check(rhost: &dyn Fn(usize) -> String, expected: usize) {
    // The store does not exist yet either: they also race to make it.
    let dir = common::pam::lab("repeat=no");
    let codes = at_once(CROWD, |i| attempt(dir.path(), "wrong", &rhost(i), &format!("guess {i}")));
    assert_eq!(count(&codes, PERM_DENIED), expected, "{codes:?}");
    assert_eq!(count(&codes, MAXTRIES), CROWD - expected, "{codes:?}");
    assert!((failures(dir.path()) - expected as f64).abs() < 0.5);
}

fn right_passwords_all_succeed() {
    let dir = common::pam::lab("");
    let codes = at_once(10, |_| attempt(dir.path(), "right", "2001:db8::1", "right"));
    assert_eq!(count(&codes, SUCCESS), 10, "{codes:?}");
    assert!(failures(dir.path()) < 1e-3);
}

fn right_and_wrong_do_not_disturb_each_other() {
    let dir = common::pam::lab("");
    let codes = at_once(100, |i| match i % 2 {
        0 => attempt(dir.path(), "wrong", "2001:db8:1::1", &format!("guess {i}")),
        _ => attempt(dir.path(), "right", &format!("2001:db8:2:{i:x}::1"), "right"),
    });
    assert_eq!(count(&codes, SUCCESS), 50, "{codes:?}");
    assert_eq!(count(&codes, PERM_DENIED), 2, "{codes:?}");
    assert!((failures(dir.path()) - 2.0).abs() < 0.5);
}

/// Rounds of every race behind the real `pam_unix`, as far as there is time; two on a machine that
/// is busy with other things.
const ROUNDS: usize = 10;
const TIME: Duration = Duration::from_secs(30);

/// Behind the real check nobody waits for anybody (`settle`), so that rounds are short, and nothing
/// decays and every guess is one, so that counts are whole numbers.
const HASTE: &str = "settle=0s half_life=36500d known_half_life=36500d lock_wait=30s repeat=no";

#[test]
fn races_behind_pam_unix() {
    let _alone = common::alone();
    let Some(lab) = lab::enter("races_behind_pam_unix", &[]) else { return };
    let arena = Arena::new(lab);
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < at_least(2) || rounds < ROUNDS && started.elapsed() < TIME {
        arena.one_source_gets_its_quota("2001:db8::1", 2);
        arena.one_source_gets_its_quota("192.0.2.1", 10);
        arena.a_whole_64_gets_its_quota();
        arena.right_and_wrong_at_once();
        arena.ten_right_ones_from_a_fresh_address();
        arena.a_known_place_gets_its_quota();
        arena.a_grant_opens_one_login();
        arena.a_grant_bears_ten_wrong_ones();
        rounds += 1;
    }
    eprintln!("{rounds} rounds in {:.0} s", started.elapsed().as_secs_f64());
}

/// The lab with a store that is made anew for each race, which all its processes run into.
struct Arena {
    lab: Lab,
}

impl Arena {
    fn new(lab: Lab) -> Arena {
        lab.guard_unix("hasty", HASTE);
        lab.guard_unix("patient", "half_life=36500d lock_wait=30s settle=30s");
        lab.guard_unix("closed", &format!("{HASTE} deny=::/0"));
        Arena { lab }
    }

    fn state(&self) -> PathBuf {
        self.lab.dir().join("state")
    }

    /// One attempt: 0 let in, else what libpam said.
    fn attempt(&self, service: &str, user: &str, rhost: &str, password: &[u8]) -> c_int {
        let confdir = self.lab.dir().join("etc/pam.d");
        let mut pam = Pam::start(&confdir, service, user.as_bytes(), Some(password));
        pam = pam.rhost(rhost.as_bytes());
        match pam.authenticate() {
            SUCCESS => pam.account(),
            code => code,
        }
    }

    /// A wrong password that nobody else has tried.
    fn wrong(&self, service: &str, user: &str, rhost: &str, i: usize) -> c_int {
        self.attempt(service, user, rhost, format!("wrong {i}").as_bytes())
    }

    fn right(&self, service: &str, rhost: &str) -> c_int {
        self.attempt(service, USER, rhost, RIGHT.as_bytes())
    }

    fn fresh(&self) {
        for file in fs::read_dir(self.state()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// The sum of all counts is what was charged and not refunded, and nothing is half written.
    fn assert_sum(&self, expected: usize) {
        let sums = "SELECT round((SELECT total(level) FROM failure), 6)
                    || ' ' || round((SELECT total(level) FROM familiar), 6)
                    || ' ' || (SELECT integrity_check FROM pragma_integrity_check)";
        assert_eq!(self.lab.sqlite3(sums), format!("{expected}.0 0.0 ok"));
    }

    fn one_source_gets_its_quota(&self, rhost: &str, quota: usize) {
        self.fresh();
        let codes = at_once(CROWD, |i| self.wrong("hasty", MATE, rhost, i));
        assert_eq!(count(&codes, AUTH_ERR), quota, "{rhost}: {codes:?}");
        assert_eq!(count(&codes, MAXTRIES), CROWD - quota, "{rhost}: {codes:?}");
        self.assert_sum(quota);
    }

    fn a_whole_64_gets_its_quota(&self) {
        self.fresh();
        let codes = at_once(CROWD, |i| self.wrong("hasty", MATE, &hop(i), i));
        assert_eq!(count(&codes, AUTH_ERR), 66, "{codes:?}");
        assert_eq!(count(&codes, MAXTRIES), CROWD - 66, "{codes:?}");
        self.assert_sum(66);
    }

    /// Five sources guess twenty times each; a hundred others are right, each from a /64 of its own.
    fn right_and_wrong_at_once(&self) {
        self.fresh();
        let codes = at_once(CROWD, |i| match i % 2 {
            0 => self.wrong("hasty", MATE, &format!("2001:db8:1:{:x}::1", i / 2 % 5), i),
            _ => self.right("hasty", &format!("2001:db8:2:{i:x}::1")),
        });
        for source in 0..5 {
            let own: Vec<c_int> = codes.iter().copied().skip(2 * source).step_by(10).collect();
            assert_eq!((own.len(), count(&own, AUTH_ERR), count(&own, MAXTRIES)), (20, 2, 18));
        }
        assert_eq!(count(&codes, SUCCESS), CROWD / 2, "{codes:?}");
        self.assert_sum(10);
    }

    fn ten_right_ones_from_a_fresh_address(&self) {
        self.fresh();
        let codes = at_once(10, |_| self.right("patient", "2001:db8::1"));
        assert_eq!(count(&codes, SUCCESS), 10, "{codes:?}");
        self.assert_sum(0);
        assert_eq!(self.lab.sqlite3("SELECT count(*) FROM known"), "2");
    }

    /// Ten of the user's own, and then the two of any address.
    fn a_known_place_gets_its_quota(&self) {
        self.fresh();
        let rhost = "2001:db8:a:b::1";
        // In a process of its own, as all that calls libpam here.
        assert_eq!(at_once(1, |_| self.right("hasty", rhost)), [SUCCESS]);
        let codes = at_once(CROWD, |i| self.wrong("hasty", USER, rhost, i));
        assert_eq!(count(&codes, AUTH_ERR), 12, "{codes:?}");
        assert_eq!(count(&codes, MAXTRIES), CROWD - 12, "{codes:?}");
        let own = "SELECT round(level, 6) FROM known WHERE place LIKE '%/64'";
        assert_eq!(self.lab.sqlite3(own), "10.0");
        self.assert_sum(2);
    }

    fn a_grant_opens_one_login(&self) {
        self.fresh();
        self.lab.prefixquota(&["grant", "2001:db8::1"]);
        let codes = at_once(50, |_| self.right("closed", "2001:db8::1"));
        assert_eq!(count(&codes, SUCCESS), 1, "{codes:?}");
        assert_eq!(count(&codes, MAXTRIES), 49, "{codes:?}");
        assert_eq!(self.lab.sqlite3("SELECT count(*) FROM rule"), "0");
        self.assert_sum(0);
    }

    fn a_grant_bears_ten_wrong_ones(&self) {
        self.fresh();
        self.lab.prefixquota(&["grant", "2001:db8::1"]);
        let codes = at_once(50, |i| self.wrong("closed", MATE, "2001:db8::1", i));
        assert_eq!(count(&codes, AUTH_ERR), 10, "{codes:?}");
        assert_eq!(count(&codes, MAXTRIES), 40, "{codes:?}");
        self.assert_sum(10);
    }
}
