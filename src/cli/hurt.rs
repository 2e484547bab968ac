//! `hurt`: who is known at a place that an attacker has filled.

use std::net::Ipv6Addr;

use pam_prefixquota::count::Failures;
use pam_prefixquota::decide::{Refusal, Standing, Verdict, standings};
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::login::Login;
use pam_prefixquota::source::{Source, key_range};
use pam_prefixquota::store::{Store, StoreError, UserPlace};
use pam_prefixquota::tally::Tally;
use serde_json::{Value, json};

use super::{Context, Report, seconds, shown_name, shown_wait, table};

/// A known place under a full prefix.
struct Hurt {
    login: Login,
    place: String,
    /// Of several full prefixes the one that takes longest to have room.
    full: Standing,
    verdict: Verdict,
}

/// `hurt`.
pub fn hurt(context: &Context) -> Result<Report, String> {
    let found = match context.existing_store()? {
        Some(mut store) => find(context, &mut store)?,
        None => Vec::new(),
    };
    let enforcing = context.settings().enforcing;
    let denied = |hurt: &Hurt| enforcing && matches!(hurt.verdict, Verdict::Deny(_));
    let rows = found.iter().map(|hurt| {
        [
            shown_name(&hurt.login.user),
            hurt.place.clone(),
            hurt.full.prefix.to_string(),
            shown_wait(hurt.full.wait),
            gets_in(&hurt.verdict, enforcing),
        ]
    });
    let text = if found.is_empty() {
        "No known place is under a full prefix.".to_owned()
    } else {
        table(&["user", "known place", "full prefix", "room again", "gets in now"], rows)
    };
    let json: Value = found
        .iter()
        .map(|hurt| {
            json!({
                "user": shown_name(&hurt.login.user),
                "place": hurt.place,
                "prefix": hurt.full.prefix.to_string(),
                "retry_after_s": seconds(hurt.full.wait),
                "admitted": !denied(hurt),
            })
        })
        .collect();
    Ok(Report::new(text, json).denied_if(found.iter().any(denied)))
}

fn find(context: &Context, store: &mut Store) -> Result<Vec<Hurt>, String> {
    let (settings, now) = (context.settings(), SystemClock.now());
    let read = |store: &Store| -> Result<_, StoreError> {
        Ok((store.reader().all_known()?, store.reader().entries(None)?))
    };
    let (known, entries) = read(store).map_err(|error| error.to_string())?;
    let failures: Vec<Failures> = entries.iter().map(|entry| entry.failures).collect();
    let recent = |known: &&UserPlace| settings.remembers(known.seen, now);
    let mut found = Vec::new();
    for known in known.iter().filter(recent) {
        let Some(place) = known.place else { continue };
        // Whatever address of it: what covers the place covers all of them.
        let source = Source::of(place.network(), &settings.nat64);
        let quotas = settings.quotas(source.family());
        let widest = source.prefix(*quotas.curve.lengths(&source).start());
        let tally =
            Tally::new(&source, inside(&failures, key_range(&widest)), now, settings.pace());
        let full = standings(&source, &tally, &quotas, settings.pace())
            .filter(|standing| standing.prefix.contains(&place) && standing.wait > 0)
            .max_by_key(|standing| standing.wait);
        let Some(full) = full else { continue };
        let login = Login { source, user: known.user.clone() };
        let judgement = context.guard().look(store, &login).map_err(|error| error.to_string())?;
        let (place, verdict) = (place.to_string(), judgement.verdict);
        found.push(Hurt { login, place, full, verdict });
    }
    Ok(found)
}

/// The failures between two keys, of all in the order of their keys.
fn inside(failures: &[Failures], (first, last): (Ipv6Addr, Ipv6Addr)) -> &[Failures] {
    let from = failures.partition_point(|row| row.key < first);
    let to = failures.partition_point(|row| row.key <= last);
    failures.get(from..to).unwrap_or_default()
}

fn gets_in(verdict: &Verdict, enforcing: bool) -> String {
    match verdict {
        Verdict::Exempt(_) => "yes, exempt".to_owned(),
        Verdict::Admit(..) => "yes".to_owned(),
        Verdict::Wait(_) => "in a moment".to_owned(),
        Verdict::Deny(_) if !enforcing => "yes, but would be denied".to_owned(),
        Verdict::Deny(refusal) => match refusal {
            Refusal::Full(own) | Refusal::Known(own) | Refusal::Elsewhere(own) => {
                format!("no, in {}", shown_wait(own.wait))
            }
            Refusal::Rule(_) | Refusal::Country(_) | Refusal::UsedUp(_) => {
                "no, by a rule".to_owned()
            }
        },
    }
}
