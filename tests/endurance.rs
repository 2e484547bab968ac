//! A long life: a process that never ends, and a store that ever more addresses come into.
//!
//! PREFIXQUOTA_ATTEMPTS says how many attempts, 4000 if it does not; `docs/faults.md` has what a
//! million gave.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::Path;
use std::time::Instant;

use common::book::{inside, v6};
use common::pam::{MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, lab};
use common::store::{Lab, is_charged, source};
use pam_prefixquota::guard::Admission;
use pam_prefixquota::login::Login;
use pam_prefixquota::source::Source;

fn attempts() -> u32 {
    let number = std::env::var("PREFIXQUOTA_ATTEMPTS").unwrap_or_else(|_| "4000".to_owned());
    number.parse().expect("a number in PREFIXQUOTA_ATTEMPTS")
}

/// What a process holds after a part of its life.
struct Age {
    /// Resident memory, in KiB.
    memory: u64,
    descriptors: usize,
    /// Bytes of the store and its log.
    store: u64,
    log: u64,
    /// Microseconds for each attempt of this part.
    attempt: u128,
}

/// 500 rows are little; 65536 slots of wrong passwords, of eight each, are more.
const LARGEST: u64 = 12_000_000;

/// An authentication worker of Dovecot that is never replaced: all logins of a large site, wrong
/// and right ones, from ever new addresses and from known ones, and those that are denied.
#[test]
fn a_worker_that_is_never_replaced_does_not_grow() {
    let _alone = common::alone();
    // In a child, which holds nothing of other tests.
    let codes = at_once(1, |_| {
        let ages = live();
        for Age { memory, descriptors, store, log, attempt } in &ages {
            eprintln!(
                "{attempt} us each, {memory} KiB, {descriptors} descriptors, files of {store} and \
                 {log} bytes"
            );
        }
        let (first, last) = (&ages[1], &ages[9]);
        c_int::from(last.descriptors > first.descriptors)
            + 2 * c_int::from(last.memory > first.memory + 1_024)
            + 4 * c_int::from(last.store > LARGEST || last.log > 1_000_000)
    });
    assert_eq!(codes, [0], "1: descriptors grow, 2: memory grows, 4: files grow");
}

/// Ten parts of equal length. The first one also grows to what the module needs at all.
fn live() -> Vec<Age> {
    let dir = lab("settle=0s max_rows=500");
    let part = attempts() / 10;
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    let age = |number: u32| {
        let started = Instant::now();
        for i in number * part..(number + 1) * part {
            log_in(dir.path(), i);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Age {
            memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            store: size("q.db"),
            log: size("q.db-wal"),
            attempt: started.elapsed().as_micros() / u128::from(part),
        }
    };
    (0..10).map(age).collect()
}

fn log_in(confdir: &Path, i: u32) {
    let password = format!("guess {i}");
    let start = |service: &str, user: &str, rhost: &str| {
        Pam::start(confdir, service, user.as_bytes(), Some(password.as_bytes()))
            .rhost(rhost.as_bytes())
    };
    let code = match i % 4 {
        0 => start("wrong", "mallory", "192.0.2.1").authenticate(),
        1 => start("wrong", "nobody", &inside(v6("2000::"), 4, i).to_string()).authenticate(),
        _ => {
            let user = i % 100;
            let mut pam = start("right", &format!("user{user}"), &format!("2001:db8:{user:x}::1"));
            match pam.authenticate() {
                SUCCESS => pam.account(),
                code => code,
            }
        }
    };
    let expected = if i % 4 < 2 { [PERM_DENIED, MAXTRIES] } else { [SUCCESS, SUCCESS] };
    assert!(expected.contains(&code), "attempt {i}: {code}");
}

/// A flood of guesses, each from a /64 of its own and none over a quota, does not push out the
/// counts of those who guessed more.
#[test]
fn the_heaviest_survive_a_flood_of_new_networks() {
    let _alone = common::alone();
    let flood = attempts();
    // A million networks into the default of a million rows would push out nobody.
    let max_rows = flood / 20;
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.max_rows = max_rows;
    });
    let heavy = |i: u32| match i % 3 {
        0 => source(&format!("198.51.100.{}", i / 3)),
        1 => source(&format!("2a00:1:{i:x}::1")),
        // A whole /64 of addresses that failed twice. Had each failed once, its rows would be as
        // light as those of the flood.
        _ => Source::of(inside(v6("2a00:2::"), 64, i / 3), &[]),
    };
    let guess = |source: Source| {
        let login = Login::of_stranger(source);
        is_charged(&lab.guard().admit(&mut lab.store(), &login, None).unwrap())
    };
    for i in 0..99 {
        while guess(heavy(i)) {}
    }

    let (mut store, mut most) = (lab.store(), 0);
    for i in 0..flood {
        // 2048 providers of 2600::/8 and more, each with networks far from each other.
        let (provider, network) = (i % 2_048, i / 2_048);
        let network = u128::from(network.reverse_bits()) << 64;
        let address = (0x2600_u128 << 112) + (u128::from(provider) << 96) + network + 1;
        let login =
            Login::of_stranger(Source::of(std::net::Ipv6Addr::from_bits(address).into(), &[]));
        let admission = lab.guard().admit(&mut store, &login, None).unwrap();
        assert!(matches!(admission, Admission::Passed(_)), "network {i}: {admission:?}");
        if i % 500 == 0 {
            // Whoever holds it open for long keeps the log from being folded.
            store = lab.store();
            most = most.max(rows(&lab));
        }
    }
    eprintln!("{flood} networks, at most {most} of {max_rows} rows");
    assert!(most <= max_rows, "{most} rows");
    assert!(most > max_rows * 9 / 10, "the flood was no flood: {most} rows");
    drop(store);
    for i in 0..99 {
        assert!(!guess(heavy(i)), "{} has tries again", heavy(i));
    }
    assert!(!guess(source("2a00:2::ffff")), "the /64 as a whole is full");
}

fn rows(lab: &Lab) -> u32 {
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    conn.query_row("SELECT count(*) FROM failure", [], |row| row.get(0)).unwrap()
}
