//! Who tries to log in, from where; and the places that a user is known to come from.

use std::fmt;

use ipnet::IpNet;

use crate::count::{Count, is_ahead};
use crate::source::{Family, Source};

/// Longer names are nobody's: they are judged, but never kept. In bytes.
const LONGEST_NAME: usize = 256;

/// One attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where it comes from.
    pub source: Source,
    /// The name that was given, as bytes: no encoding is promised. Empty if none was.
    pub user: Vec<u8>,
}

impl Login {
    /// An attempt by nobody in particular.
    pub fn of_stranger(source: Source) -> Login {
        Login { source, user: Vec::new() }
    }

    /// The places that this login would teach: none for a client without an address, or a user
    /// without a name that could be kept.
    pub fn places(&self) -> Option<[Place; 2]> {
        self.source.address()?;
        let has_name = !self.user.is_empty() && self.user.len() <= LONGEST_NAME;
        has_name.then(|| Tier::ALL.map(|tier| self.place(tier)))
    }

    /// The place of one tier around the source.
    fn place(&self, tier: Tier) -> Place {
        Place { tier, prefix: self.source.prefix(tier.length(self.source.family())) }
    }
}

/// How closely a place is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A home or an office: its /64, or IPv4 /24.
    Near,
    /// A provider: its /32, or IPv4 /16. A mobile phone has another /64 each time.
    Wide,
}

impl Tier {
    /// The nearer first.
    pub const ALL: [Tier; 2] = [Tier::Near, Tier::Wide];

    /// The prefix length of places of this tier.
    pub const fn length(self, family: Family) -> u8 {
        match (self, family) {
            (Tier::Near, Family::V6) => 64,
            (Tier::Wide, Family::V6) => 32,
            (Tier::Near, Family::V4) => 24,
            (Tier::Wide, Family::V4) => 16,
        }
    }
}

/// A prefix from which a user has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How closely it is known.
    pub tier: Tier,
    /// The prefix.
    pub prefix: IpNet,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

/// A place that one user is known to come from, as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The place.
    pub place: Place,
    /// When the user last logged in from there, Unix milliseconds.
    pub seen: i64,
    /// The user's failures there.
    pub count: Count,
}

impl Known {
    /// Whether it claims to be from the future ([`is_ahead`]): without mending it would be known
    /// until long after.
    pub fn is_ahead(&self, now: i64) -> bool {
        is_ahead(self.seen, now) || self.count.is_ahead(now)
    }
}
