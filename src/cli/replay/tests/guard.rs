//! The rehearsal against the guard and its store, attempt by attempt.

use std::cell::Cell;
use std::time::Duration;

use pam_prefixquota::config::{Config, Place, Settings};
use pam_prefixquota::decide::Verdict;
use pam_prefixquota::guard::{Admission, Clock, Guard, Pass};
use pam_prefixquota::login::Login;
use pam_prefixquota::store::Store;
use proptest::prelude::*;

use super::super::once::{Attempt, End};
use super::super::rehearse::{History, Rehearsal};
use super::super::summary::Summary;
use super::{accepted, failed, history, summary};

struct LogClock(Cell<i64>);

impl Clock for LogClock {
    fn now(&self) -> i64 {
        self.0.get()
    }

    fn sleep(&self, _: Duration) {}
}

fn settings(lines: &[(&str, &str)]) -> Settings {
    let mut config = Config::load(Some(std::path::Path::new("/dev/null/none")), &[]);
    config.problems.clear();
    lines.iter().for_each(|(name, value)| config.set(name, value, Place::Argument));
    assert!(config.problems.is_empty(), "{:?}", config.problems);
    config.settings
}

/// As the module does it: how many were refused.
fn by_guard(history: &History, guard: Guard<'_>, store: &mut Store, attempt: &Attempt) -> u32 {
    let login = Login {
        source: history.told.sources[attempt.source as usize].clone(),
        user: history.told.users[attempt.user as usize].clone(),
    };
    if attempt.end == End::Key {
        let exempt = matches!(guard.look(store, &login).unwrap().verdict, Verdict::Exempt(_));
        let pass = Pass { ticket: None, spends: None, exempt };
        assert_eq!(guard.succeed(store, &login, &pass).unwrap(), Ok(()));
        return 0;
    }
    let mut refused = 0;
    for _ in 0..attempt.times {
        match guard.admit(store, &login, None).unwrap() {
            Admission::Passed(pass) if attempt.end == End::Accepted => {
                assert_eq!(guard.succeed(store, &login, &pass).unwrap(), Ok(()));
            }
            Admission::Passed(_) => {}
            Admission::Refused(_) => refused += 1,
        }
    }
    refused
}

/// Pauses are short, or so long that nothing is left: what is hardly anything the store forgets at
/// its own time. With `strict` that is days.
fn logs(strict: bool) -> impl Strategy<Value = String> {
    let address = prop_oneof![
        3 => (0..4_u8, 0..6_u8).prop_map(|(net, host)| format!("2001:db8:{net}::{host}")),
        3 => (0..3_u8, 1..6_u8).prop_map(|(net, host)| format!("192.0.{net}.{host}")),
        1 => Just("127.0.0.1".to_owned()),
        1 => Just("198.51.100.1".to_owned()),
    ];
    let user = prop::sample::select(vec!["ann", "bob", "root"]);
    // Minutes, or so long that nothing is left.
    let long = if strict { 400 } else { 30 * 3_600 };
    let pause = prop_oneof![9 => 0..400_u32, 1 => Just(long)];
    let step = (pause, user, address, 0..10_u8, 1..4_u32);
    prop::collection::vec(step, 1..120).prop_map(|steps| {
        let mut second = 0_i64;
        let mut log = String::new();
        for (pause, user, address, kind, times) in steps {
            second += i64::from(pause);
            let at = jiff::Timestamp::from_second(1_770_000_000 + second).unwrap();
            let failed = format!("Failed password for {user} from {address} port 4 ssh2");
            let says = match kind {
                0 => format!("Accepted publickey for {user} from {address} port 4 ssh2"),
                1..=3 => format!("Accepted password for {user} from {address} port 4 ssh2"),
                4 => format!("message repeated {times} times: [ {failed}]"),
                _ => failed,
            };
            log += &format!("{at} web sshd[1]: {says}\n");
        }
        log
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn the_rehearsal_agrees_with_the_guard(
        (strict, log) in any::<bool>().prop_flat_map(|strict| (Just(strict), logs(strict))),
        per_user in any::<bool>(),
    ) {
        let dir = tempfile::Builder::new().prefix("pq").tempdir().unwrap();
        let mut settings = settings(&[
            ("deny", "198.51.100.0/24"), ("exempt", "2001:db8:3::/48"), ("multiply", "192.0.2.0/24 3"),
            ("ipv4_base", "3"), ("settle", "0s"), ("strict", if strict { "yes" } else { "no" }),
        ]);
        settings.database = dir.path().join("q.db");
        if per_user {
            let rate = pam_prefixquota::config::Rate { quota: 6, half_life: 86_400_000 };
            settings.stranger_quota = Some(rate);
        }
        let history = history(&[&log]);
        let mut rehearsal = Rehearsal::new(&history, &settings);
        let mut store = Store::open(&settings.database, Duration::from_secs(5)).unwrap();
        let (rules, clock) = (settings.rules(), LogClock(Cell::new(0)));
        let guard = Guard::new(&settings, &rules, &clock);
        for attempt in &history.attempts {
            clock.0.set(attempt.at);
            let expected = by_guard(&history, guard, &mut store, attempt);
            let (refused, why) = rehearsal.attempt(attempt).unwrap();
            prop_assert_eq!(refused, expected, "{:?} {:?}", attempt, why);
        }
    }
}

#[test]
fn failures_fill_and_right_logins_pass_or_are_refused() {
    // Two failures fill an IPv6 address.
    let attack: String = (0..5).map(|i| failed(i, "root", "2001:db8::7")).collect();
    let log = attack
        + &accepted(6, "password", "ann", "2001:db8::7")
        + &accepted(7, "publickey", "bob", "2001:db8::7")
        + &accepted(8, "password", "bob", "2001:db8::7")
        + &accepted(9, "password", "ann", "2001:db8::8");
    let json = summary(&[&log]);
    let count = |name: &str| json[name].as_u64().unwrap();
    assert_eq!((count("lines"), count("attempts")), (9, 9));
    assert_eq!((count("failures"), count("accepted"), count("accepted_by_key")), (5, 4, 1));
    assert_eq!((count("sources"), count("denied"), count("guesses_spared")), (2, 4, 3));
    assert_eq!(count("accepted_denied"), 1, "bob is known by his key");
    let refused = &json["first_accepted_denied"][0];
    assert_eq!(refused["user"], "ann");
    assert_eq!(refused["source"], "2001:db8::7");
    assert_eq!(refused["prefix"], "2001:db8::7/128");
    let full = &json["full_prefixes"][0];
    assert_eq!((&full["prefix"], &full["denied"]), (&"2001:db8::7/128".into(), &4.into()));
    let ours =
        json["rules"].as_array().unwrap().iter().find(|r| r["rule"] == "prefixquota").unwrap();
    assert_eq!((&ours["guesses_let_through"], &ours["guesses_spared"]), (&2.into(), &3.into()));
}

#[test]
fn settings_apply() {
    let attack: String = (0..9).map(|i| failed(i, "root", "2001:db8::7")).collect();
    let history = history(&[&attack]);
    let denied = |lines: &[(&str, &str)]| {
        let json = Summary::of(&history, &settings(lines)).unwrap().json();
        json["denied"].as_u64().unwrap()
    };
    assert_eq!(denied(&[]), 7);
    assert_eq!(denied(&[("ipv6_base", "5")]), 4);
    assert_eq!(denied(&[("exempt", "2001:db8::/32")]), 0);
    assert_eq!(denied(&[("deny", "2001:db8::/32")]), 9);
    assert_eq!(denied(&[("multiply", "2001:db8::/32 2")]), 5);
    assert_eq!(denied(&[("enforcing", "no")]), 7, "what would be denied");
    let missing = settings(&[("country_deny", "DE"), ("country_database", "/nowhere/country.db")]);
    assert!(Summary::of(&history, &missing).is_err_and(|error| error.contains("/nowhere")));
}
