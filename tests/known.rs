//! Known places: a count of one's own where one has logged in before. Properties
//! that are promised have numbers, as in core.rs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use common::book::{inside, v6};
use common::store::{HOUR, Lab, START, is_charged, login, source};
use pam_prefixquota::config::{Rate, Settings};
use pam_prefixquota::decide::{Lane, Refusal, Verdict};
use pam_prefixquota::guard::{Admission, Pass};
use pam_prefixquota::login::{Login, Tier};
use pam_prefixquota::source::{Source, parse_prefix};
use pam_prefixquota::store::Store;
use proptest::prelude::*;

const DAY: i64 = 24 * HOUR;

fn lab() -> Lab {
    Lab::new(|s| s.settle = 0)
}

fn lab_with_stranger_quota(known_for: i64) -> Lab {
    Lab::new(|s| {
        s.settle = 0;
        s.known_for = known_for;
        s.stranger_quota = Some(Rate { quota: 30, half_life: DAY });
    })
}

/// Wrong guesses until one is refused.
fn guesses(lab: &Lab, login: &Login) -> u32 {
    let mut admitted = 0;
    while is_charged(&lab.admit_login(login)) {
        admitted += 1;
    }
    admitted
}

/// Fills the /32 around `base` as strangers.
fn fill_32(lab: &Lab, base: &str) -> u32 {
    let mut store = lab.store();
    let mut made = 0;
    loop {
        let login = Login::of_stranger(Source::of(inside(v6(base), 32, made), &[]));
        if !is_charged(&lab.guard().admit(&mut store, &login, None).unwrap()) {
            return made;
        }
        made += 1;
    }
}

fn rows(lab: &Lab, sql: &str) -> i64 {
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    let number: f64 =
        conn.query_row(&sql.replacen("SELECT ", "SELECT 1.0 * ", 1), [], |row| row.get(0)).unwrap();
    number.round() as i64
}

#[test]
fn i23_strangers_do_not_fill_a_known_place() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    assert_eq!(fill_32(&lab, "2001:db8::"), 626);
    let before = lab.count("2001:db8::", 32);

    assert_eq!(guesses(&lab, &login("bob", "2001:db8:a:b::1")), 0, "nobody else at that place");
    let elsewhere = |i| login("alice", &format!("2001:db8:{i:x}00::1"));
    let tries = (1..9).filter(|&i| is_charged(&lab.admit_login(&elsewhere(i))));
    assert_eq!(tries.count(), 3, "elsewhere at that provider");
    assert_eq!(guesses(&lab, &alice), 10, "at the known place");
    assert_eq!(guesses(&lab, &login("alice", "2001:db9::1")), 2, "a stranger anywhere else");
    let after = lab.count("2001:db8::", 32);
    assert!((after - before).abs() < 1e-9, "strangers' counts: {before}, then {after}");
    assert_eq!(rows(&lab, "SELECT count(*) FROM failure WHERE source LIKE '2001:db9%'"), 1);
}

#[test]
fn i23_for_ipv4_too() {
    let lab = lab();
    let alice = login("alice", "198.51.100.7");
    lab.log_in(&alice);
    for _ in 0..10 {
        lab.charge("198.51.100.7");
    }
    assert_eq!(guesses(&lab, &login("bob", "198.51.100.7")), 0);
    assert_eq!(guesses(&lab, &alice), 10);
    assert_eq!(guesses(&lab, &login("alice", "198.51.7.7")), 3 + 10, "then as a stranger");
}

#[test]
fn a_full_known_place_is_judged_as_a_stranger() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    // Ten of her own, then the two of any address; not the three of the provider as well.
    assert_eq!(guesses(&lab, &alice), 12);
    assert!((lab.count("2001:db8:a:b::1", 128) - 2.0).abs() < 1e-9);
    let refused = lab.admit_login(&alice);
    let Admission::Refused(Refusal::Known(full)) = refused else { panic!("{refused:?}") };
    // Her own count has room sooner (10 of 10 with 6 hours) than the address (2 of 2 with one).
    assert_eq!((full.prefix.to_string().as_str(), full.quota), ("2001:db8:a:b::/64", 10));
    let wait = (6.0 * HOUR as f64 * (10.0_f64 / 9.0).log2()).ceil();
    assert!((full.wait as f64 - wait).abs() < 2.0, "{}", full.wait);
    lab.pass(full.wait);
    assert!(is_charged(&lab.admit_login(&alice)));
}

#[test]
fn the_wide_tier_needs_room_as_its_users_see_it() {
    let lab = lab();
    // 300 users of one provider, each guessed at thrice from a new place there.
    let mut admitted = 0;
    for user in 0..300 {
        let name = format!("user{user}");
        lab.log_in(&login(&name, &format!("2001:db8:{user:x}::1")));
        let places = [0x4000, 0x8000, 0xc000].map(|half| half + user);
        for place in places {
            let new = login(&name, &format!("2001:db8:{place:x}::1"));
            let by = lab.guard().look(&mut lab.store(), &new).unwrap().verdict;
            if matches!(by, Verdict::Admit(Lane::Known(Tier::Wide), _)) {
                admitted += u32::from(is_charged(&lab.admit_login(&new)));
            }
        }
    }
    assert_eq!(admitted, 626, "of 900 guesses at users who are known in the /32");
    assert!(lab.count("2001:db8::", 32).abs() < 1e-9, "strangers have all of theirs");
}

#[test]
fn a_success_takes_back_its_own_charge_in_every_tier() {
    let lab = lab();
    let known = |place: &str| {
        rows(
            &lab,
            &format!("SELECT 1000 * level FROM known WHERE user = 'alice' AND place = '{place}'"),
        )
    };
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    assert!(lab.count("2001:db8:a:b::1", 128).abs() < 1e-9, "as a stranger");
    for _ in 0..3 {
        lab.charge_login(&alice);
    }
    lab.log_in(&alice);
    assert_eq!(known("2001:db8:a:b::/64"), 3_000);
    let new = login("alice", "2001:db8:c::1");
    lab.charge_login(&new);
    let right = lab.charge_login(&new);
    assert_eq!(
        (known("2001:db8::/32"), rows(&lab, "SELECT 1000 * level FROM familiar")),
        (2_000, 2_000)
    );
    lab.succeed(&new, &right).unwrap();
    assert_eq!(
        (known("2001:db8::/32"), rows(&lab, "SELECT 1000 * level FROM familiar")),
        (1_000, 1_000)
    );
    assert_eq!(known("2001:db8:a:b::/64"), 3_000, "and no other");
}

#[test]
fn i21_right_logins_at_a_known_place_wait_for_each_other() {
    let mut lab = Lab::new(|_| {});
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    // Ten of her own and two of any stranger's are open; the next waits until one was right.
    let mut open: Vec<_> = (0..12).map(|_| lab.charge_login(&alice)).collect();
    assert!(matches!(lab.look(&alice), Verdict::Wait(_)));
    let (settings, right) = (lab.settings.clone(), open.remove(0));
    lab.clock.asleep = RefCell::new(Box::new(move |now| {
        if now >= START + 500 {
            let mut store = Store::open(&settings.database, Duration::from_secs(5)).unwrap();
            let write = store.begin().unwrap();
            write.refund(right.ticket.as_ref().unwrap(), &settings).unwrap();
            write.commit().unwrap();
        }
    }));
    assert!(is_charged(&lab.admit_login(&alice)));
}

#[test]
fn a_place_is_forgotten_after_known_for() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    let is_known = || matches!(lab.look(&alice), Verdict::Admit(Lane::Known(_), _));
    lab.log_in(&alice);
    lab.pass(60 * DAY - 1);
    assert!(is_known());
    lab.log_in(&alice);
    lab.pass(60 * DAY);
    assert!(!is_known());
    // The next place that anybody teaches takes the outdated ones away.
    lab.log_in(&login("bob", "2001:db9::1"));
    assert_eq!(rows(&lab, "SELECT count(*) FROM known WHERE user = 'alice'"), 0);
}

#[test]
fn with_known_for_zero_no_user_is_kept() {
    let mut lab = Lab::new(|_| {});
    let log_in = |lab: &Lab, i: u8| {
        lab.log_in(&login(&format!("user{i}"), &format!("2001:db8:{i}::1")));
        lab.store().reader().all_known().unwrap().len()
    };
    assert_eq!((0..20).map(|i| log_in(&lab, i)).max(), Some(40), "two places of each user");
    lab.settings.known_for = 0;
    // Those of before go as well, a few at each login.
    let left: Vec<usize> = (20..30).map(|i| log_in(&lab, i)).collect();
    assert_eq!(left, [26, 12, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_user_has_at_most_64_places_the_latest() {
    let lab = lab();
    for i in 0..100 {
        lab.log_in(&login("alice", &format!("2001:{i:x}::1")));
        lab.pass(1_000);
    }
    lab.log_in(&login("bob", "2001:1::1"));
    assert_eq!(rows(&lab, "SELECT count(*) FROM known WHERE user = 'alice'"), 64);
    assert_eq!(rows(&lab, "SELECT count(*) FROM known WHERE user = 'bob'"), 2);
    let is_known = |i: u16| {
        let alice = login("alice", &format!("2001:{i:x}::1"));
        matches!(lab.look(&alice), Verdict::Admit(Lane::Known(_), _))
    };
    assert!(is_known(99) && is_known(68) && !is_known(67));
}

#[test]
fn only_users_who_have_logged_in_are_kept() {
    let lab = lab();
    for name in ["alice", "hunter2", ""] {
        let _ = lab.admit_login(&login(name, "192.0.2.1"));
    }
    assert_eq!(rows(&lab, "SELECT count(*) FROM known"), 0);
    for file in ["q.db", "q.db-wal"].map(|name| lab.dir.path().join(name)) {
        let file = std::fs::read(file).unwrap_or_default();
        assert!(!file.windows(7).any(|part| part == b"hunter2"), "a name of a failed attempt");
    }
}

#[test]
fn names_are_bytes() {
    let lab = lab();
    let named = |user: &[u8]| Login { source: source("2001:db8:a:b::1"), user: user.to_vec() };
    for name in
        [&b"\xff\xfe"[..], b"Alice", "\u{e4}lice".as_bytes(), b"elsewhere", b"%_'\"", b"a b"]
    {
        lab.log_in(&named(name));
        assert!(matches!(lab.look(&named(name)), Verdict::Admit(Lane::Known(Tier::Near), _)));
    }
    let others = [&b"alice"[..], b"\xff", b"", b"ALICE"];
    for other in others {
        assert!(matches!(lab.look(&named(other)), Verdict::Admit(Lane::Stranger, _)), "{other:?}");
    }
    // A name that cannot be kept is no reason to refuse.
    let endless = named(&[b'a'; 5_000]);
    lab.log_in(&endless);
    assert!(matches!(lab.look(&endless), Verdict::Admit(Lane::Stranger, _)));
    let users = lab.store().reader().all_known().unwrap();
    assert!(users.iter().any(|known| known.user == b"\xff\xfe"));
}

#[test]
fn who_has_no_address_has_no_place() {
    let lab = lab();
    let alice = Login { source: Source::nameless("vsftpd"), user: b"alice".to_vec() };
    lab.log_in(&alice);
    assert_eq!(rows(&lab, "SELECT count(*) FROM known"), 0);
    let forms = ["::ffff:192.0.2.7", "64:ff9b::192.0.2.9", "192.0.2.1"];
    for form in forms {
        lab.log_in(&login("alice", form));
    }
    assert_eq!(rows(&lab, "SELECT count(*) FROM known WHERE place LIKE '192.0.%'"), 2);
}

#[test]
fn forgiving_and_forgetting_reach_known_places() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    let right = lab.charge_login(&alice);
    for _ in 0..9 {
        lab.charge_login(&alice);
    }
    let prefix = parse_prefix("2001:db8:a::/48").unwrap();
    lab.write(|write| write.forgive(&prefix).unwrap());
    // A charge from before takes nothing back from those after.
    lab.charge_login(&alice);
    lab.succeed(&alice, &right).unwrap();
    assert_eq!(rows(&lab, "SELECT level FROM known WHERE place LIKE '%/64'"), 1);
    lab.write(|write| assert_eq!(write.forget_known(|known| known.user == b"alice").unwrap(), 2));
    assert!(matches!(lab.look(&alice), Verdict::Admit(Lane::Stranger, _)));
}

#[test]
fn the_holder_of_a_key_gets_no_new_tries_by_new_places() {
    let lab = lab();
    let guesses = guesses_at_new_places(&lab, 0..200);
    assert!(guesses <= 11, "{guesses} guesses at the counts of known places");
    // What was full then has faded by now, and is no longer the fullest.
    lab.pass(DAY);
    let guesses = guesses_at_new_places(&lab, 200..400);
    assert!(guesses <= 11, "{guesses} guesses on the day after");
}

/// A user has 64 places at most, so new ones push out old ones, also those of the other family.
#[test]
fn places_of_one_family_do_not_wipe_counts_of_the_other() {
    let lab = lab();
    let home = login("alice", "198.51.100.7");
    let mut guesses = 0;
    for round in 0..5 {
        guesses += guesses_by_key(&lab, &home);
        guesses += guesses_at_new_places(&lab, round * 63..(round + 1) * 63);
    }
    assert!(guesses <= 11, "{guesses}");
}

/// Whatever is kept longer: the place or its count.
#[test]
fn a_count_outlives_its_place_while_it_matters() {
    let lab = lab_with_stranger_quota(HOUR);
    let alice = login("alice", "2001:db8:a:b::1");
    let mut guesses = 0;
    for hour in 0..24 {
        lab.log_in(&alice);
        // A new place is when outdated ones are looked for.
        lab.log_in(&login("mallory", &format!("2003:{hour:x}::1")));
        let stranger = |i: i32| login("alice", &format!("2a{hour:02x}:{i:x}::1"));
        guesses += (0..60).filter(|i| is_charged(&lab.admit_login(&stranger(*i)))).count();
        lab.pass(HOUR / 2);
        lab.log_in(&alice);
        lab.pass(HOUR / 2 + 1);
    }
    // What fades of 30 in a day is 30 ln 2.
    assert!(guesses <= 30 + 21, "{guesses} guesses of strangers in a day");
}

/// How often the holder of a key of alice can guess at her password from these /64s of one /48.
fn guesses_at_new_places(lab: &Lab, places: Range<u32>) -> u32 {
    let at_one = |i: u32| {
        let guesses = guesses_by_key(lab, &login("alice", &format!("2001:db8:0:{i:x}::1")));
        lab.pass(1_000);
        guesses
    };
    places.map(at_one).sum()
}

/// The same from one place.
fn guesses_by_key(lab: &Lab, here: &Login) -> u32 {
    // As a key login does: nothing was charged.
    lab.succeed(here, &Pass::default()).unwrap();
    let mut guesses = 0;
    while matches!(lab.look(here), Verdict::Admit(Lane::Known(_), _)) {
        lab.charge_login(here);
        guesses += 1;
    }
    guesses
}

#[test]
fn a_login_before_the_clock_is_set_forgets_no_place() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    lab.clock.now.set(1_000_000);
    lab.log_in(&alice);
    lab.clock.now.set(START + HOUR);
    assert!(matches!(lab.look(&alice), Verdict::Admit(Lane::Known(Tier::Near), _)));
}

#[test]
fn a_clock_set_back_freezes_no_known_place() {
    let lab = lab();
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    assert_eq!(guesses(&lab, &alice), 12);
    lab.pass(-365 * DAY);
    assert!(matches!(lab.admit_login(&alice), Admission::Refused(_)));
    lab.pass(6 * HOUR);
    assert!(is_charged(&lab.admit_login(&alice)));
}

#[test]
fn strangers_of_one_user_have_a_quota_together() {
    let rate = Rate { quota: 30, half_life: DAY };
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.stranger_quota = Some(rate);
    });
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    // A botnet: each guess from another /32.
    let from = |i: u32| login("alice", &format!("2a{:02x}:{:x}::1", i % 200, i));
    let admitted = (0..200).filter(|&i| is_charged(&lab.admit_login(&from(i)))).count();
    assert_eq!(admitted, 30);
    let Admission::Refused(Refusal::Elsewhere(full)) = lab.admit_login(&from(999)) else {
        panic!()
    };
    assert_eq!(full.quota, 30);
    assert!(matches!(lab.look(&alice), Verdict::Admit(Lane::Known(_), _)), "known places are open");
    for i in 0..100 {
        let nobody = login("nobody", &format!("2b{:02x}:{:x}::1", i % 200, i));
        assert!(is_charged(&lab.admit_login(&nobody)), "who never logged in is not counted");
    }
    // A right password takes it back here too.
    lab.pass(DAY);
    let right = lab.charge_login(&from(1_000));
    lab.succeed(&from(1_000), &right).unwrap();
    let level = "SELECT round(level) FROM known WHERE place = 'elsewhere'";
    assert_eq!(rows(&lab, level), 15);
    lab.write(|write| assert!(write.forgive_known(|user, _| user == b"alice").unwrap() > 0));
    assert_eq!(rows(&lab, level), 0);
}

#[test]
fn the_login_of_another_forgives_no_stranger() {
    let lab = lab_with_stranger_quota(DAY);
    lab.log_in(&login("alice", "2001:db8::1"));
    lab.charge_login(&login("alice", "2a00::1"));
    lab.pass(DAY - 1_000);
    lab.log_in(&login("alice", "2001:db8::1"));
    lab.charge_login(&login("alice", "2a01::1"));
    lab.pass(2_000);
    lab.log_in(&login("mallory", "2003::1"));
    assert_eq!(rows(&lab, "SELECT 10 * level FROM known WHERE place = 'elsewhere'"), 15);
}

#[test]
fn with_a_quota_of_0_everybody_is_a_stranger() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.known_quota = 0;
        s.known_wide_quota = 0;
    });
    let alice = login("alice", "2001:db8:a:b::1");
    lab.log_in(&alice);
    assert_eq!(guesses(&lab, &alice), 2);
    let refused = lab.admit_login(&alice);
    let Admission::Refused(Refusal::Full(full)) = refused else { panic!("{refused:?}") };
    assert_eq!((full.quota, full.wait), (2, HOUR));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Whatever the order: from one prefix, with `m` known places in it, never more than
    /// `2 q + 10 m` wrong guesses.
    #[test]
    fn i24_known_places_add_little(
        places in 0..5_u16,
        owners in 1..5_u16,
        tries in prop::collection::vec((0..8_u16, 0..40_u128), 200..500),
    ) {
        let lab = Lab::new(|s| { s.settle = 0; s.ipv6.widest = 32 });
        // All in one /60.
        let place = |i: u128| Ipv6Addr::from_bits(0x2001_0db8_0000_0010_u128 << 64 | i << 64 | i);
        for i in 0..places {
            let owner = format!("user{}", i % owners);
            lab.log_in(&login(&owner, &place(u128::from(i)).to_string()));
        }
        let mut guesses = 0_u32;
        for (user, at) in tries {
            let from = login(&format!("user{user}"), &place(at % 16).to_string());
            guesses += u32::from(is_charged(&lab.admit_login(&from)));
        }
        let quota = Settings::default().ipv6.quota(60);
        prop_assert!(guesses <= 2 * quota + 10 * u32::from(places), "{guesses}");
        prop_assert!(lab.count("2001:db8:0:10::", 60) <= f64::from(quota) + 1e-6);
    }
}
