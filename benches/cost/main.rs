//! What a login attempt costs: with the module and with its peers, against `pam_deny` alone.
//!
//! `cargo bench --bench cost`, as root; `PREFIXQUOTA_MODULE` names the module under test. Each
//! attempt runs from `pam_start` to `pam_end`: in a process of its own, as with sshd, so that
//! loading the module and opening its store are paid each time, or as one of many in a process, as
//! in Dovecot's worker. The candidates take turns in random order, so that a machine whose speed
//! drifts slows all of them alike: read the ratios, not the times.
//! Nothing here fails because it is slow. What is asserted is that every attempt got the answer
//! without which its time would mean nothing; charges that the store missed are told.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod caller;
mod candidate;
#[path = "../../tests/common/mod.rs"]
mod common;
mod races;
#[path = "../report/mod.rs"]
mod report;
mod store;
mod table;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use caller::{Caller, FORMS, Measured};
use candidate::{Candidate, candidates};

/// Of all candidates in all forms, as far as there is time; fewer on a machine that is busy with
/// other things.
const ROUNDS: usize = 30;
const FEWEST: usize = 5;
const TIME: Duration = Duration::from_secs(270);

fn main() {
    if !common::root_or_skip("cost") || !report::has("cost", &["pam_abl.so", "pam_faillock.so"]) {
        return;
    }
    let started = Instant::now();
    let dir = common::private_dir();
    races::own_shadow(dir.path());
    let costs = costs(dir.path());
    let limits = table::limits(&costs, &races::reached(dir.path()), size(dir.path()));
    report::part("cost", &table::costs(&costs));
    report::part("cpu", &table::cpu(&costs));
    report::part("limits", &limits);
    report::picture("bench-cost.svg", &table::chart(&costs));
    println!("This took {} s.", started.elapsed().as_secs());
}

/// What every candidate took in every form; `None` where it was not measured.
struct Costs {
    candidates: Vec<Candidate>,
    measured: Vec<[Option<Measured>; FORMS.len()]>,
    /// How often each was measured, those at one a time some times more.
    rounds: usize,
    /// How many charges were made, and how many of them the store does not have.
    charges: (u32, u32),
}

fn costs(dir: &Path) -> Costs {
    let confdir = subdir(dir, "pam.d");
    let mut caller = Caller::start(dir, &confdir);
    let mut rng = Rng(1);
    let candidates = candidates(dir, &confdir, &mut caller, &mut rng);
    let turns: Vec<(usize, usize)> = (0..candidates.len())
        .flat_map(|i| (0..FORMS.len()).map(move |form| (i, form)))
        .filter(|&(i, form)| candidates[i].takes(&FORMS[form]))
        .flat_map(|turn| std::iter::repeat_n(turn, FORMS[turn.1].goes()))
        .collect();
    let mut samples = vec![[const { Vec::new() }; FORMS.len()]; candidates.len()];
    let (mut rounds, mut made, mut missed) = (0, 0, 0);
    let started = Instant::now();
    while rounds < FEWEST || rounds < ROUNDS && started.elapsed() < TIME {
        rounds += 1;
        for turn in rng.shuffled(turns.len()) {
            let (i, form) = turns[turn];
            let sample = candidates[i].measure(&mut caller, &FORMS[form]);
            samples[i][form].push(sample.measured);
            made += sample.charges;
            missed += sample.missed;
        }
    }
    caller.end();
    let measured = samples.into_iter().map(|forms| forms.map(Measured::median)).collect();
    Costs { candidates, measured, rounds, charges: (made, missed) }
}

/// The module file as it is installed, in kB.
fn size(dir: &Path) -> u64 {
    let stripped = dir.join("stripped.so");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(common::module()).status();
    assert!(status.is_ok_and(|status| status.success()), "strip, of binutils");
    fs::metadata(stripped).unwrap().len().div_ceil(1000)
}

fn subdir(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    path
}

/// SplitMix64: the same addresses and turns in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(common::STEP);
        common::mixed(self.0)
    }

    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.next() as usize % (i + 1));
        }
        order
    }
}
