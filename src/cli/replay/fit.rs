//! `replay --fit`: the smallest curve that would have refused few enough right logins.

use std::ops::RangeInclusive;

use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::Refusal;
use pam_prefixquota::quota::Curve;
use pam_prefixquota::source::Family;
use serde_json::{Value, json};

use super::once::{Attempt, End};
use super::rehearse::{History, Rehearsal};
use crate::cli::table;

/// What the settings take.
const LEAST_BASE: u32 = 2;
const MOST_BASE: u32 = 1_000_000;
const MOST_GROWTH: u32 = 1_000;
/// Of those, the ones that are tried.
const GROWTHS: [u32; 19] =
    [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64, 128, 256, 512, 750, MOST_GROWTH];

/// What a curve would have done.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// Right logins that it would have refused.
    refused: u64,
    /// Guesses that it would have let through.
    let_through: u64,
}

/// What was found for one address family.
pub struct Fit {
    curve: Curve,
    /// Right logins with a password.
    accepted: u64,
    /// How many of these may be refused.
    may: u64,
    now: Effect,
    /// `None` if there were no right logins, or no curve was wide enough.
    found: Option<(Curve, Effect)>,
}

/// Looks for the smallest curve, family by family: one of them says nothing about the other.
///
/// # Errors
///
/// The country data cannot be used.
pub fn fit(history: &History, settings: &Settings, share: f64) -> Result<Vec<Fit>, String> {
    let fit = |family| {
        let attempts = of_family(history, family);
        let is_right = |attempt: &&Attempt| attempt.end == End::Accepted;
        let accepted = attempts.iter().filter(is_right).count() as u64;
        // `as` rounds down: never more than that share.
        let may = (accepted as f64 * share) as u64;
        let trial = Trial { history, settings, attempts };
        let curve = *settings.curve(family);
        let now = trial.effect(curve, u64::MAX)?.unwrap_or(Effect { refused: 0, let_through: 0 });
        let found = if accepted > 0 { trial.smallest(curve, may)? } else { None };
        Ok(Fit { curve, accepted, may, now, found })
    };
    Family::ALL.into_iter().map(fit).collect()
}

fn of_family(history: &History, family: Family) -> Vec<Attempt> {
    let is_of = |attempt: &&Attempt| {
        let source = history.told.sources.get(attempt.source as usize);
        source.is_some_and(|source| source.family() == family)
    };
    history.attempts.iter().filter(is_of).copied().collect()
}

/// Attempts on which curves are tried.
struct Trial<'h> {
    history: &'h History,
    settings: &'h Settings,
    attempts: Vec<Attempt>,
}

impl Trial<'_> {
    /// What a curve would have done; `None` once it has refused more than it may.
    fn effect(&self, curve: Curve, may: u64) -> Result<Option<Effect>, String> {
        let mut settings = self.settings.clone();
        match curve.family {
            Family::V4 => settings.ipv4 = curve,
            Family::V6 => settings.ipv6 = curve,
        }
        let mut rehearsal = Rehearsal::new(self.history, &settings);
        let mut effect = Effect { refused: 0, let_through: 0 };
        for attempt in &self.attempts {
            let (refused, why) = rehearsal.attempt(attempt)?;
            match (attempt.end, why) {
                (End::Failed, _) => effect.let_through += u64::from(attempt.times - refused),
                // What a rule refuses, no curve lets in.
                (_, Some(Refusal::Full(_) | Refusal::Known(_) | Refusal::Elsewhere(_))) => {
                    effect.refused += u64::from(refused);
                }
                _ => {}
            }
            if effect.refused > may {
                return Ok(None);
            }
        }
        Ok(Some(effect))
    }

    /// For each growth there is a least base. Of these curves, the one that lets through the fewest
    /// guesses, and of equal ones that with the least base.
    fn smallest(&self, curve: Curve, may: u64) -> Result<Option<(Curve, Effect)>, String> {
        let steepest = Curve { growth: MOST_GROWTH, ..curve };
        let Some((floor, _)) = self.least_base(steepest, LEAST_BASE..=MOST_BASE, may)? else {
            return Ok(None);
        };
        let mut best: Option<(Curve, Effect)> = None;
        let mut most = MOST_BASE;
        for growth in GROWTHS {
            let curve = Curve { growth, ..curve };
            let Some(found) = self.least_base(curve, floor.base..=most, may)? else { continue };
            let weight = |(curve, effect): &(Curve, Effect)| (effect.let_through, curve.base);
            most = found.0.base;
            best = Some(best.filter(|best| weight(best) <= weight(&found)).unwrap_or(found));
            // More growth would only let more through.
            if most == floor.base {
                break;
            }
        }
        Ok(best)
    }

    /// The least base with which a curve refuses few enough.
    fn least_base(
        &self,
        curve: Curve,
        bases: RangeInclusive<u32>,
        may: u64,
    ) -> Result<Option<(Curve, Effect)>, String> {
        let with = |base| {
            let curve = Curve { base, ..curve };
            Ok::<_, String>(self.effect(curve, may)?.map(|effect| (curve, effect)))
        };
        let (mut low, most) = bases.into_inner();
        let mut high = low;
        let mut found = with(high)?;
        while found.is_none() && high < most {
            low = high + 1;
            high = high.saturating_mul(2).min(most);
            found = with(high)?;
        }
        while low < high && found.is_some() {
            let middle = low + (high - low) / 2;
            match with(middle)? {
                Some(better) => (found, high) = (Some(better), middle),
                None => low = middle + 1,
            }
        }
        Ok(found)
    }
}

/// For people.
pub fn text(fits: &[Fit], share: f64) -> String {
    let mut text = format!(
        "\nThe smallest curve that refuses at most {} % of the right logins with a password:\n",
        share * 100.0
    );
    let rows = fits.iter().map(|fit| {
        let then = fit.found.map(|(_, effect)| effect);
        let shown = |of: fn(&Effect) -> u64| then.map_or("-".to_owned(), |t| of(&t).to_string());
        [
            format!("IPv{}", fit.curve.family.number()),
            fit.accepted.to_string(),
            fit.may.to_string(),
            format!("{} -> {}", fit.now.refused, shown(|effect| effect.refused)),
            format!("{} -> {}", fit.now.let_through, shown(|effect| effect.let_through)),
        ]
    });
    text += &table(&["family", "right logins", "may refuse", "refuses", "lets through"], rows);
    text.push('\n');
    for fit in fits {
        let number = fit.curve.family.number();
        match fit.found {
            Some((curve, _)) => {
                text += &format!("ipv{number}_base = {}\n", curve.base);
                text += &format!("ipv{number}_growth = {}\n", curve.growth);
            }
            None if fit.accepted == 0 => {
                text += &format!("# IPv{number}: no right login with a password to fit it to\n");
            }
            None => text += &format!("# IPv{number}: no curve refuses so few\n"),
        }
    }
    text
}

/// For programs.
pub fn json(fits: &[Fit]) -> Value {
    fits.iter()
        .map(|fit| {
            let (curve, effect) = fit.found.unzip();
            json!({
                "family": fit.curve.family.number(),
                "accepted": fit.accepted,
                "may_refuse": fit.may,
                "accepted_denied_now": fit.now.refused,
                "guesses_let_through_now": fit.now.let_through,
                "base": curve.map(|curve| curve.base),
                "growth": curve.map(|curve| curve.growth),
                "accepted_denied": effect.map(|effect| effect.refused),
                "guesses_let_through": effect.map(|effect| effect.let_through),
            })
        })
        .collect()
}
