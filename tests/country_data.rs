//! What a MaxMind DB file says, and what is found after its import.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::net::IpAddr;

use common::country::{Lab, NETWORKS};
use common::mmdb::{Mmdb, Value, map, record, text};
use common::store::source;
use pam_prefixquota::country::mmdb;
use proptest::prelude::*;

#[test]
fn every_record_size_and_every_form_of_an_address() {
    for record_size in [24, 28, 32] {
        let mut mmdb = Mmdb::of(6, record_size, &NETWORKS);
        mmdb.alias_ipv4();
        let lab = Lab::imported(&mmdb);
        for (address, expected) in [
            ("192.0.1.255", "unknown"),
            ("192.0.2.0", "DE"),
            ("192.0.2.255", "DE"),
            ("192.0.3.0", "unknown"),
            ("::ffff:192.0.2.7", "DE"),
            ("64:ff9b::192.0.2.7", "DE"),
            ("2002:c000:207::1", "DE"),
            ("2001:0:1:2:3:4:3fff:fdf8", "DE"),
            // No host has a 6to4 address for a private network.
            ("2002:a00:1::", "unknown"),
            ("198.51.100.255", "FR"),
            ("198.51.101.0", "AT"),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "unknown"),
            ("2001:db8::", "DE"),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "DE"),
            ("2001:db9:7fff::1", "FR"),
            ("2001:db9:8000::1", "unknown"),
            ("3fff:fff::1", "US"),
            ("2a00::1", "CH"),
            ("2a00::2", "unknown"),
            ("ffff:ffff::", "unknown"),
            ("10.0.0.1", "none"),
        ] {
            assert_eq!(lab.of(address), expected, "{record_size}: {address}");
        }
        // Neighbours of one country are one range, and IPv4 is there once.
        assert_eq!(lab.sql("SELECT count(*) FROM range"), 7);
        assert_eq!(lab.sql("SELECT count(*) FROM range WHERE length(first) != 16"), 0);
    }
}

#[test]
fn files_for_ipv4_alone_and_networks_beyond_it() {
    let lab = Lab::imported(&Mmdb::of(4, 24, &[("0.0.0.0/1", "DE"), ("128.0.0.0/1", "FR")]));
    let found = ["1.2.3.4", "255.255.255.255", "2001:db8::1", "::"].map(|a| lab.of(a));
    assert_eq!(found, ["DE", "FR", "unknown", "unknown"]);
    // One network for everything: IPv4 is still a part of its own, and nothing overlaps.
    let lab = Lab::imported(&Mmdb::of(6, 28, &[("::/1", "DE"), ("8000::/1", "FR")]));
    let found = ["1.2.3.4", "2001:db8::1", "8000::", "ffff::1", "2002:a00:1::"].map(|a| lab.of(a));
    assert_eq!(found, ["DE", "DE", "FR", "FR", "unknown"]);
    let overlaps =
        "SELECT count(*) FROM range a, range b WHERE a.first < b.first AND a.last >= b.first";
    assert_eq!(lab.sql(overlaps), 0);
}

#[test]
fn records_of_every_publisher() {
    let place = |code| map([("iso_code", text(code))]);
    let mut mmdb = Mmdb::new(4, 24);
    mmdb.datum(&place("SE"));
    for (network, value) in [
        ("192.0.2.0/32", map([("registered_country", place("FR"))])),
        ("192.0.2.1/32", map([("country", place("DE")), ("registered_country", place("FR"))])),
        ("192.0.2.2/32", map([("country", map([])), ("registered_country", place("FR"))])),
        ("192.0.2.3/32", map([("country_code", text("AT")), ("country", text("Austria"))])),
        ("192.0.2.4/32", map([("country", text("CH"))])),
        ("192.0.2.5/32", map([("country", place("ZZ"))])),
        ("192.0.2.6/32", map([("country", place("de"))])),
        (
            "192.0.2.7/32",
            map([("asn", Value::Number(7)), ("country", map([("geoname_id", Value::Long(1))]))]),
        ),
        ("192.0.2.8/32", map([])),
        ("192.0.2.9/32", map([("country", Value::Pointer(0))])),
        ("192.0.2.10/32", map([("represented_country", place("US"))])),
    ] {
        mmdb.add(network.parse().unwrap(), &value);
    }
    let lab = Lab::imported(&mmdb);
    let found: Vec<String> = (0..=10).map(|i| lab.of(&format!("192.0.2.{i}"))).collect();
    let unknown = "unknown";
    let expected =
        ["FR", "DE", "FR", "AT", "CH", unknown, unknown, unknown, unknown, "SE", unknown];
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn ranges_are_what_the_file_says(
        networks in prop::collection::vec((any::<u16>(), 0..=16_u8, 0..4_usize), 1..30),
        ip_version in prop::sample::select(vec![4_u16, 6]),
        record_size in prop::sample::select(vec![24_u16, 28, 32]),
    ) {
        let mut file = Mmdb::new(ip_version, record_size);
        let at = |bits: u16| -> IpAddr {
            match ip_version {
                4 => IpAddr::V4((u32::from(bits) << 16).into()),
                // Where IPv4 cannot be.
                _ => IpAddr::V6(((0x24 << 120) | u128::from(bits) << 104).into()),
            }
        };
        for (bits, length, country) in networks {
            let bits = bits & u16::MAX.checked_shl(16 - u32::from(length)).unwrap_or(0);
            let length = if ip_version == 4 { length } else { length + 8 };
            let network = ipnet::IpNet::new(at(bits), length).unwrap();
            file.add(network, &record(["DE", "FR", "US", "ZZ"][country]));
        }
        let bytes = file.write();
        let mut ranges = Vec::new();
        let read = mmdb::Mmdb::new(&bytes).unwrap().each_range(|range| {
            ranges.push(range);
            Ok::<(), String>(())
        });
        prop_assert_eq!(read, Ok(()));
        for pair in ranges.windows(2) {
            let next = pair[0].last.to_bits() + 1;
            let same = pair[0].country == pair[1].country;
            let first = pair[1].first.to_bits();
            prop_assert!(next < first || (next == first && !same), "{:?}", pair);
        }
        let reader = maxminddb::Reader::from_source(&bytes[..]).unwrap();
        for bits in (0..=u16::MAX).step_by(97) {
            let key = source(&at(bits).to_string()).key();
            let ours = ranges.iter().find(|r| (r.first..=r.last).contains(&key));
            let code: Option<String> = reader
                .lookup(at(bits))
                .unwrap()
                .decode_path(&[
                    maxminddb::PathElement::Key("country"),
                    maxminddb::PathElement::Key("iso_code"),
                ])
                .unwrap();
            let code = code.filter(|code| code != "ZZ");
            prop_assert_eq!(ours.map(|range| range.country.to_string()), code, "{}", key);
        }
    }
}
