//! The store at its edges: what a refused attempt leaves, what a refund touches, how rows go, what
//! the clock and the hands of people can do to it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use common::book::{inside, v6};
use common::store::{HOUR, Lab, START, is_charged, stranger};
use pam_prefixquota::decide::{Refusal, Verdict};
use pam_prefixquota::guard::{Admission, Clock, Guard};
use pam_prefixquota::login::Login;
use pam_prefixquota::source::{Source, key_range, parse_prefix};
use pam_prefixquota::store::Store;

#[test]
fn i17_a_refused_attempt_writes_nothing() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    lab.charge("2001:db8::1");
    let snapshot = || {
        let files = ["q.db", "q.db-wal"].map(|name| {
            let meta = fs::metadata(lab.dir.path().join(name)).unwrap();
            (meta.len(), meta.mtime(), meta.mtime_nsec())
        });
        (files, lab.store().reader().entries(None).unwrap())
    };
    let before = snapshot();
    for _ in 0..100 {
        assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(Refusal::Full(_))));
        lab.pass(1_000);
    }
    assert_eq!(snapshot(), before);
}

#[test]
fn i14_a_refund_restores_every_count() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    lab.pass(HOUR / 3);
    let before: Vec<f64> = (32..=128).map(|length| lab.count("2001:db8::1", length)).collect();
    let ticket = lab.charge("2001:db8::1");
    lab.charge("2001:db8::5");
    lab.pass(HOUR / 8);
    lab.refund("2001:db8::1", &ticket);
    let left = 0.5_f64.powf(1.0 / 8.0);
    for (length, before) in (32..=128).zip(before) {
        let other = if length <= 125 { left } else { 0.0 };
        let now = lab.count("2001:db8::1", length);
        assert!((now - (before * left + other)).abs() < 1e-9, "/{length}: {now}");
    }
}

#[test]
fn i22_success_forgives_nothing_but_itself() {
    let lab = Lab::new(|s| s.settle = 0);
    let mut guesses = 0;
    for _ in 0..1_000 {
        if let Admission::Passed(_) = lab.admit("2001:db8::1") {
            guesses += 1;
        }
        if let Admission::Passed(own) = lab.admit("2001:db8::1") {
            lab.refund("2001:db8::1", &own);
        }
    }
    assert_eq!(guesses, 2);
}

#[test]
fn i26_mapped_and_plain_ipv4_share_one_row() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("192.0.2.1");
    lab.charge("::ffff:192.0.2.1");
    lab.charge("64:ff9b::192.0.2.1");
    let entries = lab.store().reader().entries(None).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].source, "192.0.2.1");
    assert_eq!(entries[0].failures.key.to_string(), "::ffff:192.0.2.1");
    assert!((entries[0].failures.count.level - 3.0).abs() < 1e-9);
}

#[test]
fn i18_the_rows_of_a_prefix_are_bounded() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.ipv6.widest = 64;
    });
    let bound = 66.0 * (1.0 + 1024_f64.ln());
    let mut peak = 0;
    let mut store = lab.store();
    // Twelve half-lives of an attack that never uses an address twice.
    for i in 0..2_200_u32 {
        let login = Login::of_stranger(Source::of(inside(v6("2001:db8::"), 64, i), &[]));
        let _ = lab.guard().admit(&mut store, &login, None).unwrap();
        lab.pass(20_000);
        if i % 50 == 0 {
            peak = peak.max(lab.rows());
        }
    }
    assert!(peak > 300 && (peak as f64) < bound, "{peak} rows, bound {bound}");
}

#[test]
fn i19_a_clock_set_back_neither_grows_nor_freezes_counts() {
    for back in [10_000, 40_000_000, 365 * 24 * HOUR] {
        let lab = Lab::new(|s| s.settle = 0);
        lab.charge("2001:db8::1");
        lab.charge("2001:db8::1");
        lab.pass(-back);
        assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(_)), "{back}");
        assert!((lab.count("2001:db8::1", 128) - 2.0).abs() < 1e-9, "{back}");
        lab.pass(HOUR);
        assert!((lab.count("2001:db8::1", 128) - 1.0).abs() < 1e-9, "{back}");
        assert!(is_charged(&lab.admit("2001:db8::1")), "{back}");
    }
}

/// A clock after whose first reading the process is kept from running for two seconds, in which
/// another one does `meanwhile`.
struct Stalled<'a> {
    lab: &'a Lab,
    meanwhile: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Clock for Stalled<'_> {
    fn now(&self) -> i64 {
        let read = self.lab.clock.now();
        if let Some(meanwhile) = self.meanwhile.take() {
            self.lab.pass(2_000);
            meanwhile();
        }
        read
    }

    fn sleep(&self, time: Duration) {
        self.lab.clock.sleep(time);
    }
}

#[test]
fn a_slow_look_takes_no_other_attempt_to_be_from_the_future() {
    let lab = Lab::new(|_| {});
    let other = Cell::new(None);
    let charge = || other.set(Some(lab.charge("2001:db8::1")));
    let clock = Stalled { lab: &lab, meanwhile: RefCell::new(Some(Box::new(charge))) };
    let guard = Guard::new(&lab.settings, &lab.rules, &clock);
    let looked = guard.look(&mut lab.store(), &stranger("2001:db8::2")).unwrap();
    assert!(matches!(looked.verdict, Verdict::Admit(..)) && !looked.is_ahead);
    drop(clock);
    // Its charge was left alone, so it can be taken back.
    lab.refund("2001:db8::1", &other.take().unwrap());
    assert!(lab.count("2001:db8::1", 128).abs() < 1e-9);
}

#[test]
fn an_attempt_waits_for_open_ones_and_is_denied_when_they_stay() {
    let lab = Lab::new(|_| {});
    lab.charge("2001:db8::1");
    lab.charge("2001:db8::1");
    let looked = lab.look(&stranger("2001:db8::1"));
    assert!(matches!(looked, Verdict::Wait(_)));
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(Refusal::Full(_))));
    let waited = lab.clock.now() - START;
    assert!((3_000..3_400).contains(&waited), "{waited}");
    // Soon it is known, and nobody waits any more.
    lab.pass(3_000);
    let looked = lab.look(&stranger("2001:db8::1"));
    assert!(matches!(looked, Verdict::Deny(_)));
}

#[test]
fn an_attempt_is_admitted_when_an_open_one_is_refunded() {
    let mut lab = Lab::new(|_| {});
    let settings = lab.settings.clone();
    lab.charge("2001:db8::1");
    let right = lab.charge("2001:db8::1");
    lab.clock.asleep = RefCell::new(Box::new(move |now| {
        if now >= START + 1_000 {
            let mut store = Store::open(&settings.database, Duration::from_secs(5)).unwrap();
            let write = store.begin().unwrap();
            write.refund(right.ticket.as_ref().unwrap(), &settings).unwrap();
            write.commit().unwrap();
        }
    }));
    assert!(is_charged(&lab.admit("2001:db8::1")));
    assert!(lab.clock.now() - START < 1_500);
}

#[test]
fn with_too_many_rows_the_lightest_go_first() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.max_rows = 20;
    });
    // Ten that failed twice, then many that failed once and are older.
    for i in 0..10 {
        let address = format!("2001:db8:{i:x}::1");
        lab.charge(&address);
        lab.charge(&address);
    }
    for i in 0..200 {
        lab.charge(&format!("2001:db9:{i:x}::1"));
        lab.pass(1_000);
        assert!(lab.rows() <= 20);
    }
    for i in 0..10 {
        assert!(lab.count(&format!("2001:db8:{i:x}::1"), 128) > 1.5, "a heavy row was dropped");
    }
    assert!(lab.count("2001:db9:c7::1", 128) > 0.5, "the newest is kept");
}

#[test]
fn the_lightest_of_all_is_counted_all_the_same() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.max_rows = 5;
        s.ipv6.base = 9;
    });
    for i in 0..5 {
        for _ in 0..3 {
            lab.charge(&format!("2001:db8:{i:x}::1"));
        }
    }
    lab.charge("2001:db9::1");
    assert!((lab.count("2001:db9::1", 128) - 1.0).abs() < 1e-9);
    assert_eq!(lab.rows(), 5);
}

#[test]
fn faded_rows_of_other_prefixes_are_swept() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..300 {
        lab.charge(&format!("2001:db8:{i:x}::1"));
    }
    lab.pass(20 * HOUR);
    for i in 0..60 {
        lab.charge(&format!("198.51.{i}.1"));
    }
    assert!(lab.rows() < 80, "{} rows", lab.rows());
    let counted: i64 = rusqlite::Connection::open(&lab.settings.database)
        .unwrap()
        .query_row("SELECT value FROM meta WHERE key = 'rows'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(usize::try_from(counted).unwrap(), lab.rows());
}

#[test]
fn rows_deleted_by_hand_keep_every_count_right() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    lab.charge("2001:db8:1::1");
    let hand = rusqlite::Connection::open(&lab.settings.database).unwrap();
    hand.execute("DELETE FROM failure WHERE source = '2001:db8::1'", []).unwrap();
    assert!((lab.count("2001:db8::1", 32) - 1.0).abs() < 1e-9);
    assert!(lab.count("2001:db8::1", 128).abs() < 1e-9);
}

#[test]
fn forgiving_all_of_ipv6_leaves_ipv4() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    lab.charge("192.0.2.1");
    let all = parse_prefix("::/0").unwrap();
    assert_eq!(lab.store().reader().entries(Some(&all)).unwrap().len(), 1);
    lab.write(|write| write.forgive(&all).unwrap());
    assert_eq!(lab.store().reader().entries(None).unwrap()[0].source, "192.0.2.1");
    assert_eq!(key_range(&parse_prefix("0.0.0.0/0").unwrap()).0.to_string(), "::ffff:0.0.0.0");
}

#[test]
fn a_refund_after_forgiving_takes_nobody_elses_failure() {
    let lab = Lab::new(|s| s.settle = 0);
    let right = lab.charge("2001:db8::1");
    let all = parse_prefix("2001:db8::/32").unwrap();
    lab.write(|write| write.forgive(&all).unwrap());
    lab.pass(1);
    lab.charge("2001:db8::1");
    lab.refund("2001:db8::1", &right);
    assert!((lab.count("2001:db8::1", 128) - 1.0).abs() < 0.01);
}

#[test]
fn a_refund_over_a_jump_of_the_clock_takes_nobody_elses_failure() {
    let lab = Lab::new(|s| s.settle = 0);
    let right = lab.charge("2001:db8::1");
    lab.pass(20 * HOUR);
    lab.charge("2001:db8::1");
    lab.pass(1_000 - 20 * HOUR);
    let _ = lab.count("2001:db8::1", 128);
    lab.refund("2001:db8::1", &right);
    assert!((lab.count("2001:db8::1", 128) - 1.0).abs() < 0.01);
}

#[test]
fn counts_survive_a_boot_without_a_clock() {
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    lab.charge("2001:db8::1");
    let before = lab.clock.now();
    lab.clock.now.set(1_000);
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(_)));
    lab.charge("2001:db8:9::1");
    lab.clock.now.set(before + 60_000);
    assert!(lab.count("2001:db8::1", 128) > 1.9);
}

#[test]
fn right_logins_do_not_keep_old_failures_open() {
    let lab = Lab::new(|s| s.half_life = 36_500 * 24 * HOUR);
    for _ in 0..8 {
        lab.charge("192.0.2.1");
    }
    for _ in 0..20 {
        lab.pass(2_000);
        let right = lab.charge("192.0.2.1");
        lab.refund("192.0.2.1", &right);
    }
    for _ in 0..6 {
        lab.charge("192.0.2.0");
    }
    // The /31 is full, of eight failures that are settled and six that are not.
    lab.pass(6_000);
    let looked = lab.look(&stranger("192.0.2.0"));
    assert!(matches!(looked, Verdict::Deny(_)), "{looked:?}");
}

#[test]
fn what_people_do_to_the_store_by_hand_does_not_switch_it_off() {
    let edits = [
        "PRAGMA ignore_check_constraints = 1; UPDATE failure SET open = -1",
        "UPDATE failure SET open = 1 << 40",
        "PRAGMA ignore_check_constraints = 1; UPDATE failure SET level = 9e999",
        "PRAGMA ignore_check_constraints = 1; UPDATE failure SET level = -1e9",
        "UPDATE failure SET at = 9223372036854775807",
        "UPDATE failure SET at = -9223372036854775808",
        "PRAGMA ignore_check_constraints = 1; \
         INSERT INTO failure (address, source, level, at) VALUES (x'20010db800', 'x', 1, 1)",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x'",
        "UPDATE meta SET value = 9223372036854775807 WHERE key = 'rows'",
        "UPDATE meta SET value = -5 WHERE key = 'rows'",
        "DELETE FROM quota; DROP TRIGGER failure_removed",
    ];
    for edit in edits {
        let lab = Lab::new(|s| s.settle = 0);
        lab.charge("2001:db8::1");
        lab.charge("2001:db8::1");
        rusqlite::Connection::open(&lab.settings.database).unwrap().execute_batch(edit).unwrap();
        for address in ["2001:db8:1::1", "2001:db9::1"] {
            lab.charge(address);
            lab.charge(address);
            let third = lab.admit(address);
            assert!(matches!(third, Admission::Refused(_)), "{edit}: {address}: {third:?}");
        }
    }
    // Nor do rows that the search for faded ones comes upon.
    let lab = Lab::new(|s| s.settle = 0);
    lab.charge("2001:db8::1");
    let planted = "PRAGMA ignore_check_constraints = 1;
         INSERT INTO failure (address, source, level, at) VALUES (x'20010db800', 'x', 1, 1)";
    rusqlite::Connection::open(&lab.settings.database).unwrap().execute_batch(planted).unwrap();
    for i in 0..40 {
        lab.charge(&format!("2001:db9:{i:x}::1"));
    }
    // What is not written is not taken for a charge.
    let lab = Lab::new(|_| {});
    lab.charge("2001:db8::1");
    let mut store = lab.store();
    let planted = "CREATE TRIGGER t BEFORE INSERT ON failure BEGIN SELECT RAISE(IGNORE); END";
    rusqlite::Connection::open(&lab.settings.database).unwrap().execute_batch(planted).unwrap();
    assert!(lab.guard().admit(&mut store, &stranger("2001:db8::2"), None).is_err());
}
