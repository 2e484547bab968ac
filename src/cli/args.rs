//! The command line, defined once: parser, help and completions come from here.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

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
    /// Show the store, what it holds and how many prefixes are full
    Status,

    /// Say whether an attempt from ADDRESS is admitted now, and why (exit status 0 or 1)
    Check {
        /// An IPv4 or IPv6 address
        address: String,
        /// Show every covering prefix, not only those where the count changes
        #[arg(long)]
        all: bool,
    },

    /// Show the prefixes nearest to their quota
    Top {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        limit: u16,
    },

    /// List the addresses that failed, heaviest first
    List {
        /// Only those inside PREFIX
        prefix: Option<String>,
    },

    /// Show the quota of every prefix length
    Policy,

    /// Count one failed attempt from ADDRESS, as if the module had seen it
    Record {
        /// An IPv4 or IPv6 address
        address: String,
    },

    /// Remove all failures inside PREFIX (::/0 and 0.0.0.0/0 are everything)
    Forgive {
        /// An address or a prefix, for example 2001:db8::/32
        prefix: String,
    },

    /// Import which address is in which country, and look one up
    Country {
        #[command(subcommand)]
        command: CountryCommand,
    },

    /// Show the settings in force and where each comes from
    Config {
        /// Print the commented example file instead
        #[arg(long)]
        example: bool,
    },

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
