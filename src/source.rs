//! Where an attempt came from: the canonical source behind `PAM_RHOST`, and the prefixes that
//! cover it.
//!
//! One host must have one key, whatever form its address arrives in: otherwise each form is a
//! fresh quota. The forms that carry an IPv4 address are folded into it, and a name is never
//! resolved, because its owner decides what it resolves to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv6Net};

/// The two address families, counted with a curve each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4; prefix lengths 0 to 32.
    V4,
    /// IPv6; prefix lengths 0 to 128.
    V6,
}

impl Family {
    /// Both, in the order in which they are shown.
    pub const ALL: [Family; 2] = [Family::V6, Family::V4];

    /// The length of an address, in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The number that people know the family by: 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    /// The family whose addresses are stored under `key`.
    pub fn of_key(key: Ipv6Addr) -> Family {
        if key.to_ipv4_mapped().is_some() { Family::V4 } else { Family::V6 }
    }

    /// How many bits of a 16-byte key stand before an address of this family.
    const fn key_offset(self) -> u8 {
        128 - self.bits()
    }
}

/// What a login counts as: one address, or the bucket that one service has for clients without
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    key: Ipv6Addr,
    lengths: (u8, u8),
    service: Option<String>,
}

impl Source {
    /// The source that `address` counts as, with the forms of [`canonical`] folded.
    pub fn of(address: IpAddr, nat64: &[Ipv6Net]) -> Source {
        match canonical(address, nat64) {
            IpAddr::V4(v4) => Source {
                key: v4.to_ipv6_mapped(),
                lengths: (if is_site_local(v4) { 24 } else { 0 }, 32),
                service: None,
            },
            IpAddr::V6(v6) => Source { key: v6, lengths: (widest_scope(v6), 128), service: None },
        }
    }

    /// The one bucket for all clients of `service` that have a name but no address. It is a /64 of
    /// its own, and has the quota of one, in the part of 100::/8 that is reserved and never routed.
    pub fn nameless(service: &str) -> Source {
        let bucket = u128::from(fnv1a(service.as_bytes()) >> 16) << 64;
        Source {
            key: Ipv6Addr::from_bits((0x0100 << 112) | bucket),
            lengths: (64, 64),
            service: Some(service.to_owned()),
        }
    }

    /// The key of this source in the store: the address in network order, IPv4 as `::ffff:a.b.c.d`.
    pub fn key(&self) -> Ipv6Addr {
        self.key
    }

    /// The family whose curve this source is judged by.
    pub fn family(&self) -> Family {
        Family::of_key(self.key)
    }

    /// The address, or `None` for the bucket of a service.
    pub fn address(&self) -> Option<IpAddr> {
        self.service.is_none().then(|| address_of(self.key))
    }

    /// Whether this is an address of this host, of its link or of a private network: such a one is
    /// in no country.
    pub fn is_local(&self) -> bool {
        match self.address() {
            Some(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_link_local() || is_site_local(v4),
            Some(IpAddr::V6(v6)) => v6.is_loopback() || widest_scope(v6) != 0,
            None => false,
        }
    }

    /// The prefix lengths that mean anything for this source, widest first: a link-local address
    /// says nothing beyond its /64, a private one nothing beyond its site.
    pub fn lengths(&self) -> RangeInclusive<u8> {
        self.lengths.0..=self.lengths.1
    }

    /// The prefix of `length` bits that covers this source.
    pub fn prefix(&self, length: u8) -> IpNet {
        prefix_of(self.key, length)
    }

    /// How many leading bits, counted in this family, the address stored under `key` shares with
    /// this source; `None` for a key of the other family.
    pub fn shared_bits(&self, key: Ipv6Addr) -> Option<u8> {
        let family = self.family();
        if Family::of_key(key) != family {
            return None;
        }
        let shared = (self.key.to_bits() ^ key.to_bits()).leading_zeros();
        u8::try_from(shared).ok()?.checked_sub(family.key_offset())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "unknown:{service}"),
            None => address_of(self.key).fmt(f),
        }
    }
}

/// Finds the source of a login.
///
/// `rhost` is `PAM_RHOST`, `ssh_connection` the variable `SSH_CONNECTION` of the PAM environment
/// (sshd keeps the address there when `UseDNS` put a name into `PAM_RHOST`), `service` is
/// `PAM_SERVICE`. `None` means that there is no remote client: a console, su, a screen lock, or
/// sshd's "UNKNOWN" for a connection that is no IP connection.
pub fn locate(
    rhost: Option<&[u8]>,
    ssh_connection: Option<&[u8]>,
    service: &[u8],
    nat64: &[Ipv6Net],
) -> Option<Source> {
    let rhost = rhost.filter(|host| !host.is_empty() && *host != b"UNKNOWN")?;
    let client = ssh_connection.and_then(|value| value.split(|&b| b == b' ').next());
    let address = parse_host(rhost).or_else(|| client.and_then(parse_host));
    Some(match address {
        Some(address) => Source::of(address, nat64),
        None => Source::nameless(&String::from_utf8_lossy(service)),
    })
}

/// Reads an address as a client may be written: in brackets, with a port, with a zone. `None` for
/// anything else, names included.
pub fn parse_host(host: &[u8]) -> Option<IpAddr> {
    let host = std::str::from_utf8(host).ok()?;
    if let Some(rest) = host.strip_prefix('[') {
        let (inside, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').unwrap_or(port);
        let address = inside.parse().map(IpAddr::V4).ok();
        return address.or_else(|| parse_v6(inside).map(IpAddr::V6)).filter(|_| is_port(port));
    }
    if let Some((v4, port)) = host.split_once(':')
        && let Ok(v4) = v4.parse()
    {
        return is_port(port).then_some(IpAddr::V4(v4));
    }
    host.parse().ok().map(IpAddr::V4).or_else(|| parse_v6(host).map(IpAddr::V6))
}

fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    // The zone names an interface of this machine, not the client.
    text.split_once('%').map_or(text, |(address, _zone)| address).parse().ok()
}

/// A port, or the nothing that stands for none.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

/// Folds the forms of IPv6 that stand for an IPv4 host into that IPv4 address.
///
/// | form | stands for |
/// | --- | --- |
/// | `::ffff:a.b.c.d`, `::ffff:0:a.b.c.d`, `::a.b.c.d` (not `::`, `::1`) | the low 32 bits |
/// | `64:ff9b::/96`, and the configured `nat64` prefixes | as RFC 6052 lays them out |
/// | `2002::/16` (6to4) | bits 16 to 48: who completes a handshake holds that IPv4 address |
/// | `2001:0::/32` (Teredo) | the low 32 bits, inverted: all its users share the /32 |
///
/// Except for the mapped form, which only the kernel can make, an address that claims to be this
/// host stays what it is: else `2002:7f00:1::` would be loopback, which is exempt. So does a 6to4
/// or Teredo address with a private IPv4 address inside, which neither protocol allows.
pub fn canonical(address: IpAddr, nat64: &[Ipv6Net]) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let folded = embedded(v6, nat64).filter(|v4| !v4.is_loopback() && v4.octets()[0] != 0);
    folded.map_or(address, IpAddr::V4)
}

/// Whether all of `prefix` lies where addresses count as the IPv4 address inside them, so that no
/// source is ever covered by it.
pub fn is_folded(prefix: &IpNet) -> bool {
    let IpNet::V6(prefix) = prefix else { return false };
    let ranges: [([u16; 8], u8); 6] = [
        ([0; 8], 96),
        ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
        ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
        ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
        ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
        ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    ];
    let inside = |(first, length): &([u16; 8], u8)| {
        Ipv6Net::new((*first).into(), *length).is_ok_and(|range| range.contains(prefix))
    };
    // The two addresses in ::/96 that are none of IPv4.
    let own = prefix.prefix_len() == 128 && prefix.addr().to_bits() <= 1;
    !own && ranges.iter().any(inside)
}

fn embedded(v6: Ipv6Addr, nat64: &[Ipv6Net]) -> Option<Ipv4Addr> {
    let bits = v6.to_bits();
    if let Some(prefix) = nat64.iter().find(|prefix| prefix.contains(&v6)) {
        return Some(translated(bits, prefix.prefix_len()));
    }
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            Some(low32(bits))
        }
        [0x2002, ..] => Some(low32(bits >> 80)).filter(|&v4| !is_private(v4)),
        [0x2001, 0, ..] => Some(low32(!bits)).filter(|&v4| !is_private(v4)),
        _ => None,
    }
}

/// The IPv4 address inside a NAT64 address (RFC 6052, section 2.2): it follows the prefix, but
/// steps over bits 64 to 71.
fn translated(bits: u128, length: u8) -> Ipv4Addr {
    if length >= 96 {
        return low32(bits);
    }
    let before = u32::from(64_u8.saturating_sub(length)).min(32);
    let after = 32 - before;
    let upper = (bits >> 64) & ((1 << before) - 1);
    let lower = (bits >> (56 - after)) & ((1 << after) - 1);
    low32((upper << after) | lower)
}

fn low32(bits: u128) -> Ipv4Addr {
    // Truncation is the point: the address is the low half of the low half.
    Ipv4Addr::from_bits(bits as u32)
}

/// Addresses that name a different host at every site, and so must not be taken from inside a
/// global address.
fn is_private(v4: Ipv4Addr) -> bool {
    is_site_local(v4) || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
}

/// RFC 1918 and the shared space of RFC 6598.
fn is_site_local(v4: Ipv4Addr) -> bool {
    v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..])
}

fn widest_scope(v6: Ipv6Addr) -> u8 {
    match v6 {
        _ if v6.is_unicast_link_local() => 64,
        _ if v6.is_unique_local() => 48,
        _ => 0,
    }
}

/// The address that is stored under `key`.
pub fn address_of(key: Ipv6Addr) -> IpAddr {
    key.to_canonical()
}

/// The prefix of `length` bits (counted in the key's own family) that covers `key`; a length
/// beyond the family is the whole address.
pub fn prefix_of(key: Ipv6Addr, length: u8) -> IpNet {
    net(address_of(key), length)
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address)).trunc()
}

/// The first and the last key inside `prefix`.
pub fn key_range(prefix: &IpNet) -> (Ipv6Addr, Ipv6Addr) {
    match prefix {
        IpNet::V4(v4) => (v4.network().to_ipv6_mapped(), v4.broadcast().to_ipv6_mapped()),
        IpNet::V6(v6) => (v6.network(), v6.broadcast()),
    }
}

/// Reads an address or a prefix as settings and the command take it: `2001:db8::/32`,
/// `192.0.2.7`. An address stands for itself alone; `::ffff:a.b.c.d/n` is folded to IPv4.
///
/// # Errors
///
/// One sentence that says what was found and what is expected.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let wrong = || {
        format!(
            "\"{text}\" is not an address or a prefix: expected for example 2001:db8::/32 or 192.0.2.7"
        )
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(length) => parse_length(length).filter(|&n| n <= bits).ok_or_else(wrong)?,
    };
    let net = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && length >= 96 => {
            prefix_of(v6, length - 96)
        }
        _ => self::net(address, length),
    };
    let (first, _) = key_range(&net);
    if address.to_canonical() != address_of(first) {
        return Err(format!("\"{text}\" has bits set beyond its length: expected {net}"));
    }
    Ok(net)
}

/// A length as people write it: digits, without a leading zero or sign.
fn parse_length(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// FNV-1a, 64 bits. Only spreads service names over buckets; nothing secret depends on it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
