//! Settings: the file `/etc/security/prefixquota.conf` and the arguments of the module line.
//!
//! Every setting stands once, in [`SETTINGS`]; the file, the arguments, the messages and the
//! commented example file come from there. A wrong line never stops the module: it is reported,
//! skipped, and the rest is kept. The command refuses to go on.

mod kind;
mod table;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv6Net};

use crate::count::Pace;
use crate::country::Country;
use crate::login::Tier;
use crate::quota::{Curve, Multiple, Quotas};
use crate::repeat::Repeat;
use crate::rules::{Action, Rules};
use crate::source::Family;

pub use kind::{parse_duration, parse_rule};
pub use table::{SETTINGS, Setting, example};

/// Where the settings are unless `config=FILE` or `--config FILE` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/security/prefixquota.conf";

/// A settings file is a page of text; more than this is something else. In bytes.
const MAX_FILE: u64 = 1 << 20;

/// The value of every setting; [`SETTINGS`] says what each means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented once, in the table")]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Settings {
    pub database: PathBuf,
    /// Milliseconds, as all times here.
    pub half_life: i64,
    pub settle: i64,
    pub lock_wait: i64,
    /// `on_error = deny`.
    pub deny_on_error: bool,
    pub enforcing: bool,
    pub silent: bool,
    pub debug: bool,
    pub prompt: bool,
    pub nonroot: bool,
    pub ipv6: Curve,
    pub ipv4: Curve,
    pub exempt: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub count: Vec<IpNet>,
    pub country_allow: Vec<Country>,
    pub country_deny: Vec<Country>,
    pub country_database: PathBuf,
    /// `loopback = count`.
    pub count_loopback: bool,
    pub nat64: Vec<Ipv6Net>,
    pub multiply: Vec<Multiple>,
    pub strict: bool,
    pub known_quota: u32,
    pub known_wide_quota: u32,
    pub known_half_life: i64,
    pub known_for: i64,
    pub repeat: Repeat,
    pub repeat_for: i64,
    pub stranger_quota: Option<Rate>,
    pub max_rows: u32,
}

/// So many failures, and the half-life in which half of them are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub quota: u32,
    /// Milliseconds.
    pub half_life: i64,
}

/// The half-life with `strict = yes`, in milliseconds.
const STRICT_HALF_LIFE: i64 = 30 * 60 * 1_000;

impl Settings {
    /// The curve of one family.
    pub fn curve(&self, family: Family) -> &Curve {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// The quotas of one family.
    pub fn quotas(&self, family: Family) -> Quotas<'_> {
        Quotas { curve: self.curve(family), multiples: &self.multiply }
    }

    /// What time means for the counts of prefixes.
    pub fn pace(&self) -> Pace {
        let half_life = if self.strict { STRICT_HALF_LIFE } else { self.half_life };
        Pace { half_life, strict: self.strict, settle: self.settle }
    }

    /// How many failures a user may have at a known place.
    pub fn known_quota(&self, tier: Tier) -> u32 {
        match tier {
            Tier::Near => self.known_quota,
            Tier::Wide => self.known_wide_quota,
        }
    }

    /// Whether a place that was last `seen` then is still known.
    pub fn remembers(&self, seen: i64, now: i64) -> bool {
        now.saturating_sub(seen) < self.known_for
    }

    /// What time means for the counts of known places.
    pub fn known_pace(&self) -> Pace {
        Pace { half_life: self.known_half_life, strict: false, settle: self.settle }
    }

    /// What all strangers together may fail for one user, and how that fades; `None` if they are
    /// not counted by user.
    pub fn elsewhere(&self) -> Option<(u32, Pace)> {
        let Rate { quota, half_life } = self.stranger_quota?;
        Some((quota, Pace { half_life, strict: false, settle: self.settle }))
    }

    /// What time means for that count. Without the setting it is not looked at, and what there was
    /// fades as at known places.
    pub fn elsewhere_pace(&self) -> Pace {
        self.elsewhere().map_or(self.known_pace(), |(_, pace)| pace)
    }

    /// The rules that stand in the settings.
    pub fn rules(&self) -> Rules {
        let mut rules = if self.count_loopback { Rules::default() } else { Rules::loopback() };
        let lists = [
            (&self.exempt, Action::Exempt),
            (&self.deny, Action::Deny),
            (&self.count, Action::Count),
        ];
        for (prefixes, action) in lists {
            for prefix in prefixes {
                rules.add(*prefix, action);
            }
        }
        rules
    }

    /// Nothing set at all; only the base on which the defaults of the table are laid.
    fn blank() -> Settings {
        let curve = |family| Curve { family, base: 0, linear_to: 0, growth: 0, widest: 0 };
        Settings {
            database: PathBuf::new(),
            half_life: 0,
            settle: 0,
            lock_wait: 0,
            deny_on_error: false,
            enforcing: false,
            silent: false,
            debug: false,
            prompt: false,
            nonroot: false,
            ipv6: curve(Family::V6),
            ipv4: curve(Family::V4),
            exempt: Vec::new(),
            deny: Vec::new(),
            count: Vec::new(),
            country_allow: Vec::new(),
            country_deny: Vec::new(),
            country_database: PathBuf::new(),
            count_loopback: false,
            nat64: Vec::new(),
            multiply: Vec::new(),
            strict: false,
            known_quota: 0,
            known_wide_quota: 0,
            known_half_life: 0,
            known_for: 0,
            repeat: Repeat::No,
            repeat_for: 0,
            stranger_quota: None,
            max_rows: 0,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        let mut settings = Settings::blank();
        for setting in SETTINGS {
            // A test holds every default against its own setting.
            let _ = setting.set(&mut settings, setting.default);
        }
        settings
    }
}

/// Where a line of the settings stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Built in.
    Default,
    /// A line of a file, counted from 1.
    Line(PathBuf, usize),
    /// A file as a whole.
    File(PathBuf),
    /// An argument of the module line, or an option of the command.
    Argument,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::Line(file, line) => write!(f, "{}, line {line}", file.display()),
            Place::File(file) => file.display().fmt(f),
            Place::Argument => f.write_str("argument"),
        }
    }
}

/// A line that cannot be used: where it stands, what was found and what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What was found and what is expected, in one sentence.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Settings as they were found.
#[derive(Clone, Debug)]
pub struct Config {
    /// The usable ones, with the defaults for the rest.
    pub settings: Settings,
    /// Lines that were skipped.
    pub problems: Vec<Problem>,
    /// The account line's `enforce`: deny an over-quota source also where no password was asked.
    pub enforce: bool,
    places: Vec<Place>,
}

impl Config {
    /// Reads `file` (the default one may be missing) and then the arguments of a module line,
    /// which win. An argument `config=FILE` names another file.
    pub fn load(file: Option<&Path>, arguments: &[&[u8]]) -> Config {
        let mut config = Config {
            settings: Settings::default(),
            problems: Vec::new(),
            enforce: false,
            places: vec![Place::Default; SETTINGS.len()],
        };
        let named = arguments.iter().rev().find_map(|a| a.strip_prefix(b"config="));
        let named = named.map(|name| PathBuf::from(String::from_utf8_lossy(name).as_ref()));
        match named.as_deref().or(file) {
            Some(file) => config.read(file, true),
            None => config.read(Path::new(DEFAULT_FILE), false),
        }
        for argument in arguments {
            config.argument(argument);
        }
        config.check_curves();
        config
    }

    /// Where each of [`SETTINGS`] got its value, in the same order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Sets one setting by name, as a line of the file would.
    pub fn set(&mut self, name: &str, value: &str, place: Place) {
        let Some((setting, slot)) =
            SETTINGS.iter().zip(&mut self.places).find(|(setting, _)| setting.name == name)
        else {
            let found = printable(name);
            let text = format!("unknown setting \"{found}\": expected one of `prefixquota config`");
            return self.problem(place, text);
        };
        match setting.set(&mut self.settings, value) {
            Ok(()) => *slot = place,
            Err(reason) => {
                let text = format!("{name} = {}: {reason}", printable(value));
                self.problem(place, text);
            }
        }
    }

    fn read(&mut self, file: &Path, must_exist: bool) {
        let bytes = match read_small(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return,
            Err(error) => {
                let text = format!("cannot be read ({error})");
                return self.problem(Place::File(file.to_owned()), text);
            }
        };
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            self.line(line, Place::Line(file.to_owned(), index + 1));
        }
    }

    fn line(&mut self, line: &[u8], place: Place) {
        let Ok(line) = std::str::from_utf8(line) else {
            return self.problem(place, "not UTF-8 text".to_owned());
        };
        let line = line.split_once('#').map_or(line, |(before, _comment)| before).trim();
        if line.is_empty() {
            return;
        }
        // A bare name switches on, as in faillock.conf.
        let (name, value) = line.split_once('=').unwrap_or((line, "yes"));
        self.set(name.trim(), value.trim(), place);
    }

    fn argument(&mut self, argument: &[u8]) {
        match argument {
            b"enforce" => self.enforce = true,
            // Arguments that any module may be given, and that mean nothing here.
            b"use_first_pass" | b"try_first_pass" | b"no_warn" | b"expose_account" => {}
            _ if argument.starts_with(b"config=") => {}
            _ => self.line(argument, Place::Argument),
        }
    }

    /// A widest length beyond the linear part is undone where it was set, since settings may come
    /// in any order.
    fn check_curves(&mut self) {
        for family in Family::ALL {
            let curve = *self.settings.curve(family);
            if curve.widest <= curve.linear_to {
                continue;
            }
            let number = family.number();
            let place = self.place_of(&format!("ipv{number}_widest"));
            let text = format!(
                "ipv{number}_widest = {}: expected at most ipv{number}_linear_to, which is {}",
                curve.widest, curve.linear_to
            );
            self.problem(place, text);
            let widest = Settings::default().curve(family).widest.min(curve.linear_to);
            match family {
                Family::V4 => self.settings.ipv4.widest = widest,
                Family::V6 => self.settings.ipv6.widest = widest,
            }
        }
    }

    fn place_of(&self, name: &str) -> Place {
        let found = SETTINGS.iter().zip(&self.places).find(|(setting, _)| setting.name == name);
        found.map_or(Place::Default, |(_, place)| place.clone())
    }

    fn problem(&mut self, place: Place, text: String) {
        self.problems.push(Problem { place, text });
    }
}

/// Reads a regular file of reasonable size: a pipe or a device would keep the login waiting.
fn read_small(file: &Path) -> std::io::Result<Vec<u8>> {
    let unfit = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    if !std::fs::metadata(file)?.is_file() {
        return Err(unfit("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unfit("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// What was found, fit for one log line: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    let clean: String =
        text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(80).is_some() { clean + "..." } else { clean }
}
