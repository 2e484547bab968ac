//! The command `prefixquota`: what the module has counted, and what to do about it.
//!
//! Exit status: 0 done or admitted, 1 denied, 2 wrong usage or an error, with one sentence on
//! standard error.
#![deny(unsafe_code)]

mod cli;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
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

fn fail(error: &str) -> ExitCode {
    // It may repeat an argument: one line all the same.
    let error: String = error.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let _ = writeln!(anstream::stderr(), "prefixquota: {error}");
    ExitCode::from(2)
}
