//! The one sequence by which attempts are admitted, charged and refunded: for the module, and for
//! the command.

use std::time::{Duration, Instant, SystemTime};

use crate::config::Settings;
use crate::decide::{self, Failures, Refusal, Standing, Tally, Verdict};
use crate::rules::Rules;
use crate::source::Source;
use crate::store::{Store, StoreError};

pub use crate::store::Ticket;

/// Where the time comes from.
pub trait Clock {
    /// Unix milliseconds.
    fn now(&self) -> i64;
    /// Lets time pass.
    fn sleep(&self, time: Duration);
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.ok().and_then(|time| i64::try_from(time.as_millis()).ok()).unwrap_or(0)
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The pauses between looks while other attempts may still settle, in milliseconds: short enough
/// for a mail client that opens five connections, and soon long enough for five hundred waiters.
const FIRST_PAUSE: i64 = 20;
const LONGEST_PAUSE: i64 = 200;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub enum Admission {
    /// Not counted.
    Exempt,
    /// Charged; the ticket refunds it.
    Charged(Ticket),
    /// Refused; nothing was written.
    Refused(Refusal),
}

/// Admits, charges and refunds, by the settings and a clock.
#[derive(Clone, Copy)]
pub struct Guard<'a> {
    settings: &'a Settings,
    rules: &'a Rules,
    clock: &'a dyn Clock,
}

impl<'a> Guard<'a> {
    /// A guard with `rules` already made from `settings`.
    pub fn new(settings: &'a Settings, rules: &'a Rules, clock: &'a dyn Clock) -> Guard<'a> {
        Guard { settings, rules, clock }
    }

    /// What the rules say about `source`; `None` if the counts decide.
    pub fn by_rule(&self, source: &Source) -> Option<Verdict> {
        decide::by_rule(source, self.rules)
    }

    /// What would become of an attempt now. Only reads, unless the clock was set back.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    pub fn look(&self, store: &mut Store, source: &Source) -> Result<Verdict, StoreError> {
        if let Some(verdict) = self.by_rule(source) {
            return Ok(verdict);
        }
        let tally = self.tally(store, source)?;
        Ok(self.by_count(source, &tally))
    }

    /// The counts of `source` now.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    pub fn tally(&self, store: &mut Store, source: &Source) -> Result<Tally, StoreError> {
        let curve = self.settings.curve(source.family());
        let now = self.clock.now();
        let tally = self.tally_of(&store.failures_near(source, curve)?, source, now);
        if !tally.is_ahead() {
            return Ok(tally);
        }
        // Refused attempts write nothing, so a count from the future would stand for ever.
        store.begin()?.mend_clock(now)?.commit()?;
        Ok(self.tally_of(&store.failures_near(source, curve)?, source, now))
    }

    fn tally_of(&self, rows: &[Failures], source: &Source, now: i64) -> Tally {
        Tally::new(source, rows, now, self.settings.pace())
    }

    /// Tests and charges one attempt, waiting up to `settle` for attempts that are still open.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn admit(&self, store: &mut Store, source: &Source) -> Result<Admission, StoreError> {
        // On a busy machine more time passes than is slept; a test's clock passes by sleeping only.
        let started = Instant::now();
        let (mut slept, mut pause) = (0, FIRST_PAUSE);
        let mut over = None;
        let mut verdict = self.by_rule(source).unwrap_or(Verdict::Admit);
        loop {
            verdict = match verdict {
                Verdict::Exempt => return Ok(Admission::Exempt),
                Verdict::Deny(refusal) => return Ok(Admission::Refused(refusal)),
                Verdict::Admit => match (self.charge(store, source), over) {
                    (Ok(Ok(ticket)), _) => return Ok(Admission::Charged(ticket)),
                    (Ok(Err(other)), _) => other,
                    // Who was over quota a moment ago is not let in because many others wait too.
                    (Err(StoreError::Busy(_)), Some(standing)) => {
                        return Ok(Admission::Refused(Refusal::Full(standing)));
                    }
                    (Err(error), _) => return Err(error),
                },
                Verdict::Wait(standing) => {
                    let passed = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                    if passed.max(slept) >= self.settings.settle {
                        return Ok(Admission::Refused(Refusal::Full(standing)));
                    }
                    over = Some(standing);
                    self.clock.sleep(Duration::from_millis(pause.unsigned_abs()));
                    slept += pause;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    // Waiters only read, so that they never keep out the one they wait for.
                    self.look(store, source)?
                }
            };
        }
    }

    /// Counts one attempt that is known to have failed, if there is room for it.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn record(&self, store: &mut Store, source: &Source) -> Result<Admission, StoreError> {
        let admission = self.admit(store, source)?;
        if let Admission::Charged(ticket) = &admission {
            store.begin()?.settle(ticket, self.settings.pace())?.commit()?;
        }
        Ok(admission)
    }

    /// Takes back exactly one charge, after a right password.
    ///
    /// # Errors
    ///
    /// The store cannot be used; the charge stands.
    pub fn refund(&self, store: &mut Store, ticket: &Ticket) -> Result<(), StoreError> {
        store.begin()?.refund(ticket, self.settings.pace())?.commit()
    }

    /// Charges an attempt whose refund turns out to have been wrong. It was admitted once, so it is
    /// not tested again.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn take_back(&self, store: &mut Store, source: &Source) -> Result<(), StoreError> {
        let pace = self.settings.pace();
        let write = store.begin()?;
        let now = self.clock.now();
        let rows = write.failures_near(source, self.settings.curve(source.family()))?;
        let tally = self.tally_of(&rows, source, now);
        let ticket = write.charge(source, &tally, now, self.settings)?;
        write.settle(&ticket, pace)?.commit()
    }

    /// Test and charge in one transaction; the verdict if it is not an admission.
    fn charge(
        &self,
        store: &mut Store,
        source: &Source,
    ) -> Result<Result<Ticket, Verdict>, StoreError> {
        let curve = self.settings.curve(source.family());
        let mut write = store.begin()?;
        // Read under the lock: charges are stored in the order of their times.
        let now = self.clock.now();
        let mut tally = self.tally_of(&write.failures_near(source, curve)?, source, now);
        if tally.is_ahead() {
            write = write.mend_clock(now)?;
            tally = self.tally_of(&write.failures_near(source, curve)?, source, now);
        }
        let verdict = self.by_count(source, &tally);
        let charged = match verdict {
            Verdict::Admit => Ok(write.charge(source, &tally, now, self.settings)?),
            other => Err(other),
        };
        write.commit()?;
        Ok(charged)
    }

    /// What the counts say about `source`.
    pub fn by_count(&self, source: &Source, tally: &Tally) -> Verdict {
        decide::by_count(source, tally, self.settings.curve(source.family()), self.settings.pace())
    }

    /// All covering prefixes of `source`, widest first.
    pub fn standings(&self, source: &Source, tally: &Tally) -> Vec<Standing> {
        let curve = self.settings.curve(source.family());
        decide::standings(source, tally, curve, self.settings.pace()).collect()
    }
}
