//! The verdict: the only place where it is decided who may try a password.

use std::net::Ipv6Addr;

use ipnet::IpNet;

use crate::decay::{self, FADED};
use crate::quota::Curve;
use crate::rules::{Action, Rules};
use crate::source::Source;

/// How far a stored time may lie ahead of the clock before the clock is taken to have been set
/// back, in milliseconds. Below, it is another process that read the clock a moment later.
pub const CLOCK_SLACK: i64 = 1_000;

/// Before this time (2025-01-01) the clock has not been set yet: a board without a battery starts
/// in 1970, and its counts must not be taken to be from the future.
const CLOCK_IS_SET: i64 = 1_735_689_600_000;

/// The failures of one address, as the store keeps them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failures {
    /// The address.
    pub key: Ipv6Addr,
    /// Decayed count as of `at`.
    pub level: f64,
    /// When the last attempt was charged, Unix milliseconds.
    pub at: i64,
    /// When the first was: a charge is only taken back from the row that it was added to.
    pub since: i64,
    /// Charges that may still be refunded.
    pub open: Open,
}

impl Failures {
    /// What is left of them at `now`.
    pub fn left(&self, now: i64, half_life: i64) -> f64 {
        decay::remaining(self.level, self.at, now, half_life)
    }
}

/// Charges that were made a moment ago and not refunded, in intervals of `settle`: each counts for
/// one to two intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When the current interval began, Unix milliseconds.
    pub since: i64,
    /// Charges of the current interval.
    pub current: u32,
    /// Charges of the interval before.
    pub before: u32,
}

impl Open {
    /// The first charge of a row.
    pub fn first(now: i64) -> Open {
        Open { since: now, current: 1, before: 0 }
    }

    /// How many charges are still open at `now`.
    pub fn count(self, now: i64, settle: i64) -> u32 {
        let moved = self.moved_on(now, settle);
        moved.current.saturating_add(moved.before)
    }

    /// With one charge more.
    pub fn charged(self, now: i64, settle: i64) -> Open {
        let moved = self.moved_on(now, settle);
        Open { current: moved.current.saturating_add(1), ..moved }
    }

    /// Without the charge that was made `at`, which is open no longer.
    pub fn closed(self, at: i64, settle: i64) -> Open {
        if at >= self.since {
            Open { current: self.current.saturating_sub(1), ..self }
        } else if at >= self.since.saturating_sub(settle) {
            Open { before: self.before.saturating_sub(1), ..self }
        } else {
            self
        }
    }

    /// The same in the interval of `now`.
    fn moved_on(self, now: i64, settle: i64) -> Open {
        match now.saturating_sub(self.since).max(0) {
            age if age < settle => self,
            age if age < settle.saturating_mul(2) => {
                Open { since: self.since.saturating_add(settle), current: 0, before: self.current }
            }
            _ => Open { since: now, current: 0, before: 0 },
        }
    }
}

/// What time means for a count, from the settings. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After this time half of a count is left.
    pub half_life: i64,
    /// How long an attempt may still turn out to be a right password.
    pub settle: i64,
}

/// The counts of every prefix that covers one source, at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By length: failures in the prefix, and how many of those may still be refunded.
    counts: Vec<(f64, f64)>,
    own: Option<Failures>,
    faded: Vec<Ipv6Addr>,
    ahead: bool,
}

impl Tally {
    /// Counts `rows`, which must hold at least all addresses inside the widest prefix that is
    /// asked for; those that share nothing with the source do no harm.
    pub fn new(source: &Source, rows: &[Failures], now: i64, pace: Pace) -> Tally {
        let mut tally = Tally {
            counts: vec![(0.0, 0.0); usize::from(source.family().bits()) + 1],
            own: None,
            faded: Vec::new(),
            ahead: false,
        };
        for row in rows {
            tally.add(source, row, now, pace);
        }
        // Each row stands at the longest prefix that it shares with the source; all wider ones
        // contain it as well.
        let mut sum = (0.0, 0.0);
        for count in tally.counts.iter_mut().rev() {
            sum = (sum.0 + count.0, sum.1 + count.1);
            *count = sum;
        }
        tally
    }

    fn add(&mut self, source: &Source, row: &Failures, now: i64, pace: Pace) {
        let Some(shared) = source.shared_bits(row.key) else {
            return;
        };
        let left = row.left(now, pace.half_life);
        if let Some((count, young)) = self.counts.get_mut(usize::from(shared)) {
            *count += left;
            *young += f64::from(row.open.count(now, pace.settle)).min(left);
        }
        self.ahead |= now >= CLOCK_IS_SET && row.at > now.saturating_add(CLOCK_SLACK);
        if row.key == source.key() {
            self.own = Some(*row);
        } else if left < FADED {
            self.faded.push(row.key);
        }
    }

    /// The failures counted against the prefix of `length` bits, decayed to now.
    pub fn count(&self, length: u8) -> f64 {
        self.at(length).0
    }

    /// How many of them may still be refunded.
    fn young(&self, length: u8) -> f64 {
        self.at(length).1
    }

    fn at(&self, length: u8) -> (f64, f64) {
        self.counts.get(usize::from(length)).copied().unwrap_or_default()
    }

    /// The source's own row, as it was read.
    pub fn own(&self) -> Option<&Failures> {
        self.own.as_ref()
    }

    /// Rows that may be forgotten.
    pub fn faded(&self) -> &[Ipv6Addr] {
        &self.faded
    }

    /// Whether a row claims to be from the future: the clock was set back, and without mending
    /// that row's count would not decay until the clock catches up.
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }
}

/// A covering prefix with its count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The prefix.
    pub prefix: IpNet,
    /// Its failures, decayed to now.
    pub count: f64,
    /// How many it may have.
    pub quota: u32,
    /// Milliseconds until the next attempt has room in it; 0 if there is room.
    pub wait: i64,
}

/// Why an attempt is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// A deny rule covers the source.
    Rule(IpNet),
    /// A covering prefix is full; of several, the one that takes longest to have room.
    Full(Standing),
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub enum Verdict {
    /// An exempt rule covers the source: neither counted nor denied.
    Exempt,
    /// May go on, and is charged.
    Admit,
    /// Full only because of attempts that may still turn out right: wait for them.
    Wait(Standing),
    /// Refused.
    Deny(Refusal),
}

/// What the rules say before anything is counted: a verdict, or `None` if the counts decide.
pub fn by_rule(source: &Source, rules: &Rules) -> Option<Verdict> {
    match rules.matching(source)? {
        (_, Action::Exempt) => Some(Verdict::Exempt),
        (prefix, Action::Deny) => Some(Verdict::Deny(Refusal::Rule(prefix))),
        (_, Action::Count) => None,
    }
}

/// What the counts say: admitted when every covering prefix has room for one attempt more.
pub fn by_count(source: &Source, tally: &Tally, curve: &Curve, pace: Pace) -> Verdict {
    let full = standings(source, tally, curve, pace)
        .filter(|standing| standing.wait > 0)
        .max_by_key(|standing| standing.wait);
    let Some(full) = full else {
        return Verdict::Admit;
    };
    let may_settle = curve.lengths(source).all(|length| {
        decay::has_room(tally.count(length) - tally.young(length), curve.quota(length))
    });
    if may_settle { Verdict::Wait(full) } else { Verdict::Deny(Refusal::Full(full)) }
}

/// Every covering prefix with its count, widest first.
pub fn standings<'a>(
    source: &'a Source,
    tally: &'a Tally,
    curve: &'a Curve,
    pace: Pace,
) -> impl Iterator<Item = Standing> + 'a {
    curve.lengths(source).map(move |length| {
        let (count, quota) = (tally.count(length), curve.quota(length));
        let wait = decay::wait(count, quota, pace.half_life);
        Standing { prefix: source.prefix(length), count, quota, wait }
    })
}
