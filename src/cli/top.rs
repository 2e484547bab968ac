//! `top`: the prefixes nearest to their quota, once or again every second.

use std::cmp::Ordering;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anstream::adapter::strip_str;
use pam_prefixquota::decide::Standing;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::source::key_range;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::Format;
use super::show::{entries, local_time, standing_json};
use super::{Context, Report, bar, tree};

/// Between two pictures.
const PAUSE: Duration = Duration::from_secs(1);
/// Counts nearer to each other than this look the same.
const SAME: f64 = 0.05;

/// `top`.
pub fn top(context: &Context, limit: usize) -> Result<Report, String> {
    let standings = nearest(context, limit)?;
    Ok(Report::new(text(&standings), standings.iter().map(standing_json).collect()))
}

fn text(standings: &[Standing]) -> String {
    if standings.is_empty() {
        "No failures are counted now.".to_owned()
    } else {
        bar::standings(standings.iter())
    }
}

fn nearest(context: &Context, limit: usize) -> Result<Vec<Standing>, String> {
    let entries = entries(context, None)?;
    let mut standings = tree::standings(&entries, context.settings(), SystemClock.now());
    standings.sort_by(by_fullness);
    let mut chosen: Vec<Standing> = Vec::new();
    for standing in standings {
        // A wider prefix with all but the same failures, and more room, says nothing new.
        let repeats = |narrower: &Standing| {
            standing.prefix.contains(&narrower.prefix) && standing.count - narrower.count < SAME
        };
        if chosen.len() < limit && (standing.wait > 0 || !chosen.iter().any(repeats)) {
            chosen.push(standing);
        }
    }
    Ok(chosen)
}

/// The full ones first, which differ in nothing that matters more than how many they shut out; then
/// those nearest to their quota. Of equals the wider, then by address.
fn by_fullness(a: &Standing, b: &Standing) -> Ordering {
    let share = |standing: &Standing| match standing.wait {
        0 => standing.share(),
        _ => f64::INFINITY,
    };
    let place = |standing: &Standing| (standing.prefix.prefix_len(), key_range(&standing.prefix).0);
    share(b).total_cmp(&share(a)).then_with(|| place(a).cmp(&place(b)))
}

/// `top --watch`: until Ctrl-C or `q`.
pub fn watch(context: &Context, limit: usize, format: Format) -> Result<Report, String> {
    if matches!(format, Format::Json) || !std::io::stdout().is_terminal() {
        return Err("--watch draws on a terminal: expected one, or top without it".to_owned());
    }
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stopped))
            .map_err(|error| format!("signal {signal}: {error}"))?;
    }
    let keys = Keys::listen();
    let mut lines = 0;
    while !stopped.load(Relaxed) {
        lines = draw(&picture(context, limit)?, lines)?;
        if keys.quit_within(PAUSE) {
            break;
        }
    }
    Ok(Report::new("", serde_json::Value::Null))
}

fn picture(context: &Context, limit: usize) -> Result<String, String> {
    let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0);
    let (rows, columns): (usize, usize) =
        size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
    // Two lines above the table's header and one below the table.
    let limit = limit.min(rows.saturating_sub(4).max(1));
    let table = text(&nearest(context, limit)?);
    let head = format!("{}  (q quits)\n\n", local_time(SystemClock.now()));
    Ok(format!("{head}{table}").lines().map(|line| cut(line, columns) + "\n").collect())
}

/// A line that would be broken loses its colours and its end.
fn cut(line: &str, columns: usize) -> String {
    let plain = strip_str(line).to_string();
    if plain.chars().count() <= columns {
        line.to_owned()
    } else {
        plain.chars().take(columns).collect()
    }
}

/// Draws over the picture before, which had so many lines; says how many this one has.
fn draw(picture: &str, lines: usize) -> Result<usize, String> {
    let mut out = anstream::stdout();
    let up = if lines > 0 { format!("\x1b[{lines}A") } else { String::new() };
    // Not through what strips colours: it would strip this too.
    let moved = write!(std::io::stdout(), "{up}\r\x1b[J");
    let drawn = moved.and_then(|()| out.write_all(picture.as_bytes())).and_then(|()| out.flush());
    drawn.map_err(|error| format!("standard output: {error}"))?;
    Ok(picture.lines().count())
}

/// Keys that come without a newline and are not echoed, as long as this lives.
struct Keys(Option<Termios>);

impl Keys {
    /// Without a terminal to read from there are no keys.
    fn listen() -> Keys {
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Keys(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        let set = tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet);
        Keys(set.ok().map(|()| before))
    }

    /// Waits so long, and less if `q` is pressed or a signal comes.
    fn quit_within(&self, time: Duration) -> bool {
        if self.0.is_none() {
            std::thread::sleep(time);
            return false;
        }
        let stdin = std::io::stdin();
        let time = Timespec::try_from(time).ok();
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], time.as_ref()) {
            Ok(0) | Err(Errno::INTR) => false,
            Ok(_) => {
                let mut keys = [0; 64];
                let read = rustix::io::read(&stdin, &mut keys).unwrap_or(0);
                // Nothing to read: the terminal is gone.
                read == 0 || keys.iter().take(read).any(|key| matches!(key, b'q' | b'Q'))
            }
            Err(_) => true,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
