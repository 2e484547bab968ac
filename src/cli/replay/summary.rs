//! What a rehearsal comes to, for people and for programs.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::Refusal;
use serde_json::{Value, json};

use super::once::{Attempt, End};
use super::peers;
use super::rehearse::{History, Rehearsal, Verdicts, full_prefix, reason};
use crate::cli::show::local_time;
use crate::cli::{shown_name, shown_wait, table};

/// How many right logins that were refused are listed, and how many prefixes.
const LISTED: usize = 10;
/// Into how many parts the time is divided for the plot.
pub const PARTS: usize = 120;

/// Attempts and denials of a part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// All attempts.
    pub attempts: u64,
    /// Those that were denied.
    pub denied: u64,
    /// Right logins among these.
    pub accepted_denied: u64,
}

/// A right login that would have been refused.
struct Refused {
    at: i64,
    user: String,
    source: String,
    why: Refusal,
}

/// What a full prefix has kept out.
struct Full {
    prefix: IpNet,
    denied: u64,
    first: i64,
    last: i64,
}

/// What a rehearsal comes to.
#[derive(Default)]
pub struct Summary {
    lines: u64,
    failures: u64,
    accepted: u64,
    by_key: u64,
    nowhere: u64,
    named: u64,
    sources: usize,
    ours: Verdicts,
    fail2ban: Verdicts,
    penalties: Verdicts,
    refused: Vec<Refused>,
    full: Vec<Full>,
    /// From the first to the last attempt, Unix milliseconds.
    pub span: Option<(i64, i64)>,
    /// Attempts and denials over that time.
    pub parts: Vec<Part>,
}

impl Summary {
    /// Rehearses it all.
    ///
    /// # Errors
    ///
    /// The country data cannot be used.
    pub fn of(history: &History, settings: &Settings) -> Result<Summary, String> {
        let (first, last) = (history.attempts.first(), history.attempts.last());
        let mut summary = Summary {
            lines: history.told.lines,
            fail2ban: peers::fail2ban(history),
            penalties: peers::penalties(history),
            span: first.zip(last).map(|(first, last)| (first.at, last.at)),
            parts: vec![Part::default(); PARTS],
            ..Summary::default()
        };
        let mut rehearsal = Rehearsal::new(history, settings);
        let mut sources = HashSet::new();
        let mut full = HashMap::new();
        for attempt in &history.attempts {
            let (refused, why) = rehearsal.attempt(attempt)?;
            summary.count(history, attempt, refused);
            if History::is_remote(attempt) {
                sources.insert(attempt.source);
            }
            if let Some(why) = why {
                summary.note(history, attempt, why, refused, &mut full);
            }
        }
        summary.sources = sources.len();
        summary.full = full.into_values().collect();
        summary.full.sort_by_key(|full| (std::cmp::Reverse(full.denied), full.first, full.prefix));
        Ok(summary)
    }

    fn count(&mut self, history: &History, attempt: &Attempt, refused: u32) {
        let times = u64::from(attempt.times);
        match attempt.end {
            End::Failed => self.failures += times,
            End::Accepted | End::Key => self.accepted += times,
        }
        self.by_key += if attempt.end == End::Key { times } else { 0 };
        match history.told.sources.get(attempt.source as usize) {
            None => self.nowhere += times,
            Some(source) if source.address().is_none() => self.named += times,
            Some(_) => {}
        }
        self.ours.add(attempt, refused);
        let Some((first, last)) = self.span else { return };
        let part = (attempt.at - first).saturating_mul(PARTS as i64) / (last - first + 1);
        if let Some(part) = usize::try_from(part).ok().and_then(|part| self.parts.get_mut(part)) {
            part.attempts += times;
            part.denied += u64::from(refused);
            part.accepted_denied += if attempt.end == End::Failed { 0 } else { u64::from(refused) };
        }
    }

    fn note(
        &mut self,
        history: &History,
        attempt: &Attempt,
        why: Refusal,
        refused: u32,
        full: &mut HashMap<IpNet, Full>,
    ) {
        if let Some(prefix) = full_prefix(&why) {
            let new = Full { prefix, denied: 0, first: attempt.at, last: attempt.at };
            let full = full.entry(prefix).or_insert(new);
            full.denied += u64::from(refused);
            full.last = attempt.at;
        }
        if attempt.end != End::Failed && self.refused.len() < LISTED {
            let user = history.told.users.get(attempt.user as usize);
            let source = history.told.sources.get(attempt.source as usize);
            self.refused.push(Refused {
                at: attempt.at,
                user: user.map(|user| shown_name(user)).unwrap_or_default(),
                source: source.map(ToString::to_string).unwrap_or_default(),
                why,
            });
        }
    }

    /// The rules side by side.
    fn rules(&self) -> [(&'static str, Verdicts); 4] {
        let none = Verdicts { let_through: self.failures, ..Verdicts::default() };
        [
            ("no limit", none),
            ("prefixquota", self.ours),
            ("fail2ban (5 in 10m, ban 10m)", self.fail2ban),
            ("OpenSSH PerSourcePenalties", self.penalties),
        ]
    }

    /// For people.
    pub fn text(&self) -> String {
        let Some((first, last)) = self.span else {
            return format!(
                "{} lines, and no attempt to log in among them. `prefixquota check --line LINE` \
                 says what a line is taken for.",
                self.lines
            );
        };
        let mut text = format!(
            "{} lines: {} attempts ({} failures, {} logins) from {} sources, from {} to {} ({}).\n",
            self.lines,
            self.failures + self.accepted,
            self.failures,
            self.accepted,
            self.sources,
            local_time(first),
            local_time(last),
            shown_wait(last - first).replace("now", "0s"),
        );
        text += &self.remarks();
        let rows = self.rules().map(|(name, verdicts)| {
            let counts = [verdicts.let_through, verdicts.spared, verdicts.refused];
            [vec![name.to_owned()], counts.map(|count| count.to_string()).to_vec()].concat()
        });
        let header = ["rule", "guesses let through", "guesses spared", "right logins refused"];
        text += &format!("\n{}", table(&header, rows));
        if !self.refused.is_empty() {
            let rows = self.refused.iter().map(|refused| {
                let why = reason(&refused.why);
                [local_time(refused.at), refused.user.clone(), refused.source.clone(), why]
            });
            let more = self.ours.refused.saturating_sub(self.refused.len() as u64);
            text += "\nRight logins that prefixquota would have refused";
            text += &if more > 0 { format!(", and {more} later:\n") } else { ":\n".to_owned() };
            text += &table(&["time", "user", "source", "because"], rows);
        }
        if !self.full.is_empty() {
            let rows = self.full.iter().take(LISTED).map(|full| {
                let prefix = full.prefix.to_string();
                [prefix, full.denied.to_string(), local_time(full.first), local_time(full.last)]
            });
            text += &format!("\n{}", table(&["full prefix", "denied", "first", "last"], rows));
        }
        text
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        let mut say = |count: u64, what: &str| {
            if count > 0 {
                text += &format!("{count} {what}\n");
            }
        };
        say(self.by_key, "logins were with a key: the module never refuses those.");
        say(
            self.nowhere,
            "attempts had no address, as at a console: the module leaves them alone.",
        );
        say(
            self.named,
            "attempts name a host and no address: they share one count for each service.",
        );
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rules = self.rules().map(|(rule, verdicts)| {
            json!({
                "rule": rule,
                "guesses_let_through": verdicts.let_through,
                "guesses_spared": verdicts.spared,
                "accepted_denied": verdicts.refused,
            })
        });
        let refused: Value = self
            .refused
            .iter()
            .map(|refused| {
                json!({
                    "unix_ms": refused.at,
                    "user": refused.user,
                    "source": refused.source,
                    "prefix": full_prefix(&refused.why).map(|prefix| prefix.to_string()),
                    "reason": reason(&refused.why),
                })
            })
            .collect();
        let full: Value = self
            .full
            .iter()
            .take(LISTED)
            .map(|full| {
                json!({
                    "prefix": full.prefix.to_string(),
                    "denied": full.denied,
                    "first_unix_ms": full.first,
                    "last_unix_ms": full.last,
                })
            })
            .collect();
        json!({
            "lines": self.lines,
            "attempts": self.failures + self.accepted,
            "failures": self.failures,
            "accepted": self.accepted,
            "accepted_by_key": self.by_key,
            "without_address": self.nowhere,
            "by_host_name": self.named,
            "sources": self.sources,
            "first_unix_ms": self.span.map(|(first, _)| first),
            "last_unix_ms": self.span.map(|(_, last)| last),
            "denied": self.ours.spared + self.ours.refused,
            "accepted_denied": self.ours.refused,
            "guesses_spared": self.ours.spared,
            "first_accepted_denied": refused,
            "full_prefixes": full,
            "rules": rules,
        })
    }
}
