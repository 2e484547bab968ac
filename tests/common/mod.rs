//! What the tests of the module share: where the module is, and the harness that drives it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

pub mod book;
pub mod country;
pub mod lab;
pub mod mmdb;
pub mod pam;
pub mod store;

use std::path::PathBuf;

/// The module under test: the one that `PREFIXQUOTA_MODULE` names (`make test` names the release
/// build), else the one that cargo built beside this test.
pub fn module() -> PathBuf {
    if let Some(path) = std::env::var_os("PREFIXQUOTA_MODULE") {
        return PathBuf::from(path);
    }
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.join("libpam_prefixquota.so")
}

/// The command under test.
pub fn command() -> std::process::Command {
    std::process::Command::new(env!("CARGO_BIN_EXE_prefixquota"))
}

/// A directory that the module accepts (0700, our own) and that goes away with the value.
pub fn private_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pq").tempdir().expect("a temporary directory")
}

/// Why a test that needs root does not run here, or `None` when it may. Printed, never silent; CI
/// is root and sets `CI`, so there a missing right is a failure.
pub fn root_or_skip(test: &str) -> bool {
    // SAFETY: geteuid(2) has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(std::env::var_os("CI").is_none(), "{test} must run in CI, and needs root");
        eprintln!("{test}: skipped, needs root for a namespace of its own");
    }
    root
}
