//! `replay`: what the guard would have made of the attempts that logs tell of.

mod explain;
mod fit;
mod gather;
mod line;
mod once;
mod parse;
mod patterns;
mod peers;
mod plot;
mod read;
mod rehearse;
mod summary;
mod template;
#[cfg(test)]
mod tests;
mod time;

use std::path::{Path, PathBuf};

use pam_prefixquota::guard::{Clock, SystemClock};

use super::args::Replay;
use super::{Context, Report};
use gather::Gatherer;
use line::{Entry, Line};
use read::{Log, Progress};
use rehearse::History;
use summary::Summary;
use time::Zone;

pub use explain::explain;

/// How many lines are read before the progress is shown anew.
const SHOW_EVERY: u64 = 1 << 14;

/// `replay FILE...`.
pub fn replay(context: &Context, options: &Replay) -> Result<Report, String> {
    let history = history(context, options)?;
    let summary = Summary::of(&history, context.settings())?;
    let mut text = summary.text();
    let mut json = summary.json();
    if let Some(file) = &options.plot {
        std::fs::write(file, plot::draw(&summary))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(share) = options.fit {
        let fits = fit::fit(&history, context.settings(), share)?;
        text += &fit::text(&fits, share);
        if let Some(fields) = json.as_object_mut() {
            fields.insert("fit".to_owned(), fit::json(&fits));
        }
    }
    Ok(Report::new(text, json))
}

/// Reads all logs.
fn history(context: &Context, options: &Replay) -> Result<History, String> {
    let stdin = [PathBuf::from("-")];
    let files = if options.files.is_empty() { &stdin[..] } else { &options.files };
    let mut gatherer = Gatherer::new(&context.settings().nat64, Zone::system());
    let mut progress = Progress::new(read::size(files.iter().map(PathBuf::as_path)));
    for file in files {
        read(file, options.journal, &mut gatherer, &mut progress)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    progress.end();
    let mut told = gatherer.finish();
    let attempts = once::attempts(std::mem::take(&mut told.sightings));
    Ok(History { attempts, told })
}

fn read(
    file: &Path,
    is_journal: bool,
    gatherer: &mut Gatherer,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let log = Log::open(file)?;
    let now = SystemClock.now();
    gatherer.begin(log.written.unwrap_or(now).min(now));
    let bytes = std::rc::Rc::clone(&log.read);
    log.lines(|line| {
        match line {
            Some(line) if is_journal => match Entry::that_matters(line) {
                Some(entry) => gatherer.line(&entry.line()),
                None => gatherer.skip(),
            },
            Some(line) => gatherer.line(&Line::of(line)),
            None => gatherer.skip(),
        }
        if gatherer.lines().is_multiple_of(SHOW_EVERY) {
            progress.at(bytes.get(), gatherer.lines());
        }
    })?;
    gatherer.end();
    progress.next(bytes.get());
    Ok(())
}
