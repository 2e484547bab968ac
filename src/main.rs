//! The command `prefixquota`: what the module has counted, and what to do about it.
//!
//! Exit status: 0 done or admitted, 1 denied, 2 wrong usage or an error, with one sentence on
//! standard error.
#![deny(unsafe_code)]

mod cli;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

use cli::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if is_wrong_usage(&error) => return fail(&sentence(&error)),
        // Help, or the version.
        Err(error) => error.exit(),
    };
    match cli::run(&args) {
        Ok(report) => {
            let shown = report.show(args.format);
            match anstream::stdout().write_all(shown.as_bytes()) {
                // Whoever reads has seen enough: `prefixquota list | head`.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => fail(&format!("standard output: {error}")),
                Ok(()) => ExitCode::from(report.status),
            }
        }
        Err(error) => fail(&error),
    }
}

fn is_wrong_usage(error: &clap::Error) -> bool {
    error.use_stderr() && error.kind() != DisplayHelpOnMissingArgumentOrSubcommand
}

/// What clap says of wrong usage, in one line.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = text.trim_start_matches("error: ").split("\n\n");
    let parts = parts.take_while(|part| !part.starts_with("Usage: ") && !part.starts_with("For "));
    let wrong: Vec<String> = parts.map(words).collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("prefixquota");
    let command = usage.split([' ', '\n']).take_while(|word| !word.starts_with(['<', '[', '-']));
    let command = command.collect::<Vec<_>>().join(" ");
    format!("{}; see {command} --help", wrong.join("; "))
}

fn fail(error: &str) -> ExitCode {
    // It may repeat an argument: one line all the same.
    let error: String = error.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let _ = writeln!(anstream::stderr(), "prefixquota: {error}");
    ExitCode::from(2)
}
