//! MaxMind DB files, taken apart into ranges of addresses, each with its country.
//!
//! The file may be anything: a broken download, or one that somebody made to do harm. The crate
//! `maxminddb` checks every offset, but trusts the shape of the search tree: both its iterator and
//! its `verify` go on for ever in a tree whose nodes are reached on many ways, as a hundred nodes
//! can be on 2^100. So the tree is walked here, from one end to the next, and no further than a
//! tree of its size can be long.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use maxminddb::{LookupResult, MaxMindDbError, Reader};
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Country;
use crate::config::printable;

/// Where sources can be, as first and last key: IPv4 in the mapped form, and IPv6 from 2000::/3 on.
/// The other places where a tree may have IPv4 are left out: sources from there count as the IPv4
/// address inside.
const PARTS: [(u128, u128); 4] = [
    (0xffff_0000_0000, 0xffff_ffff_ffff),
    (0x2000 << 112, (0x2001 << 112) - 1),
    // Without 2001::/32 (Teredo) and 2002::/16 (6to4).
    (0x2001_0001 << 96, (0x2002 << 112) - 1),
    (0x2003 << 112, u128::MAX),
];

/// The real files take seconds. This ends one whose every record takes as long to read as a
/// hundred thousand should.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many records are remembered: a file by country has a few hundred, one by city more, and a
/// hostile one should not fill the memory.
const REMEMBERED: usize = 1 << 20;

const LAST_SECOND: i64 = 253_402_300_799;

/// A file that is in memory.
pub struct Mmdb<'a> {
    reader: Reader<&'a [u8]>,
}

/// Addresses of one country, by their keys in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub first: Ipv6Addr,
    /// The last address.
    pub last: Ipv6Addr,
    /// The country of them all.
    pub country: Country,
}

/// What is read of a record: that of MaxMind and DB-IP, or the flat one of IPinfo.
#[derive(Deserialize)]
struct Record {
    country: Option<Place>,
    registered_country: Option<Place>,
    country_code: Option<Place>,
}

/// A code, or a map with one. Nothing else is taken from the file: values that are merely skipped
/// are not followed, and so a record that is nested without end does not exhaust the stack.
struct Place(Option<Country>);

impl<'a> Mmdb<'a> {
    /// Reads what the file says of itself.
    ///
    /// # Errors
    ///
    /// Why it cannot be used, as the end of a sentence.
    pub fn new(bytes: &'a [u8]) -> Result<Mmdb<'a>, String> {
        let packed: [&[u8]; 4] = [b"\x1f\x8b", b"\xfd7zXZ\0", b"PK\x03\x04", b"BZh"];
        if packed.iter().any(|magic| bytes.starts_with(magic)) {
            return Err("packed: expected the .mmdb file inside".to_owned());
        }
        Ok(Mmdb { reader: Reader::from_source(bytes).map_err(unusable)? })
    }

    /// What the file calls itself.
    pub fn database_type(&self) -> String {
        printable(&self.reader.metadata().database_type)
    }

    /// When it was made, in Unix seconds; no later than the year 9999, where dates in text end.
    pub fn built(&self) -> i64 {
        let built = self.reader.metadata().build_epoch;
        i64::try_from(built).map_or(LAST_SECOND, |built| built.min(LAST_SECOND))
    }

    /// Gives all ranges to `take`, in the order of their keys; neighbours of one country are one
    /// range.
    ///
    /// # Errors
    ///
    /// Why the file cannot be used, as the end of a sentence, or what `take` said.
    pub fn each_range<E: From<String>>(
        &self,
        mut take: impl FnMut(Range) -> Result<(), E>,
    ) -> Result<(), E> {
        let metadata = self.reader.metadata();
        // A tree of n nodes has n + 1 ends. Twice as many leave room for an alias of IPv4 in some
        // other place, and a few for the parts that begin or stop in the middle of an end.
        let ends = 2 * u64::from(metadata.node_count) + 16;
        let parts = if metadata.ip_version == 4 { 1 } else { PARTS.len() };
        let mut walk =
            Walk { reader: &self.reader, ends, started: Instant::now(), seen: HashMap::new() };
        let mut open: Option<Range> = None;
        for (first, last) in PARTS.into_iter().take(parts) {
            let mut next = Some(first);
            while let Some(at) = next {
                let (end, country) = walk.look(at)?;
                let end = end.min(last);
                next = end.checked_add(1).filter(|_| end < last);
                let Some(country) = country else { continue };
                match &mut open {
                    Some(open) if open.country == country && open.last.to_bits() + 1 == at => {
                        open.last = end.into();
                    }
                    _ => {
                        let new = Range { first: at.into(), last: end.into(), country };
                        open.replace(new).map_or(Ok(()), &mut take)?;
                    }
                }
            }
        }
        open.map_or(Ok(()), take)
    }
}

/// A walk through the search tree.
struct Walk<'m, 'a> {
    reader: &'m Reader<&'a [u8]>,
    /// How many ends it may still come to.
    ends: u64,
    started: Instant,
    /// The countries of the records so far, by their place in the file.
    seen: HashMap<usize, Option<Country>>,
}

impl Walk<'_, '_> {
    /// The last key of the network around `key`, and its country.
    fn look(&mut self, key: u128) -> Result<(u128, Option<Country>), String> {
        self.ends = self
            .ends
            .checked_sub(1)
            .ok_or("not a usable MaxMind DB file (its search tree goes in circles)")?;
        if self.started.elapsed() > PATIENCE {
            return Err(format!("takes longer than {} s to read", PATIENCE.as_secs()));
        }
        let address = Ipv6Addr::from_bits(key).to_canonical();
        let found = self.reader.lookup(address).map_err(unusable)?;
        let network = found.network().map_err(unusable)?;
        let length = match address {
            IpAddr::V4(_) if network.is_ipv4() => 96 + network.prefix(),
            // All of IPv4 lies in one network of IPv6.
            IpAddr::V4(_) => 96,
            IpAddr::V6(_) => network.prefix(),
        };
        let last = key | u128::MAX.checked_shr(length.into()).unwrap_or(0);
        Ok((last, self.country(&found)?))
    }

    fn country(&mut self, found: &LookupResult<'_, &[u8]>) -> Result<Option<Country>, String> {
        let Some(offset) = found.offset() else { return Ok(None) };
        if let Some(country) = self.seen.get(&offset) {
            return Ok(*country);
        }
        let country = found.decode().map_err(unusable)?.and_then(|record: Record| {
            let places = [record.country, record.registered_country, record.country_code];
            places.into_iter().flatten().find_map(|Place(country)| country)
        });
        if self.seen.len() == REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(offset, country);
        Ok(country)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_any(PlaceVisitor)
    }
}

struct PlaceVisitor;

impl<'de> Visitor<'de> for PlaceVisitor {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a country")
    }

    fn visit_str<E: de::Error>(self, code: &str) -> Result<Place, E> {
        Ok(Place(Country::from_code(code)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
        let mut place = Place(None);
        while let Some(key) = map.next_key::<&str>()? {
            if key == "iso_code" {
                place = Place(Country::from_code(map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(place)
    }
}

fn unusable(error: MaxMindDbError) -> String {
    format!("not a usable MaxMind DB file ({error})")
}
