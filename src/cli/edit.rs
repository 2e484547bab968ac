//! Subcommands that change the counts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pam_prefixquota::decide::Refusal;
use pam_prefixquota::guard::{Admission, Clock, SystemClock};
use serde_json::json;

use super::{Context, Report, json_count, shown_count, shown_name, shown_wait};

/// `record ADDRESS`.
pub fn record(context: &Context, address: &str) -> Result<Report, String> {
    let login = context.login(address, None)?;
    let source = &login.source;
    let mut store = context.store()?;
    let admission =
        context.guard().record(&mut store, &login).map_err(|error| error.to_string())?;
    let (recorded, denied, sentence) = match admission {
        Admission::Passed(pass) if pass.exempt => {
            (false, false, format!("{source} is exempt; not counted."))
        }
        Admission::Passed(_) => (true, false, format!("Counted one failure of {source}.")),
        Admission::Refused(Refusal::Rule(rule) | Refusal::UsedUp(rule)) => {
            (false, true, format!("{source} is denied by the rule \"deny {rule}\"; not counted."))
        }
        Admission::Refused(Refusal::Country(country)) => {
            (false, true, format!("{source} is denied by its country, {country}; not counted."))
        }
        Admission::Refused(
            Refusal::Full(full) | Refusal::Known(full) | Refusal::Elsewhere(full),
        ) => {
            let sentence = format!(
                "{source} is denied already: {} has {} of {} failures, room again in {}; not counted.",
                full.prefix,
                shown_count(full.count),
                full.quota,
                shown_wait(full.wait)
            );
            (false, true, sentence)
        }
    };
    let json = json!({
        "source": source.to_string(),
        "recorded": recorded,
        "admitted": !denied,
        "reason": sentence,
    });
    Ok(Report::new(sentence, json).denied_if(denied))
}

/// `forgive PREFIX`.
pub fn forgive(context: &Context, prefix: &str) -> Result<Report, String> {
    let prefix = context.prefix(prefix)?;
    let (mut addresses, mut failures) = (0, 0.0);
    if let Some(mut store) = context.existing_store()? {
        let now = SystemClock.now();
        let forgiven = store.reader().entries(Some(&prefix)).map_err(|error| error.to_string())?;
        addresses = forgiven.len();
        let pace = context.settings().pace();
        failures =
            forgiven.iter().fold(0.0, |sum, entry| sum + entry.failures.count.left(now, pace));
        store.transact(|write| write.forgive(&prefix)).map_err(|error| error.to_string())?;
    }
    let text = match addresses {
        0 => format!("Nothing to forgive in {prefix}."),
        1 => format!("Forgave {failures:.1} failures of one address in {prefix}."),
        _ => format!("Forgave {failures:.1} failures of {addresses} addresses in {prefix}."),
    };
    let json = json!({
        "prefix": prefix.to_string(),
        "addresses": addresses,
        "failures": json_count(failures),
    });
    Ok(Report::new(text, json))
}

/// `forgive --user USER`.
pub fn forgive_user(context: &Context, user: &OsStr) -> Result<Report, String> {
    let mut places = 0;
    if let Some(mut store) = context.existing_store()? {
        places = store
            .transact(|write| write.forgive_known(|other, _| other == user.as_bytes()))
            .map_err(|error| error.to_string())?;
    }
    let user = shown_name(user.as_bytes());
    let text = match places {
        0 => format!("Nothing to forgive of {user}."),
        _ => format!("Forgave all that was counted for {user}."),
    };
    Ok(Report::new(text, json!({"user": user, "places": places})))
}
