//! What stops password guessing: of 300 wrong guesses, how many reach the password check, and what
//! becomes of others meanwhile, with the module and with its peers.
//!
//! `cargo bench --bench strength`, as root, in a lab of its own (see `tests/common/lab.rs`), so that
//! no peer touches this machine. Every peer runs as Debian ships it. The check is the real
//! `pam_unix`, and a guess has reached it when `pam_unix` has logged its failure. What reads logs
//! reads lines as sshd writes them, written when the guess is answered.
//! Nothing here fails because a peer is weak or slow. What is asserted is that every attempt got an
//! answer, and that every peer was at work before the attack.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod attack;
#[path = "../../tests/common/mod.rs"]
mod common;
mod peers;
#[path = "../report/mod.rs"]
mod report;
mod table;

use std::time::Instant;

use attack::{Cell, Manner, SCENARIOS};
use common::lab::{self, Lab};
use common::pam::at_once;
use peers::PEERS;

/// In seconds; it takes some two minutes and a half.
const BOUND: &str = "900";

fn main() {
    if std::env::var_os(lab::INSIDE).is_none() {
        outside();
    } else if let Some(lab) = lab::enter("strength", &[]) {
        inside(&lab);
    }
}

/// Runs this program once more, in namespaces of its own.
fn outside() {
    let peers = ["pam_abl.so", "pam_faillock.so", "fail2ban-server", "sshguard"];
    if !common::root_or_skip("strength") || !report::has("strength", &peers) {
        return;
    }
    let dir = common::private_dir();
    let status = lab::inside(dir.path(), BOUND).status().expect("timeout (coreutils)");
    assert!(status.success(), "strength: {status}, see above");
}

fn inside(lab: &Lab) {
    let started = Instant::now();
    attack::add_users(lab);
    let mut cells = Vec::new();
    for manner in [Manner::Serial, Manner::Crowds] {
        for scenario in &SCENARIOS {
            for peer in PEERS {
                let number = u16::try_from(cells.len()).unwrap();
                cells.push(Cell::new(lab, number, peer, scenario, manner));
            }
        }
    }
    let _daemons = peers::start(lab, &cells);
    for manner in [Manner::Serial, Manner::Crowds] {
        let of_manner: Vec<&Cell> = cells.iter().filter(|cell| cell.manner == manner).collect();
        let count = of_manner.len();
        let ended = at_once(count, |i| of_manner[i].run(i, count));
        assert!(ended.iter().all(|&status| status == 0), "see above");
    }
    let outcomes = attack::results(lab, &cells);
    report::part("strength", &table::report(&outcomes));
    report::picture("bench-strength.svg", &table::chart(&outcomes));
    println!("This took {} s.", started.elapsed().as_secs());
}
