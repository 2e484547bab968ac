//! The store, and the country database if it is asked.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use pam_prefixquota::config::Settings;
use pam_prefixquota::country::Countries;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::store::{Depth, Health, StoreError, repair_command};

use super::Finding;

const ABOUT: &str = "store";
/// A log of so many bytes is not being folded into the file: ten times what logins allow it.
const LONG_LOG: u64 = 4_000_000;
/// How far the newest row may lie ahead of the clock. In milliseconds.
const AHEAD: i64 = 60_000;

pub fn examine(settings: &Settings, lock_wait: Duration) -> Vec<Finding> {
    let path = &settings.database;
    let mut found = match Health::of(path, lock_wait, Depth::Quick) {
        Ok(Some(health)) => sound(path, &health),
        Ok(None) => {
            vec![Finding::ok(
                ABOUT,
                format!("{} is not there yet: nothing was counted", path.display()),
            )]
        }
        Err(error) => vec![unusable(path, &error)],
    };
    if !settings.country_allow.is_empty() || !settings.country_deny.is_empty() {
        found.push(countries(settings));
    }
    found
}

fn unusable(path: &Path, error: &StoreError) -> Finding {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    let shown = path.display();
    let mend = match error {
        StoreError::Io(_, cause) if cause.kind() == ErrorKind::NotFound => {
            format!("Run: install -d -m 0700 {directory}")
        }
        StoreError::Io(_, cause) if cause.kind() == ErrorKind::PermissionDenied => {
            "It is root's: run this as root.".to_owned()
        }
        StoreError::Unsafe(_, what) if what.contains("link") || what.contains("regular") => {
            "Name the real path of a file in database =.".to_owned()
        }
        StoreError::Unsafe(place, _) if place == path => {
            format!("Run: chown root:root {shown}; chmod 0600 {shown}")
        }
        StoreError::Unsafe(..) => {
            format!("Run: chown root:root {directory}; chmod 0700 {directory}")
        }
        StoreError::Foreign(_) => "Move that file away, or name another in database =.".to_owned(),
        StoreError::Newer(..) => "Install the newer module and command.".to_owned(),
        StoreError::Busy(_) => "Look who holds it: fuser -v on that file.".to_owned(),
        _ => format!("Run: {}", repair_command(path)),
    };
    Finding::wrong(ABOUT, error.to_string(), mend)
}

fn sound(path: &Path, health: &Health) -> Vec<Finding> {
    let shown = path.display();
    let mut found = Vec::new();
    if let Some(fault) = health.faults.first() {
        let what = format!("{shown} is broken: {fault}");
        found.push(Finding::wrong(ABOUT, what, format!("Run: {}", repair_command(path))));
    }
    if fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 != 0) {
        let what = format!("{shown} may be read by others: it has the names of users");
        found.push(Finding::wrong(ABOUT, what, format!("Run: chmod 0600 {shown}")));
    }
    if health.log > LONG_LOG {
        let what =
            format!("the log of {shown} has {} kB, and logins read it all", health.log / 1_000);
        let mend = "Run: prefixquota prune. If it stays, look who keeps it open: fuser -v.";
        found.push(Finding::note(ABOUT, what, mend));
    }
    if health.latest.is_some_and(|latest| latest > SystemClock.now().saturating_add(AHEAD)) {
        let what = format!("{shown} has failures from the future: the clock was set back");
        let mend = "The next attempt from there mends them; see that the clock is right now.";
        found.push(Finding::note(ABOUT, what, mend));
    }
    if found.is_empty() {
        let age = if health.is_old { ", brought up to date by the next login" } else { "" };
        let what = format!(
            "{shown} is sound: version {}{age}, {} kB and {} kB of log",
            health.version,
            health.size.div_ceil(1_000),
            health.log.div_ceil(1_000)
        );
        found.push(Finding::ok(ABOUT, what));
    }
    found
}

fn countries(settings: &Settings) -> Finding {
    let about = "countries";
    match Countries::open(&settings.country_database).and_then(|countries| countries.about()) {
        Ok(data) => Finding::ok(about, format!("{}, built {}", data.database_type, data.built)),
        Err(error) => {
            let mend = "Run: prefixquota country import FILE. Until then no country is denied.";
            Finding::wrong(about, error.to_string(), mend)
        }
    }
}
