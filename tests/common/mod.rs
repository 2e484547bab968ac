//! What the tests of the module share: where the module is, and the harness that drives it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

pub mod book;
pub mod country;
pub mod lab;
pub mod mmdb;
pub mod pam;
pub mod store;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

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
pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_prefixquota"))
}

/// What a run of the command left.
pub struct Run {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        Run::from(command.output().expect("the command runs"))
    }

    pub fn from(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let status = output.status.code().expect("no signal ends it");
        Run { status, out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    pub fn parts(self) -> (i32, String, String) {
        (self.status, self.out, self.err)
    }
}

/// Another process that has the store open: it has done `sql`, which says something, when this
/// returns, and stays until it is killed.
pub fn other_process(database: &Path, sql: &str) -> Child {
    let mut sqlite3 = Command::new("sqlite3")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the sqlite3 command");
    writeln!(sqlite3.stdin.as_mut().unwrap(), "{sql}").unwrap();
    let mut line = String::new();
    BufReader::new(sqlite3.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "{sql}: no answer");
    sqlite3
}

/// Another process that holds the write lock of the store. (The lock of this process would not do:
/// POSIX locks are between processes.)
pub fn hold_lock(database: &Path) -> Child {
    other_process(database, "BEGIN IMMEDIATE; SELECT 'held';")
}

/// One test at a time: a child that is forked while a thread of another test is inside SQLite would
/// wait for ever for that thread.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that are the same in each run (xorshift64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A place in something so long; 0 in nothing.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % length.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Makes of the multiples of [`STEP`] numbers that have nothing to do with each other (SplitMix64).
pub fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

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
