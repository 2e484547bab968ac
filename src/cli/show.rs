//! Subcommands that only look.

use jiff::Timestamp;
use pam_prefixquota::config::{SETTINGS, Settings, example as example_file};
use pam_prefixquota::decay;
use pam_prefixquota::decide::Standing;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::store::Entry;
use serde_json::{Value, json};

use super::{Context, Report, json_count, seconds, shown_count, table};

pub(super) fn standing_json(standing: &Standing) -> Value {
    json!({
        "prefix": standing.prefix.to_string(),
        "count": json_count(standing.count),
        "quota": standing.quota,
        "full": standing.wait > 0,
        "retry_after_s": seconds(standing.wait),
    })
}

/// `list [PREFIX]`.
pub fn list(context: &Context, prefix: Option<&str>) -> Result<Report, String> {
    let prefix = prefix.map(|prefix| context.prefix(prefix)).transpose()?;
    let now = SystemClock.now();
    let mut found: Vec<(f64, Entry)> = entries(context, prefix.as_ref())?
        .into_iter()
        .map(|e| (left(&e, context, now), e))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let text = if found.is_empty() {
        "No failures are counted now.".to_owned()
    } else {
        let rows = found.iter().map(|(count, entry)| {
            [entry.source.clone(), shown_count(*count), local_time(entry.failures.count.at)]
        });
        table(&["source", "failures", "last attempt"], rows)
    };
    let json = found.iter().map(|(_, entry)| entry_json(entry, context.settings(), now)).collect();
    Ok(Report::new(text, json))
}

pub(super) fn entry_json(entry: &Entry, settings: &Settings, now: i64) -> Value {
    json!({
        "source": entry.source,
        "count": json_count(entry.failures.count.left(now, settings.pace())),
        "last_unix_ms": entry.failures.count.at,
    })
}

/// `config`.
pub fn config(context: &Context) -> Report {
    let settings = context.settings();
    let shown: Vec<_> = SETTINGS
        .iter()
        .zip(context.config.places())
        .map(|(setting, place)| (setting, setting.show(settings), place.to_string()))
        .collect();
    let rows = shown
        .iter()
        .map(|(setting, value, place)| [setting.name.to_owned(), value.clone(), place.clone()]);
    let json = shown
        .iter()
        .map(|(setting, value, place)| {
            json!({"name": setting.name, "value": value, "default": setting.default, "from": place})
        })
        .collect();
    Report::new(table(&["setting", "value", "from"], rows), json)
}

/// `config --example`.
pub fn example() -> Report {
    Report::new(example_file(), json!({ "example": example_file() }))
}

pub(super) fn entries(
    context: &Context,
    prefix: Option<&ipnet::IpNet>,
) -> Result<Vec<Entry>, String> {
    let Some(store) = context.existing_store()? else { return Ok(Vec::new()) };
    let mut entries = store.reader().entries(prefix).map_err(|error| error.to_string())?;
    let now = SystemClock.now();
    entries.retain(|entry| left(entry, context, now) >= decay::FADED);
    Ok(entries)
}

pub(super) fn left(entry: &Entry, context: &Context, now: i64) -> f64 {
    entry.failures.count.left(now, context.settings().pace())
}

pub(super) fn local_time(unix_ms: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    Timestamp::from_millisecond(unix_ms)
        .map(|time| time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_else(|_| unix_ms.to_string())
}
