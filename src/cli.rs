//! The subcommands. Each turns its arguments into a [`Report`], which is shown as text for people
//! or as JSON for programs.

pub mod args;
mod bar;
mod book;
mod check;
mod country;
mod doctor;
mod edit;
mod export;
mod hurt;
mod keep;
mod known;
mod pages;
mod policy;
mod replay;
mod rules;
mod show;
mod simulate;
mod stacks;
mod status;
mod top;
mod tree;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use ipnet::IpNet;
use pam_prefixquota::config::{Config, Place, Settings};
use pam_prefixquota::decay::seconds;
use pam_prefixquota::guard::{Guard, SystemClock};
use pam_prefixquota::login::Login;
use pam_prefixquota::rules::Rules;
use pam_prefixquota::source::{Source, parse_host, parse_prefix};
use pam_prefixquota::store::{Store, StoreError, repair_command};
use rusqlite::ErrorCode;
use serde_json::Value;

use args::{Args, Command, CountryCommand, Format, KnownCommand, RuleCommand};

/// What a subcommand has to say.
pub struct Report {
    text: String,
    json: Value,
    /// The exit status: 0, or 1 for "denied".
    pub status: u8,
}

impl Report {
    fn new(text: impl Into<String>, json: Value) -> Report {
        Report { text: text.into(), json, status: 0 }
    }

    fn denied_if(mut self, denied: bool) -> Report {
        self.status = u8::from(denied);
        self
    }

    /// The report in the form asked for, ending in a newline.
    pub fn show(&self, format: Format) -> String {
        let mut shown = match format {
            Format::Text => self.text.clone(),
            Format::Json => self.json.to_string(),
        };
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        shown
    }
}

/// Runs one subcommand.
///
/// # Errors
///
/// One sentence.
pub fn run(args: &Args) -> Result<Report, String> {
    let context = || Context::new(args);
    match &args.command {
        Command::Status { pam_dir } => status::status(args, &context()?, pam_dir),
        Command::Check { line: Some(line), .. } => {
            Ok(replay::explain(&context()?, line.as_bytes()))
        }
        Command::Check { address, user, all, line: None } => {
            let address = address.as_deref().unwrap_or_default();
            check::check(&context()?, address, user.as_deref(), *all)
        }
        Command::Top { limit, watch: true } => {
            top::watch(&context()?, usize::from(*limit), args.format)
        }
        Command::Top { limit, watch: false } => top::top(&context()?, usize::from(*limit)),
        Command::Hurt => hurt::hurt(&context()?),
        Command::Export { form } => export::export(&context()?, *form),
        Command::Replay(options) => replay::replay(&context()?, options),
        Command::List { prefix } => show::list(&context()?, prefix.as_deref()),
        Command::Policy { plot: None } => Ok(policy::policy(&context()?)),
        Command::Policy { plot: Some(file) } => policy::plot(&context()?, file.as_deref()),
        Command::Record { address } => edit::record(&context()?, address),
        Command::Forgive { prefix: Some(prefix), .. } => edit::forgive(&context()?, prefix),
        Command::Forgive { prefix: None, user } => {
            edit::forgive_user(&context()?, user.as_deref().unwrap_or_default())
        }
        Command::Known { action: KnownCommand::List { which } } => {
            known::list(&context()?, which.as_deref())
        }
        Command::Known { action: KnownCommand::Forget { which } } => {
            known::forget(&context()?, which)
        }
        Command::Rule { action: RuleCommand::Add(rule) } => rules::add(&context()?, rule),
        Command::Rule { action: RuleCommand::Remove { prefix } } => {
            rules::remove(&context()?, prefix)
        }
        Command::Rule { action: RuleCommand::List } => rules::list(&context()?),
        Command::Grant(grant) => rules::grant(&context()?, grant),
        Command::Country { command: CountryCommand::Import { file } } => {
            country::import(&context()?, file)
        }
        Command::Country { command: CountryCommand::Show { address } } => {
            country::show(&context()?, address)
        }
        Command::Simulate(args) => simulate::simulate(&context()?, args),
        Command::Backup { file } => keep::backup(&context()?, file),
        Command::Prune => keep::prune(&context()?),
        Command::Repair => keep::repair(&context()?),
        Command::Config { example: true } => Ok(show::example()),
        Command::Config { example: false } => Ok(show::config(&context()?)),
        Command::Doctor { pam_dir } => doctor::doctor(args, pam_dir),
        Command::Enable { .. } | Command::Disable { .. }
            if args.database.is_some() || args.config.is_some() =>
        {
            Err("--database and --config do not reach the module: expected database= and config= \
                 as arguments of its two lines"
                .to_owned())
        }
        Command::Enable { service, dry_run, pam_dir } => stacks::enable(pam_dir, service, *dry_run),
        Command::Disable { service, dry_run, pam_dir } => {
            stacks::disable(pam_dir, service, *dry_run)
        }
        Command::Man { page } => Ok(pages::man(*page)),
        Command::Completions { shell } => Ok(pages::completions(*shell)),
    }
}

/// What every subcommand works with.
struct Context {
    config: Config,
    rules: Rules,
}

impl Context {
    /// Reads the settings; unlike the module, the command refuses to go on with wrong ones.
    fn new(args: &Args) -> Result<Context, String> {
        let mut config = Config::load(args.config.as_deref(), &[]);
        if let Some(database) = &args.database {
            config.set("database", &absolute(database)?, Place::Argument);
        }
        if let Some(problem) = config.problems.first() {
            return Err(problem.to_string());
        }
        let rules = config.settings.rules();
        Ok(Context { config, rules })
    }

    fn settings(&self) -> &Settings {
        &self.config.settings
    }

    fn guard(&self) -> Guard<'_> {
        Guard::new(self.settings(), &self.rules, &SystemClock)
    }

    /// The store, made if it is not there yet.
    fn store(&self) -> Result<Store, String> {
        let store = Store::open(&self.settings().database, self.lock_wait());
        store.and_then(Store::for_command).map_err(|error| readable(&error))
    }

    /// The store, if there is one: who only looks makes none.
    fn existing_store(&self) -> Result<Option<Store>, String> {
        let store = Store::open_existing(&self.settings().database, self.lock_wait());
        let store = store.and_then(|store| store.map(Store::for_command).transpose());
        store.map_err(|error| readable(&error))
    }

    fn lock_wait(&self) -> Duration {
        Duration::from_millis(self.settings().lock_wait.unsigned_abs())
    }

    /// The source that an address given by a person counts as.
    fn source(&self, address: &str) -> Result<Source, String> {
        let parsed = parse_host(address.as_bytes()).ok_or_else(|| {
            format!(
                "\"{address}\" is not an address: expected for example 2001:db8::1 or 192.0.2.7"
            )
        })?;
        Ok(Source::of(parsed, &self.settings().nat64))
    }

    /// An attempt from an address given by a person.
    fn login(&self, address: &str, user: Option<&OsStr>) -> Result<Login, String> {
        let user = user.map(|user| user.as_bytes().to_vec()).unwrap_or_default();
        Ok(Login { source: self.source(address)?, user })
    }

    /// A prefix that a person names: an address in any form stands for what it counts as.
    fn prefix(&self, text: &str) -> Result<IpNet, String> {
        match parse_host(text.as_bytes()) {
            Some(_) => self.source(text).map(|source| source.prefix(source.family().bits())),
            None => parse_prefix(text),
        }
    }
}

fn absolute(path: &Path) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(absolute.display().to_string())
}

fn readable(error: &StoreError) -> String {
    match error {
        StoreError::Io(_, cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{error}; the store is root's, try sudo")
        }
        StoreError::Io(directory, cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let directory = directory.display();
            format!("{error}; nothing can be counted until `install -d -m 0700 {directory}`")
        }
        StoreError::Sqlite(path, cause) if is_damage(cause) => {
            let repair = repair_command(path);
            format!("{error}; `{repair}` makes a new one of what can be read")
        }
        _ => error.to_string(),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Rows in aligned columns, under a header if there is one.
fn table<R: IntoIterator<Item = String>>(
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    for row in rows {
        table.add_row(row.into_iter().collect::<Vec<_>>());
    }
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

/// A name as people read it, in one line.
fn shown_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A count as people read it.
fn shown_count(count: f64) -> String {
    format!("{count:.1}")
}

/// A count for programs: three places are more than a decaying count is good for.
fn json_count(count: f64) -> Value {
    ((count * 1000.0).round() / 1000.0).into()
}

/// A time to wait as people read it: `42m`, `1h 5m`, `now`.
fn shown_wait(milliseconds: i64) -> String {
    match seconds(milliseconds) {
        ..=0 => "now".to_owned(),
        s @ 1..=119 => format!("{s}s"),
        s @ 120..=7_199 => format!("{}m", (s + 59) / 60),
        s @ 7_200..=172_799 => two_units(s / 3_600, 'h', s % 3_600 / 60, 'm'),
        s => two_units(s / 86_400, 'd', s % 86_400 / 3_600, 'h'),
    }
}

fn two_units(number: i64, unit: char, rest: i64, rest_unit: char) -> String {
    match rest {
        0 => format!("{number}{unit}"),
        _ => format!("{number}{unit} {rest}{rest_unit}"),
    }
}
