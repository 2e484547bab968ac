//! A broken store is set aside as it is, and a new one takes its place with all that can still be
//! read. It works on a copy: the broken file is never written to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::salvage::{Carried, carry};
use super::sound::{self, Bound, Work};
use super::{Depth, Health, StoreError, connect, file, from_sqlite, make};

/// What [`repair`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// There is no store yet.
    Missing,
    /// Nothing is broken; nothing was done.
    Sound,
    /// A new store is in its place.
    Mended {
        /// What was broken.
        faults: Vec<String>,
        /// Where the broken file is now.
        aside: PathBuf,
        /// What the new store has of it.
        carried: Carried,
    },
}

/// Mends the store at `path` if it is broken. The broken file is kept beside it, under its name and
/// `suffix`. Logins may go on: those that fall into the moment of the change are counted in the
/// broken file, and lost with what it could not give back.
///
/// # Errors
///
/// Any of [`StoreError`]; the store is as it was.
pub fn repair(path: &Path, lock_wait: Duration, suffix: &str) -> Result<Repair, StoreError> {
    if file::examine(path)?.is_none() {
        return Ok(Repair::Missing);
    }
    // From here on nobody makes or mends a store beside us.
    let directory = file::lock_directory(path, lock_wait)?;
    let faults = match Health::of(path, lock_wait, Depth::Full)? {
        None => return Ok(Repair::Missing),
        Some(health) if health.faults.is_empty() => return Ok(Repair::Sound),
        Some(health) => health.faults,
    };
    let (copy, new) = (file::new_name(path), file::new_name(path));
    let io = |error| StoreError::Io(path.to_owned(), error);
    let mended = take_copy(path, &copy, lock_wait).map_err(io).and_then(|()| {
        file::create(&new).map_err(io)?;
        make(&new, lock_wait)?;
        let carried = fill(&new, &copy, lock_wait).map_err(|error| from_sqlite(&new, error))?;
        let aside = free_name(path, suffix);
        file::exchange(&new, path, &aside).map_err(io)?;
        Ok(Repair::Mended { faults, aside, carried })
    });
    drop(directory);
    file::remove(&copy);
    file::remove(&new);
    mended
}

/// Copies the file and its log, while nobody writes to them if they are sound enough for a lock.
fn take_copy(path: &Path, copy: &Path, lock_wait: Duration) -> io::Result<()> {
    let lock = connect(path, lock_wait).and_then(|(conn, _)| {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        Ok(conn)
    });
    let mut files = Vec::new();
    for suffix in ["", "-wal"] {
        match File::open(file::beside(path, suffix)) {
            Ok(mut from) => {
                let to = file::beside(copy, suffix);
                file::create(&to)?;
                io::copy(&mut from, &mut OpenOptions::new().write(true).open(&to)?)?;
                // To close it would drop the lock.
                files.push(from);
            }
            Err(error) if suffix.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    drop(lock);
    drop(files);
    mend_header(copy)
}

/// What the first bytes of every store are, where SQLite refuses a file for other ones: offset and
/// bytes.
const HEADER: [(u64, &[u8]); 4] = [
    (0, b"SQLite format 3\0"),
    // Write-ahead log; no reserved space; fixed fractions.
    (18, &[2, 2, 0, 64, 32, 32]),
    // Schema format 4.
    (44, &[0, 0, 0, 4]),
    // UTF-8.
    (56, &[0, 0, 0, 1]),
];

/// The page size that SQLite gives a new file.
const PAGE: u16 = 4_096;

fn mend_header(copy: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(copy)?;
    for (offset, bytes) in HEADER {
        file.write_all_at(bytes, offset)?;
    }
    let mut size = [0; 2];
    file.read_exact_at(&mut size, 16)?;
    // The largest, 65536, is written as 1.
    let size = u16::from_be_bytes(size);
    if size != 1 && (size < 512 || !size.is_power_of_two()) {
        file.write_all_at(&PAGE.to_be_bytes(), 16)?;
    }
    // The number of pages: where it is 0, SQLite goes by the size of the file.
    file.write_all_at(&[0; 4], 28)
}

fn fill(new: &Path, copy: &Path, lock_wait: Duration) -> rusqlite::Result<Carried> {
    let (mut to, _) = connect(new, lock_wait)?;
    to.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // What it takes depends on the other file, which has a limit.
    to.progress_handler(0, None::<fn() -> bool>)?;
    sound::trust(&to)?;
    let tx = to.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let carried = match open_copy(copy) {
        Ok((from, bound)) => carry(&from, &bound, &tx)?,
        // Then nothing is left of it.
        Err(_) => Carried::default(),
    };
    tx.commit()?;
    to.close().map_err(|(_, error)| error)?;
    Ok(carried)
}

/// Opens a broken file to read what it has.
fn open_copy(path: &Path) -> rusqlite::Result<(Connection, Bound)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | sound::FLAGS;
    let mut conn = Connection::open_with_flags(path, flags)?;
    let bound = sound::confine(&mut conn, path, Work::COMMAND)?;
    // `writable_schema`: tables beside a broken one can be read all the same.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    conn.execute_batch("PRAGMA cell_size_check = ON; PRAGMA writable_schema = ON")?;
    sound::trust(&conn)?;
    Ok((conn, bound))
}

/// The name for the broken file: with a number if there was one at the same moment.
fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let is_free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    let first = file::beside(path, suffix);
    let others = (2..).map(|n: u32| file::beside(path, &format!("{suffix}-{n}")));
    std::iter::once(first.clone()).chain(others.take(1_000)).find(is_free).unwrap_or(first)
}
