//! Where everybody lives: networks in the prefixes for documentation (RFC 9637, RFC 5737).

use std::net::{IpAddr, Ipv6Addr};

use super::random::Random;

/// A prefix, as the first key in it and its length in bits of the key (IPv4 as ::ffff:a.b.c.d).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: u128,
    bits: u32,
}

const fn v6(high: u64, bits: u32) -> Network {
    Network { first: (high as u128) << 64, bits }
}

/// The provider of most homes; the other networks of the neighbourhood lie inside.
pub const HOME_ISP: Network = v6(0x3fff_0100_0000_0000, 32);
/// A site in it with a data centre, an office and some homes.
pub const SITE: Network = v6(0x3fff_0100_c000_0000, 48);
/// Half data centre, half office.
pub const BUILDING: Network = v6(0x3fff_0100_c000_c000, 56);
/// Machines that share a /64.
pub const HOSTING: Network = v6(0x3fff_0100_c000_c000, 64);
/// People who share a /64.
pub const OFFICE: Network = v6(0x3fff_0100_c000_c080, 64);
/// All that one holder of a /29 has.
pub const HOLDER: Network = v6(0x3fff_0100_0000_0000, 29);
/// A provider of mobile phones.
pub const MOBILE_ISP: Network = v6(0x3fff_0200_0000_0000, 32);
/// Another provider of homes.
pub const OTHER_ISP: Network = v6(0x3fff_0300_0000_0000, 32);
/// All of IPv6 here.
pub const EVERYWHERE: Network = v6(0x3fff_0000_0000_0000, 20);

/// One of the addresses behind which a carrier's customers share IPv4.
pub const fn carrier(number: u8) -> Network {
    Network { first: 0xffff_c000_0200 + number as u128, bits: 128 }
}

impl Network {
    /// Part `number` of it, of `bits` bits in all.
    pub fn numbered(self, number: u128, bits: u32) -> Network {
        let more = bits.saturating_sub(self.bits);
        let number = number & 1_u128.checked_shl(more).map_or(u128::MAX, |parts| parts - 1);
        Network { first: self.first | number.checked_shl(128 - bits).unwrap_or(0), bits }
    }

    /// The same, with the bits of the number reversed: no half fills before the other.
    pub fn spread(self, number: u128, bits: u32) -> Network {
        let more = bits.saturating_sub(self.bits);
        self.numbered(number.reverse_bits().checked_shr(128 - more).unwrap_or(0), bits)
    }

    /// A random part of it, of `bits` bits in all.
    pub fn part_of(self, bits: u32, random: &mut Random) -> Network {
        self.numbered(random.bits(), bits)
    }

    /// A random address in it.
    pub fn random_address(self, random: &mut Random) -> IpAddr {
        self.part_of(128, random).address()
    }

    /// The first address of it.
    pub fn address(self) -> IpAddr {
        Ipv6Addr::from_bits(self.first).to_canonical()
    }

    /// Whether an address lies inside.
    pub fn contains(self, key: Ipv6Addr) -> bool {
        (self.first ^ key.to_bits()).leading_zeros() >= self.bits
    }
}
