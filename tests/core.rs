//! The pure core: canonical sources, the curve, decay and the verdict. The
//! properties that are promised have numbers, here and in the other tests.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::net::{IpAddr, Ipv6Addr};

use common::book::{Book, spread, v6};
use pam_prefixquota::config::Settings;
use pam_prefixquota::count::{Count, Failures};
use pam_prefixquota::decay;
use pam_prefixquota::source::{Family, Source, canonical, key_range, locate, parse_prefix};
use pam_prefixquota::tally::Tally;
use proptest::prelude::*;

const HOUR: i64 = 3_600_000;

#[test]
fn i1_i2_the_curve_of_ipv6() {
    let curve = Settings::default().ipv6;
    let lengths =
        [128, 127, 126, 124, 112, 96, 80, 65, 64, 63, 62, 60, 56, 48, 40, 36, 33, 32, 29, 0];
    let quotas =
        [2, 3, 4, 6, 18, 34, 50, 65, 66, 68, 71, 80, 110, 218, 390, 500, 593, 626, 731, 2210];
    assert_eq!(lengths.map(|length| curve.quota(length)), quotas);
    for length in 64..128 {
        assert_eq!(curve.quota(length) - curve.quota(length + 1), 1, "/{length}");
    }
    for length in 0..64 {
        let step = curve.quota(length) - curve.quota(length + 1);
        assert_eq!(step, 65 - u32::from(length), "/{length}");
    }
    assert_eq!(curve.quota(32) - curve.quota(64), 560);
}

#[test]
fn i3_the_curve_of_ipv4() {
    let curve = Settings::default().ipv4;
    for length in 0..=32 {
        let k = 32 - u32::from(length);
        assert_eq!(curve.quota(length), 10 + k * (k + 3), "/{length}");
    }
}

#[test]
fn i4_spread_guesses_fill_a_prefix_exactly() {
    for (length, admitted) in
        [(128, 2), (127, 3), (126, 4), (124, 6), (64, 66), (56, 110), (48, 218), (32, 626)]
    {
        let base = v6("2001:db8:7:7:7:7:7:7");
        assert_eq!(Book::default().fill(base, length), admitted, "/{length}");
    }
    for (length, admitted) in [(32, 10), (31, 14), (28, 38), (24, 98), (20, 190), (16, 314)] {
        let base: IpAddr = "198.51.100.7".parse().unwrap();
        assert_eq!(Book::default().fill(base, length), admitted, "IPv4 /{length}");
    }
}

#[test]
fn i6_a_full_prefix_leaves_its_sibling_the_difference() {
    let curve = Settings::default().ipv6;
    for length in 33..=128 {
        let mut book = Book::default();
        let base = v6("2001:db8:7:7:7:7:7:7");
        book.fill(base, length);
        let IpAddr::V6(bits) = base else { unreachable!() };
        let sibling = Ipv6Addr::from_bits(bits.to_bits() ^ (1 << (128 - length)));
        let left = curve.quota(length - 1) - curve.quota(length);
        assert_eq!(book.fill(sibling.into(), length), left, "/{length}");
    }
}

#[test]
fn i7_one_address_cannot_shut_its_neighbours_out() {
    for neighbour in 1..16_u16 {
        let mut book = Book::default();
        book.fill(v6("2001:db8::"), 128);
        let neighbour_address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, neighbour);
        let left = book.fill(neighbour_address.into(), 128);
        assert_eq!(left, if neighbour == 1 { 1 } else { 2 });
    }
}

#[test]
fn i8_two_full_64s_leave_the_32_open() {
    let two = |second: &str| {
        let mut book = Book::default();
        assert_eq!(book.fill(v6("2001:db8::"), 64), 66);
        (book.fill(v6(second), 64), book)
    };
    let (second, mut book) = two("2001:db8:0:800::");
    assert_eq!(second, 66, "common prefix /52");
    assert_eq!(book.fill(v6("2001:db8:8000::"), 33), 494, "what the other half finds");
    assert_eq!(two("2001:db8:0:200::").0, 65, "common prefix /54");
    let mut adjacent = Book::default();
    let taken = ["2001:db8::", "2001:db8:0:1::", "2001:db8:0:2::", "2001:db8:0:3::"];
    assert_eq!(taken.map(|base| adjacent.fill(v6(base), 64)), [66, 2, 3, 0]);
}

#[test]
fn i9_ten_64s_close_a_32() {
    let mut book = Book::default();
    // Distinct /36s, spread over the /32.
    let admitted: Vec<u32> = (0..11)
        .map(|i| {
            book.fill(Ipv6Addr::new(0x2001, 0xdb8, spread(i, 4) << 12, 0, 0, 0, 0, 0).into(), 64)
        })
        .collect();
    assert_eq!(admitted, [66, 66, 66, 66, 66, 66, 66, 66, 66, 32, 0]);
}

#[test]
fn i11_ascending_addresses_gain_one_try_for_each_doubling() {
    for (n, admitted) in [(4_u32, 4), (16, 6), (70_000, 19)] {
        let mut book = Book::default();
        let base = u128::from(0x2001_0db8_u32) << 96;
        let count = (0..n)
            .filter(|&i| book.attempt(Ipv6Addr::from_bits(base + u128::from(i)).into()))
            .count();
        assert_eq!(count, admitted, "{n} addresses");
    }
}

#[test]
fn i13_after_a_half_life_half_is_left() {
    for level in [0.001, 1.0, 2.0, 626.0] {
        let half = decay::remaining(level, 1_000, 1_000 + HOUR, HOUR);
        assert!((half - level / 2.0).abs() < 1e-9);
        assert!((decay::remaining(level, 5, 5 - HOUR, HOUR) - level).abs() < 1e-9, "back in time");
    }
}

#[test]
fn i15_the_third_guess_waits_a_whole_half_life() {
    for (later, admitted) in [(1, false), (1_000, false), (HOUR - 1_000, false), (HOUR, true)] {
        let mut book = Book::default();
        book.fill(v6("2001:db8::1"), 128);
        book.now += later;
        assert_eq!(book.attempt(v6("2001:db8::1")), admitted, "{later} ms later");
    }
}

#[test]
fn i25_every_form_of_an_address_has_one_key() {
    let cases = [
        ("::ffff:192.0.2.33", "192.0.2.33"),
        ("::ffff:0:192.0.2.33", "192.0.2.33"),
        ("::192.0.2.33", "192.0.2.33"),
        ("64:ff9b::192.0.2.33", "192.0.2.33"),
        ("2002:c000:221::1", "192.0.2.33"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdde", "192.0.2.33"),
        // The examples of RFC 6052, section 2.4.
        ("2001:db8:c000:221::", "192.0.2.33"),
        ("2001:db8:1c0:2:21::", "192.0.2.33"),
        ("2001:db8:122:c000:2:2100::", "192.0.2.33"),
        ("2001:db8:122:3c0:0:221::", "192.0.2.33"),
        ("2001:db8:122:344:c0:2:2100::", "192.0.2.33"),
        ("2001:db8:122:344::192.0.2.33", "192.0.2.33"),
        // Not one of them.
        ("64:ff9b:1::192.0.2.33", "64:ff9b:1::c000:221"),
        ("2001:1::1", "2001:1::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("fe80::1", "fe80::1"),
        ("2001:470::1", "2001:470::1"),
        ("ff02::1", "ff02::1"),
        // Nobody becomes this host, or a host of this site, by writing it into a global address.
        ("2002:7f00:1::1", "2002:7f00:1::1"),
        ("::127.0.0.1", "::7f00:1"),
        ("64:ff9b::127.0.0.1", "64:ff9b::7f00:1"),
        ("2002:a00:1::1", "2002:a00:1::1"),
    ];
    let rfc6052 = [
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122::/48",
        "2001:db8:122:300::/56",
        "2001:db8:122:344::/64",
        "2001:db8:122:344::/96",
    ];
    for (written, expected) in cases {
        let address = written.parse().unwrap();
        let nat64: Vec<ipnet::Ipv6Net> = rfc6052
            .iter()
            .filter(|_| written.starts_with("2001:db8"))
            .map(|prefix| prefix.parse().unwrap())
            // The longest that fits, as a site would have only one.
            .filter(|prefix: &ipnet::Ipv6Net| match written {
                "2001:db8:c000:221::" => prefix.prefix_len() == 32,
                "2001:db8:1c0:2:21::" => prefix.prefix_len() == 40,
                "2001:db8:122:c000:2:2100::" => prefix.prefix_len() == 48,
                "2001:db8:122:3c0:0:221::" => prefix.prefix_len() == 56,
                "2001:db8:122:344:c0:2:2100::" => prefix.prefix_len() == 64,
                _ => prefix.prefix_len() == 96,
            })
            .collect();
        assert_eq!(canonical(address, &nat64).to_string(), expected, "{written}");
    }
}

#[test]
fn i25_raw_bytes_of_pam_rhost() {
    let source = |rhost: &[u8], ssh: Option<&[u8]>| {
        locate(Some(rhost), ssh, b"sshd", &[]).map(|source| source.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    let ssh: Option<&[u8]> = Some(b"2001:db8::5 50022 2001:db8::22 22");
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, Option<String>);
    let cases: &[Case<'_>] = &[
        (b"2001:db8::1", None, some("2001:db8::1")),
        (b"2001:DB8:0::1", None, some("2001:db8::1")),
        (b"[2001:db8::1]", None, some("2001:db8::1")),
        (b"[2001:db8::1]:22", None, some("2001:db8::1")),
        (b"[192.0.2.1]", None, some("192.0.2.1")),
        (b"[2001:db8::1]x", None, some("unknown:sshd")),
        (b"192.0.2.1:22", None, some("192.0.2.1")),
        (b"::ffff:192.0.2.1", None, some("192.0.2.1")),
        (b"fe80::77%lo", None, some("fe80::77")),
        (b"UNKNOWN", ssh, None),
        (b"", ssh, None),
        (b"attacker.example", ssh, some("2001:db8::5")),
        (b"attacker.example", None, some("unknown:sshd")),
        (b"attacker.example", Some(b"UNKNOWN 65535 UNKNOWN 65535"), some("unknown:sshd")),
        (b"010.0.0.1", None, some("unknown:sshd")),
        (b"192.0.2.1.", None, some("unknown:sshd")),
        (b"192.0.2.1:x", None, some("unknown:sshd")),
        (b"\xff\xfe", None, some("unknown:sshd")),
        (b" 192.0.2.1", None, some("unknown:sshd")),
    ];
    for (rhost, ssh, expected) in cases {
        assert_eq!(&source(rhost, *ssh), expected, "{}", String::from_utf8_lossy(rhost));
    }
    assert_eq!(locate(None, ssh, b"su", &[]), None);
}

#[test]
fn special_addresses_count_only_as_far_as_they_mean_anything() {
    let settings = Settings::default();
    let lengths = |address: &str| {
        let source = Source::of(address.parse().unwrap(), &[]);
        let lengths = settings.curve(source.family()).lengths(&source);
        (*lengths.start(), *lengths.end())
    };
    assert_eq!(lengths("2001:db8::1"), (32, 128));
    assert_eq!(lengths("fe80::1"), (64, 128));
    assert_eq!(lengths("fd00::1"), (48, 128));
    assert_eq!(lengths("192.0.2.1"), (16, 32));
    assert_eq!(lengths("10.1.2.3"), (24, 32));
    assert_eq!(lengths("100.64.0.1"), (24, 32));
    let nameless = Source::nameless("vsftpd");
    let only: Vec<u8> = settings.ipv6.lengths(&nameless).collect();
    assert_eq!(only.iter().map(|&l| settings.ipv6.quota(l)).collect::<Vec<_>>(), [66]);
    assert_ne!(nameless.key(), Source::nameless("proftpd").key());
}

#[test]
fn prefixes_are_read_strictly() {
    for (text, net) in [
        ("2001:db8::/32", "2001:db8::/32"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ] {
        assert_eq!(parse_prefix(text).unwrap().to_string(), net);
    }
    for text in [
        "",
        "/",
        "2001:db8::/129",
        "192.0.2.0/33",
        "192.0.2.0/024",
        "10.0.0.1/8",
        "010.0.0.0/8",
        "host",
        "2001:db8::1/64",
        "192.0.2.0/+8",
        "192.0.2.0/",
    ] {
        let error = parse_prefix(text).unwrap_err();
        assert!(error.contains(&format!("\"{text}\"")) && error.contains("expected"), "{error}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        // Forms that fold.
        (
            prop::sample::select(vec![
                0xffff_u128 << 32,
                0xffff << 48,
                0,
                0x64_ff9b << 96,
                0x2002 << 112,
                0x2001 << 112,
            ]),
            any::<u32>()
        )
            .prop_map(|(form, v4)| Ipv6Addr::from_bits(form | u128::from(v4)).into()),
    ]
}

/// Addresses that share prefixes of every length: random bits after a random length.
fn clustered() -> impl Strategy<Value = IpAddr> {
    (32..=128_u32, any::<u128>()).prop_map(|(length, noise)| {
        let base = 0x2001_0db8_u128 << 96;
        let noise = noise.checked_shr(length).unwrap_or(0);
        Ipv6Addr::from_bits(base | noise).into()
    })
}

proptest! {
    #[test]
    fn i25_folding_is_idempotent(address in any_address()) {
        let once = canonical(address, &[]);
        prop_assert_eq!(canonical(once, &[]), once);
        let source = Source::of(address, &[]);
        prop_assert_eq!(source.address(), Some(once));
        prop_assert_eq!(Source::of(once, &[]), source);
    }

    #[test]
    fn any_bytes_have_a_source_or_none(
        rhost in prop::collection::vec(any::<u8>(), 0..64),
        ssh in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
    ) {
        let source = locate(Some(&rhost), ssh.as_deref(), b"sshd", &[]);
        prop_assert_eq!(source.is_none(), rhost.is_empty() || rhost == b"UNKNOWN");
    }

    #[test]
    fn i12_i28_counts_are_the_sums_over_ranges(
        rows in prop::collection::vec((clustered(), 0.0..3.0_f64, 0..4 * HOUR), 0..40),
        address in clustered(),
    ) {
        let pace = Settings::default().pace();
        let now = 5 * HOUR;
        let rows: Vec<Failures> = rows.into_iter().map(|(address, level, at)| {
            let count = Count { level, ..Count::none(at) };
            Failures { key: Source::of(address, &[]).key(), count }
        }).collect();
        let source = Source::of(address, &[]);
        let tally = Tally::new(&source, &rows, now, pace);
        let sum = |first: Ipv6Addr, last: Ipv6Addr| -> f64 {
            rows.iter().filter(|row| (first..=last).contains(&row.key))
                .map(|row| decay::remaining(row.count.level, row.count.at, now, pace.half_life)).sum()
        };
        for length in 32..=128 {
            let (first, last) = key_range(&source.prefix(length));
            prop_assert!((tally.count(length) - sum(first, last)).abs() < 1e-9);
            if length < 128 {
                let half = 1_u128 << (127 - length);
                let middle = Ipv6Addr::from_bits(first.to_bits() | half);
                let below = Ipv6Addr::from_bits(middle.to_bits() - 1);
                let halves = sum(first, below) + sum(middle, last);
                prop_assert!((tally.count(length) - halves).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn i16_the_time_to_wait_is_exact(guesses in prop::collection::vec((clustered(), 0..600_000_i64), 1..60)) {
        let mut book = Book::default();
        for (address, pause) in guesses {
            book.now += pause;
            let wait = book.wait(address);
            prop_assert!(wait >= 0);
            prop_assert_eq!(wait == 0, book.admits(address));
            if wait > 0 {
                let now = book.now;
                book.now = now + wait - 50;
                prop_assert!(!book.admits(address), "50 ms early");
                book.now = now + wait + 50;
                prop_assert!(book.admits(address), "50 ms late");
                book.now = now;
            }
            book.attempt(address);
        }
    }

    #[test]
    fn i20_simultaneous_charges_have_no_order(addresses in prop::collection::vec(clustered(), 0..30), seed in any::<u64>()) {
        let mut shuffled = addresses.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, usize::try_from(seed.rotate_left(i as u32) % (i as u64 + 1)).unwrap());
        }
        let book = |addresses: &[IpAddr]| {
            let mut book = Book::default();
            addresses.iter().for_each(|&address| book.charge(address));
            book.rows()
        };
        prop_assert_eq!(book(&addresses), book(&shuffled));
    }

    #[test]
    fn i27_fewer_own_failures_never_hurt(rows in prop::collection::vec(clustered(), 0..60), noise in any::<u8>()) {
        let mut book = Book::default();
        rows.iter().for_each(|&address| { book.attempt(address); });
        let (busy, quiet) = (rows.first().copied().unwrap_or(v6("2001:db8::")), noise);
        let IpAddr::V6(bits) = busy else { unreachable!() };
        // A sibling inside the same /120 that never failed.
        let quiet = IpAddr::V6(Ipv6Addr::from_bits(bits.to_bits() & !0xff | u128::from(quiet)));
        let fails = |book: &Book, a: IpAddr| book.standings(a).into_iter().filter(|s| s.wait > 0)
            .map(|s| s.prefix).collect::<Vec<_>>();
        if book.failures(quiet) <= book.failures(busy) {
            let of_busy = fails(&book, busy);
            for prefix in fails(&book, quiet) {
                // What denies the quieter one either covers the busier one too, or is its own.
                prop_assert!(of_busy.contains(&prefix) || !prefix.contains(&busy));
            }
        }
    }
}

#[test]
fn families_do_not_mix() {
    let mut settings = Settings::default();
    settings.ipv6.widest = 0;
    settings.ipv4.widest = 0;
    let mut book = Book::new(settings);
    book.charge("192.0.2.1".parse().unwrap());
    let count = |a: IpAddr, length| {
        Tally::new(&Source::of(a, &[]), &book.rows(), book.now, book.settings.pace()).count(length)
    };
    assert!(count(v6("::5"), 0).abs() < 1e-9);
    assert!((count("203.0.113.9".parse().unwrap(), 0) - 1.0).abs() < 1e-9);
    assert_eq!(Family::of_key(Source::of("192.0.2.1".parse().unwrap(), &[]).key()), Family::V4);
}
