//! Hostile bytes, with the stable toolchain: each target of `fuzz/targets.rs` gets every seed of
//! `fuzz/corpus`, and then changed ones, the same in every run. PREFIXQUOTA_FUZZ=N tries N changed
//! ones for each target. docs/fuzzing.md says how to run them for longer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::Random;
use targets::TARGETS;

/// No input is longer than this after a change, in bytes, but for seeds that were.
const LONGEST: usize = 1 << 16;

/// What inputs may be made of.
const WORDS: [&[u8]; 29] = [
    b"\0",
    b"::",
    b"%",
    b"[",
    b"]:",
    b"/",
    b"/128",
    b"/0",
    b"2001:db8::",
    b"::ffff:192.0.2.1",
    b"64:ff9b::",
    b"255",
    b"18446744073709551616",
    b"\n",
    b" = ",
    b"#",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\xed\xa0\x80",
    b"deny",
    b"36500d",
    b"\x7f\xff\xff\xff",
    b"message repeated 4294967295 times: [ ",
    b"Failed password for ",
    b" rhost=",
    b"Dec 31 23:59:60 ",
    b"9999-12-31T23:59:59+14:00 ",
    b"SQLite format 3\0",
    b"\xab\xcd\xefMaxMind.com",
];

/// What is changed, and how.
struct Dice(Random);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.index(end)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }

    /// A seed, changed in some places.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match (self.below(7), bytes.get_mut(at)) {
                (0, Some(byte)) => *byte ^= 1 << self.below(8),
                (1, Some(byte)) => *byte = self.byte(),
                (2, _) => drop(bytes.drain(self.range(bytes.len()))),
                (3, _) => bytes.insert(at, self.byte()),
                (4, _) => insert(&mut bytes, at, WORDS[self.below(WORDS.len())]),
                (5, _) => {
                    let other = &seeds[self.below(seeds.len())];
                    insert(&mut bytes, at, &other[self.range(other.len())]);
                }
                _ => {
                    let again = bytes[self.range(bytes.len())].to_vec();
                    insert(&mut bytes, at, &again);
                }
            }
        }
        bytes
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    if bytes.len() + more.len() <= LONGEST {
        bytes.splice(at..at, more.iter().copied());
    }
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
}

/// Gives `input` to a target; one that it does not bear is kept, to be made a seed.
fn feed(name: &str, target: fn(&[u8]), input: &[u8]) {
    let done = catch_unwind(AssertUnwindSafe(|| target(input)));
    if let Err(payload) = done {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, input).unwrap();
        eprintln!("{name} failed; the input is in {}", kept.display());
        std::panic::resume_unwind(payload);
    }
}

fn fuzz(name: &str) {
    let (_, target, rounds) = TARGETS.into_iter().find(|target| target.0 == name).unwrap();
    let seeds: Vec<_> = names(&corpus(name)).iter().map(|path| fs::read(path).unwrap()).collect();
    seeds.iter().for_each(|seed| feed(name, target, seed));
    let asked = std::env::var("PREFIXQUOTA_FUZZ").ok();
    let rounds = asked.map_or(rounds, |rounds| rounds.parse().expect("a number"));
    let mut dice = Dice(Random(0x9e37_79b9_7f4a_7c15));
    for _ in 0..rounds {
        feed(name, target, &dice.changed(&seeds));
    }
}

/// A test for each target, so that they run side by side; a target that has none is a failure.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test_a_binary_and_a_corpus() {
            let tests = BTreeSet::from([$(stringify!($name).to_owned()),*]);
            let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            let there = |dir: &str| -> BTreeSet<String> {
                let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(dir);
                names(&dir).iter().map(stem).collect()
            };
            assert_eq!(BTreeSet::from(TARGETS.map(|target| target.0.to_owned())), tests);
            assert_eq!((there("fuzz_targets"), there("corpus")), (tests.clone(), tests));
        }
    };
}

targets! {
    rhost user settings arguments log mmdb store store_bits country country_bits remembered prefix
}
