//! `backup`, `prune` and `repair`: what keeps the store itself in order.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::store::{Repair, repair as repair_store};
use serde_json::json;

use super::{Context, Report, readable};

/// `backup FILE`.
pub fn backup(context: &Context, to: &Path) -> Result<Report, String> {
    let database = &context.settings().database;
    let Some(store) = context.existing_store()? else {
        return Err(format!("{}: there is no store yet to back up", database.display()));
    };
    let backup = store.back_up(to, context.lock_wait()).map_err(|error| error.to_string())?;
    let replaced = if backup.replaced { ", in place of an earlier backup" } else { "" };
    let text = format!(
        "Copied {} to {} ({} kB){replaced}.",
        database.display(),
        to.display(),
        backup.size.div_ceil(1_000)
    );
    let json = json!({
        "database": database,
        "backup": to,
        "size_bytes": backup.size,
        "replaced": backup.replaced,
    });
    Ok(Report::new(text, json))
}

/// `prune`.
pub fn prune(context: &Context) -> Result<Report, String> {
    let database = &context.settings().database;
    let mut log = database.clone().into_os_string();
    log.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    let size = || length(database) + length(Path::new(&log));
    let Some(mut store) = context.existing_store()? else {
        let text = format!("{}: there is no store yet; nothing to prune.", database.display());
        return Ok(Report::new(text, json!({"database": database, "exists": false})));
    };
    let before = size();
    let pruned =
        store.prune(SystemClock.now(), context.settings()).map_err(|error| error.to_string())?;
    let after = size();
    let text = format!(
        "Removed {}, {}, {} and {}; {} kB became {} kB.",
        number(pruned.addresses, "faded address", "es"),
        number(pruned.places, "outdated place", "s"),
        number(pruned.rules, "ended rule", "s"),
        number(pruned.wrong, "slot", "s") + " of old passwords",
        before.div_ceil(1_000),
        after.div_ceil(1_000),
    );
    let json = json!({
        "database": database,
        "exists": true,
        "addresses": pruned.addresses,
        "places": pruned.places,
        "rules": pruned.rules,
        "password_slots": pruned.wrong,
        "bytes_before": before,
        "bytes_after": after,
    });
    Ok(Report::new(text, json))
}

/// `repair`.
pub fn repair(context: &Context) -> Result<Report, String> {
    let database = &context.settings().database;
    let shown = database.display();
    let done = repair_store(database, context.lock_wait(), &format!(".broken-{}", stamp()))
        .map_err(|error| readable(&error))?;
    let (text, json) = match done {
        Repair::Missing => (
            format!("{shown}: there is no store yet; nothing to repair."),
            json!({"exists": false}),
        ),
        Repair::Sound => (
            format!("{shown} is sound; nothing was changed."),
            json!({"exists": true, "sound": true}),
        ),
        Repair::Mended { faults, aside, carried } => {
            let text = format!(
                "{shown} was broken ({}). It is kept as {}; the new store has what could be read: \
                 {}, {} and {}.",
                faults.first().map_or("unreadable", String::as_str),
                aside.display(),
                number(carried.addresses, "address", "es"),
                number(carried.places, "known place", "s"),
                number(carried.rules, "rule", "s"),
            );
            let json = json!({
                "exists": true,
                "sound": false,
                "faults": faults,
                "set_aside": aside,
                "addresses": carried.addresses,
                "places": carried.places,
                "rules": carried.rules,
            });
            (text, json)
        }
    };
    Ok(Report::new(text, json))
}

/// `1 rule`, `2 rules`.
fn number(n: usize, thing: &str, plural: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { plural })
}

/// Local date and time, for a file name.
fn stamp() -> String {
    let now = Timestamp::from_millisecond(SystemClock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(TimeZone::system()).strftime("%Y%m%d-%H%M%S").to_string()
}
