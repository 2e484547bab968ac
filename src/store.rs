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

pub(crate) mod file;
mod write;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior, ffi};

use crate::decide::{Failures, Open};
use crate::quota::Curve;
use crate::source::{Family, Source, key_range};

pub use write::{Ticket, Write};

/// `PRAGMA application_id` of a store: "PfxQ".
const APPLICATION_ID: i64 = 0x5066_7851;
/// The steps from an empty file to the schema of this version; `PRAGMA user_version` says how many
/// a store has behind it. A released step is never changed: the next version adds one.
const STEPS: [&str; 1] = [include_str!("schema.sql")];
const SCHEMA_VERSION: i64 = STEPS.len() as i64;
/// Bytes of the write-ahead log beyond which it is folded into the file: about 100 pages.
const WAL_LIMIT: u64 = 100 * 4_120;

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
    /// SQLite reports something else: a damaged file, a full disk.
    Sqlite(PathBuf, rusqlite::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unsafe(path, what) | StoreError::Country(path, what) => {
                write!(f, "{}: {what}", path.display())
            }
            StoreError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            StoreError::Foreign(path) => {
                write!(f, "{}: not a store of prefixquota; move it away", path.display())
            }
            StoreError::Newer(path, version) => write!(
                f,
                "{}: has version {version}, this program knows up to {SCHEMA_VERSION}; upgrade it",
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
}

/// An address with its failures, as people are shown it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The failures.
    pub failures: Failures,
    /// The address as text.
    pub source: String,
    /// The prefix lengths that mean anything for it: widest and narrowest.
    pub lengths: (u8, u8),
}

impl Store {
    /// Opens the store at `path`, and makes it if its directory is there and it is not. In all it
    /// waits for locks no longer than `lock_wait`.
    ///
    /// # Errors
    ///
    /// Any of [`StoreError`].
    pub fn open(path: &Path, lock_wait: Duration) -> Result<Store, StoreError> {
        let identity = match file::examine(path)? {
            Some(identity) => identity,
            None => {
                file::publish(path, lock_wait, |new| make(new, lock_wait))?;
                file::examine(path)?.ok_or_else(|| missing(path))?
            }
        };
        Store::connect(path, identity, lock_wait)
    }

    /// Opens the store at `path`; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// Any of [`StoreError`].
    pub fn open_existing(path: &Path, lock_wait: Duration) -> Result<Option<Store>, StoreError> {
        let Some(identity) = file::examine(path)? else {
            return Ok(None);
        };
        Store::connect(path, identity, lock_wait).map(Some)
    }

    fn connect(
        path: &Path,
        identity: file::Identity,
        lock_wait: Duration,
    ) -> Result<Store, StoreError> {
        let started = Instant::now();
        let mut conn = connect(path, lock_wait).map_err(|error| from_sqlite(path, error))?;
        check_version(&mut conn, path)?;
        let patience = lock_wait.saturating_sub(started.elapsed());
        Ok(Store { conn, path: path.to_owned(), identity, patience })
    }

    /// Whether the file at the store's path is still the one that is open: it may have been
    /// replaced while a user was asked for a password.
    pub fn is_current(&self) -> bool {
        matches!(file::examine(&self.path), Ok(Some(identity)) if identity == self.identity)
    }

    /// The failures of all addresses inside the widest prefix that counts for `source`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn failures_near(
        &self,
        source: &Source,
        curve: &Curve,
    ) -> Result<Vec<Failures>, StoreError> {
        failures_near(&self.conn, &self.path, source, curve)
    }

    /// All failing addresses inside `prefix`, or everywhere, in the order of their keys.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn entries(&self, prefix: Option<&IpNet>) -> Result<Vec<Entry>, StoreError> {
        let everywhere = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX));
        let (first, last) = prefix.map_or(everywhere, key_range);
        let family = prefix.map(|net| Family::of_key(key_range(net).0));
        let entries = entries(&self.conn, &self.path, first, last)?;
        // Keys of IPv4 lie inside ::/0, but IPv4 addresses do not.
        let same = |entry: &Entry| family.is_none_or(|f| f == Family::of_key(entry.failures.key));
        Ok(entries.into_iter().filter(same).collect())
    }

    /// Starts the one kind of transaction that writes. The lock is held until it ends.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn begin(&mut self) -> Result<Write<'_>, StoreError> {
        let started = Instant::now();
        let path = &self.path;
        self.conn.busy_timeout(self.patience).map_err(|error| from_sqlite(path, error))?;
        let begun = self.conn.transaction_with_behavior(TransactionBehavior::Immediate);
        // Only the wait for the lock counts, not what is done under it.
        self.patience = self.patience.saturating_sub(started.elapsed());
        Ok(Write::new(begun.map_err(|error| from_sqlite(path, error))?, path))
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

fn connect(path: &Path, lock_wait: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(lock_wait)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The file is root's, but a restored or copied one may hold anything.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
    Ok(conn)
}

/// Fills a new, empty file.
fn make(path: &Path, lock_wait: Duration) -> Result<(), StoreError> {
    let fill = || {
        let mut conn = connect(path, lock_wait)?;
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
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

fn pragma(conn: &Connection, question: &str) -> rusqlite::Result<i64> {
    conn.query_row(question, [], |row| row.get(0))
}

/// Makes sure that this is a store of ours, and no newer one; an older one is brought up to date.
fn check_version(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let ask = |conn: &Connection, question| {
        pragma(conn, question).map_err(|error| from_sqlite(path, error))
    };
    if ask(conn, "PRAGMA application_id")? != APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    match ask(conn, "PRAGMA user_version")? {
        SCHEMA_VERSION => Ok(()),
        newer if newer > SCHEMA_VERSION => Err(StoreError::Newer(path.to_owned(), newer)),
        _ => upgrade(conn).map_err(|error| from_sqlite(path, error)),
    }
}

/// The rows of the widest prefix that counts for `source`.
fn failures_near(
    conn: &Connection,
    path: &Path,
    source: &Source,
    curve: &Curve,
) -> Result<Vec<Failures>, StoreError> {
    let widest = source.prefix(*curve.lengths(source).start());
    let (first, last) = key_range(&widest);
    let select = || -> rusqlite::Result<Vec<Failures>> {
        let sql = format!("SELECT {COLUMNS} FROM failure WHERE address BETWEEN ?1 AND ?2");
        let mut select = conn.prepare(&sql)?;
        let rows = select.query_map((first.octets(), last.octets()), failures)?;
        rows.filter_map(Result::transpose).collect()
    };
    select().map_err(|error| from_sqlite(path, error))
}

fn entries(
    conn: &Connection,
    path: &Path,
    first: Ipv6Addr,
    last: Ipv6Addr,
) -> Result<Vec<Entry>, StoreError> {
    let select = || -> rusqlite::Result<Vec<Entry>> {
        let sql = format!(
            "SELECT {COLUMNS}, source, widest, narrowest FROM failure
             WHERE address BETWEEN ?1 AND ?2 ORDER BY address"
        );
        let mut select = conn.prepare(&sql)?;
        let rows = select.query_map((first.octets(), last.octets()), |row| {
            let Some(failures) = failures(row)? else { return Ok(None) };
            let length = |column| row.get(column).map(|n: i64| n.clamp(0, 128) as u8);
            let lengths = (length(8)?, length(9)?);
            Ok(Some(Entry { failures, source: row.get(7)?, lengths }))
        })?;
        rows.filter_map(Result::transpose).collect()
    };
    select().map_err(|error| from_sqlite(path, error))
}

/// The columns that [`failures`] reads, in this order.
const COLUMNS: &str = "address, level, at, since, open_since, open, open_before";

/// Reads a row that people may have edited: what makes no sense counts for nothing, and never keeps
/// the rows beside it from being counted. `None` if its address is none.
fn failures(row: &Row<'_>) -> rusqlite::Result<Option<Failures>> {
    let key = row.get_ref(0)?.as_blob().ok().and_then(|key| <[u8; 16]>::try_from(key).ok());
    let Some(key) = key else { return Ok(None) };
    let level: f64 = row.get(1)?;
    let count = |column| row.get(column).map(|n: i64| n.clamp(0, i64::from(u32::MAX)) as u32);
    Ok(Some(Failures {
        key: Ipv6Addr::from(key),
        level: if level.is_finite() { level.max(0.0) } else { 0.0 },
        at: row.get(2)?,
        since: row.get(3)?,
        open: Open { since: row.get(4)?, current: count(5)?, before: count(6)? },
    }))
}

fn missing(path: &Path) -> StoreError {
    StoreError::Io(path.to_owned(), std::io::Error::from(std::io::ErrorKind::NotFound))
}

pub(crate) fn from_sqlite(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy(path),
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
