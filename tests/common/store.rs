//! A store in a directory of its own, with a clock that stands until it is moved.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::{Refusal, Verdict};
use pam_prefixquota::guard::{Admission, Clock, Guard, Pass};
use pam_prefixquota::login::Login;
use pam_prefixquota::rules::Rules;
use pam_prefixquota::source::Source;
use pam_prefixquota::store::{Store, Write};

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
        self.admit_login(&stranger(address))
    }

    pub fn admit_login(&self, login: &Login) -> Admission {
        self.guard().admit(&mut self.store(), login, None).unwrap()
    }

    /// An attempt that must be let through.
    pub fn charge(&self, address: &str) -> Pass {
        self.charge_login(&stranger(address))
    }

    pub fn charge_login(&self, login: &Login) -> Pass {
        match self.admit_login(login) {
            Admission::Passed(pass) => pass,
            other => panic!("{login:?}: {other:?}"),
        }
    }

    /// The right password after all.
    pub fn succeed(&self, login: &Login, pass: &Pass) -> Result<(), Refusal> {
        self.guard().succeed(&mut self.store(), login, pass).unwrap()
    }

    /// A whole login with the right password.
    pub fn log_in(&self, login: &Login) {
        let pass = self.charge_login(login);
        self.succeed(login, &pass).unwrap();
    }

    /// The right password of somebody in particular, who is nobody here.
    pub fn refund(&self, address: &str, pass: &Pass) {
        self.succeed(&stranger(address), pass).unwrap();
    }

    pub fn look(&self, login: &Login) -> Verdict {
        self.guard().look(&mut self.store(), login).unwrap().verdict
    }

    pub fn count(&self, address: &str, length: u8) -> f64 {
        let judgement = self.guard().look(&mut self.store(), &stranger(address)).unwrap();
        judgement.strangers.count(length)
    }

    pub fn write(&self, work: impl FnOnce(&Write<'_>)) {
        let mut store = self.store();
        let write = store.begin().unwrap();
        work(&write);
        write.commit().unwrap();
    }

    pub fn pass(&self, milliseconds: i64) {
        self.clock.now.set(self.clock.now.get() + milliseconds);
    }

    pub fn rows(&self) -> usize {
        self.store().reader().entries(None).unwrap().len()
    }
}

pub fn source(address: &str) -> Source {
    Source::of(address.parse().unwrap(), &[])
}

pub fn stranger(address: &str) -> Login {
    Login::of_stranger(source(address))
}

pub fn login(user: &str, address: &str) -> Login {
    Login { source: source(address), user: user.as_bytes().to_vec() }
}

pub fn is_charged(admission: &Admission) -> bool {
    matches!(admission, Admission::Passed(Pass { ticket: Some(_), .. }))
}
