//! The store: one SQLite file that the module in every service and the command share.
//!
//! # Why it is opened as it is
//!
//! Each hook opens, uses and closes it: sshd forks between hooks, and a connection must not cross
//! a fork. Measured with the attempt in a process of its own (`make bench`):
//!
//! * **WAL, synchronous NORMAL.** Survives killed processes and power loss (which may take the last
//!   attempts with it, never the file), and people who read with `sqlite3` block no login. A
//!   TRUNCATE journal is faster only without any sync, and then a power loss may cost the file.
//! * **No checkpoint when closing**, which would sync on every attempt (11 ms instead of 0.7 ms),
//!   but one that truncates the log once it has `WAL_LIMIT` bytes: each attempt is the first
//!   opener and reads the whole log (1.1 us a frame), so it must stay short.
//! * **Busy handler of SQLite, `lock_wait` = 5 s.** With 200 processes at once none failed; with
//!   250 ms 23 % did, and an attempt that cannot be counted is one that an attacker has for free.

#[cfg(feature = "cli")]
mod backup;
pub(crate) mod file;
#[cfg(feature = "cli")]
mod health;
mod keep;
#[cfg(feature = "cli")]
mod prune;
mod read;
#[cfg(feature = "cli")]
mod repair;
#[cfg(feature = "cli")]
mod salvage;
pub(crate) mod sound;
mod sweep;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use crate::VERSION;
use crate::config::{Settings, printable};

#[cfg(feature = "cli")]
pub use backup::{Backup, BackupError};
#[cfg(feature = "cli")]
pub use health::{Depth, Health};
#[cfg(feature = "cli")]
pub use prune::Pruned;
pub use read::{Entry, Reader, UserPlace};
#[cfg(feature = "cli")]
pub use repair::{Repair, repair};
#[cfg(feature = "cli")]
pub use salvage::Carried;
use sound::{Bound, Work};
pub use write::{Ticket, Write};

/// `PRAGMA application_id` of a store: "PfxQ".
const APPLICATION_ID: i64 = 0x5066_7851;
/// The steps from an empty file to the schema of this version; `PRAGMA user_version` says how many
/// a store has behind it. A released step is never changed: the next version adds one.
const STEPS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];
/// The view holds nothing, and is made anew behind the steps.
const VIEW: &str = include_str!("schema/view.sql");
const SCHEMA_VERSION: i64 = STEPS.len() as i64;
const SCHEMA: sound::Schema = sound::Schema {
    tables: &["failure", "familiar", "known", "meta", "quota", "rule", "wrong"],
    scripts: &STEPS,
    added: ", slow REAL NOT NULL DEFAULT 0 CHECK (slow BETWEEN 0 AND 1e9)",
};
/// Bytes of the write-ahead log beyond which it is folded into the file: about 100 pages.
const WAL_LIMIT: u64 = 100 * 4_120;

/// How often a store may be replaced just while it is opened: `repair` does so once.
const REPLACED: u32 = 5;

/// What is wrong with a store that would keep a statement busy for ever.
const ENDLESS: &str = "damaged: to read it would not end";

/// How long to wait where waiting is worth little.
const BRIEFLY: Duration = Duration::from_millis(250);

/// Why the store cannot be used. `Display` is one sentence that names the file.
#[derive(Debug)]
pub enum StoreError {
    /// The file or its directory could be changed by somebody else, or is no plain file.
    Unsafe(PathBuf, &'static str),
    /// It cannot be reached, or created.
    Io(PathBuf, std::io::Error),
    /// A database, but not one of ours.
    Foreign(PathBuf),
    /// Written by a newer version of this program.
    Newer(PathBuf, i64),
    /// Other processes wrote to it for longer than `lock_wait`.
    Busy(PathBuf),
    /// The country database is missing, foreign, newer or damaged; says how to mend it.
    Country(PathBuf, &'static str),
    /// Not as this program made it, so that it is not safe to use.
    Damaged(PathBuf, String),
    /// SQLite reports something else: a damaged file, a full disk.
    Sqlite(PathBuf, rusqlite::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unsafe(path, what) | StoreError::Country(path, what) => {
                write!(f, "{}: {what}", path.display())
            }
            StoreError::Damaged(path, what) => {
                write!(f, "{}: {what}; mend it: {}", path.display(), repair_command(path))
            }
            StoreError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            StoreError::Foreign(path) => {
                write!(f, "{}: not a store of prefixquota; move it away", path.display())
            }
            StoreError::Newer(path, version) => write!(
                f,
                "{}: has version {version}, {VERSION} knows up to {SCHEMA_VERSION}; upgrade it",
                path.display()
            ),
            StoreError::Busy(path) => {
                write!(f, "{}: locked by other processes for longer than lock_wait", path.display())
            }
            StoreError::Sqlite(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// An open store.
pub struct Store {
    conn: Connection,
    path: PathBuf,
    identity: file::Identity,
    /// How much longer this store may wait for locks.
    patience: Duration,
    bound: Bound,
}

impl Store {
    /// Opens the store at `path`, and makes it if its directory is there and it is not. In all it
    /// waits for locks no longer than `lock_wait`.
    ///
    /// # Errors
    ///
    /// Any of [`StoreError`].
    pub fn open(path: &Path, lock_wait: Duration) -> Result<Store, StoreError> {
        for _ in 0..REPLACED {
            let identity = match file::examine(path)? {
                Some(identity) => identity,
                None => {
                    file::publish(path, lock_wait, |new| make(new, lock_wait))?;
                    file::examine(path)?.ok_or_else(|| missing(path))?
                }
            };
            if let Some(store) = Store::connect(path, identity, lock_wait)? {
                return Ok(store);
            }
        }
        Err(StoreError::Busy(path.to_owned()))
    }

    /// Opens the store at `path`; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// Any of [`StoreError`].
    pub fn open_existing(path: &Path, lock_wait: Duration) -> Result<Option<Store>, StoreError> {
        for _ in 0..REPLACED {
            let Some(identity) = file::examine(path)? else { return Ok(None) };
            if let Some(store) = Store::connect(path, identity, lock_wait)? {
                return Ok(Some(store));
            }
        }
        Err(StoreError::Busy(path.to_owned()))
    }

    /// Opens the file that was examined; `None` if another took its place in this moment. SQLite
    /// opens log and index by their names, and they would be the other's.
    fn connect(
        path: &Path,
        identity: file::Identity,
        lock_wait: Duration,
    ) -> Result<Option<Store>, StoreError> {
        let started = Instant::now();
        let (mut conn, bound) =
            connect(path, lock_wait).map_err(|error| from_sqlite(path, error))?;
        check_version(&mut conn, path, &bound)?;
        let patience = lock_wait.saturating_sub(started.elapsed());
        // Not as a `Store`, which folds the log into its file when it is dropped.
        let is_same = is_same(path, identity);
        Ok(is_same.then(|| Store { conn, path: path.to_owned(), identity, patience, bound }))
    }

    /// Whether the file at the store's path is still the one that is open: it may have been
    /// replaced while a user was asked for a password.
    pub fn is_current(&self) -> bool {
        is_same(&self.path, self.identity)
    }

    /// As it is for the command, which may look at all there is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    #[cfg(feature = "cli")]
    pub fn for_command(mut self) -> Result<Store, StoreError> {
        let bound = sound::limit(&mut self.conn, &self.path, Work::COMMAND);
        self.bound = bound.map_err(|error| from_sqlite(&self.path, error))?;
        Ok(self)
    }

    /// What can be read, each time as it is then.
    pub fn reader(&self) -> Reader<'_> {
        self.bound.renew();
        Reader::new(&self.conn, &self.path)
    }

    /// Starts the one kind of transaction that writes. The lock is held until it ends.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn begin(&mut self) -> Result<Write<'_>, StoreError> {
        let started = Instant::now();
        let path = &self.path;
        self.bound.renew();
        self.conn.busy_timeout(self.patience).map_err(|error| from_sqlite(path, error))?;
        let begun = self.conn.transaction_with_behavior(TransactionBehavior::Immediate);
        // Only the wait for the lock counts, not what is done under it.
        self.patience = self.patience.saturating_sub(started.elapsed());
        Ok(Write::new(begun.map_err(|error| from_sqlite(path, error))?, path, &self.bound))
    }

    /// Does `work` in one such transaction: all of it is written, or nothing.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn transact<T>(
        &mut self,
        work: impl FnOnce(&Write<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let write = self.begin()?;
        let done = work(&write)?;
        write.commit()?;
        Ok(done)
    }

    /// As [`Store::begin`], for what can as well be done another time: waits a quarter of a second
    /// at most.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn begin_briefly(&mut self) -> Result<Write<'_>, StoreError> {
        self.patience = self.patience.min(BRIEFLY);
        self.begin()
    }

    /// Folds the write-ahead log into the file when it has grown. Whoever cannot have the file for
    /// himself at once leaves it to the next.
    fn trim_log(&self) {
        if std::fs::metadata(file::beside(&self.path, "-wal"))
            .is_ok_and(|log| log.len() > WAL_LIMIT)
        {
            let _ = self.conn.busy_timeout(Duration::ZERO);
            let _ = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.trim_log();
    }
}

fn is_same(path: &Path, identity: file::Identity) -> bool {
    matches!(file::examine(path), Ok(Some(found)) if found == identity)
}

fn connect(path: &Path, lock_wait: Duration) -> rusqlite::Result<(Connection, Bound)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | sound::FLAGS;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(lock_wait)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let bound = sound::confine(&mut conn, path, Work::LOGIN)?;
    conn.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
    Ok((conn, bound))
}

/// Fills a new, empty file.
fn make(path: &Path, lock_wait: Duration) -> Result<(), StoreError> {
    let fill = || {
        let (mut conn, _) = connect(path, lock_wait)?;
        // All of it into the one file, which is about to get its name.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        upgrade(&mut conn)?;
        conn.close().map_err(|(_, error)| error)
    };
    fill().map_err(|error| from_sqlite(path, error))
}

/// Takes the steps that a store has not behind it yet, all or none.
fn upgrade(conn: &mut Connection) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read under the lock: another process may have been faster.
    let version = pragma(&tx, "PRAGMA user_version")?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        tx.execute_batch(step)?;
    }
    tx.execute_batch(VIEW)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

fn pragma(conn: &Connection, question: &str) -> rusqlite::Result<i64> {
    conn.query_row(question, [], |row| row.get(0))
}

/// Makes sure that this is a store of ours, and no newer one; an older one is brought up to date.
fn check_version(conn: &mut Connection, path: &Path, bound: &Bound) -> Result<(), StoreError> {
    let look = |conn: &mut Connection| {
        // At one moment: another process may be about to bring it up to date.
        let tx = conn.transaction()?;
        let (id, version) =
            (pragma(&tx, "PRAGMA application_id")?, pragma(&tx, "PRAGMA user_version")?);
        rusqlite::Result::Ok((id, version, SCHEMA.foreign(&tx)?))
    };
    let (id, version, foreign) = look(conn).map_err(|error| from_sqlite(path, error))?;
    if id != APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::Newer(path.to_owned(), version));
    }
    if let Some(foreign) = foreign {
        return Err(StoreError::Damaged(path.to_owned(), not_ours(&foreign)));
    }
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    bound.renew();
    upgrade(conn).map_err(|error| from_sqlite(path, error))
}

/// What mends the store at `path`.
pub fn repair_command(path: &Path) -> String {
    if path == Settings::default().database {
        return "prefixquota repair".to_owned();
    }
    format!("prefixquota --database {} repair", path.display())
}

/// What is wrong with a store that has a part of such a name.
fn not_ours(part: &str) -> String {
    format!("{} is not as this program makes it", printable(part))
}

fn missing(path: &Path) -> StoreError {
    StoreError::Io(path.to_owned(), std::io::Error::from(std::io::ErrorKind::NotFound))
}

pub(crate) fn from_sqlite(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy(path),
            ErrorCode::OperationInterrupted => StoreError::Damaged(path, ENDLESS.to_owned()),
            ErrorCode::CannotOpen if failure.extended_code == ffi::SQLITE_CANTOPEN_SYMLINK => {
                StoreError::Unsafe(
                    path,
                    "a part of the path is a symbolic link; name the real path",
                )
            }
            _ => StoreError::Sqlite(path, error),
        },
        _ => StoreError::Sqlite(path, error),
    }
}
