//! The store's records in memory, for attempts that are only rehearsed: millions of them, behind
//! the same verdict.
//!
//! It does what the store does ([`pam_prefixquota::store`]) with the rules of the settings, for
//! attempts whose end is known at once. So nothing is ever waited for (`settle`), passwords are not
//! told apart (`repeat`), and rules and grants made at run time, countries and `max_rows` are left
//! out. Time never runs backwards: an attempt from before the last one counts as at the same time.

mod counts;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;

use pam_prefixquota::config::Settings;
use pam_prefixquota::count::{Count, Failures, Pace};
use pam_prefixquota::decide::{self, Judgement, Lane, Records, Refusal, Verdict, known_place};
use pam_prefixquota::login::{Known, Login, Place, Tier};
use pam_prefixquota::rules::{self, Rules};
use pam_prefixquota::source::{Family, Source};

use counts::Counts;

/// As the store: how many faded rows of its own prefix one attempt removes at most.
const PRUNE: usize = 16;
/// As the store: how many places of one user are kept.
const PLACES: usize = 64;

/// What became of an attempt.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// May try the password.
    Passed(Ticket),
    /// Refused; nothing was counted.
    Refused(Refusal),
}

/// An attempt that may try the password: by itself a failure, unless [`Book::succeed`] gets it.
#[derive(Debug)]
pub struct Ticket {
    at: i64,
    /// What was charged, and since when each row is there.
    rows: Vec<(Row, i64)>,
    is_exempt: bool,
}

/// A row that has a count, of the source or the user of one login.
#[derive(Clone, Copy, Debug)]
enum Row {
    Failure,
    Familiar,
    Known(Place),
    Elsewhere,
}

/// What is kept of one user.
#[derive(Default)]
struct User {
    places: Vec<Known>,
    elsewhere: Option<Count>,
}

/// Counts of the addresses of both families.
struct Addresses {
    v4: Counts,
    v6: Counts,
}

/// The records, and the settings by which they are judged.
pub struct Book {
    settings: Settings,
    rules: Rules,
    failures: Addresses,
    familiar: Addresses,
    users: HashMap<Vec<u8>, User>,
    now: i64,
}

impl Book {
    /// Nothing counted and nobody known yet.
    pub fn new(settings: &Settings) -> Book {
        let settings = Settings { settle: 0, ..settings.clone() };
        let pace = settings.pace();
        Book {
            rules: settings.rules(),
            settings,
            failures: Addresses::new(pace),
            familiar: Addresses::new(pace),
            users: HashMap::new(),
            now: i64::MIN,
        }
    }

    /// Tests and charges one attempt at `now`, in Unix milliseconds.
    pub fn admit(&mut self, login: &Login, now: i64) -> Outcome {
        let now = self.tick(now);
        let judgement = self.judge(login, now);
        match judgement.verdict {
            Verdict::Exempt(_) => {
                Outcome::Passed(Ticket { at: now, rows: Vec::new(), is_exempt: true })
            }
            Verdict::Admit(lane, _) => {
                let rows = self.charge(login, &judgement, lane, now);
                Outcome::Passed(Ticket { at: now, rows, is_exempt: false })
            }
            Verdict::Deny(refusal) | Verdict::Wait(refusal) => Outcome::Refused(refusal),
        }
    }

    /// After a right password: takes back exactly the charge of `ticket`, and learns the place.
    pub fn succeed(&mut self, login: &Login, ticket: &Ticket, now: i64) {
        let now = self.tick(now);
        for (row, since) in &ticket.rows {
            let Some(count) = self.get(*row, login).filter(|count| count.since == *since) else {
                continue;
            };
            let pace = self.pace(*row);
            let refunded = count.refunded(ticket.at, pace);
            let is_faded = refunded.is_faded(refunded.at, pace);
            match (row, self.addresses(*row)) {
                (_, Some(addresses)) if is_faded => {
                    addresses.of_mut(&login.source).remove(login.source.key(), now);
                }
                _ => self.put(*row, login, refunded, now),
            }
        }
        if !ticket.is_exempt {
            self.learn(login, now);
        }
    }

    /// After a login for which PAM was asked no password, as with a key: only learns the place.
    pub fn succeed_without_password(&mut self, login: &Login, now: i64) {
        let now = self.tick(now);
        let ruled = rules::decide(login, &self.rules, &[], now);
        if !matches!(decide::by_rule(&ruled), Some(Verdict::Exempt(_))) {
            self.learn(login, now);
        }
    }

    fn tick(&mut self, now: i64) -> i64 {
        self.now = self.now.max(now);
        self.now
    }

    fn judge(&self, login: &Login, now: i64) -> Judgement {
        let ruled = rules::decide(login, &self.rules, &[], now);
        let records = match decide::by_rule(&ruled) {
            Some(_) => Records::default(),
            None => self.records(login, now),
        };
        decide::judge(login, &ruled, &records, &self.settings, now)
    }

    fn records(&self, login: &Login, now: i64) -> Records {
        let user = self.users.get(&login.user);
        let known: Vec<Known> = match (login.places(), user) {
            (Some(places), Some(user)) => {
                let is_around = |known: &&Known| places.contains(&known.place);
                user.places.iter().filter(is_around).copied().collect()
            }
            _ => Vec::new(),
        };
        let by_provider = known_place(&known, now, &self.settings)
            .is_some_and(|known| known.place.tier == Tier::Wide);
        let (source, bits) = (&login.source, self.widest(&login.source));
        let around = |addresses: &Addresses| addresses.of(source).around(source.key(), bits);
        let elsewhere = self.settings.elsewhere().and(user);
        Records {
            strangers: around(&self.failures),
            familiar: if by_provider { around(&self.familiar) } else { Vec::new() },
            known,
            elsewhere: elsewhere.map(|user| user.elsewhere.unwrap_or(Count::none(now))),
        }
    }

    /// Adds one failure to the lane that `judgement` has chosen, and removes a few faded rows.
    fn charge(
        &mut self,
        login: &Login,
        judgement: &Judgement,
        lane: Lane,
        now: i64,
    ) -> Vec<(Row, i64)> {
        let known = judgement.known.map(|known| (Row::Known(known.place), Some(known.count)));
        let counts = match lane {
            Lane::Stranger => [
                Some((Row::Failure, judgement.strangers.own().copied())),
                judgement.elsewhere.map(|count| (Row::Elsewhere, Some(count))),
            ],
            Lane::Known(Tier::Near) => [known, None],
            Lane::Known(Tier::Wide) => {
                [known, Some((Row::Familiar, judgement.familiar.own().copied()))]
            }
        };
        self.prune(login, judgement, now);
        let mut rows = Vec::new();
        for (row, count) in counts.into_iter().flatten() {
            let count = count.unwrap_or(Count::none(now)).charged(now, self.pace(row));
            self.put(row, login, count, now);
            rows.push((row, count.since));
        }
        rows
    }

    /// Only what this attempt has read, as the store does.
    fn prune(&mut self, login: &Login, judgement: &Judgement, now: i64) {
        let (key, bits) = (login.source.key(), self.widest(&login.source));
        let by_provider = judgement.known.is_some_and(|known| known.place.tier == Tier::Wide);
        let familiar = by_provider.then_some(&mut self.familiar);
        for addresses in [Some(&mut self.failures), familiar].into_iter().flatten() {
            let counts = addresses.of_mut(&login.source);
            for faded in counts.faded(key, bits, now, PRUNE) {
                counts.remove(faded, now);
            }
        }
    }

    /// How many bits of the key the widest prefix has that counts for `source`.
    fn widest(&self, source: &Source) -> u32 {
        let family = source.family();
        let length = *self.settings.curve(family).lengths(source).start();
        u32::from(128 - family.bits()) + u32::from(length)
    }

    fn pace(&self, row: Row) -> Pace {
        match row {
            Row::Failure | Row::Familiar => self.settings.pace(),
            Row::Known(_) => self.settings.known_pace(),
            Row::Elsewhere => self.settings.elsewhere_pace(),
        }
    }

    fn addresses(&mut self, row: Row) -> Option<&mut Addresses> {
        match row {
            Row::Failure => Some(&mut self.failures),
            Row::Familiar => Some(&mut self.familiar),
            Row::Known(_) | Row::Elsewhere => None,
        }
    }

    fn get(&self, row: Row, login: &Login) -> Option<Count> {
        let (source, user) = (&login.source, self.users.get(&login.user));
        match row {
            Row::Failure => self.failures.of(source).get(source.key()),
            Row::Familiar => self.familiar.of(source).get(source.key()),
            Row::Known(place) => {
                user?.places.iter().find(|known| known.place == place).map(|known| known.count)
            }
            Row::Elsewhere => user?.elsewhere,
        }
    }

    fn put(&mut self, row: Row, login: &Login, count: Count, now: i64) {
        if let Some(addresses) = self.addresses(row) {
            let key = login.source.key();
            addresses.of_mut(&login.source).set(Failures { key, count }, now);
            return;
        }
        // Only a success makes a user.
        let Some(user) = self.users.get_mut(&login.user) else { return };
        match row {
            Row::Known(place) => {
                let known = user.places.iter_mut().find(|known| known.place == place);
                known.into_iter().for_each(|known| known.count = count);
            }
            _ => user.elsewhere = Some(count),
        }
    }

    /// Learns from where a user has logged in; the oldest of too many places is forgotten.
    fn learn(&mut self, login: &Login, now: i64) {
        let Some(places) = login.places() else { return };
        let pace = self.settings.known_pace();
        let user = self.users.entry(login.user.clone()).or_default();
        for place in places {
            match user.places.iter_mut().find(|known| known.place == place) {
                Some(known) => known.seen = now,
                None => {
                    let is_alike = |known: &&Known| known.place.tier == place.tier;
                    let alike = user.places.iter().filter(is_alike).map(|known| known.count);
                    let count = Count::fullest(alike, now, pace);
                    user.places.push(Known { place, seen: now, count });
                }
            }
        }
        user.places.retain(|known| self.settings.remembers(known.seen, now));
        if user.places.len() > PLACES {
            user.places.sort_by_cached_key(|known| (Reverse(known.seen), known.place.to_string()));
            user.places.truncate(PLACES);
        }
    }
}

impl Addresses {
    fn new(pace: Pace) -> Addresses {
        Addresses { v4: Counts::new(pace), v6: Counts::new(pace) }
    }

    fn of(&self, source: &Source) -> &Counts {
        match source.family() {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, source: &Source) -> &mut Counts {
        match source.family() {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
