//! One attack on one defence, among the right users.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use pam_prefixquota::source::Source;

use super::attack::{Attack, Order};
use super::defence::{Closed, Defence};
use super::people::Try;
use super::random::Random;
use super::{DAY, QUIET_DAYS, START};

/// How often an attacker looks for an address that is not closed.
const DRAWS: usize = 8;

/// What became of an attack.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// What the attacker had time for on the last day.
    pub tries: u64,
    /// His guesses of that day that reached the password.
    pub reached: u64,
    /// The logins of his neighbours from places where they are known.
    pub familiar: Share,
    /// Their logins from elsewhere, and of people who are new.
    pub strangers: Share,
}

/// Right logins, and how many of them were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// All.
    pub logins: u64,
    /// Those refused.
    pub refused: u64,
}

impl Share {
    /// Refused, of a hundred; `None` of none.
    pub fn percent(self) -> Option<f64> {
        (self.logins > 0).then(|| 100.0 * self.refused as f64 / self.logins as f64)
    }
}

/// Lets the people log in for the quiet days and `days` more, in which the attack goes on.
pub fn run(
    defence: &mut dyn Defence,
    attack: &Attack,
    people: &[Try],
    days: u16,
    random: &mut Random,
) -> Figures {
    let began = START + QUIET_DAYS * DAY;
    let ends = began + i64::from(days) * DAY;
    let mut figures = Figures::default();
    let mut knowledge = Knowledge::default();
    let mut people = people.iter().peekable();
    for i in 0.. {
        let now = (began + attack.at(i)).min(ends);
        while let Some(one) = people.next_if(|one| one.at <= now) {
            let answer = defence.attempt(&one.login, one.is_right, one.at);
            if one.is_right && one.at >= began && attack.is_beside(&one.login.source) {
                let share =
                    if one.is_familiar { &mut figures.familiar } else { &mut figures.strangers };
                share.logins += 1;
                share.refused += u64::from(answer.is_err());
            }
        }
        if now == ends {
            break;
        }
        let is_counted = now >= ends - DAY;
        figures.tries += u64::from(is_counted);
        let mut login = attack.login(i, random);
        // Somewhere else it may be open.
        let draws = if matches!(attack.order, Order::Random) { DRAWS } else { 1 };
        let knows_names = !attack.names.is_empty();
        let is_open = (0..draws).any(|draw| {
            if draw > 0 {
                login = attack.login(i, random);
            }
            knows_names || !knowledge.is_closed(&login.source, now)
        });
        if !is_open {
            continue;
        }
        match defence.attempt(&login, false, now) {
            Ok(()) => figures.reached += u64::from(is_counted),
            Err(closed) => knowledge.learn(closed),
        }
    }
    figures
}

/// What an attacker knows to be closed to strangers. Nothing opens a prefix before its time but a
/// right password, which takes back no more than it has cost.
#[derive(Default)]
struct Knowledge {
    closed: HashMap<IpNet, i64>,
    lengths: BTreeSet<u8>,
}

impl Knowledge {
    fn learn(&mut self, closed: Closed) {
        if let Some(prefix) = closed.prefix {
            self.lengths.insert(prefix.prefix_len());
            self.closed.insert(prefix, closed.until);
        }
    }

    fn is_closed(&mut self, source: &Source, now: i64) -> bool {
        self.lengths.iter().any(|&length| {
            let prefix = source.prefix(length);
            match self.closed.get(&prefix) {
                Some(&until) if now < until => true,
                Some(_) => {
                    self.closed.remove(&prefix);
                    false
                }
                None => false,
            }
        })
    }
}
