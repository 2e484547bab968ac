//! `status`: the store, what is in force, and whether all is well.

use std::path::Path;

use pam_prefixquota::guard::{Clock, SystemClock};
use serde_json::json;

use super::args::Args;
use super::doctor::{Examination, Level, examine};
use super::show::{entries, left};
use super::{Context, Report, json_count, table, tree};

/// How many findings are told; `doctor` tells them all.
const FIRST: usize = 3;

/// What the store holds now.
#[derive(Default)]
struct Held {
    failures: f64,
    addresses: usize,
    full: usize,
    places: usize,
    rules: usize,
}

/// `status`.
pub fn status(args: &Args, context: &Context, pam_dir: &Path) -> Result<Report, String> {
    let settings = context.settings();
    let size = std::fs::metadata(&settings.database).map(|file| file.len()).ok();
    let held = held(context)?;
    let examination = examine(args, pam_dir)?;
    let store = match size {
        Some(size) => format!("{} ({} kB)", settings.database.display(), size.div_ceil(1_000)),
        None => format!("{} (not there yet: nothing was counted)", settings.database.display()),
    };
    let services = match examination.services.as_slice() {
        [] => "none; see `prefixquota enable`".to_owned(),
        services => services.join(", "),
    };
    let enforcing = if settings.enforcing { "yes" } else { "no (nothing is denied)" };
    let rows = [
        ["store".to_owned(), store],
        ["addresses".to_owned(), format!("{} with {:.1} failures", held.addresses, held.failures)],
        ["full prefixes".to_owned(), held.full.to_string()],
        ["known places".to_owned(), held.places.to_string()],
        ["rules and grants".to_owned(), held.rules.to_string()],
        ["enforcing".to_owned(), enforcing.to_owned()],
        ["protected".to_owned(), services],
        ["doctor".to_owned(), verdict(&examination)],
    ];
    let text = table(&[], rows) + &first(&examination);
    let json = json!({
        "database": settings.database,
        "exists": size.is_some(),
        "size_bytes": size,
        "addresses": held.addresses,
        "failures": json_count(held.failures),
        "full_prefixes": held.full,
        "known_places": held.places,
        "rules": held.rules,
        "enforcing": settings.enforcing,
        "protected": examination.services,
        "wrong": examination.count(Level::Wrong),
        "notes": examination.count(Level::Note),
    });
    Ok(Report::new(text, json))
}

fn held(context: &Context) -> Result<Held, String> {
    let Some(store) = context.existing_store()? else { return Ok(Held::default()) };
    let (settings, now) = (context.settings(), SystemClock.now());
    let entries = entries(context, None)?;
    let known = store.reader().all_known().map_err(|error| error.to_string())?;
    let rules = store.reader().all_rules().map_err(|error| error.to_string())?;
    Ok(Held {
        // The sum of nothing is -0.0.
        failures: entries.iter().fold(0.0, |sum, entry| sum + left(entry, context, now)),
        addresses: entries.len(),
        full: tree::standings(&entries, settings, now).iter().filter(|s| s.wait > 0).count(),
        places: known
            .iter()
            .filter(|k| k.place.is_some() && settings.remembers(k.seen, now))
            .count(),
        rules: rules.iter().filter(|rule| rule.is_live(now)).count(),
    })
}

fn verdict(examination: &Examination) -> String {
    match (examination.count(Level::Wrong), examination.count(Level::Note)) {
        (0, 0) => "all is well".to_owned(),
        (0, notes) => format!("nothing is wrong, notes: {notes}"),
        (wrong, notes) => format!("wrong: {wrong}, notes: {notes}; see `prefixquota doctor`"),
    }
}

/// The first things that are wrong, a line each.
fn first(examination: &Examination) -> String {
    let wrong = examination.findings.iter().filter(|finding| finding.level == Level::Wrong);
    wrong.take(FIRST).map(|f| format!("  {}: {}\n", f.about, f.sentence())).collect()
}
