//! The command line, defined once: parser, help and completions come from here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use pam_prefixquota::config::parse_duration;
use pam_prefixquota::rules::{Action, Kind};

use super::simulate::attack::Attacker;

/// See and change what pam_prefixquota has counted
#[derive(Parser)]
#[command(name = "prefixquota", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done or admitted, 1 denied, 2 wrong usage or an error.")]
pub struct Args {
    /// Settings file instead of /etc/security/prefixquota.conf
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Store instead of the one that the settings name
    #[arg(long, global = true, value_name = "FILE")]
    pub database: Option<PathBuf>,

    /// Text for people, or JSON for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    #[command(subcommand)]
    pub command: Command,
}

/// How results are shown.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Show the store, what it holds, which services are protected and whether all is well
    Status {
        /// Where the stacks are
        #[arg(long, value_name = "DIR", default_value = "/etc/pam.d")]
        pam_dir: PathBuf,
    },

    /// Say whether an attempt from ADDRESS is admitted now, and why (exit status 0 or 1)
    Check {
        /// An IPv4 or IPv6 address
        #[arg(required_unless_present = "line")]
        address: Option<String>,
        /// The user who would try; without, one who is known nowhere
        #[arg(long)]
        user: Option<OsString>,
        /// Show every covering prefix, not only those where the count changes
        #[arg(long)]
        all: bool,
        /// Say instead what replay makes of this log line (exit status 1: nothing)
        #[arg(long, value_name = "LOG LINE", conflicts_with_all = ["address", "user", "all"])]
        line: Option<OsString>,
    },

    /// Show the prefixes nearest to their quota
    Top {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        limit: u16,
        /// Draw again every second, until Ctrl-C or q
        #[arg(long)]
        watch: bool,
    },

    /// Show which users are known at a place under a full prefix, and whether they get in now
    /// (exit status 0 or 1)
    Hurt,

    /// List the addresses that failed, heaviest first
    List {
        /// Only those inside PREFIX
        prefix: Option<String>,
    },

    /// Show the quota of every prefix length
    Policy {
        /// Draw the curve, on the terminal or as an SVG picture into FILE
        #[arg(long, value_name = "FILE", num_args = 0..=1)]
        plot: Option<Option<PathBuf>>,
    },

    /// Write the counts for other programs: monitoring, or a firewall of yours
    Export {
        /// In which form
        #[arg(long = "as", value_enum, value_name = "FORM")]
        form: ExportForm,
    },

    /// Count one failed attempt from ADDRESS, as if the module had seen it
    Record {
        /// An IPv4 or IPv6 address
        address: String,
    },

    /// Remove all failures inside PREFIX (::/0 and 0.0.0.0/0 are everything)
    Forgive {
        /// An address or a prefix, for example 2001:db8::/32
        #[arg(required_unless_present = "user")]
        prefix: Option<String>,
        /// Remove all failures that are counted for USER: at known places, and by strangers
        #[arg(long, conflicts_with = "prefix")]
        user: Option<OsString>,
    },

    /// See and forget from where users have logged in
    Known {
        #[command(subcommand)]
        action: KnownCommand,
    },

    /// Exempt, deny or count a prefix, for a while or for good
    Rule {
        #[command(subcommand)]
        action: RuleCommand,
    },

    /// Let ADDRESS in for a moment, although it is denied or over quota
    Grant(Grant),

    /// Import which address is in which country, and look one up
    Country {
        #[command(subcommand)]
        command: CountryCommand,
    },

    /// Rehearse on logs: what would have been denied, and which right logins among it
    Replay(Replay),

    /// Attack these settings, and what others do at one prefix length, among users who mistype
    Simulate(Simulate),

    /// Show the settings in force and where each comes from
    Config {
        /// Print the commented example file instead
        #[arg(long)]
        example: bool,
    },

    /// Examine this machine: say what is wrong, and how to mend it (exit status 0 or 1)
    ///
    /// Looks at the module's file, the PAM stacks, sshd (by sshd -T), Dovecot (by doveconf), FTP
    /// servers, settings, store, clock and confinement, and changes nothing. Each line is ok, a note
    /// (it works, and could be better) or wrong; the exit status is 1 if anything is wrong.
    Doctor {
        /// Where the stacks are
        #[arg(long, value_name = "DIR", default_value = "/etc/pam.d")]
        pam_dir: PathBuf,
    },

    /// Copy the store into FILE, while logins go on
    ///
    /// The copy is one file of mode 0600, whole or not there at all. An earlier backup is replaced,
    /// any other file is not. To go back to it, copy it in place of the store when the files with
    /// -wal and -shm behind its name are gone.
    Backup {
        /// A new name, or that of an earlier backup
        file: PathBuf,
    },

    /// Remove what means nothing any more: faded failures, ended rules, outdated places
    ///
    /// Logins do the same a little at a time; this also makes the file smaller.
    Prune,

    /// Examine the store and mend it if it is broken
    ///
    /// A broken store is set aside under its name with the date, and a new one is made with all that
    /// can still be read: failures, known places, rules. A sound one is left alone.
    Repair,

    /// Put the module's two lines into the PAM stack of SERVICE
    Enable {
        /// A file in /etc/pam.d: sshd, dovecot, vsftpd ...
        service: String,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where the stacks are
        #[arg(long, value_name = "DIR", default_value = "/etc/pam.d")]
        pam_dir: PathBuf,
    },

    /// Take the module's lines out of the PAM stack of SERVICE
    Disable {
        /// A file in /etc/pam.d
        service: String,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where the stacks are
        #[arg(long, value_name = "DIR", default_value = "/etc/pam.d")]
        pam_dir: PathBuf,
    },

    /// Print a manual page, for `man -l` or a file
    Man {
        /// Which one
        #[arg(value_enum, default_value_t = Page::Command)]
        page: Page,
    },

    /// Print the completions for SHELL
    Completions {
        /// The shell that is to read them
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// For whom counts are exported.
#[derive(Clone, Copy, ValueEnum)]
pub enum ExportForm {
    /// All prefixes that matter, and all addresses
    Json,
    /// All prefixes that matter
    Csv,
    /// How many there are of each, for the textfile collector
    Prometheus,
    /// The full prefixes, for nft -f
    Nft,
    /// The full prefixes, for ipset restore
    Ipset,
    /// The full prefixes, one on a line
    List,
}

/// The manual pages, by the names of their files.
#[derive(Clone, Copy, ValueEnum)]
pub enum Page {
    /// This command
    #[value(name = "prefixquota.8")]
    Command,
    /// The settings
    #[value(name = "prefixquota.conf.5")]
    Settings,
    /// The PAM module
    #[value(name = "pam_prefixquota.8")]
    Module,
}

/// The shells that there are completions for.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs, reason = "names")]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What to do about known places.
#[derive(Subcommand)]
pub enum KnownCommand {
    /// List the known places, by user
    List {
        /// Only those of a user, or those inside a prefix
        #[arg(value_name = "USER|PREFIX")]
        which: Option<OsString>,
    },

    /// Forget the known places of a user, or all those inside a prefix
    Forget {
        /// A user, an address or a prefix
        #[arg(value_name = "USER|PREFIX")]
        which: OsString,
    },
}

/// What to do about rules.
#[derive(Subcommand)]
pub enum RuleCommand {
    /// Add a rule, in place of the same one if it is there
    Add(RuleAdd),

    /// Remove all rules and grants of exactly PREFIX
    Remove {
        /// An address or a prefix
        prefix: String,
    },

    /// List the rules and grants that hold now
    List,
}

/// A new rule.
#[derive(Arguments)]
pub struct RuleAdd {
    /// An address or a prefix; of several rules the longest decides
    pub prefix: String,
    /// What is done
    #[arg(value_enum)]
    pub action: RuleAction,
    /// How long it holds, as 90s, 10m, 12h or 30d; for good if not given
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub lasts: Option<i64>,
    /// How many successful logins it bears; any number if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
    /// What people should know about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

/// What a rule does.
#[derive(Clone, Copy, ValueEnum)]
pub enum RuleAction {
    /// Neither count nor deny.
    Exempt,
    /// Always deny.
    Deny,
    /// Count as usual, inside a wider rule.
    Count,
}

impl From<RuleAction> for Kind {
    fn from(action: RuleAction) -> Kind {
        Kind::Rule(match action {
            RuleAction::Exempt => Action::Exempt,
            RuleAction::Deny => Action::Deny,
            RuleAction::Count => Action::Count,
        })
    }
}

/// A simulation.
#[derive(Arguments)]
pub struct Simulate {
    /// Only these attacks
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    pub attack: Vec<Attacker>,
    /// How long the attack goes on; the guesses of its last day are shown
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=365))]
    pub days: u16,
    /// The same seed gives the same figures
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// A grant.
#[derive(Arguments)]
pub struct Grant {
    /// An address: its /64, or the IPv4 address itself, is let in
    pub address: String,
    /// How long, as 90s, 10m, 12h or 30d
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub lasts: i64,
    /// How many successful logins; a second grant for the same address and user adds its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// Only this user
    #[arg(long)]
    pub user: Option<OsString>,
    /// Take the grant back if there is one that still holds
    #[arg(long)]
    pub toggle: bool,
}

/// Milliseconds.
fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text)
        .filter(|&milliseconds| milliseconds > 0)
        .ok_or_else(|| "expected a number with s, m, h or d, from 1s".to_owned())
}

/// What to rehearse on.
#[derive(Arguments)]
pub struct Replay {
    /// Logs, plain or packed by gzip; - is standard input
    #[arg(required_unless_present = "journal", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The lines are those of `journalctl -o json`, by default on standard input
    #[arg(long)]
    pub journal: bool,
    /// Draw attempts and denials over time into FILE, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Propose the smallest quotas that would have refused at most this share of the right logins,
    /// as 0.1%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub fit: Option<f64>,
}

/// A part of 1.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected 0% to 100%, for example 0.1%".to_owned())
}

/// What to do with countries.
#[derive(Subcommand)]
pub enum CountryCommand {
    /// Read FILE, a MaxMind DB with countries, and replace what was imported before
    Import {
        /// For example GeoLite2-Country.mmdb, unpacked
        file: PathBuf,
    },

    /// Show in which country ADDRESS is
    Show {
        /// An IPv4 or IPv6 address
        address: String,
    },
}
