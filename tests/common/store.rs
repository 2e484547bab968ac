//! A store in a directory of its own, with a clock that stands until it is moved.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pam_prefixquota::config::Settings;
use pam_prefixquota::guard::{Admission, Clock, Guard, Ticket};
use pam_prefixquota::rules::Rules;
use pam_prefixquota::source::Source;
use pam_prefixquota::store::Store;

pub const HOUR: i64 = 3_600_000;

pub const START: i64 = 1_800_000_000_000;

/// A clock that moves when it is told to, or slept on; `asleep` runs on every sleep.
pub struct TestClock<'a> {
    pub now: Cell<i64>,
    pub asleep: RefCell<Box<dyn FnMut(i64) + 'a>>,
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
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub settings: Settings,
    pub rules: Rules,
    pub clock: TestClock<'static>,
}

impl Lab {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Lab {
        let dir = super::private_dir();
        let mut settings = Settings { database: dir.path().join("q.db"), ..Settings::default() };
        change(&mut settings);
        let rules = settings.rules();
        let clock = TestClock { now: Cell::new(START), asleep: RefCell::new(Box::new(|_| {})) };
        Lab { dir, settings, rules, clock }
    }

    pub fn guard(&self) -> Guard<'_> {
        Guard::new(&self.settings, &self.rules, &self.clock)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.settings.database, Duration::from_secs(5)).unwrap()
    }

    pub fn admit(&self, address: &str) -> Admission {
        self.guard().admit(&mut self.store(), &source(address)).unwrap()
    }

    pub fn charge(&self, address: &str) -> Ticket {
        match self.admit(address) {
            Admission::Charged(ticket) => ticket,
            other => panic!("{address}: {other:?}"),
        }
    }

    pub fn count(&self, address: &str, length: u8) -> f64 {
        self.guard().tally(&mut self.store(), &source(address)).unwrap().count(length)
    }

    pub fn pass(&self, milliseconds: i64) {
        self.clock.now.set(self.clock.now.get() + milliseconds);
    }

    pub fn rows(&self) -> usize {
        self.store().entries(None).unwrap().len()
    }
}

pub fn source(address: &str) -> Source {
    Source::of(address.parse().unwrap(), &[])
}
