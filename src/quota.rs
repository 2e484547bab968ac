//! The curve: how many failures a prefix of each length may have.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::source::{Family, Source};

/// The quota of every prefix length of one family.
///
/// From the full address up to `linear_to` each bit adds one try; beyond, the increments are
/// `2 * growth`, `3 * growth`, `4 * growth` ... The IPv6 figures are those of kasperd, Hurricane
/// Electric tunnel broker forum, 2014-03-29; IPv4 uses twice his increments from its first bit on,
/// since one address may be a household or a carrier's NAT, and IPv4 is densely used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Curve {
    /// The family that the curve is for.
    pub family: Family,
    /// Quota of a single address, at least 2: with 1 a count that only decays would never let the
    /// next try in.
    pub base: u32,
    /// The length down to which each bit adds one.
    pub linear_to: u8,
    /// Half of the first increment beyond `linear_to`.
    pub growth: u32,
    /// The widest (shortest) length that is counted at all.
    pub widest: u8,
}

impl Curve {
    /// The quota of a prefix of `length` bits: how many failures it may have in all before the
    /// next attempt is refused. Defined for every length of the family, also beyond `widest`.
    pub fn quota(&self, length: u8) -> u32 {
        let bits = self.family.bits();
        let length = length.min(bits);
        let linear = u32::from(bits.saturating_sub(length.max(self.linear_to)));
        let steep = u32::from(self.linear_to.saturating_sub(length));
        // 2 + 3 + ... + (steep + 1)
        let steps = (steep + 1) * (steep + 2) / 2 - 1;
        self.base.saturating_add(linear).saturating_add(self.growth.saturating_mul(steps))
    }

    /// The lengths that count for `source`, widest first.
    pub fn lengths(&self, source: &Source) -> RangeInclusive<u8> {
        let own = source.lengths();
        (*own.start()).max(self.widest).min(*own.end())..=*own.end()
    }
}

/// A prefix that many share, which has `times` the quota at every length inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiple {
    /// The prefix.
    pub prefix: IpNet,
    /// How many times.
    pub times: u32,
}

/// The quota of every prefix of one family: the curve, and what the shared prefixes change in it.
#[derive(Clone, Copy, Debug)]
pub struct Quotas<'a> {
    /// The curve.
    pub curve: &'a Curve,
    /// The shared prefixes; of those of the other family no notice is taken.
    pub multiples: &'a [Multiple],
}

impl Quotas<'_> {
    /// The quota of one prefix. Inside a shared prefix it is that of the curve, times its number;
    /// the longest shared prefix decides. A prefix around a shared one gets what that has more:
    /// else ten times the quota of one address would be stopped by the /31 around it, and a full
    /// shared prefix would shut its neighbours out.
    pub fn of(&self, prefix: IpNet) -> u32 {
        let own = self.inside(&prefix, prefix.prefix_len());
        let inside = self.multiples.iter().filter(|shared| {
            shared.prefix.prefix_len() > prefix.prefix_len() && prefix.contains(&shared.prefix)
        });
        inside.fold(own, |quota, shared| quota.saturating_add(self.more(shared)))
    }

    /// The quota of a prefix of `length` bits inside `prefix`, where no other shared prefix is near.
    pub fn inside(&self, prefix: &IpNet, length: u8) -> u32 {
        self.curve.quota(length).saturating_mul(self.times(prefix))
    }

    /// How many times the quota of the curve a prefix has.
    fn times(&self, prefix: &IpNet) -> u32 {
        let around = self.multiples.iter().filter(|shared| shared.prefix.contains(prefix));
        around.max_by_key(|shared| shared.prefix.prefix_len()).map_or(1, |shared| shared.times)
    }

    /// What a shared prefix has more than it would without its own line.
    fn more(&self, shared: &Multiple) -> u32 {
        let wider = shared.prefix.supernet().map_or(1, |around| self.times(&around));
        let quota = self.curve.quota(shared.prefix.prefix_len());
        quota.saturating_mul(shared.times.saturating_sub(wider))
    }
}
