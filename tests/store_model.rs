//! The store under random operations: held against a naive model, and against what people read with
//! `sqlite3`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use common::store::{HOUR, Lab, stranger};
use pam_prefixquota::config::Settings;
use pam_prefixquota::decay::{TOLERANCE, has_room, remaining};
use pam_prefixquota::decide::standings;
use pam_prefixquota::guard::{Admission, Clock};
use pam_prefixquota::login::Login;
use pam_prefixquota::quota::Multiple;
use pam_prefixquota::source::Source;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Guess(IpAddr),
    RightPassword(IpAddr),
    Pass(i64),
    SetBack(i64),
    Forgive(IpAddr, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few addresses, close together, so that prefixes of every length fill up.
    let address = prop_oneof![
        4 => (prop::sample::select(vec![32_u32, 60, 64, 100, 120, 126]), 0..4_u128).prop_map(
            |(length, i)| Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | i << (126 - length)).into()
        ),
        1 => (0..40_u32).prop_map(|i| IpAddr::V4((0xc633_6400 + i).into())),
    ];
    let step = prop_oneof![
        12 => address.clone().prop_map(Step::Guess),
        3 => address.clone().prop_map(Step::RightPassword),
        3 => (0..HOUR).prop_map(Step::Pass),
        1 => (0..HOUR).prop_map(Step::SetBack),
        1 => (address, 16..=32_u8).prop_map(|(address, length)| Step::Forgive(address, length)),
    ];
    prop::collection::vec(step, 1..80)
}

/// The rule as one would say it: every charge, counted against every prefix that covers it.
struct Model {
    charges: Vec<(Source, f64, i64)>,
}

impl Model {
    fn count(&self, source: &Source, length: u8, now: i64, half_life: i64) -> f64 {
        let prefix = source.prefix(length);
        self.charges
            .iter()
            .filter(|(charged, _, _)| charged.prefix(length) == prefix)
            .map(|(_, level, at)| remaining(*level, *at, now, half_life))
            .sum()
    }

    fn admits(&self, source: &Source, settings: &Settings, now: i64) -> bool {
        let curve = settings.curve(source.family());
        curve.lengths(source).all(|length| {
            has_room(self.count(source, length, now, settings.half_life), curve.quota(length))
        })
    }

    /// When the clock is set back, counts stay and decay from there.
    fn step_back(&mut self, now: i64, back: i64, half_life: i64) {
        for (_, level, at) in &mut self.charges {
            *level = remaining(*level, *at, now, half_life);
            *at = now - back;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn i5_i14_the_store_agrees_with_the_model(steps in steps()) {
        let lab = Lab::new(|s| s.settle = 0);
        let mut model = Model { charges: Vec::new() };
        let half_life = lab.settings.half_life;
        for step in steps {
            let now = lab.clock.now();
            match step {
                Step::Guess(address) | Step::RightPassword(address) => {
                    let source = Source::of(address, &[]);
                    let expected = model.admits(&source, &lab.settings, now);
                    let login = Login::of_stranger(source.clone());
                    let admission = lab.admit_login(&login);
                    let admitted = matches!(admission, Admission::Passed(_));
                    // Closer to a quota than the store forgets, either answer is right.
                    let near = near_a_limit(&model, &source, &lab.settings, now);
                    prop_assert!(admitted == expected || near, "{source}: {admission:?}");
                    if let Admission::Passed(pass) = admission {
                        if matches!(step, Step::RightPassword(_)) {
                            lab.succeed(&login, &pass).unwrap();
                        } else {
                            model.charges.push((source.clone(), 1.0, now));
                        }
                    }
                    let tally = lab.guard().look(&mut lab.store(), &login).unwrap().strangers;
                    let curve = lab.settings.curve(source.family());
                    for length in curve.lengths(&source) {
                        let count = tally.count(length);
                        prop_assert!(count <= f64::from(curve.quota(length)) + TOLERANCE);
                        let expected = model.count(&source, length, now, half_life);
                        prop_assert!((count - expected).abs() < 0.05, "/{length}: {count} {expected}");
                    }
                }
                Step::Pass(time) => lab.pass(time),
                Step::SetBack(back) => {
                    // Everything the store holds is looked at, so that it notices.
                    model.step_back(now, back, half_life);
                    decay_to(&lab, now);
                    lab.pass(-back);
                    for address in ["2001:db8::", "198.51.100.0"] {
                        let _ = lab.look(&stranger(address));
                    }
                }
                Step::Forgive(address, length) => {
                    let source = Source::of(address, &[]);
                    let prefix = source.prefix(length);
                    lab.write(|write| write.forgive(&prefix).unwrap());
                    model.charges.retain(|(charged, _, _)| !prefix.contains(&charged.address().unwrap()));
                }
            }
        }
    }

    #[test]
    fn the_view_agrees_with_the_module(
        addresses in prop::collection::vec((any::<u128>(), 0..128_u32), 1..20),
        v4 in prop::collection::vec(any::<u32>(), 0..5),
        strict in any::<bool>(),
        shared in prop::collection::vec((8..=128_u8, 1..50_u32), 0..3),
    ) {
        let first = Source::of(Ipv6Addr::from_bits(addresses[0].0).into(), &[]);
        let multiply = shared.iter().map(|&(length, times)| {
            Multiple { prefix: first.prefix(length.min(first.family().bits())), times }
        });
        let lab = Lab::new(|s| {
            s.settle = 0;
            s.ipv6.widest = 16;
            s.ipv4.widest = 8;
            s.strict = strict;
            s.multiply = multiply.collect();
        });
        lab.clock.now.set(pam_prefixquota::guard::SystemClock.now());
        let v6 = addresses.iter().map(|(bits, zeros)| {
            // Runs of zero bits, for the shortest spelling.
            IpAddr::from(Ipv6Addr::from_bits(bits & !(u128::MAX.checked_shr(*zeros).unwrap_or(0) >> 20)))
        });
        let sources: Vec<Source> = v6.chain(v4.iter().map(|&a| IpAddr::V4(a.into())))
            .map(|a| Source::of(a, &[])).collect();
        for source in &sources {
            let _ = lab.admit_login(&Login::of_stranger(source.clone()));
        }
        if strict {
            // As after many half-lives of the fast count: the slow one is four times full.
            let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
            conn.execute("UPDATE failure SET slow = 9 WHERE address = ?1", [first.key().octets()]).unwrap();
        }
        let seen = prefix_counts(&lab.settings.database);
        for source in &sources {
            let login = Login::of_stranger(source.clone());
            let tally = lab.guard().look(&mut lab.store(), &login).unwrap().strangers;
            let quotas = lab.settings.quotas(source.family());
            for standing in standings(source, &tally, &quotas, lab.settings.pace()) {
                if tally.own().is_none() { continue }
                let row = seen.get(&standing.prefix.to_string());
                let (failures, quota, full) = row.expect("every covering prefix is listed");
                let by_slow_count = standing.quota != *quota;
                prop_assert!(by_slow_count || (failures - standing.count).abs() < 0.01);
                prop_assert_eq!(quotas.of(standing.prefix), *quota);
                prop_assert_eq!(*full, standing.wait > 0);
            }
        }
    }
}

/// The store lets a count below 1/1024 go; the sum of what 16 addresses lose decides nothing else.
fn near_a_limit(model: &Model, source: &Source, settings: &Settings, now: i64) -> bool {
    let curve = settings.curve(source.family());
    curve.lengths(source).any(|length| {
        let room = f64::from(curve.quota(length)) - 1.0;
        (model.count(source, length, now, settings.half_life) - room).abs() < 0.05
    })
}

/// Brings every row to `now`, as if each address had been looked at just before the clock moved.
fn decay_to(lab: &Lab, now: i64) {
    let entries = lab.store().reader().entries(None).unwrap();
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    for row in entries.iter().map(|entry| entry.failures).filter(|row| row.count.at < now) {
        let level = remaining(row.count.level, row.count.at, now, lab.settings.half_life);
        let update = "UPDATE failure SET level = ?2, at = ?3 WHERE address = ?1";
        conn.execute(update, (row.key.octets(), level, now)).unwrap();
    }
}

/// The view as people read it with Debian's command: failures, quota and full, by prefix.
fn prefix_counts(database: &Path) -> HashMap<String, (f64, u32, bool)> {
    let query = "SELECT prefix, failures, quota, full FROM prefix_count";
    let output = Command::new("sqlite3").arg(database).arg(query).output().expect("sqlite3");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut fields = line.split('|');
            let mut field = || fields.next().unwrap();
            let prefix = field().to_owned();
            (prefix, (field().parse().unwrap(), field().parse().unwrap(), field() == "1"))
        })
        .collect()
}
