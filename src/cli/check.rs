//! `check`: what would become of an attempt now, and why.

use std::ffi::OsStr;

use ipnet::IpNet;
use pam_prefixquota::decay;
use pam_prefixquota::decide::{Judgement, Lane, Refusal, Standing, Verdict, standings};
use pam_prefixquota::login::Login;
use serde_json::json;

use super::{Context, Report, bar, json_count, seconds, shown_count, shown_name, shown_wait};

/// `check ADDRESS`.
pub fn check(
    context: &Context,
    address: &str,
    user: Option<&OsStr>,
    all: bool,
) -> Result<Report, String> {
    let login = context.login(address, user)?;
    let guard = context.guard();
    let judgement = match context.existing_store()? {
        Some(mut store) => guard.look(&mut store, &login).map_err(|error| error.to_string())?,
        None => guard.look_at_settings(&login),
    };
    let settings = context.settings();
    let quotas = settings.quotas(login.source.family());
    let standings: Vec<Standing> =
        standings(&login.source, &judgement.strangers, &quotas, settings.pace()).collect();
    let denied = refusal(&judgement.verdict).is_some() && settings.enforcing;
    let mut sentence = sentence(&login, &judgement, settings.enforcing);
    if let Some(problem) = &judgement.problem {
        sentence += &format!(" No country is denied: {problem}.");
    }
    let shown = standings.iter().rev().filter(|s| all || changes(s, &standings));
    let text = match by_rule(&judgement.verdict) {
        true => sentence.clone(),
        false => format!("{sentence}\n\n{}", bar::standings(shown)),
    };
    let decisive = decisive(&judgement, tightest(&standings));
    let prefix = decisive.map(|s| s.prefix).or_else(|| rule(&judgement.verdict));
    let json = json!({
        "source": login.source.to_string(),
        "user": user.map(|_| shown_name(&login.user)),
        "admitted": !denied,
        "known_place": match judgement.verdict {
            Verdict::Admit(Lane::Known(_), _) => judgement.known.map(|k| k.place.to_string()),
            _ => None,
        },
        "prefix": prefix.map(|prefix| prefix.to_string()),
        "count": decisive.map(|s| json_count(s.count)),
        "quota": decisive.map(|s| s.quota),
        "retry_after_s": decisive.map_or(Some(0).filter(|_| !denied), |s| Some(seconds(s.wait))),
        "reason": sentence,
    });
    Ok(Report::new(text, json).denied_if(denied))
}

fn refusal(verdict: &Verdict) -> Option<&Refusal> {
    match verdict {
        Verdict::Deny(refusal) | Verdict::Wait(refusal) => Some(refusal),
        Verdict::Exempt(_) | Verdict::Admit(..) => None,
    }
}

/// Whether the counts have nothing to do with it.
fn by_rule(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Exempt(_) | Verdict::Deny(Refusal::Rule(_) | Refusal::Country(_)))
}

fn rule(verdict: &Verdict) -> Option<IpNet> {
    match verdict {
        Verdict::Deny(Refusal::Rule(prefix)) => Some(*prefix),
        _ => None,
    }
}

/// The count that decides: of an attempt that is admitted the one that is nearest to its quota.
fn decisive(judgement: &Judgement, tightest: Option<Standing>) -> Option<Standing> {
    match (&judgement.verdict, refusal(&judgement.verdict)) {
        (_, Some(Refusal::Full(full) | Refusal::Known(full) | Refusal::Elsewhere(full))) => {
            Some(*full)
        }
        (Verdict::Admit(Lane::Stranger, _), _) => tightest,
        _ => None,
    }
}

fn sentence(login: &Login, judgement: &Judgement, enforcing: bool) -> String {
    let source = &login.source;
    let is_denied =
        if enforcing { "is denied" } else { "is admitted (enforcing = no), but would be denied" };
    let user = shown_name(&login.user);
    match (&judgement.verdict, refusal(&judgement.verdict)) {
        (_, Some(Refusal::Rule(rule) | Refusal::UsedUp(rule))) => {
            format!("{source} {is_denied} by the rule \"deny {rule}\".")
        }
        (_, Some(Refusal::Country(country))) => {
            format!("{source} {is_denied} by its country, {country}.")
        }
        (_, Some(Refusal::Full(full))) => format!(
            "{source} {is_denied}: {} has {}. To lift it: prefixquota forgive {}",
            full.prefix,
            counts(full),
            full.prefix
        ),
        (_, Some(Refusal::Known(full))) => format!(
            "{source} {is_denied}: {user} has {} at the known place {}. To lift it: prefixquota \
             forgive --user {user}",
            counts(full),
            full.prefix
        ),
        (_, Some(Refusal::Elsewhere(full))) => format!(
            "{source} {is_denied}: strangers have {} for {user}. To lift it: prefixquota forgive \
             --user {user}",
            counts(full)
        ),
        (Verdict::Exempt(_), _) => format!("{source} is exempt: neither counted nor denied."),
        (Verdict::Admit(Lane::Known(_), _), _) => {
            let place = judgement.known.map(|known| known.place.to_string()).unwrap_or_default();
            format!("{source} is admitted: {user} is known at {place}.")
        }
        (Verdict::Admit(Lane::Stranger, Some(rule)), _) => {
            format!("{source} is admitted by the {} for {}.", rule.kind, rule.prefix)
        }
        (Verdict::Admit(..) | Verdict::Deny(_) | Verdict::Wait(_), _) => {
            format!("{source} is admitted: every covering prefix has room.")
        }
    }
}

fn counts(full: &Standing) -> String {
    let (count, wait) = (shown_count(full.count), shown_wait(full.wait));
    format!("{count} of {} failures; room again in {wait}", full.quota)
}

/// Whether this prefix has more failures than the next narrower one; the narrowest always counts.
fn changes(standing: &Standing, standings: &[Standing]) -> bool {
    let length = standing.prefix.prefix_len();
    let narrower = standings.iter().find(|other| other.prefix.prefix_len() == length + 1);
    narrower.is_none_or(|other| standing.count > other.count + decay::TOLERANCE)
}

/// The prefix nearest to its quota.
fn tightest(standings: &[Standing]) -> Option<Standing> {
    standings.iter().copied().max_by(|a, b| a.share().total_cmp(&b.share()))
}
