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

/// The failures of one address, as the store keeps them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failures {
    /// The address.
    pub key: Ipv6Addr,
    /// Decayed count as of `at`.
    pub level: f64,
    /// When the last attempt was charged, Unix milliseconds.
    pub at: i64,
    /// How many charges of the last burst are open: made without a gap of `settle` between them,
    /// and not refunded.
    pub open: u32,
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
        let left = decay::remaining(row.level, row.at, now, pace.half_life);
        if let Some((count, young)) = self.counts.get_mut(usize::from(shared)) {
            *count += left;
            if is_young(row.at, now, pace) {
                *young += f64::from(row.open).min(left);
            }
        }
        self.ahead |= row.at > now.saturating_add(CLOCK_SLACK);
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

/// Whether charges made at `at` may still be refunded at `now`.
pub fn is_young(at: i64, now: i64, pace: Pace) -> bool {
    now.saturating_sub(at).max(0) < pace.settle
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
