//! The book against the real store, attempt by attempt.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use pam_prefixquota::guard::{Admission, Clock, Guard, Pass};
use pam_prefixquota::store::Store;
use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;
const START: i64 = 1_800_000_000_000;

struct TestClock(Cell<i64>);

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.get()
    }

    fn sleep(&self, _: Duration) {}
}

/// A real store and a book with the same settings, at the same time.
struct Both {
    _dir: tempfile::TempDir,
    settings: Settings,
    rules: Rules,
    store: Store,
    /// Sees what is in the store.
    reader: rusqlite::Connection,
    book: Book,
    clock: TestClock,
}

impl Both {
    fn new(change: impl FnOnce(&mut Settings)) -> Both {
        let dir = tempfile::Builder::new().prefix("pq").tempdir().unwrap();
        let mut settings =
            Settings { settle: 0, database: dir.path().join("q.db"), ..Settings::default() };
        change(&mut settings);
        Both {
            rules: settings.rules(),
            store: Store::open(&settings.database, Duration::from_secs(5)).unwrap(),
            reader: rusqlite::Connection::open(&settings.database).unwrap(),
            book: Book::new(&settings),
            clock: TestClock(Cell::new(START)),
            settings,
            _dir: dir,
        }
    }

    /// One attempt in both. `None` when it was refused.
    fn admit(&mut self, login: &Login) -> Option<(Pass, Ticket)> {
        let now = self.clock.now();
        let guard = Guard::new(&self.settings, &self.rules, &self.clock);
        let real = guard.admit(&mut self.store, login, None).unwrap();
        let book = self.book.admit(login, now);
        self.forget_swept();
        match (real, book) {
            (Admission::Passed(pass), Outcome::Passed(ticket)) => {
                assert_eq!(pass.ticket.is_some(), !ticket.rows.is_empty());
                Some((pass, ticket))
            }
            (Admission::Refused(real), Outcome::Refused(book)) => {
                let apart = real.wait().unwrap_or(0) - book.wait().unwrap_or(0);
                assert!(apart.abs() <= 2, "{real:?} {book:?}");
                assert_eq!(std::mem::discriminant(&real), std::mem::discriminant(&book));
                None
            }
            (real, book) => panic!("{login:?}: {real:?} {book:?}"),
        }
    }

    /// Takes out of the book what the store's own search for faded rows has found: when it comes
    /// to which row is not the book's to know.
    fn forget_swept(&mut self) {
        let now = self.clock.now();
        for (table, addresses) in
            [("failure", &mut self.book.failures), ("familiar", &mut self.book.familiar)]
        {
            let sql = format!("SELECT count(*) FROM {table} WHERE address = ?1");
            for counts in [&mut addresses.v4, &mut addresses.v6] {
                for key in counts.faded(Ipv6Addr::UNSPECIFIED, 0, now, usize::MAX) {
                    let rows: i64 =
                        self.reader.query_row(&sql, [key.octets()], |row| row.get(0)).unwrap();
                    if rows == 0 {
                        counts.remove(key, now);
                    }
                }
            }
        }
    }

    fn succeed(&mut self, login: &Login, (pass, ticket): &(Pass, Ticket)) {
        let guard = Guard::new(&self.settings, &self.rules, &self.clock);
        assert_eq!(guard.succeed(&mut self.store, login, pass).unwrap(), Ok(()));
        self.book.succeed(login, ticket, self.clock.now());
    }

    /// Whether both say the same of `login`, and count the same around it.
    fn compare(&mut self, login: &Login) {
        let now = self.clock.now();
        let guard = Guard::new(&self.settings, &self.rules, &self.clock);
        let real = guard.look(&mut self.store, login).unwrap();
        let book = self.book.judge(login, now);
        for length in self.settings.curve(login.source.family()).lengths(&login.source) {
            for (real, book) in
                [(&real.strangers, &book.strangers), (&real.familiar, &book.familiar)]
            {
                let (real, book) = (real.sum(length), book.sum(length));
                assert!((real.count - book.count).abs() < 1e-6, "/{length} {real:?} {book:?}");
                let slow = (real.slow - book.slow).abs();
                // Without strict nobody looks at it, and a row goes without it.
                assert!(!self.settings.strict || slow < 1e-6, "/{length} {real:?} {book:?}");
            }
        }
        let place = |known: &Option<Known>| known.map(|known| known.place);
        assert_eq!(place(&real.known), place(&book.known));
        let own = |known: Option<Known>| known.map(|known| known.count);
        let pairs = [
            (own(real.known), own(book.known), self.settings.known_pace()),
            (real.elsewhere, book.elsewhere, self.book.pace(Row::Elsewhere)),
        ];
        for (real, book, pace) in pairs {
            let left = |count: Option<Count>| count.map_or(-1.0, |count| count.left(now, pace));
            assert!((left(real) - left(book)).abs() < 1e-6, "{real:?} {book:?}");
        }
    }
}

fn login(user: usize, address: IpAddr) -> Login {
    let user = ["", "ann", "bob"].get(user).unwrap().as_bytes().to_vec();
    Login { source: Source::of(address, &[]), user }
}

#[derive(Clone, Debug)]
enum Step {
    Guess(usize, IpAddr, u8),
    LogIn(usize, IpAddr),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few addresses, close together, so that prefixes of every length fill up.
    let address = prop_oneof![
        4 => (prop::sample::select(vec![31_u32, 32, 60, 64, 100, 120, 126]), 0..4_u128).prop_map(
            |(length, i)| Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | i << (126 - length)).into()
        ),
        1 => (0..40_u32).prop_map(|i| IpAddr::V4((0xc633_6400 + i).into())),
        1 => Just(IpAddr::from(Ipv6Addr::LOCALHOST)),
    ];
    let step = prop_oneof![
        8 => (0..3_usize, address.clone(), 1..12_u8).prop_map(|(u, a, n)| Step::Guess(u, a, n)),
        4 => (0..3_usize, address).prop_map(|(u, a)| Step::LogIn(u, a)),
        2 => (0..HOUR).prop_map(Step::Pass),
        1 => (0..48 * HOUR).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), 2..4_u32, 28..40_u8).prop_map(
        |(strict, per_user, base, widest)| {
            let mut settings = Settings { strict, ..Settings::default() };
            settings.ipv6.base = base;
            settings.ipv6.widest = widest;
            if per_user {
                let rate = pam_prefixquota::config::Rate { quota: 5, half_life: 24 * HOUR };
                settings.stranger_quota = Some(rate);
            }
            settings
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_book_agrees_with_the_store(settings in settings(), steps in steps()) {
        let mut both = Both::new(|s| {
            let database = s.database.clone();
            *s = Settings { database, settle: 0, ..settings };
        });
        for step in steps {
            match step {
                Step::Guess(user, address, times) => {
                    let login = login(user, address);
                    for _ in 0..times {
                        both.admit(&login);
                    }
                    both.compare(&login);
                }
                Step::LogIn(user, address) => {
                    let login = login(user, address);
                    if let Some(ticket) = both.admit(&login) {
                        both.succeed(&login, &ticket);
                    }
                    both.compare(&login);
                }
                Step::Pass(time) => both.clock.0.set(both.clock.now() + time),
            }
        }
    }
}

/// A long attack from a whole /32: the prefix fills, rows fade by the thousand, users come and go.
#[test]
fn an_attack_of_days_agrees_with_the_store() {
    let mut both = Both::new(|s| s.half_life = HOUR / 4);
    let mut random = 0_u128;
    let mut refused = 0;
    for step in 0..4_000 {
        random =
            random.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).wrapping_add(step | 1);
        let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | random >> 32).into();
        refused += u32::from(both.admit(&login(0, address)).is_none());
        if step % 50 == 0 {
            let user = login(1, Ipv6Addr::from_bits(0x2001_0db8 << 96 | step << 64).into());
            if let Some(ticket) = both.admit(&user) {
                both.succeed(&user, &ticket);
            }
            both.compare(&user);
        }
        both.clock.0.set(both.clock.now() + if step < 700 { 10 } else { HOUR / 2_000 });
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn more_places_than_are_kept_are_the_same_ones() {
    let mut both = Both::new(|_| ());
    let place =
        |i: u128| login(1, Ipv6Addr::from_bits(0x2001_0db8 << 96 | i << 94 | i << 64).into());
    for i in 0..100 {
        let ticket = both.admit(&place(i)).unwrap();
        both.succeed(&place(i), &ticket);
        both.clock.0.set(both.clock.now() + 1_000);
    }
    (0..100).for_each(|i| both.compare(&place(i)));
    both.clock.0.set(both.clock.now() + both.settings.known_for);
    (0..100).for_each(|i| both.compare(&place(i)));
}
