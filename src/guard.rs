//! The one sequence by which attempts are admitted, charged and refunded: for the module, and for
//! the command.

use std::time::{Duration, Instant, SystemTime};

use crate::config::Settings;
use crate::country::{Country, country_of, is_denied};
use crate::decide::{self, Judgement, Records, Refusal, Verdict};
use crate::login::{Known, Login};
use crate::repeat::{Guess, Mark, Remembered, Repeat};
use crate::rules::{self, Kind, RuleId, Ruled, Rules};
use crate::store::{Reader, Store, StoreError, Ticket, Write};

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

/// A place that was seen less than so long ago need not be seen again, in milliseconds.
const FRESH: i64 = 60 * 60 * 1_000;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Admission {
    /// May try the password.
    Passed(Pass),
    /// Refused; nothing was written.
    Refused(Refusal),
}

/// What an attempt that may try the password has cost so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// The charge, if it was charged: an exempt source is not, nor is a password that was wrong
    /// already.
    pub ticket: Option<Ticket>,
    /// The rule or grant of which a success takes one use.
    pub spends: Option<RuleId>,
    /// Whether nothing is learnt from a success either.
    pub exempt: bool,
}

/// What one look under the lock has led to.
enum Charged {
    Passed(Pass),
    Wait(Refusal),
    Deny(Refusal),
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

    /// What would become of an attempt now by the settings alone, as if nothing were stored.
    pub fn look_at_settings(&self, login: &Login) -> Judgement {
        let now = self.clock.now();
        let ruled = rules::decide(login, self.rules, &[], now);
        decide::judge(login, &ruled, &Records::default(), self.settings, now)
    }

    /// What would become of an attempt now, and why. Only reads, unless the clock was set back.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    pub fn look(&self, store: &mut Store, login: &Login) -> Result<Judgement, StoreError> {
        let now = self.clock.now();
        let judgement = self.judge(&store.reader(), login, now)?;
        if !judgement.is_ahead {
            return Ok(judgement);
        }
        // Refused attempts write nothing, so a count from the future would stand for ever.
        // Time is read again, under the lock: on a busy machine the first reading may be seconds
        // old, and what others charged since then is not from the future.
        store.transact(|write| self.judge_mended(write, login, self.clock.now()))
    }

    fn judge(&self, reader: &Reader<'_>, login: &Login, now: i64) -> Result<Judgement, StoreError> {
        let mut ruled = self.ruled(reader, login, now)?;
        let mut problem = None;
        match self.denied_country(login, &ruled) {
            Ok(country) => ruled.country = country,
            Err(error) if self.settings.deny_on_error => return Err(error),
            // That is no reason not to count.
            Err(error) => problem = Some(error.to_string()),
        }
        let records = match decide::by_rule(&ruled) {
            Some(Verdict::Exempt(_)) => Records::default(),
            Some(_) if ruled.grant.is_none() => Records::default(),
            // What a grant lets in is counted.
            _ => reader.records(login, self.settings, now)?,
        };
        let judgement = decide::judge(login, &ruled, &records, self.settings, now);
        Ok(Judgement { problem, ..judgement })
    }

    fn ruled(&self, reader: &Reader<'_>, login: &Login, now: i64) -> Result<Ruled, StoreError> {
        Ok(rules::decide(login, self.rules, &reader.rules(&login.source)?, now))
    }

    /// The country of a login, if that is denied and no prefix rule says otherwise.
    fn denied_country(&self, login: &Login, ruled: &Ruled) -> Result<Option<Country>, StoreError> {
        let (allow, deny) = (&self.settings.country_allow, &self.settings.country_deny);
        if ruled.by.is_some() || (allow.is_empty() && deny.is_empty()) {
            return Ok(None);
        }
        let country = country_of(&self.settings.country_database, &login.source)?;
        Ok(country.filter(|&country| is_denied(country, allow, deny)))
    }

    fn judge_mended(
        &self,
        write: &Write<'_>,
        login: &Login,
        now: i64,
    ) -> Result<Judgement, StoreError> {
        let judgement = self.judge(&write.reader(), login, now)?;
        if !judgement.is_ahead {
            return Ok(judgement);
        }
        write.mend_clock(now)?;
        self.judge(&write.reader(), login, now)
    }

    /// Tests and charges one attempt, waiting up to `settle` for attempts that are still open. A
    /// password that was wrong already is let through without a charge, if there is room for it.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn admit(
        &self,
        store: &mut Store,
        login: &Login,
        guess: Option<Guess<'_>>,
    ) -> Result<Admission, StoreError> {
        // On a busy machine more time passes than is slept; a test's clock passes by sleeping only.
        let started = Instant::now();
        let (mut slept, mut pause) = (0, FIRST_PAUSE);
        let mut over = None;
        loop {
            let refusal = match (self.charge(store, login, guess), over) {
                (Ok(Charged::Passed(pass)), _) => return Ok(Admission::Passed(pass)),
                (Ok(Charged::Deny(refusal)), _) => return Ok(Admission::Refused(refusal)),
                (Ok(Charged::Wait(refusal)), _) => refusal,
                // Who was over quota a moment ago is not let in because many others wait too.
                (Err(StoreError::Busy(_)), Some(refusal)) => {
                    return Ok(Admission::Refused(refusal));
                }
                (Err(error), _) => return Err(error),
            };
            over = Some(refusal);
            // Waiters only read, so that they never keep out the one they wait for.
            loop {
                let passed = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                if passed.max(slept) >= self.settings.settle {
                    return Ok(Admission::Refused(refusal));
                }
                self.clock.sleep(Duration::from_millis(pause.unsigned_abs()));
                slept += pause;
                pause = (2 * pause).min(LONGEST_PAUSE);
                match self.look(store, login)?.verdict {
                    Verdict::Wait(_) => {}
                    Verdict::Deny(refusal) => return Ok(Admission::Refused(refusal)),
                    Verdict::Exempt(_) | Verdict::Admit(..) => break,
                }
            }
        }
    }

    /// Counts one attempt that is known to have failed, if there is room for it.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn record(&self, store: &mut Store, login: &Login) -> Result<Admission, StoreError> {
        let admission = self.admit(store, login, None)?;
        if let Admission::Passed(Pass { ticket: Some(ticket), .. }) = &admission {
            store.transact(|write| write.settle(ticket, self.settings))?;
        }
        Ok(admission)
    }

    /// After a right password or a key: takes back exactly the charge of `pass`, takes one use of
    /// the rule that let it in, and learns the place. A success for which no use was left is
    /// refused.
    ///
    /// # Errors
    ///
    /// The store cannot be used; the charge stands, and nothing was learnt.
    pub fn succeed(
        &self,
        store: &mut Store,
        login: &Login,
        pass: &Pass,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if pass.ticket.is_none() && pass.spends.is_none() {
            return if pass.exempt { Ok(Ok(())) } else { self.learn(store, login).map(Ok) };
        }
        store.transact(|write| {
            if let Some(ticket) = &pass.ticket {
                write.refund(ticket, self.settings)?;
            }
            match &pass.spends {
                Some(rule) if !write.take_use(rule)? => {
                    return Ok(Err(Refusal::UsedUp(rule.prefix)));
                }
                _ => {}
            }
            if !pass.exempt {
                write.learn(login, self.clock.now(), self.settings)?;
            }
            Ok(Ok(()))
        })
    }

    /// Learns the place of a login that has nothing else to settle. It is not kept waiting: what is
    /// not learnt now is learnt the next time.
    fn learn(&self, store: &mut Store, login: &Login) -> Result<(), StoreError> {
        let now = self.clock.now();
        let places = login.places().map_or(0, |places| places.len());
        let known = store.reader().known(login)?;
        let is_fresh = |known: &Known| (0..FRESH).contains(&now.saturating_sub(known.seen));
        if known.iter().filter(|known| is_fresh(known)).count() == places {
            return Ok(());
        }
        match store.begin_briefly() {
            Ok(write) => {
                write.learn(login, now, self.settings)?;
                write.commit()
            }
            Err(StoreError::Busy(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a rule exempts `login`.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    pub fn is_exempt(&self, store: &Store, login: &Login) -> Result<bool, StoreError> {
        let ruled = self.ruled(&store.reader(), login, self.clock.now())?;
        Ok(matches!(decide::by_rule(&ruled), Some(Verdict::Exempt(_))))
    }

    /// Charges an attempt once more whose refund turns out to have been wrong. It was admitted
    /// once, so it is not tested again.
    ///
    /// # Errors
    ///
    /// The store cannot be used; nothing was charged.
    pub fn take_back(
        &self,
        store: &mut Store,
        login: &Login,
        ticket: &Ticket,
    ) -> Result<(), StoreError> {
        store.transact(|write| write.charge_again(ticket, login, self.clock.now(), self.settings))
    }

    /// Test and charge in one transaction.
    fn charge(
        &self,
        store: &mut Store,
        login: &Login,
        guess: Option<Guess<'_>>,
    ) -> Result<Charged, StoreError> {
        // Committed whatever comes of it: the clock may have been mended.
        store.transact(|write| {
            // Read under the lock: charges are stored in the order of their times.
            let now = self.clock.now();
            let judgement = self.judge_mended(write, login, now)?;
            Ok(match judgement.verdict.clone() {
                Verdict::Wait(refusal) => Charged::Wait(refusal),
                Verdict::Deny(refusal) => Charged::Deny(refusal),
                Verdict::Exempt(spends) => {
                    Charged::Passed(Pass { ticket: None, spends, exempt: true })
                }
                Verdict::Admit(lane, spends) => {
                    let by_grant = spends.as_ref().is_some_and(|rule| rule.kind == Kind::Grant);
                    let may_repeat = !by_grant && self.settings.repeat.holds(lane);
                    let trace = self.trace(write, login, guess)?;
                    let is_repeat =
                        trace.as_ref().zip(guess).is_some_and(|((mark, remembered), guess)| {
                            remembered.has(mark.tag, guess.began, now, self.settings.repeat_for)
                        });
                    let ticket = if may_repeat && is_repeat {
                        None
                    } else {
                        let lane = (lane, spends.as_ref());
                        Some(write.charge(login, &judgement, lane, trace, now, self.settings)?)
                    };
                    Charged::Passed(Pass { ticket, spends, exempt: false })
                }
            })
        })
    }

    /// How the password of a guess is remembered, if such are, and what is beside it.
    fn trace(
        &self,
        write: &Write<'_>,
        login: &Login,
        guess: Option<Guess<'_>>,
    ) -> Result<Option<(Mark, Remembered)>, StoreError> {
        let Some(guess) = guess.filter(|_| self.settings.repeat != Repeat::No) else {
            return Ok(None);
        };
        let secret = write.secret()?;
        let mark = secret.and_then(|secret| Mark::of(&secret, login, guess.password));
        mark.map(|mark| Ok((mark, write.remembered(mark.slot)?))).transpose()
    }
}
