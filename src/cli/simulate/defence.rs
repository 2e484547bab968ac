//! What stands between a guess and the password: these settings, and what others do at one fixed
//! prefix length.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use ipnet::IpNet;
use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::Refusal;
use pam_prefixquota::login::Login;
use pam_prefixquota::source::{Family, Source};

use crate::cli::book::{Book, Outcome};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// How often, in attempts, what is long over is thrown away.
const CLEAN_EVERY: u32 = 1 << 16;

/// A refusal, as an attacker who knows all counts understands it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closed {
    /// For whom; `None` if for one user only.
    pub prefix: Option<IpNet>,
    /// Until when, Unix milliseconds.
    pub until: i64,
}

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// prefixquota, by the settings in force.
    Own,
    /// fail2ban's default: 5 failures in 10 minutes, then 10 minutes of ban.
    Fail2ban(u8),
    /// OpenSSH's PerSourcePenalties as by default, with six guesses to a connection.
    OpenSsh(u8),
    /// The example of pam_abl: 10 failures an hour and 30 a day.
    PamAbl,
}

impl Kind {
    /// All, in the order in which they are shown; with the IPv6 prefix length of each.
    pub const ALL: [Kind; 7] = [
        Kind::Own,
        Kind::Fail2ban(128),
        Kind::Fail2ban(64),
        Kind::Fail2ban(48),
        Kind::OpenSsh(128),
        Kind::OpenSsh(64),
        Kind::PamAbl,
    ];

    /// As people know it.
    pub fn name(self) -> String {
        match self {
            Kind::Own => "prefixquota".to_owned(),
            Kind::Fail2ban(length) => format!("fail2ban /{length}"),
            Kind::OpenSsh(length) => format!("OpenSSH /{length}"),
            Kind::PamAbl => "pam_abl".to_owned(),
        }
    }

    /// One that has seen nothing yet.
    pub fn start(self, settings: &Settings) -> Box<dyn Defence> {
        match self {
            Kind::Own => Box::new(Book::new(settings)),
            Kind::Fail2ban(length) => Box::new(Fixed::<Bans>::new(length)),
            Kind::OpenSsh(length) => Box::new(Fixed::<Penalties>::new(length)),
            Kind::PamAbl => Box::new(Fixed::<Windows>::new(128)),
        }
    }
}

/// Decides about one attempt, and learns how it ended.
pub trait Defence {
    /// Whether the password is checked; it is right or not.
    ///
    /// # Errors
    ///
    /// It is not: for whom, and until when.
    fn attempt(&mut self, login: &Login, is_right: bool, now: i64) -> Result<(), Closed>;
}

impl Defence for Book {
    fn attempt(&mut self, login: &Login, is_right: bool, now: i64) -> Result<(), Closed> {
        match self.admit(login, now) {
            Outcome::Passed(ticket) if is_right => {
                self.succeed(login, &ticket, now);
                Ok(())
            }
            Outcome::Passed(_) => Ok(()),
            Outcome::Refused(Refusal::Full(full)) => {
                Err(Closed { prefix: Some(full.prefix), until: now.saturating_add(full.wait) })
            }
            Outcome::Refused(refusal) => {
                let until = now.saturating_add(refusal.wait().unwrap_or(0));
                Err(Closed { prefix: None, until })
            }
        }
    }
}

/// A rule that keeps something of every prefix of one length; of IPv4, of every address. The keys
/// are what is left of those of the store; in the networks here they never meet.
struct Fixed<R> {
    length: u8,
    kept: HashMap<u128, R, BuildHasherDefault<Mixer>>,
    attempts: u32,
}

/// Millions of keys that nobody chose to collide: one multiplication is enough.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write_u128(&mut self, key: u128) {
        let high = (key >> 64) as u64 ^ self.0 ^ 0x9e37_79b9_7f4a_7c15;
        let low = key as u64 ^ 0xd1b5_4a32_d192_ed03;
        let product = u128::from(high) * u128::from(low);
        self.0 = (product ^ (product >> 64)) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u128(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What such a rule keeps of one prefix.
trait Rule: Default {
    /// Until when it refuses, if it does.
    fn closed_until(&mut self, now: i64) -> Option<i64>;
    /// An attempt has failed.
    fn fail(&mut self, now: i64);
    /// A login has succeeded.
    fn succeed(&mut self) {}
    /// Whether it may be thrown away.
    fn is_over(&self, now: i64) -> bool;
}

impl<R: Rule> Fixed<R> {
    fn new(length: u8) -> Fixed<R> {
        Fixed { length, kept: HashMap::default(), attempts: 0 }
    }

    /// How many bits of its key a source is told by.
    fn length(&self, source: &Source) -> u8 {
        match source.family() {
            Family::V6 => self.length,
            Family::V4 => 32,
        }
    }
}

impl<R: Rule> Defence for Fixed<R> {
    fn attempt(&mut self, login: &Login, is_right: bool, now: i64) -> Result<(), Closed> {
        self.attempts = self.attempts.wrapping_add(1);
        if self.attempts.is_multiple_of(CLEAN_EVERY) {
            self.kept.retain(|_, kept| !kept.is_over(now));
        }
        let (source, length) = (&login.source, self.length(&login.source));
        let rest = u32::from(source.family().bits() - length);
        let kept = self.kept.entry(source.key().to_bits() >> rest).or_default();
        if let Some(until) = kept.closed_until(now) {
            return Err(Closed { prefix: Some(source.prefix(length)), until });
        }
        if is_right {
            kept.succeed();
        } else {
            kept.fail(now);
        }
        Ok(())
    }
}

/// fail2ban.
#[derive(Default)]
struct Bans {
    /// The last failures, the latest first.
    fails: [Option<i64>; Bans::TRIES - 1],
    banned_until: i64,
}

impl Bans {
    const TRIES: usize = 5;
    const TIME: i64 = 10 * MINUTE;
}

impl Rule for Bans {
    fn closed_until(&mut self, now: i64) -> Option<i64> {
        Some(self.banned_until).filter(|&until| now < until)
    }

    fn fail(&mut self, now: i64) {
        self.fails.rotate_right(1);
        let [latest, ..] = &mut self.fails;
        let first = latest.replace(now);
        if first.is_some_and(|first| now - first < Bans::TIME) {
            *self = Bans { banned_until: now + Bans::TIME, ..Bans::default() };
        }
    }

    fn is_over(&self, now: i64) -> bool {
        let [latest, ..] = self.fails;
        now >= self.banned_until && latest.is_none_or(|at| now - at >= Bans::TIME)
    }
}

/// OpenSSH.
#[derive(Default)]
struct Penalties {
    /// Wrong passwords in the connection that is open.
    guesses: u8,
    /// The last of them.
    at: i64,
    expires: i64,
    is_active: bool,
}

impl Penalties {
    const GUESSES: u8 = 6;
    const AUTHFAIL: i64 = 5 * SECOND;
    const MIN: i64 = 15 * SECOND;
    const MAX: i64 = 10 * MINUTE;
    const GRACE: i64 = 2 * MINUTE;
}

impl Rule for Penalties {
    fn closed_until(&mut self, now: i64) -> Option<i64> {
        self.is_active &= now < self.expires;
        // A connection that is open stays so.
        (self.is_active && self.guesses == 0).then_some(self.expires)
    }

    fn fail(&mut self, now: i64) {
        self.guesses += 1;
        self.at = now;
        if self.guesses == Penalties::GUESSES {
            self.guesses = 0;
            let expires = self.expires.max(now) + Penalties::AUTHFAIL;
            self.expires = expires.min(now + Penalties::MAX);
            self.is_active |= self.expires - now > Penalties::MIN;
        }
    }

    fn succeed(&mut self) {
        self.guesses = 0;
    }

    fn is_over(&self, now: i64) -> bool {
        now >= self.expires && now - self.at >= Penalties::GRACE
    }
}

/// pam_abl.
#[derive(Default)]
struct Windows {
    fails: VecDeque<i64>,
}

impl Windows {
    const LIMITS: [(usize, i64); 2] = [(10, HOUR), (30, 24 * HOUR)];
}

impl Rule for Windows {
    fn closed_until(&mut self, now: i64) -> Option<i64> {
        let until = Windows::LIMITS.iter().filter_map(|(tries, time)| {
            // The oldest of the last so many must be older than that.
            let oldest = self.fails.len().checked_sub(*tries)?;
            Some(self.fails.get(oldest)? + time).filter(|&until| now < until)
        });
        until.max()
    }

    fn fail(&mut self, now: i64) {
        self.fails.push_back(now);
        while self.fails.len() > 30 {
            self.fails.pop_front();
        }
    }

    fn is_over(&self, now: i64) -> bool {
        self.fails.back().is_none_or(|at| now - at >= 24 * HOUR)
    }
}
