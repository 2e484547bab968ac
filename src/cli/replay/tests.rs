//! `replay`, part by part; tests/replay.rs runs the command.

mod corpora;
mod fitting;
mod guard;
mod lines;
mod once;
mod patterns;
mod peers;
mod times;

use jiff::tz::TimeZone;
use pam_prefixquota::config::Settings;

use super::gather::Gatherer;
use super::line::Line;
use super::once::{Attempt, End, attempts};
use super::rehearse::History;
use super::summary::Summary;
use super::time::Zone;

/// 2026-11-23 00:00:00 UTC, when all logs end at the latest.
const END: i64 = 1_795_392_000_000;

/// What logs tell, at UTC.
fn history(logs: &[&str]) -> History {
    let mut gatherer = Gatherer::new(&[], Zone::of(TimeZone::UTC));
    for log in logs {
        gatherer.begin(END);
        log.lines().for_each(|line| gatherer.line(&Line::of(line.as_bytes())));
        gatherer.end();
    }
    let mut told = gatherer.finish();
    let attempts = attempts(std::mem::take(&mut told.sightings));
    History { attempts, told }
}

/// Failures and logins.
fn count(history: &History) -> (u32, u32) {
    let sum = |is: fn(&&Attempt) -> bool| history.attempts.iter().filter(is).map(|a| a.times).sum();
    (sum(|attempt| attempt.end == End::Failed), sum(|attempt| attempt.end != End::Failed))
}

fn summary(logs: &[&str]) -> serde_json::Value {
    Summary::of(&history(logs), &Settings::default()).unwrap().json()
}

/// The line of one failed password, `second` seconds after ten.
fn failed(second: u32, user: &str, address: &str) -> String {
    let pid = 1_000 + second;
    format!(
        "{} web sshd[{pid}]: Failed password for {user} from {address} port 4 ssh2\n",
        at(second)
    )
}

fn accepted(second: u32, method: &str, user: &str, address: &str) -> String {
    let pid = 1_000 + second;
    format!(
        "{} web sshd[{pid}]: Accepted {method} for {user} from {address} port 4 ssh2\n",
        at(second)
    )
}

fn at(second: u32) -> String {
    format!("Nov 20 {:02}:{:02}:{:02}", 10 + second / 3_600, second / 60 % 60, second % 60)
}
