//! What two other rules would have made of the same attempts.

use std::collections::{HashMap, VecDeque};

use super::gather::{Connection, Family, NOWHERE};
use super::once::End;
use super::rehearse::{History, Verdicts};

const SECOND: i64 = 1_000;
/// A process that was silent for so long answers another client now, in milliseconds.
const CONVERSATION: i64 = 10 * 60 * SECOND;

/// fail2ban's defaults: so many failures of an address in this time ban it for as long.
const MAX_RETRY: usize = 5;
const FIND_TIME: i64 = 10 * 60 * SECOND;
const BAN_TIME: i64 = 10 * 60 * SECOND;

/// What fail2ban would have made of it by its defaults, without the delay that it has.
pub fn fail2ban(history: &History) -> Verdicts {
    #[derive(Default)]
    struct Address {
        failures: VecDeque<i64>,
        banned_until: i64,
    }
    let mut addresses: HashMap<u32, Address> = HashMap::new();
    let mut verdicts = Verdicts::default();
    for attempt in &history.attempts {
        // It never bans its own host.
        if attempt.source == NOWHERE || is_loopback(history, attempt.source) {
            verdicts.add(attempt, 0);
            continue;
        }
        let address = addresses.entry(attempt.source).or_default();
        let mut refused = 0;
        for _ in 0..attempt.times {
            if attempt.at < address.banned_until {
                refused += 1;
            } else if attempt.end == End::Failed {
                address.failures.push_back(attempt.at);
                let expired = |at: &i64| *at <= attempt.at.saturating_sub(FIND_TIME);
                while address.failures.front().is_some_and(expired) {
                    address.failures.pop_front();
                }
                if address.failures.len() >= MAX_RETRY {
                    address.failures.clear();
                    address.banned_until = attempt.at.saturating_add(BAN_TIME);
                }
            }
        }
        verdicts.add(attempt, refused);
    }
    verdicts
}

fn is_loopback(history: &History, source: u32) -> bool {
    let source = history.told.sources.get(source as usize);
    source.and_then(|source| source.address()).is_some_and(|address| address.is_loopback())
}

/// The penalties of OpenSSH 10, as they are by default (`authfail`, `min`, `max`).
const PENALTY: i64 = 5 * SECOND;
const ACTIVE: i64 = 15 * SECOND;
const MOST: i64 = 600 * SECOND;

/// What OpenSSH's PerSourcePenalties would have made of it by their defaults. They are for sshd
/// alone, and count connections that end without a login, at the address.
pub fn penalties(history: &History) -> Verdicts {
    #[derive(Default)]
    struct Penalty {
        until: i64,
        is_active: bool,
    }
    let ends = connections(history);
    let mut penalties: HashMap<u32, Penalty> = HashMap::new();
    let mut refused: HashMap<Connection, (i64, bool)> = HashMap::new();
    let mut verdicts = Verdicts::default();
    for (attempt, end) in history.attempts.iter().zip(ends) {
        if attempt.family != Family::Ssh || attempt.source == NOWHERE {
            verdicts.add(attempt, 0);
            continue;
        }
        let penalty = penalties.entry(attempt.source).or_default();
        if penalty.until < attempt.at {
            *penalty = Penalty::default();
        }
        // It is decided when a connection comes, for all its attempts.
        let is_open = refused.get(&attempt.connection).copied().filter(|(last, _)| {
            attempt.connection.1 != 0 && attempt.at.saturating_sub(*last) <= CONVERSATION
        });
        let is_refused = is_open.map_or(penalty.is_active, |(_, is_refused)| is_refused);
        refused.insert(attempt.connection, (attempt.at, is_refused));
        verdicts.add(attempt, if is_refused { attempt.times } else { 0 });
        if end == Ended::WithoutLogin && !is_refused {
            let until = penalty.until.max(attempt.at).saturating_add(PENALTY);
            penalty.until = until.min(attempt.at.saturating_add(MOST));
            penalty.is_active |= penalty.until.saturating_sub(attempt.at) > ACTIVE;
        }
        if end != Ended::NotYet {
            refused.remove(&attempt.connection);
        }
    }
    verdicts
}

/// What is known of a connection after one of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// More come.
    NotYet,
    /// By a login, or it never had a wrong password.
    WithLogin,
    /// The last attempt has failed.
    WithoutLogin,
}

/// For each attempt, whether it is the last of its connection.
fn connections(history: &History) -> Vec<Ended> {
    let mut next: HashMap<Connection, i64> = HashMap::new();
    let mut ends: Vec<Ended> = history
        .attempts
        .iter()
        .rev()
        .map(|attempt| {
            let later = next.insert(attempt.connection, attempt.at);
            let goes_on = attempt.connection.1 != 0
                && later.is_some_and(|later| later.saturating_sub(attempt.at) <= CONVERSATION);
            match attempt.end {
                _ if goes_on => Ended::NotYet,
                End::Failed => Ended::WithoutLogin,
                End::Accepted | End::Key => Ended::WithLogin,
            }
        })
        .collect();
    ends.reverse();
    ends
}
