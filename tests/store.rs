//! The store, held against a naive model under random operations, and its edges: who may own it,
//! what a refused attempt leaves, how rows go, what people see with `sqlite3`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::book::{inside, v6};
use pam_prefixquota::config::Settings;
use pam_prefixquota::decay::{TOLERANCE, has_room, remaining};
use pam_prefixquota::decide::{Refusal, Verdict};
use pam_prefixquota::guard::{Admission, Clock, Guard, Ticket};
use pam_prefixquota::rules::Rules;
use pam_prefixquota::source::{Source, key_range, parse_prefix};
use pam_prefixquota::store::Store;
use proptest::prelude::*;

const HOUR: i64 = 3_600_000;
const START: i64 = 1_800_000_000_000;

/// A clock that moves when it is told to, or slept on; `asleep` runs on every sleep.
struct TestClock<'a> {
    now: Cell<i64>,
    asleep: RefCell<Box<dyn FnMut(i64) + 'a>>,
}

impl Clock for TestClock<'_> {
    fn now(&self) -> i64 {
        self.now.get()
    }

    fn sleep(&self, time: Duration) {
        self.now.set(self.now.get() + i64::try_from(time.as_millis()).unwrap());
        (self.asleep.borrow_mut())(self.now.get());
    }
}

/// A store in a directory of its own, with a clock that stands.
struct Lab {
    dir: tempfile::TempDir,
    settings: Settings,
    rules: Rules,
    clock: TestClock<'static>,
}

impl Lab {
    fn new(change: impl FnOnce(&mut Settings)) -> Lab {
        let dir = common::private_dir();
        let mut settings = Settings { database: dir.path().join("q.db"), ..Settings::default() };
        change(&mut settings);
        let rules = settings.rules();
        let clock = TestClock { now: Cell::new(START), asleep: RefCell::new(Box::new(|_| {})) };
        Lab { dir, settings, rules, clock }
    }

    fn guard(&self) -> Guard<'_> {
        Guard::new(&self.settings, &self.rules, &self.clock)
    }

    fn store(&self) -> Store {
        Store::open(&self.settings.database, Duration::from_secs(5)).unwrap()
    }

    fn admit(&self, address: &str) -> Admission {
        self.guard().admit(&mut self.store(), &source(address)).unwrap()
    }

    fn charge(&self, address: &str) -> Ticket {
        match self.admit(address) {
            Admission::Charged(ticket) => ticket,
            other => panic!("{address}: {other:?}"),
        }
    }

    fn count(&self, address: &str, length: u8) -> f64 {
        self.guard().tally(&mut self.store(), &source(address)).unwrap().count(length)
    }

    fn pass(&self, milliseconds: i64) {
        self.clock.now.set(self.clock.now.get() + milliseconds);
    }

    fn rows(&self) -> usize {
        self.store().entries(None).unwrap().len()
    }
}

fn source(address: &str) -> Source {
    Source::of(address.parse().unwrap(), &[])
}

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
                    let admission = lab.guard().admit(&mut lab.store(), &source).unwrap();
                    let admitted = matches!(admission, Admission::Charged(_));
                    // Closer to a quota than the store forgets, either answer is right.
                    let near = near_a_limit(&model, &source, &lab.settings, now);
                    prop_assert!(admitted == expected || near, "{source}: {admission:?}");
                    if let Admission::Charged(ticket) = admission {
                        if matches!(step, Step::RightPassword(_)) {
                            lab.guard().refund(&mut lab.store(), &ticket).unwrap();
                        } else {
                            model.charges.push((source.clone(), 1.0, now));
                        }
                    }
                    let tally = lab.guard().tally(&mut lab.store(), &source).unwrap();
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
                        let _ = lab.guard().look(&mut lab.store(), &source(address)).unwrap();
                    }
                }
                Step::Forgive(address, length) => {
                    let source = Source::of(address, &[]);
                    let prefix = source.prefix(length);
                    lab.store().begin().unwrap().forgive(&prefix).unwrap().commit().unwrap();
                    model.charges.retain(|(charged, _, _)| !prefix.contains(&charged.address().unwrap()));
                }
            }
        }
    }

    #[test]
    fn the_view_agrees_with_the_module(
        addresses in prop::collection::vec((any::<u128>(), 0..128_u32), 1..20),
        v4 in prop::collection::vec(any::<u32>(), 0..5),
    ) {
        let lab = Lab::new(|s| { s.settle = 0; s.ipv6.widest = 16; s.ipv4.widest = 8 });
        lab.clock.now.set(pam_prefixquota::guard::SystemClock.now());
        let v6 = addresses.iter().map(|(bits, zeros)| {
            // Runs of zero bits, for the shortest spelling.
            IpAddr::from(Ipv6Addr::from_bits(bits & !(u128::MAX.checked_shr(*zeros).unwrap_or(0) >> 20)))
        });
        let sources: Vec<Source> = v6.chain(v4.iter().map(|&a| IpAddr::V4(a.into())))
            .map(|a| Source::of(a, &[])).collect();
        for source in &sources {
            let _ = lab.guard().admit(&mut lab.store(), source).unwrap();
        }
        let seen = prefix_counts(&lab.settings.database);
        for source in &sources {
            let tally = lab.guard().tally(&mut lab.store(), source).unwrap();
            for standing in lab.guard().standings(source, &tally) {
                if tally.own().is_none() { continue }
                let row = seen.get(&standing.prefix.to_string());
                let (failures, quota, full) = row.expect("every covering prefix is listed");
                prop_assert!((failures - standing.count).abs() < 0.01);
                prop_assert_eq!(*quota, standing.quota);
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
    let entries = lab.store().entries(None).unwrap();
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    for row in entries.iter().map(|entry| entry.failures).filter(|row| row.at < now) {
        let level = remaining(row.level, row.at, now, lab.settings.half_life);
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
        (files, lab.store().entries(None).unwrap())
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
    lab.guard().refund(&mut lab.store(), &ticket).unwrap();
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
        if let Admission::Charged(_) = lab.admit("2001:db8::1") {
            guesses += 1;
        }
        if let Admission::Charged(own) = lab.admit("2001:db8::1") {
            lab.guard().refund(&mut lab.store(), &own).unwrap();
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
    let entries = lab.store().entries(None).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].source, "192.0.2.1");
    assert_eq!(entries[0].failures.key.to_string(), "::ffff:192.0.2.1");
    assert!((entries[0].failures.level - 3.0).abs() < 1e-9);
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
        let source = Source::of(inside(v6("2001:db8::"), 64, i), &[]);
        let _ = lab.guard().admit(&mut store, &source).unwrap();
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
        assert!(matches!(lab.admit("2001:db8::1"), Admission::Charged(_)), "{back}");
    }
}

#[test]
fn an_attempt_waits_for_open_ones_and_is_denied_when_they_stay() {
    let lab = Lab::new(|_| {});
    lab.charge("2001:db8::1");
    lab.charge("2001:db8::1");
    let looked = lab.guard().look(&mut lab.store(), &source("2001:db8::1")).unwrap();
    assert!(matches!(looked, Verdict::Wait(_)));
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(Refusal::Full(_))));
    let waited = lab.clock.now() - START;
    assert!((3_000..3_400).contains(&waited), "{waited}");
    // Soon it is known, and nobody waits any more.
    lab.pass(3_000);
    let looked = lab.guard().look(&mut lab.store(), &source("2001:db8::1")).unwrap();
    assert!(matches!(looked, Verdict::Deny(_)));
}

#[test]
fn an_attempt_is_admitted_when_an_open_one_is_refunded() {
    let mut lab = Lab::new(|_| {});
    let (database, pace) = (lab.settings.database.clone(), lab.settings.pace());
    lab.charge("2001:db8::1");
    let right = lab.charge("2001:db8::1");
    lab.clock.asleep = RefCell::new(Box::new(move |now| {
        if now >= START + 1_000 {
            let mut store = Store::open(&database, Duration::from_secs(5)).unwrap();
            store.begin().unwrap().refund(&right, pace).unwrap().commit().unwrap();
        }
    }));
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Charged(_)));
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
    assert_eq!(lab.store().entries(Some(&all)).unwrap().len(), 1);
    lab.store().begin().unwrap().forgive(&all).unwrap().commit().unwrap();
    assert_eq!(lab.store().entries(None).unwrap()[0].source, "192.0.2.1");
    assert_eq!(key_range(&parse_prefix("0.0.0.0/0").unwrap()).0.to_string(), "::ffff:0.0.0.0");
}

#[test]
fn files_are_private_whatever_the_umask() {
    // SAFETY: umask(2) cannot fail; other tests of this binary create files with explicit modes.
    let old = unsafe { libc::umask(0o777) };
    let lab = Lab::new(|_| {});
    fs::set_permissions(lab.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    lab.charge("2001:db8::1");
    // SAFETY: as above.
    unsafe { libc::umask(old) };
    for entry in fs::read_dir(lab.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    assert_eq!(
        fs::read_dir(lab.dir.path()).unwrap().count(),
        3,
        "the store, its log and its index"
    );
}

#[test]
fn a_store_that_others_could_change_is_refused() {
    let refused = |spoil: &dyn Fn(&Lab)| {
        let lab = Lab::new(|_| {});
        spoil(&lab);
        let error = Store::open(&lab.settings.database, Duration::ZERO).err().expect("refused");
        error.to_string()
    };
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let text = refused(&|lab| mode(lab.dir.path(), 0o770));
    assert!(text.contains("may be written by others"), "{text}");
    let text = refused(&|lab| {
        drop(lab.store());
        mode(&lab.settings.database, 0o660);
    });
    assert!(text.contains("may be written by others"), "{text}");
    let text = refused(&|lab| symlink("/dev/null", &lab.settings.database).unwrap());
    assert!(text.contains("symbolic link"), "{text}");
    let text = refused(&|lab| fs::create_dir(&lab.settings.database).unwrap());
    assert!(text.contains("not a regular file"), "{text}");
    let text = refused(&|lab| fs::remove_dir(lab.dir.path()).unwrap());
    assert!(text.contains("No such file"), "{text}");
    let text = refused(&|lab| fs::write(&lab.settings.database, "noise, not a database").unwrap());
    assert!(text.contains("not a database") || text.contains("not a store"), "{text}");
    let text = refused(&|lab| {
        rusqlite::Connection::open(&lab.settings.database)
            .and_then(|other| other.execute_batch("CREATE TABLE t (a)"))
            .unwrap();
    });
    assert!(text.contains("not a store of prefixquota"), "{text}");
    let text = refused(&|lab| {
        drop(lab.store());
        let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
        conn.execute_batch("PRAGMA user_version = 99").unwrap();
    });
    assert!(text.contains("has version 99"), "{text}");
}

#[test]
fn an_empty_file_is_no_store_yet() {
    // What `sqlite3 prefixquota.db` leaves when it is asked before the first attempt.
    let lab = Lab::new(|_| {});
    fs::write(&lab.settings.database, "").unwrap();
    assert!(Store::open_existing(&lab.settings.database, Duration::ZERO).unwrap().is_none());
    lab.charge("2001:db8::1");
    assert_eq!(lab.rows(), 1);
    assert_eq!(fs::metadata(&lab.settings.database).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_older_store_is_brought_up_to_date() {
    let lab = Lab::new(|_| {});
    let old = rusqlite::Connection::open(&lab.settings.database).unwrap();
    // Version 0: ours, and nothing in it yet.
    old.execute_batch("PRAGMA application_id = 0x50667851; PRAGMA journal_mode = WAL").unwrap();
    fs::set_permissions(&lab.settings.database, fs::Permissions::from_mode(0o600)).unwrap();
    lab.charge("2001:db8::1");
    let version: i64 = old.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!((version, lab.rows()), (1, 1));
}

#[test]
fn a_symbolic_link_on_the_way_is_refused() {
    let lab = Lab::new(|_| {});
    drop(lab.store());
    let way = common::private_dir();
    symlink(lab.dir.path(), way.path().join("link")).unwrap();
    let through =
        |path: &Path| Store::open(path, Duration::ZERO).err().expect("refused").to_string();
    let text = through(&way.path().join("link/q.db"));
    assert!(text.contains("symbolic link"), "{text}");
    fs::create_dir(lab.dir.path().join("deep")).unwrap();
    mode_0700(&lab.dir.path().join("deep"));
    drop(Store::open(&lab.dir.path().join("deep/q.db"), Duration::ZERO).unwrap());
    let text = through(&way.path().join("link/deep/q.db"));
    assert!(text.contains("symbolic link"), "{text}");
}

fn mode_0700(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_refund_after_forgiving_takes_nobody_elses_failure() {
    let lab = Lab::new(|s| s.settle = 0);
    let right = lab.charge("2001:db8::1");
    let all = parse_prefix("2001:db8::/32").unwrap();
    lab.store().begin().unwrap().forgive(&all).unwrap().commit().unwrap();
    lab.pass(1);
    lab.charge("2001:db8::1");
    lab.guard().refund(&mut lab.store(), &right).unwrap();
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
    lab.guard().refund(&mut lab.store(), &right).unwrap();
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
        lab.guard().refund(&mut lab.store(), &right).unwrap();
    }
    for _ in 0..6 {
        lab.charge("192.0.2.0");
    }
    // The /31 is full, of eight failures that are settled and six that are not.
    lab.pass(6_000);
    let looked = lab.guard().look(&mut lab.store(), &source("192.0.2.0")).unwrap();
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
    // What is not written is not taken for a charge.
    let lab = Lab::new(|_| {});
    lab.charge("2001:db8::1");
    let planted = "CREATE TRIGGER t BEFORE INSERT ON failure BEGIN SELECT RAISE(IGNORE); END";
    rusqlite::Connection::open(&lab.settings.database).unwrap().execute_batch(planted).unwrap();
    assert!(lab.guard().admit(&mut lab.store(), &source("2001:db8::2")).is_err());
}

#[test]
fn a_deleted_store_leaves_nothing_behind() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..300_u32 {
        lab.charge(&inside(v6("2001:db8::"), 32, i).to_string());
    }
    fs::remove_file(&lab.settings.database).unwrap();
    assert!(lab.count("2001:db8::1", 32).abs() < 1e-9);
    lab.charge("2001:db8::1");
    let check: String = rusqlite::Connection::open(&lab.settings.database)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!((check.as_str(), lab.rows()), ("ok", 1));
    // Nor does one that could not be made.
    fs::remove_file(&lab.settings.database).unwrap();
    fs::create_dir(&lab.settings.database).unwrap();
    assert!(Store::open(&lab.settings.database, Duration::ZERO).is_err());
    let left = fs::read_dir(lab.dir.path()).unwrap().map(|file| file.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains(".new-")));
}

#[test]
fn a_replaced_store_is_noticed() {
    let lab = Lab::new(|_| {});
    let store = lab.store();
    assert!(store.is_current());
    for name in ["q.db", "q.db-wal", "q.db-shm"] {
        let _ = fs::remove_file(lab.dir.path().join(name));
    }
    assert!(!store.is_current());
    let _new = lab.store();
    assert!(!store.is_current());
}

#[test]
fn the_log_stays_short() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..400_u32 {
        lab.charge(&inside(v6("2001:db8::"), 32, i).to_string());
    }
    let log = fs::metadata(lab.dir.path().join("q.db-wal")).unwrap().len();
    assert!(log < 2 * 100 * 4_120, "{log} bytes");
}
