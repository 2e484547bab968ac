//! The clock of the machine steps back and forth: no count is higher than what was charged, none
//! stands still, nobody waits longer than his count takes to fade, and no use of a grant comes back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::collections::HashMap;

use common::store::{HOUR, Lab, START, login, source};
use pam_prefixquota::config::Rate;
use pam_prefixquota::count::Count;
use pam_prefixquota::decide::{Judgement, Lane, Verdict};
use pam_prefixquota::guard::{Admission, Clock};
use pam_prefixquota::login::Login;
use pam_prefixquota::repeat::Guess;
use pam_prefixquota::rules::{Kind, RuleId, StoredRule};
use proptest::prelude::*;

const SECOND: i64 = 1_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

#[derive(Clone, Debug)]
enum Step {
    /// A new wrong password, or the same as before.
    Guess(usize, bool),
    LogIn(usize),
    /// Time passes, or the clock is set.
    Clock(i64),
    Grant(usize),
}

const USERS: [&str; 2] = ["alice", "bob"];
/// In one /64, one /32 and elsewhere.
const ADDRESSES: [&str; 4] =
    ["2001:db8:a:b::1", "2001:db8:a:b::2", "2001:db8:c::1", "198.51.100.1"];

fn logins() -> Vec<Login> {
    USERS.iter().flat_map(|user| ADDRESSES.iter().map(|address| login(user, address))).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..USERS.len() * ADDRESSES.len();
    let far = prop_oneof![1..10 * SECOND, SECOND..2 * HOUR, HOUR..60 * DAY, DAY..3 * YEAR];
    let clock = (far, any::<bool>()).prop_map(|(far, back)| if back { -far } else { far });
    let step = prop_oneof![
        10 => (who.clone(), any::<bool>()).prop_map(|(who, new)| Step::Guess(who, new)),
        3 => who.clone().prop_map(Step::LogIn),
        5 => clock.prop_map(Step::Clock),
        1 => who.prop_map(Step::Grant),
    ];
    prop::collection::vec(step, 1..60)
}

fn lab(strict: bool) -> Lab {
    Lab::new(|s| {
        s.settle = 0;
        s.strict = strict;
        s.stranger_quota = Some(Rate { quota: 5, half_life: DAY });
    })
}

/// Every count that decides about one login, by its name.
fn counts(lab: &Lab, judgement: &Judgement) -> Vec<(&'static str, f64)> {
    let now = lab.clock.now();
    let left = |count: &Count, pace| count.left(now, pace);
    let (_, elsewhere) = lab.settings.elsewhere().unwrap();
    vec![
        ("address", judgement.strangers.count(128)),
        ("/64", judgement.strangers.count(64)),
        ("/32", judgement.strangers.count(32)),
        ("/32, slow", judgement.strangers.sum(32).slow),
        ("familiar /32", judgement.familiar.count(32)),
        (
            "known",
            judgement.known.map_or(0.0, |known| left(&known.count, lab.settings.known_pace())),
        ),
        ("elsewhere", judgement.elsewhere.map_or(0.0, |count| left(&count, elsewhere))),
    ]
}

fn look(lab: &Lab, login: &Login) -> Judgement {
    lab.guard().look(&mut lab.store(), login).unwrap()
}

/// All that is stored of failures, as of when each was last charged.
fn levels(lab: &Lab) -> HashMap<String, f64> {
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    let sql = "SELECT 'failure ' || source, level FROM failure
               UNION ALL SELECT 'slow ' || source, slow FROM failure
               UNION ALL SELECT 'familiar ' || source, level FROM familiar
               UNION ALL SELECT user || ' ' || place, level FROM known";
    let mut select = conn.prepare(sql).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn uses(lab: &Lab) -> u32 {
    lab.store().reader().all_rules().unwrap().iter().filter_map(|rule| rule.uses).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn i19_whatever_the_clock_does(steps in steps(), strict in any::<bool>()) {
        let lab = lab(strict);
        // Room for all steps back.
        lab.pass(60 * 3 * YEAR);
        drop(lab.store());
        let (all, mut passwords, mut granted) = (logins(), 0_u64, 0);
        for step in &steps {
            match *step {
                Step::Guess(who, new) => {
                    passwords += u64::from(new);
                    let (password, began) = (passwords.to_be_bytes(), lab.clock.now());
                    let guess = Guess { password: &password, began };
                    let admission = lab.guard().admit(&mut lab.store(), &all[who], Some(guess));
                    if let Admission::Refused(refusal) = admission.unwrap() {
                        let wait = refusal.wait().unwrap();
                        prop_assert!(wait <= 2 * DAY, "{refusal:?} after {steps:?}");
                    }
                }
                Step::LogIn(who) => {
                    let before = uses(&lab);
                    if let Admission::Passed(pass) = lab.admit_login(&all[who]) {
                        let _ = lab.succeed(&all[who], &pass);
                    }
                    prop_assert!(uses(&lab) <= before);
                }
                Step::Grant(who) => {
                    let prefix = all[who].source.prefix(all[who].source.family().bits());
                    let id = RuleId { prefix, kind: Kind::Grant, user: Vec::new() };
                    let until = Some(lab.clock.now() + HOUR);
                    let rule = StoredRule { id, until, uses: Some(1), tries: 0, note: String::new() };
                    lab.write(|write| drop(write.put_rule(&rule, lab.clock.now()).unwrap()));
                    granted += 1;
                }
                Step::Clock(by) => {
                    let before = (levels(&lab), uses(&lab));
                    lab.pass(by);
                    for login in &all {
                        look(&lab, login);
                    }
                    // Time alone changes nothing that is stored but dates, and nothing upwards.
                    prop_assert_eq!((levels(&lab), uses(&lab)), before);
                }
            }
            prop_assert!(uses(&lab) <= granted);
            within_quotas(&lab, &all)?;
        }
        fades(&lab, &all)?;
    }
}

/// No count exceeds what may be charged to it. (A grant lets in ten more, each of at most sixty.)
fn within_quotas(lab: &Lab, all: &[Login]) -> Result<(), TestCaseError> {
    for login in all {
        let judgement = look(lab, login);
        prop_assert!(!judgement.is_ahead, "mended at the first look");
        for (name, count) in counts(lab, &judgement) {
            prop_assert!(count < 61.0, "{name}: {count}");
        }
    }
    Ok(())
}

/// From now on the clock is right: everything halves in its half-life, and in the end is gone.
fn fades(lab: &Lab, all: &[Login]) -> Result<(), TestCaseError> {
    let before: Vec<_> = all.iter().map(|login| counts(lab, &look(lab, login))).collect();
    lab.pass(DAY);
    for (login, before) in all.iter().zip(before) {
        for ((name, count), (_, before)) in counts(lab, &look(lab, login)).iter().zip(before) {
            // The slowest of all half-lives is a day; a clock that is off by a second is not mended.
            prop_assert!(*count <= before / 2.0 + 1e-3, "{name} stands still at {count}");
        }
    }
    lab.pass(61 * DAY);
    for login in all {
        let judgement = look(lab, login);
        let verdict = &judgement.verdict;
        prop_assert!(matches!(verdict, Verdict::Admit(Lane::Stranger, None)), "{verdict:?}");
        let rest: f64 = counts(lab, &judgement).iter().map(|(_, count)| count).sum();
        prop_assert!(rest < 1e-3, "{rest} failures after two months");
    }
    Ok(())
}

#[test]
fn a_place_learnt_in_the_future_is_forgotten_in_time() {
    let lab = Lab::new(|s| s.settle = 0);
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    // A machine that lives in 2040 for a while.
    lab.pass(10 * YEAR);
    lab.log_in(&alice);
    lab.pass(-10 * YEAR);
    let is_known = || matches!(lab.look(&alice), Verdict::Admit(Lane::Known(_), _));
    assert!(is_known());
    lab.pass(60 * DAY - 1);
    assert!(is_known());
    lab.pass(1);
    assert!(!is_known());
}

#[test]
fn a_wrong_password_of_the_future_is_no_repeat_and_is_forgotten() {
    let lab = Lab::new(|s| s.settle = 0);
    let alice = login("alice", "192.0.2.1");
    let charged = || {
        let guess = Guess { password: b"stale", began: lab.clock.now() };
        let admission = lab.guard().admit(&mut lab.store(), &alice, Some(guess)).unwrap();
        common::store::is_charged(&admission)
    };
    assert!(charged() && !charged());
    lab.pass(-HOUR);
    // It is told by its time from guesses at the same moment, which were no repeats either.
    assert!(charged() && !charged());
    lab.pass(DAY);
    assert!(charged() && !charged());
}

#[test]
fn counts_do_not_rise_above_what_was_charged_when_time_runs_twice() {
    let lab = Lab::new(|s| s.settle = 0);
    let mut guesses = 0;
    // An hour that never ends: the clock is set back whenever it is over.
    for _ in 0..24 {
        guesses += (0..3).filter(|_| common::store::is_charged(&lab.admit("2001:db8::1"))).count();
        assert!(lab.count("2001:db8::1", 128) < 2.0 + 1e-6);
        lab.pass(HOUR);
        let _ = lab.count("2001:db8::1", 128);
        lab.pass(-HOUR);
    }
    assert_eq!((guesses, lab.clock.now()), (2, START), "time that is taken back gives no guesses");
    assert!(source("2001:db8::1").address().is_some());
}
