//! Each attempt once, however many lines it has left.
//!
//! # The rule
//!
//! * A login is what its service says. (Postfix says so with each message: once for a connection.)
//! * A failed attempt is what its service says. Where two lines tell of the same one, the later
//!   one is taken for the earlier, of the same source, at most [`BESIDE`] before: sshd tells of a
//!   PAM conversation and then of the method; Dovecot's passdbs each tell of their own.
//! * The servers that Dovecot checks passwords for, its own login processes and Postfix, tell of
//!   them at the end of a connection or behind the passdb. What the passdbs have told of the same
//!   source in the last [`AROUND`] is taken off; what they have not told counts.
//! * pam_unix counts only where the service itself has told of no failure of the same source for
//!   [`AROUND`], before and after. Where pam_unix names a host, another line of the same process of
//!   sshd gives the address; if none does, it counts only where the service never tells.
//! * What sshd tells on one machine is not about another. Postfix may ask the Dovecot of another
//!   machine, and the log of vsftpd names none.

use std::collections::{HashMap, HashSet, VecDeque};

use super::gather::{Connection, Family, NOWHERE, Sighting};
use super::patterns::{Means, Sign, Trace};

/// How far apart two lines about one attempt may be, in milliseconds: pam_unix makes its caller
/// wait for two seconds, more modules for longer.
const BESIDE: i64 = 10 * 1_000;
/// How far apart a line and another one that sums it up may be: a login may take some minutes.
const AROUND: i64 = 10 * 60 * 1_000;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A wrong password.
    Failed,
    /// A right one.
    Accepted,
    /// A key or a ticket, for which PAM is not asked.
    Key,
}

/// An attempt, or several that were the same at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Unix milliseconds.
    pub at: i64,
    /// Machine and process, if the process is not 0.
    pub connection: Connection,
    /// Which source.
    pub source: u32,
    /// Which user.
    pub user: u32,
    /// How many.
    pub times: u32,
    /// How it ended.
    pub end: End,
    /// Of which service.
    pub family: Family,
}

/// Of which machine, if that matters, and which service.
type Teller = (u32, Family);
/// Whose lines may be about the same attempt: of one teller about one source.
type Group = (Teller, u32);

fn teller(sighting: &Sighting) -> Teller {
    match sighting.family {
        Family::Ssh => (sighting.connection.0, Family::Ssh),
        family => (0, family),
    }
}

/// A failure of which another line may tell as well.
struct Told {
    at: i64,
    by: Trace,
    /// Whether another passdb has told of it too.
    by_both: bool,
}

/// The attempts of all lines, in the order of their times.
pub fn attempts(mut sightings: Vec<Sighting>) -> Vec<Attempt> {
    // Stable: lines of the same second stay in their order.
    sightings.sort_by_key(|sighting| sighting.at);
    let covered = covered(&sightings);
    let mut told: HashMap<Group, VecDeque<Told>> = HashMap::new();
    let mut attempts = Vec::new();
    for (index, sighting) in sightings.iter().enumerate() {
        let (times, end) = match sighting.sign {
            Sign::Accepted(Means::Key) => (sighting.times, End::Key),
            Sign::Accepted(_) => (sighting.times, End::Accepted),
            Sign::Failed(Trace::Own) => (sighting.times, End::Failed),
            Sign::Failed(Trace::Pam) if covered.contains(&index) => continue,
            Sign::Failed(Trace::Pam) => (sighting.times, End::Failed),
            Sign::Failed(trace) => {
                let told = told.entry((teller(sighting), sighting.source)).or_default();
                (untold(told, trace, sighting.at, sighting.times), End::Failed)
            }
            Sign::Closed | Sign::Nothing => continue,
        };
        if times > 0 {
            let Sighting { at, connection, source, user, family, .. } = *sighting;
            attempts.push(Attempt { at, connection, source, user, times, end, family });
        }
    }
    attempts
}

/// The lines of pam_unix that do not count.
fn covered(sightings: &[Sighting]) -> HashSet<usize> {
    let is_own = |s: &&Sighting| matches!(s.sign, Sign::Failed(trace) if trace != Trace::Pam);
    let mut covered = HashSet::new();
    if !sightings.iter().any(|sighting| sighting.sign == Sign::Failed(Trace::Pam)) {
        return covered;
    }
    let tell: HashSet<Teller> = sightings.iter().filter(is_own).map(teller).collect();
    let mut look = |last: &mut HashMap<Group, i64>, index: usize, sighting: &Sighting| {
        let group = (teller(sighting), sighting.source);
        if is_own(&sighting) {
            last.insert(group, sighting.at);
        } else if sighting.sign == Sign::Failed(Trace::Pam) {
            let near = |at: &i64| sighting.at.abs_diff(*at) <= AROUND.unsigned_abs();
            let is_covered = match (sighting.source, sighting.is_named) {
                // What checks passwords for a mail server does not know the address.
                (NOWHERE, _) => sighting.family == Family::Mail,
                (_, true) => tell.contains(&teller(sighting)),
                (_, false) => last.get(&group).is_some_and(near),
            };
            if is_covered {
                covered.insert(index);
            }
        }
    };
    let mut before = HashMap::new();
    sightings.iter().enumerate().for_each(|(index, s)| look(&mut before, index, s));
    let mut after = HashMap::new();
    sightings.iter().enumerate().rev().for_each(|(index, s)| look(&mut after, index, s));
    covered
}

/// How many of some failures no line before has told of.
fn untold(told: &mut VecDeque<Told>, trace: Trace, at: i64, times: u32) -> u32 {
    while told.front().is_some_and(|first| first.at < at.saturating_sub(AROUND)) {
        told.pop_front();
    }
    let from = match trace {
        Trace::Server => 0,
        _ => told.partition_point(|told| told.at < at.saturating_sub(BESIDE)),
    };
    let (mut left, mut index) = (times, from);
    while left > 0
        && let Some(one) = told.get_mut(index)
    {
        let is_same = match (one.by, trace) {
            (Trace::Conversation, Trace::Method) => true,
            (Trace::PamPassdb | Trace::OtherPassdb, Trace::Server) => true,
            (Trace::PamPassdb, Trace::OtherPassdb) | (Trace::OtherPassdb, Trace::PamPassdb) => {
                !one.by_both
            }
            _ => false,
        };
        left -= u32::from(is_same);
        match trace {
            // Nobody else tells of it later.
            Trace::Method | Trace::Server if is_same => drop(told.remove(index)),
            _ => {
                one.by_both |= is_same;
                index += 1;
            }
        }
    }
    if matches!(trace, Trace::Conversation | Trace::PamPassdb | Trace::OtherPassdb) {
        told.extend((0..left).map(|_| Told { at, by: trace, by_both: false }));
    }
    left
}
