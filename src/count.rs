//! One decaying count, as it is stored, and what time does to it.

use std::net::Ipv6Addr;

use crate::decay::{self, FADED};

/// How far a stored time may lie ahead of the clock before the clock is taken to have been set
/// back, in milliseconds. Below, it is another process that read the clock a moment later.
pub const CLOCK_SLACK: i64 = 1_000;

/// Before this time (2025-01-01) the clock has not been set yet: a board without a battery starts
/// in 1970, and its counts must not be taken to be from the future.
const CLOCK_IS_SET: i64 = 1_735_689_600_000;

/// Whether the clock shows a time that can be.
pub fn is_set(now: i64) -> bool {
    now >= CLOCK_IS_SET
}

/// Whether what was stored `at` claims to be from the future: the clock was set back.
pub fn is_ahead(at: i64, now: i64) -> bool {
    is_set(now) && at > now.saturating_add(CLOCK_SLACK)
}

/// What time means for a count, from the settings. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After this time half of a count is left.
    pub half_life: i64,
    /// Whether the second, slow count is looked at as well: `strict = yes`.
    pub strict: bool,
    /// How long an attempt may still turn out to be a right password.
    pub settle: i64,
}

/// With `strict = yes` a prefix may have this many times its quota in the slow count. Source: the
/// pair of 30 minutes and 24 hours lets a /32 guess as little as one half-life of 6 hours does
/// (1735 a day), and an honest mistake is forgotten in half an hour.
pub const SLOW_TIMES: u32 = 4;

/// The half-life of the slow count, in milliseconds. It is kept without `strict` too, so that a
/// service without it does not wipe the counts of one that has it while they are young. (A row goes
/// when its fast count has faded there: the other way every row would stay for six days.)
pub const SLOW_HALF_LIFE: i64 = 24 * 60 * 60 * 1_000;

/// A slow count below this is forgotten. Higher than [`FADED`], because it lasts so long: single
/// failures go after six days, and a prefix can be guessed at 2 % faster at most.
pub const SLOW_FADED: f64 = 1.0 / 64.0;

/// Failures of one address, one known place or one user's strangers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Decayed count as of `at`.
    pub level: f64,
    /// The same with the slow half-life.
    pub slow: f64,
    /// When the last attempt was charged, Unix milliseconds.
    pub at: i64,
    /// When the first was: a charge is only taken back from the row that it was added to.
    pub since: i64,
    /// Charges that may still be refunded.
    pub open: Open,
}

impl Count {
    /// Nothing counted yet.
    pub fn none(now: i64) -> Count {
        let open = Open { since: now, current: 0, before: 0 };
        Count { level: 0.0, slow: 0.0, at: now, since: now, open }
    }

    /// The fullest of `counts` at `now`, as one that begins then with nothing open: with less, the
    /// holder of a key would get new tries at the password from one new place after another.
    pub fn fullest(counts: impl IntoIterator<Item = Count>, now: i64, pace: Pace) -> Count {
        let left = |count: &Count| count.left(now, pace);
        let fullest = counts.into_iter().max_by(|a, b| left(a).total_cmp(&left(b)));
        let none = Count::none(now);
        fullest.map_or(none, |Count { level, at, .. }| Count { level, at, ..none })
    }

    /// What is left of it at `now`.
    pub fn left(&self, now: i64, pace: Pace) -> f64 {
        decay::remaining(self.level, self.at, now, pace.half_life)
    }

    /// What is left of the slow count at `now`.
    pub fn slow_left(&self, now: i64) -> f64 {
        decay::remaining(self.slow, self.at, now, SLOW_HALF_LIFE)
    }

    /// How much of it may still be refunded.
    pub fn young(&self, now: i64, pace: Pace) -> f64 {
        f64::from(self.open.count(now, pace.settle)).min(self.left(now, pace))
    }

    /// Whether it may be forgotten.
    pub fn is_faded(&self, now: i64, pace: Pace) -> bool {
        self.left(now, pace) < FADED && (!pace.strict || self.slow_left(now) < SLOW_FADED)
    }

    /// Whether it claims to be from the future ([`is_ahead`]): without mending it would not decay
    /// until the clock catches up.
    pub fn is_ahead(&self, now: i64) -> bool {
        is_ahead(self.at, now)
    }

    /// With one charge more.
    pub fn charged(&self, now: i64, pace: Pace) -> Count {
        Count {
            level: self.left(now, pace) + 1.0,
            slow: self.slow_left(now) + 1.0,
            at: now,
            since: self.since,
            open: self.open.charged(now, pace.settle),
        }
    }

    /// Without the charge that was made `at`.
    pub fn refunded(&self, at: i64, pace: Pace) -> Count {
        let part = |half_life| decay::remaining(1.0, at, self.at, half_life);
        Count {
            level: (self.level - part(pace.half_life)).max(0.0),
            slow: (self.slow - part(SLOW_HALF_LIFE)).max(0.0),
            ..self.settled(at, pace)
        }
    }

    /// With the charge that was made `at` as a final one.
    pub fn settled(&self, at: i64, pace: Pace) -> Count {
        Count { open: self.open.closed(at, pace.settle), ..*self }
    }
}

/// The failures of one address, as the store keeps them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failures {
    /// The address.
    pub key: Ipv6Addr,
    /// How many.
    pub count: Count,
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
    /// How many charges are still open at `now`.
    pub fn count(self, now: i64, settle: i64) -> u32 {
        let moved = self.moved_on(now, settle);
        moved.current.saturating_add(moved.before)
    }

    /// With one charge more.
    fn charged(self, now: i64, settle: i64) -> Open {
        let moved = self.moved_on(now, settle);
        Open { current: moved.current.saturating_add(1), ..moved }
    }

    /// Without the charge that was made `at`, which is open no longer.
    fn closed(self, at: i64, settle: i64) -> Open {
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
