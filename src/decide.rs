//! The verdict: the only place where it is decided who may try a password.

use ipnet::{IpNet, Ipv6Net};

use crate::config::Settings;
use crate::count::{Count, Failures, Pace, SLOW_HALF_LIFE, SLOW_TIMES};
use crate::country::Country;
use crate::decay;
use crate::login::{Known, Login, Tier};
use crate::quota::Quotas;
use crate::rules::{Action, RuleId, Ruled};
use crate::source::Source;
use crate::tally::Tally;

/// What the store says of one login, beside the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// The strangers' failures inside the widest prefix around the source.
    pub strangers: Vec<Failures>,
    /// The failures of users whose provider is known, inside the same prefix.
    pub familiar: Vec<Failures>,
    /// The user's known places around the source.
    pub known: Vec<Known>,
    /// Failures for this user from all places that are not known, if such are counted.
    pub elsewhere: Option<Count>,
}

/// Whose counts an attempt is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The prefixes of its source, for all who are not known there.
    Stranger,
    /// The user's own at a known place; for a wide one the prefixes too, as all such users see
    /// them.
    Known(Tier),
}

/// A covering prefix, or a known place, with its count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The prefix.
    pub prefix: IpNet,
    /// Its failures, decayed to now.
    pub count: f64,
    /// How many it may have.
    pub quota: u32,
    /// Milliseconds until the next attempt has room in it; 0 if there is room.
    pub wait: i64,
}

impl Standing {
    /// Which part of its quota it has, 1 for all.
    pub fn share(&self) -> f64 {
        self.count / f64::from(self.quota.max(1))
    }
}

/// Why an attempt is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// A deny rule covers the source.
    Rule(IpNet),
    /// The settings deny its country.
    Country(Country),
    /// A covering prefix is full; of several, the one that takes longest to have room.
    Full(Standing),
    /// The user's count at a known place is full, and a stranger would wait longer.
    Known(Standing),
    /// Too many strangers failed for this user. The prefix is that of the source alone.
    Elsewhere(Standing),
    /// The rule or grant that let the source in had no use left for this success.
    UsedUp(IpNet),
}

impl Refusal {
    /// Milliseconds until an attempt has room again; `None` if time alone does not help.
    pub fn wait(&self) -> Option<i64> {
        match self {
            Refusal::Full(full) | Refusal::Known(full) | Refusal::Elsewhere(full) => {
                Some(full.wait)
            }
            Refusal::Rule(_) | Refusal::Country(_) | Refusal::UsedUp(_) => None,
        }
    }
}

/// What becomes of an attempt.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Verdict {
    /// An exempt rule covers the source: neither counted nor denied. A success takes a use of the
    /// rule that is named.
    Exempt(Option<RuleId>),
    /// May go on, and is charged to a lane. A success takes a use of the rule or grant.
    Admit(Lane, Option<RuleId>),
    /// Full only because of attempts that may still turn out right: wait for them.
    Wait(Refusal),
    /// Refused.
    Deny(Refusal),
}

/// The verdict, and what it was made from.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What becomes of the attempt.
    pub verdict: Verdict,
    /// The strangers' counts around the source.
    pub strangers: Tally,
    /// The counts of those whose provider is known.
    pub familiar: Tally,
    /// The nearest known place.
    pub known: Option<Known>,
    /// The count of the user's strangers.
    pub elsewhere: Option<Count>,
    /// Whether something that was read claims to be from the future ([`Count::is_ahead`]).
    pub is_ahead: bool,
    /// What kept the rules about countries from being asked.
    pub problem: Option<String>,
}

/// What the rules say, whatever the counts; `None` if the counts decide.
pub fn by_rule(ruled: &Ruled) -> Option<Verdict> {
    match ruled.by {
        Some((_, Action::Exempt)) => Some(Verdict::Exempt(ruled.limited.clone())),
        Some((prefix, Action::Deny)) => Some(Verdict::Deny(Refusal::Rule(prefix))),
        Some((_, Action::Count)) => None,
        None => ruled.country.map(|country| Verdict::Deny(Refusal::Country(country))),
    }
}

/// What becomes of an attempt, by rules and counts.
///
/// A user at a known place has a count of his own, which strangers cannot fill; when it is full he
/// is judged as a stranger. A stranger is admitted when every covering prefix has room for one
/// attempt more. Who would be refused, by a rule or by the counts, and has a grant, is let in by
/// it.
pub fn judge(
    login: &Login,
    ruled: &Ruled,
    records: &Records,
    settings: &Settings,
    now: i64,
) -> Judgement {
    let source = &login.source;
    let (pace, quotas) = (settings.pace(), settings.quotas(source.family()));
    let strangers = Tally::new(source, &records.strangers, now, pace);
    let familiar = Tally::new(source, &records.familiar, now, pace);
    let known = known_place(&records.known, now, settings);

    let mut for_stranger = room_of(source, &strangers, &quotas, pace);
    if let (Some(count), Some((quota, pace))) = (&records.elsewhere, settings.elsewhere()) {
        let own = source.prefix(source.family().bits());
        let own = room_in(own, count, quota, now, pace, Refusal::Elsewhere);
        for_stranger = for_stranger.and(own);
    }
    let for_known = known.map(|known| {
        let (quota, pace) = (settings.known_quota(known.place.tier), settings.known_pace());
        let own = room_in(known.place.prefix, &known.count, quota, now, pace, Refusal::Known);
        match known.place.tier {
            Tier::Near => (own, Lane::Known(Tier::Near)),
            Tier::Wide => {
                let around = room_of(source, &familiar, &quotas, settings.pace());
                (own.and(around), Lane::Known(Tier::Wide))
            }
        }
    });

    let lane = match &for_known {
        Some((Room::Free, lane)) => *lane,
        _ => Lane::Stranger,
    };
    let room = match for_known {
        Some((room, _)) => room.or(for_stranger),
        None => for_stranger,
    };
    let by_count = match room {
        Room::Free => Verdict::Admit(lane, ruled.limited.clone()),
        Room::Soon(refusal) => Verdict::Wait(refusal),
        Room::Full(refusal) => Verdict::Deny(refusal),
    };
    let verdict = match (by_rule(ruled).unwrap_or(by_count), &ruled.grant) {
        (Verdict::Deny(_) | Verdict::Wait(_), Some(grant)) => {
            Verdict::Admit(Lane::Stranger, Some(grant.clone()))
        }
        (verdict, _) => verdict,
    };
    let is_ahead = strangers.is_ahead()
        || familiar.is_ahead()
        || records.known.iter().any(|known| known.is_ahead(now))
        || records.elsewhere.is_some_and(|count| count.is_ahead(now));
    let elsewhere = records.elsewhere;
    Judgement { verdict, strangers, familiar, known, elsewhere, is_ahead, problem: None }
}

/// The known place that decides: the nearest of those where the user was seen lately.
pub fn known_place(places: &[Known], now: i64, settings: &Settings) -> Option<Known> {
    let counts = |known: &&Known| {
        settings.remembers(known.seen, now) && settings.known_quota(known.place.tier) > 0
    };
    let known = places.iter().filter(counts);
    known.min_by_key(|known| known.place.tier == Tier::Wide).copied()
}

/// Every covering prefix with its count, widest first.
pub fn standings<'a>(
    source: &'a Source,
    tally: &'a Tally,
    quotas: &'a Quotas<'a>,
    pace: Pace,
) -> impl Iterator<Item = Standing> + 'a {
    quotas.curve.lengths(source).map(move |length| {
        let (sum, prefix) = (tally.sum(length), source.prefix(length));
        standing(prefix, sum.count, sum.slow, quotas.of(prefix), pace)
    })
}

/// Of the two counts of `strict = yes` the one that takes longer to have room.
pub fn standing(prefix: IpNet, count: f64, slow: f64, quota: u32, pace: Pace) -> Standing {
    let wait = decay::wait(count, quota, pace.half_life);
    let slow_quota = quota.saturating_mul(SLOW_TIMES);
    let slow_wait = decay::wait(slow, slow_quota, SLOW_HALF_LIFE);
    if pace.strict && slow_wait > wait {
        Standing { prefix, count: slow, quota: slow_quota, wait: slow_wait }
    } else {
        Standing { prefix, count, quota, wait }
    }
}

/// Milliseconds until a prefix whose counts are both full has room again.
pub fn wait_when_full(quota: u32, pace: Pace) -> i64 {
    let (count, slow) = (f64::from(quota), f64::from(quota.saturating_mul(SLOW_TIMES)));
    standing(Ipv6Net::default().into(), count, slow, quota, pace).wait
}

/// Whether there is room for one attempt more.
enum Room {
    Free,
    /// As soon as attempts that are open turn out right.
    Soon(Refusal),
    Full(Refusal),
}

impl Room {
    /// Room in both.
    fn and(self, other: Room) -> Room {
        match (self, other) {
            (Room::Free, room) | (room, Room::Free) => room,
            (Room::Soon(a), Room::Soon(b)) => Room::Soon(longer(a, b)),
            (Room::Full(a) | Room::Soon(a), Room::Full(b) | Room::Soon(b)) => {
                Room::Full(longer(a, b))
            }
        }
    }

    /// Room in one of them.
    fn or(self, other: Room) -> Room {
        match (self, other) {
            (Room::Free, _) | (_, Room::Free) => Room::Free,
            (Room::Full(a), Room::Full(b)) => Room::Full(shorter(a, b)),
            (Room::Full(a) | Room::Soon(a), Room::Full(b) | Room::Soon(b)) => {
                Room::Soon(shorter(a, b))
            }
        }
    }
}

fn longer(a: Refusal, b: Refusal) -> Refusal {
    if b.wait() > a.wait() { b } else { a }
}

fn shorter(a: Refusal, b: Refusal) -> Refusal {
    if a.wait() < b.wait() { a } else { b }
}

/// Room in every covering prefix.
fn room_of(source: &Source, tally: &Tally, quotas: &Quotas<'_>, pace: Pace) -> Room {
    let full = standings(source, tally, quotas, pace)
        .filter(|standing| standing.wait > 0)
        .max_by_key(|standing| standing.wait);
    let Some(full) = full else {
        return Room::Free;
    };
    let may_settle = quotas.curve.lengths(source).all(|length| {
        let (sum, prefix) = (tally.sum(length), source.prefix(length));
        let (count, slow) = (sum.count - sum.young, sum.slow - sum.young);
        standing(prefix, count, slow, quotas.of(prefix), pace).wait == 0
    });
    let refusal = Refusal::Full(full);
    if may_settle { Room::Soon(refusal) } else { Room::Full(refusal) }
}

/// Room in one count.
fn room_in(
    prefix: IpNet,
    count: &Count,
    quota: u32,
    now: i64,
    pace: Pace,
    refusal: fn(Standing) -> Refusal,
) -> Room {
    let (left, young) = (count.left(now, pace), count.young(now, pace));
    let standing = |count| standing(prefix, count, 0.0, quota, pace);
    match (standing(left), standing(left - young)) {
        (full, _) if full.wait == 0 => Room::Free,
        (full, settled) if settled.wait == 0 => Room::Soon(refusal(full)),
        (full, _) => Room::Full(refusal(full)),
    }
}
