//! Country files that are broken, or made to do harm: every one gives an error or something valid,
//! soon, and what was imported before stays.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use common::Random;
use common::country::Lab;
use common::mmdb::{Child, Mmdb, Value, map, record, text};
use common::store::source;
use pam_prefixquota::country::{Countries, country_of, import, mmdb};

const NETWORKS: [(&str, &str); 8] = [
    ("192.0.2.0/24", "DE"),
    ("198.51.100.0/22", "FR"),
    ("203.0.113.0/29", "US"),
    ("2001:db8::/32", "DE"),
    ("2001:db9:8000::/33", "FR"),
    ("2a00:1::/40", "CH"),
    ("2a00:2::/47", "AT"),
    ("3fff::/20", "US"),
];

fn good(record_size: u16) -> Mmdb {
    let mut mmdb = Mmdb::of(6, record_size, &NETWORKS);
    mmdb.alias_ipv4();
    mmdb
}

/// How many ranges are in a file, or why it cannot be used.
fn read(bytes: &[u8]) -> Result<usize, String> {
    let mut ranges = 0;
    mmdb::Mmdb::new(bytes)?.each_range(|range| {
        assert!(range.first <= range.last, "{range:?}");
        ranges += 1;
        Ok::<(), String>(())
    })?;
    Ok(ranges)
}

/// Fails if it took long: far above what a busy machine needs, far below for ever.
fn soon<T>(work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    result
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    let at = random.index(bytes.len());
    bytes[at] ^= 1 << random.index(8);
}

#[test]
fn a_file_cut_short_is_none() {
    let bytes = good(24).write();
    assert_eq!(read(&bytes), Ok(NETWORKS.len()));
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).expect_err("not all of it");
        assert!(error.starts_with("not a usable MaxMind DB file ("), "{length}: {error}");
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    soon(|| {
        for round in 0..6_000 {
            let mut bytes = good([24, 28, 32][round % 3]).write();
            for _ in 0..=random.index(4) {
                flip(&mut random, &mut bytes);
            }
            if let Ok(ranges) = read(&bytes) {
                assert!(ranges <= bytes.len(), "{ranges}");
            }
        }
    });
}

#[test]
fn trees_that_lead_back_into_themselves() {
    let data = |mmdb: &mut Mmdb| Child::Data(mmdb.datum(&record("DE")));
    let shaped = |ip_version, shape: &dyn Fn(Child) -> Vec<[Child; 2]>| {
        let mut mmdb = Mmdb::new(ip_version, 24);
        let datum = data(&mut mmdb);
        mmdb.nodes = shape(datum);
        mmdb.write()
    };
    let circles = "not a usable MaxMind DB file (its search tree goes in circles)";
    for ip_version in [4, 6] {
        // A node that is its own child, alone and at the end of a chain.
        let own = shaped(ip_version, &|_| vec![[Child::Node(0); 2]]);
        let chain = shaped(ip_version, &|datum| {
            vec![[Child::Node(1), datum], [Child::Node(2), datum], [Child::Node(0), Child::Node(1)]]
        });
        // A way to an end for every sequence of sides: 2^n of them.
        let diamonds = |nodes: usize, end: Child| {
            shaped(ip_version, &|datum| {
                let mut all: Vec<_> = (1..=nodes).map(|next| [Child::Node(next); 2]).collect();
                all.push(if end == Child::Nothing { [end; 2] } else { [datum, end] });
                all
            })
        };
        for bytes in [own, chain, diamonds(31, Child::Nothing), diamonds(31, Child::Data(0))] {
            assert_eq!(soon(|| read(&bytes)), Err(circles.to_owned()));
        }
        // As long as an address of IPv6: here the ends are aliases of IPv4, which the iterator of
        // the crate passes over in silence, for ever.
        for nodes in [95, 96, 97, 127, 200] {
            let bytes = diamonds(nodes, Child::Data(0));
            assert_eq!(soon(|| read(&bytes)), Err(circles.to_owned()), "{nodes}");
        }
    }
}

#[test]
fn records_that_lead_astray() {
    let with = |data: Vec<u8>, at: usize| {
        let mut mmdb = Mmdb::new(4, 24);
        mmdb.data = data;
        mmdb.nodes = vec![[Child::Data(at), Child::Nothing]];
        soon(|| read(&mmdb.write()))
    };
    let written = |value: &Value| {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    };
    // To itself; to each other; to itself from within; beyond the end.
    assert!(with(written(&Value::Pointer(0)), 0).is_err());
    assert!(with([written(&Value::Pointer(5)), written(&Value::Pointer(0))].concat(), 0).is_err());
    for field in ["country", "registered_country", "names"] {
        let _ = with(written(&map([(field, Value::Pointer(0))])), 0);
        let deeper = map([(field, map([("iso_code", Value::Pointer(0))]))]);
        let _ = with(written(&deeper), 0);
    }
    assert!(with(written(&map([("country", Value::Pointer(u32::MAX))])), 0).is_err());
    assert!(with(written(&text("DE")), 0).is_err(), "a record that is no map");
    assert!(with(written(&record("DE")), 100_000).is_err());
    // A map that claims to be larger than the file, one inside the other, as deep as it goes.
    assert!(with(vec![0xff; 50_000], 0).is_err());
    let nested: Vec<u8> = b"\xe1\x47country".repeat(20_000);
    assert!(with(nested, 0).is_err());
    // Each value points to the next twice over: 2^30 values if they were all followed.
    let mut doubled = Vec::new();
    for level in 0..30 {
        let next = Value::Pointer((level + 1) * 13);
        doubled.extend(written(&map([("a", next.clone()), ("b", next)])));
        doubled.truncate((level as usize + 1) * 13);
    }
    let start = u32::try_from(doubled.len()).unwrap();
    doubled.extend(written(&map([("country", Value::Pointer(0))])));
    let _ = with(doubled, start as usize);
    // Text that is none.
    let mut broken = written(&record("DE"));
    let at = broken.windows(2).position(|pair| pair == b"DE").unwrap();
    broken[at] = 0xff;
    assert!(with(broken, 0).is_err());
}

#[test]
fn numbers_that_are_too_large_or_too_small() {
    let spoilt = |spoil: &dyn Fn(&mut Mmdb)| {
        let mut mmdb = good(28);
        spoil(&mut mmdb);
        soon(|| read(&mmdb.write()))
    };
    for count in [0, u32::MAX, 1 << 28, 100_000] {
        assert!(spoilt(&|m| m.node_count = Some(count)).is_err(), "{count}");
    }
    // The tree ends earlier: what it leads to then is something else.
    for count in 1..40 {
        let _ = spoilt(&|m| m.node_count = Some(count));
    }
    for version in [0, 5, 7, u16::MAX] {
        assert!(spoilt(&|m| m.ip_version = version).is_err());
    }
    let _ = spoilt(&|m| m.ip_version = 4);
    for size in [0, 8, 25, 64, u16::MAX] {
        assert!(spoilt(&|m| m.record_size = size).is_err());
    }
    assert!(spoilt(&|m| m.nodes.clear()).is_err());
    assert!(spoilt(&|m| m.build_epoch = u64::MAX).is_err());
}

/// With a country database that knows 192.0.2.0/24.
fn lab() -> Lab {
    Lab::imported(&good(24))
}

fn import_file(lab: &Lab, file: &Path) -> Result<(), String> {
    let done = import::import(file, &lab.database(), Duration::from_secs(5));
    done.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_failed_import_leaves_the_old_data() {
    let lab = lab();
    let before = fs::read(lab.database()).unwrap();
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(lab.path("in.mmdb"), bytes).unwrap();
        let error = import_file(&lab, &lab.path("in.mmdb")).expect_err(expected);
        let start = format!("{}: ", lab.path("in.mmdb").display());
        assert!(error.starts_with(&start) && error.contains(expected), "{error}");
    };
    refused(b"", "not a usable MaxMind DB file");
    refused(b"\x1f\x8b\x08 and more", "packed: expected the .mmdb file inside");
    refused(&good(24).write()[..2_000], "not a usable MaxMind DB file");
    let mut asn = Mmdb::new(4, 24);
    asn.database_type = "GeoLite2-ASN".to_owned();
    asn.add(
        "192.0.2.0/24".parse().unwrap(),
        &map([("autonomous_system_number", Value::Number(1))]),
    );
    refused(&asn.write(), "no country in it (it calls itself \"GeoLite2-ASN\")");
    // Found after half of the ranges were written.
    let mut late = Mmdb::of(4, 24, &NETWORKS[..3]);
    late.add("240.0.0.0/8".parse().unwrap(), &text("DE"));
    refused(&late.write(), "not a usable MaxMind DB file");
    for (name, expected) in [("", "not a regular file"), ("none", "cannot be read")] {
        let error = import_file(&lab, &lab.path(name)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = import_file(&lab, Path::new("/dev/zero")).unwrap_err();
    assert!(error.contains("not a regular file"), "{error}");
    File::create(lab.path("huge")).unwrap().set_len((512 << 20) + 1).unwrap();
    let error = import_file(&lab, &lab.path("huge")).unwrap_err();
    assert!(error.contains("larger than 512 MiB"), "{error}");
    assert_eq!(fs::read(lab.database()).unwrap(), before);
    let left = fs::read_dir(lab.dir.path()).unwrap().map(|file| file.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains(".new-")));
}

#[test]
fn a_damaged_database_is_an_error_or_an_answer() {
    let lab = lab();
    let whole = fs::read(lab.database()).unwrap();
    let ask = |bytes: &[u8]| {
        fs::write(lab.database(), bytes).unwrap();
        for address in ["192.0.2.1", "2001:db8::1", "ffff::1"] {
            let _ = country_of(&lab.database(), &source(address)).map_err(|e| e.to_string());
        }
        Countries::open(&lab.database()).and_then(|countries| countries.about()).is_ok()
    };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    soon(|| {
        assert!(ask(&whole));
        for length in (0..whole.len()).step_by(64) {
            assert!(!ask(&whole[..length]), "{length}");
        }
        for _ in 0..2_000 {
            let mut bytes = whole.clone();
            for _ in 0..=random.index(8) {
                flip(&mut random, &mut bytes);
            }
            let _ = ask(&bytes);
        }
        // All noise behind a header that is right.
        for _ in 0..200 {
            let mut bytes = whole.clone();
            bytes[100..].fill_with(|| u8::try_from(random.index(256)).unwrap());
            assert!(!ask(&bytes));
        }
    });
    // Rows that a person has edited.
    for (row, expected) in [
        ("first, x'00', country", "damaged; make it anew"),
        ("first, last, 'Germany'", "damaged; make it anew"),
        ("first, last, ''", "damaged; make it anew"),
    ] {
        fs::write(lab.database(), &whole).unwrap();
        let conn = rusqlite::Connection::open(lab.database()).unwrap();
        conn.execute_batch(&format!("UPDATE range SET (first, last, country) = ({row})")).unwrap();
        let error = country_of(&lab.database(), &source("192.0.2.1")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn nobody_keeps_a_login_waiting() {
    let lab = lab();
    let other = rusqlite::Connection::open(lab.database()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = Instant::now();
    let found = country_of(&lab.database(), &source("192.0.2.1")).unwrap();
    assert_eq!(found.unwrap().to_string(), "DE");
    assert!(started.elapsed() < Duration::from_secs(2));
}
