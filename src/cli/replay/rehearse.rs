//! What the guard would have made of the attempts.

use std::collections::HashMap;

use ipnet::IpNet;
use pam_prefixquota::config::Settings;
use pam_prefixquota::country::{Country, country_of, is_denied};
use pam_prefixquota::decide::{self, Refusal, Verdict};
use pam_prefixquota::login::Login;
use pam_prefixquota::rules::{self, Ruled, Rules};

use super::gather::{Gathered, NOWHERE};
use super::once::{Attempt, End};
use crate::cli::book::{Book, Outcome};

/// What was asked, and when it began and ended.
pub struct History {
    /// In the order of their times.
    pub attempts: Vec<Attempt>,
    /// Names and addresses.
    pub told: Gathered,
}

/// What became of some attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Wrong passwords that were checked.
    pub let_through: u64,
    /// Wrong passwords that were not.
    pub spared: u64,
    /// Right logins that were refused.
    pub refused: u64,
}

impl Verdicts {
    /// Counts an attempt that was made `times` times, of which so many were refused.
    pub fn add(&mut self, attempt: &Attempt, refused: u32) {
        match attempt.end {
            End::Failed => {
                self.let_through += u64::from(attempt.times - refused);
                self.spared += u64::from(refused);
            }
            End::Accepted | End::Key => self.refused += u64::from(refused),
        }
    }
}

/// The guard, with the time of the log as its clock.
pub struct Rehearsal<'h> {
    history: &'h History,
    settings: &'h Settings,
    rules: Rules,
    book: Book,
    login: Login,
    countries: HashMap<u32, Option<Country>>,
}

impl<'h> Rehearsal<'h> {
    /// With nothing counted and nobody known yet.
    pub fn new(history: &'h History, settings: &'h Settings) -> Rehearsal<'h> {
        let nobody = pam_prefixquota::source::Source::nameless("");
        Rehearsal {
            history,
            settings,
            rules: settings.rules(),
            book: Book::new(settings),
            login: Login::of_stranger(nobody),
            countries: HashMap::new(),
        }
    }

    /// Makes an attempt, as often as it was made: how many were refused, and why.
    ///
    /// # Errors
    ///
    /// The country data cannot be used.
    pub fn attempt(&mut self, attempt: &Attempt) -> Result<(u32, Option<Refusal>), String> {
        let told = &self.history.told;
        let Some(source) = told.sources.get(attempt.source as usize) else { return Ok((0, None)) };
        self.login.source.clone_from(source);
        self.login.user.clone_from(told.users.get(attempt.user as usize).unwrap_or(&Vec::new()));
        if attempt.end == End::Key {
            self.book.succeed_without_password(&self.login, attempt.at);
            return Ok((0, None));
        }
        if let Some(refusal) = self.by_country(attempt)? {
            return Ok((attempt.times, Some(refusal)));
        }
        for done in 0..attempt.times {
            match self.book.admit(&self.login, attempt.at) {
                Outcome::Passed(ticket) if attempt.end == End::Accepted => {
                    self.book.succeed(&self.login, &ticket, attempt.at);
                }
                Outcome::Passed(_) => {}
                // Nothing was written, so the same again is refused too.
                Outcome::Refused(refusal) => return Ok((attempt.times - done, Some(refusal))),
            }
        }
        Ok((0, None))
    }

    /// What the settings say of the country of an attempt.
    fn by_country(&mut self, attempt: &Attempt) -> Result<Option<Refusal>, String> {
        let (allow, deny) = (&self.settings.country_allow, &self.settings.country_deny);
        if allow.is_empty() && deny.is_empty() {
            return Ok(None);
        }
        let country = match self.countries.get(&attempt.source) {
            Some(country) => *country,
            None => {
                let country = country_of(&self.settings.country_database, &self.login.source)
                    .map_err(|error| error.to_string())?;
                *self.countries.entry(attempt.source).or_insert(country)
            }
        };
        let country = country.filter(|&country| is_denied(country, allow, deny));
        let ruled = rules::decide(&self.login, &self.rules, &[], attempt.at);
        Ok(match decide::by_rule(&Ruled { country, ..ruled }) {
            Some(Verdict::Deny(refusal @ Refusal::Country(_))) => Some(refusal),
            _ => None,
        })
    }
}

/// The prefix that a refusal names, if it names one.
pub fn full_prefix(refusal: &Refusal) -> Option<IpNet> {
    match refusal {
        Refusal::Full(full) | Refusal::Known(full) => Some(full.prefix),
        Refusal::Rule(prefix) | Refusal::UsedUp(prefix) => Some(*prefix),
        Refusal::Elsewhere(_) | Refusal::Country(_) => None,
    }
}

/// In a few words, why.
pub fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Full(full) => format!("{} was full", full.prefix),
        Refusal::Known(full) => format!("the user's count at {} was full", full.prefix),
        Refusal::Elsewhere(_) => "strangers had failed for the user".to_owned(),
        Refusal::Rule(prefix) | Refusal::UsedUp(prefix) => format!("deny {prefix}"),
        Refusal::Country(country) => format!("country {country}"),
    }
}

impl History {
    /// Whether an attempt came over the network.
    pub fn is_remote(attempt: &Attempt) -> bool {
        attempt.source != NOWHERE
    }
}
