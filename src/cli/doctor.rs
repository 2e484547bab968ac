//! `doctor`: examines the machine, and says what is wrong and how to mend it. It changes nothing.

mod dovecot;
mod ftp;
mod machine;
mod module;
mod program;
mod sshd;
mod stacks;
mod store;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use pam_prefixquota::config::{Config, DEFAULT_FILE, Place};
use serde_json::{Value, json};

use super::args::Args;
use super::{Report, absolute, table};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Note,
    /// Does not do what it is for.
    Wrong,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Wrong => "wrong",
        }
    }

    fn colour(self) -> AnsiColor {
        match self {
            Level::Ok => AnsiColor::Green,
            Level::Note => AnsiColor::Yellow,
            Level::Wrong => AnsiColor::Red,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// A service, or a part of ours.
    pub about: String,
    /// What is so, without a full stop.
    pub found: String,
    /// How to mend it, a sentence; nothing where all is well.
    pub mend: String,
}

impl Finding {
    fn ok(about: &str, found: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, about, found, "")
    }

    fn note(about: &str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding::new(Level::Note, about, found, mend)
    }

    fn wrong(about: &str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding::new(Level::Wrong, about, found, mend)
    }

    fn new(
        level: Level,
        about: &str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding { level, about: about.to_owned(), found: found.into(), mend: mend.into() }
    }

    /// In one line.
    pub fn sentence(&self) -> String {
        let text = match self.mend.as_str() {
            "" => format!("{}.", self.found),
            mend => format!("{}. {mend}", self.found),
        };
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

/// The settings of a server, as its own program prints them; a finding where it does not.
fn settings_of(
    about: &str,
    server: &str,
    program: &str,
    arguments: &[&str],
) -> Result<String, Finding> {
    program::ask(program, arguments).map_err(|error| {
        let mend = format!(
            "Run it yourself to see what {server} does not like; as long as it fails, its settings \
             cannot be examined."
        );
        Finding::note(about, error, mend)
    })
}

/// What was found on a machine.
pub struct Examination {
    pub findings: Vec<Finding>,
    /// The services whose stacks name the module.
    pub services: Vec<String>,
}

impl Examination {
    /// How many findings are so.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

/// `doctor`.
pub fn doctor(args: &Args, pam_dir: &Path) -> Result<Report, String> {
    let examination = examine(args, pam_dir)?;
    let rows = examination.findings.iter().map(|finding| {
        let style = Style::new().fg_color(Some(finding.level.colour().into()));
        let level = format!("{style}{}{style:#}", finding.level.word());
        [level, finding.about.clone(), finding.sentence()]
    });
    let json: Value = examination.findings.iter().map(shown).collect();
    let status = examination.count(Level::Wrong) > 0;
    Ok(Report::new(table(&[], rows), json).denied_if(status))
}

fn shown(finding: &Finding) -> Value {
    json!({
        "level": finding.level.word(),
        "about": finding.about,
        "found": finding.found,
        "mend": Some(&finding.mend).filter(|mend| !mend.is_empty()),
    })
}

/// Looks at everything.
pub fn examine(args: &Args, pam_dir: &Path) -> Result<Examination, String> {
    let mut config = Config::load(args.config.as_deref(), &[]);
    if let Some(database) = &args.database {
        config.set("database", &absolute(database)?, Place::Argument);
    }
    let mut findings = module::examine();
    let stacks = stacks::examine(pam_dir, &config.settings);
    findings.extend(stacks.findings);
    let services = stacks.services;
    let is_protected = |service: &str| services.iter().any(|other| other == service);
    if is_protected("sshd") {
        findings.extend(sshd::examine());
    }
    if ["dovecot", "imap", "pop3"].into_iter().any(is_protected) {
        findings.extend(dovecot::examine(&services));
    }
    if is_protected("vsftpd") || is_protected("ftp") {
        findings.extend(ftp::vsftpd());
    }
    if is_protected("proftpd") {
        findings.extend(ftp::proftpd());
    }
    findings.extend(settings(&config, args.config.as_deref()));
    let lock_wait = Duration::from_millis(config.settings.lock_wait.unsigned_abs());
    findings.extend(store::examine(&config.settings, lock_wait));
    findings.extend(machine::examine(&config.settings, &services));
    Ok(Examination { findings, services })
}

fn settings(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let about = "settings";
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut found: Vec<Finding> = config
        .problems
        .iter()
        .map(|problem| {
            let mend = "The module skips that; correct or remove it, see prefixquota.conf(5).";
            Finding::wrong(about, problem.to_string(), mend)
        })
        .collect();
    if let Some(what) = fs::metadata(file).ok().and_then(|found| unsafe_rights(&found)) {
        let file = file.display();
        let mend = format!("Run: chown root:root {file}; chmod 0644 {file}");
        found.push(Finding::wrong(about, format!("{file} {what}"), mend));
    }
    if !config.settings.enforcing {
        let mend = "When you have watched for long enough: enforcing = yes.";
        found.push(Finding::note(about, "enforcing = no: nothing is denied", mend));
    }
    if found.is_empty() {
        found.push(Finding::ok(about, "every setting is understood"));
    }
    found
}

/// Who else could change a file, if anybody can.
fn unsafe_rights(found: &fs::Metadata) -> Option<&'static str> {
    match () {
        () if found.uid() != 0 => Some("does not belong to root"),
        () if found.mode() & 0o022 != 0 => Some("may be written by others than root"),
        () => None,
    }
}
