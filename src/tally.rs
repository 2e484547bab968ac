//! The counts of every prefix that covers one source.

use std::net::Ipv6Addr;

use crate::count::{Count, Failures, Pace};
use crate::source::Source;

/// What a prefix holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Failures, decayed to now.
    pub count: f64,
    /// The same with the slow half-life.
    pub slow: f64,
    /// How many of them may still be refunded.
    pub young: f64,
}

impl Sum {
    fn plus(self, other: Sum) -> Sum {
        Sum {
            count: self.count + other.count,
            slow: self.slow + other.slow,
            young: self.young + other.young,
        }
    }
}

/// The counts of every prefix that covers one source, at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By length.
    sums: Vec<Sum>,
    own: Option<Count>,
    faded: Vec<Ipv6Addr>,
    ahead: bool,
}

impl Tally {
    /// Counts `rows`, which must hold at least all addresses inside the widest prefix that is
    /// asked for; those that share nothing with the source do no harm.
    pub fn new(source: &Source, rows: &[Failures], now: i64, pace: Pace) -> Tally {
        let mut tally = Tally {
            sums: vec![Sum::default(); usize::from(source.family().bits()) + 1],
            own: None,
            faded: Vec::new(),
            ahead: false,
        };
        for row in rows {
            tally.add(source, row, now, pace);
        }
        // Each row stands at the longest prefix that it shares with the source; all wider ones
        // contain it as well.
        let mut sum = Sum::default();
        for count in tally.sums.iter_mut().rev() {
            sum = sum.plus(*count);
            *count = sum;
        }
        tally
    }

    fn add(&mut self, source: &Source, row: &Failures, now: i64, pace: Pace) {
        let Some(shared) = source.shared_bits(row.key) else {
            return;
        };
        if let Some(sum) = self.sums.get_mut(usize::from(shared)) {
            *sum = sum.plus(Sum {
                count: row.count.left(now, pace),
                slow: row.count.slow_left(now),
                young: row.count.young(now, pace),
            });
        }
        self.ahead |= row.count.is_ahead(now);
        if row.key == source.key() {
            self.own = Some(row.count);
        } else if row.count.is_faded(now, pace) {
            self.faded.push(row.key);
        }
    }

    /// The failures counted against the prefix of `length` bits, decayed to now.
    pub fn count(&self, length: u8) -> f64 {
        self.sum(length).count
    }

    /// All that is known of the prefix of `length` bits.
    pub fn sum(&self, length: u8) -> Sum {
        self.sums.get(usize::from(length)).copied().unwrap_or_default()
    }

    /// The source's own count, as it was read.
    pub fn own(&self) -> Option<&Count> {
        self.own.as_ref()
    }

    /// Rows that may be forgotten.
    pub fn faded(&self) -> &[Ipv6Addr] {
        &self.faded
    }

    /// Whether a row claims to be from the future ([`Count::is_ahead`]).
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }
}
