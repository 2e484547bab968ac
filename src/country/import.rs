//! The import: a MaxMind DB file becomes the SQLite file that the module reads.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::mmdb::{Mmdb, Range};
use super::{APPLICATION_ID, About, Countries, FOREIGN, SCRIPT, VERSION, version};
use crate::store::{StoreError, file, from_sqlite, sound};

/// Files by country have 10 MB, those by city 60 MB, the largest on sale some hundred. In bytes.
const MAX_FILE: u64 = 512 << 20;

/// Real files have less than a million.
const MAX_RANGES: u32 = 1 << 24;

/// Why nothing was imported. `Display` is one sentence that names the file.
#[derive(Debug)]
pub enum ImportError {
    /// The file to import cannot be used.
    Source(PathBuf, String),
    /// The country database cannot be written.
    Target(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Source(path, what) => write!(f, "{}: {what}", path.display()),
            ImportError::Target(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ImportError {}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> ImportError {
        ImportError::Target(error)
    }
}

/// Reads `file`, all of it, and then puts a new country database at `database`. If anything is
/// wrong, the one that is there stays.
///
/// # Errors
///
/// [`ImportError`].
pub fn import(file: &Path, database: &Path, lock_wait: Duration) -> Result<About, ImportError> {
    check_target(database)?;
    let source = |what| ImportError::Source(file.to_owned(), what);
    let bytes = read(file).map_err(|error| source(format!("cannot be read ({error})")))?;
    let mmdb = Mmdb::new(&bytes).map_err(source)?;
    file::replace(database, lock_wait, |new| {
        fill(new, &mmdb).map_err(|problem| match problem {
            Problem::Source(what) => source(what),
            Problem::Sqlite(error) => from_sqlite(database, error).into(),
        })
    })?;
    Ok(Countries::open(database)?.about()?)
}

/// Makes sure that there is nothing at `path` that is not ours: a slip in the settings must not cost
/// somebody his file. One of ours may be damaged, or of another version.
fn check_target(path: &Path) -> Result<(), StoreError> {
    if file::examine(path)?.is_none() || version(path)?.is_some() {
        return Ok(());
    }
    Err(StoreError::Country(path.to_owned(), FOREIGN))
}

/// Reads a regular file into memory. To map it would be a trap: whoever truncates it meanwhile
/// kills the reader.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if !fs::metadata(file)?.is_file() {
        return Err(unfit("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unfit("larger than 512 MiB"));
    }
    Ok(bytes)
}

/// What may go wrong while the ranges pass from one file into the other.
enum Problem {
    Source(String),
    Sqlite(rusqlite::Error),
}

impl From<String> for Problem {
    fn from(what: String) -> Problem {
        Problem::Source(what)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Problem {
        Problem::Sqlite(error)
    }
}

/// Fills a new, empty file. Nobody reads it yet, so it needs no journal.
fn fill(path: &Path, mmdb: &Mmdb<'_>) -> Result<(), Problem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | sound::FLAGS;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)?;
    let tx = conn.transaction()?;
    tx.execute_batch(SCRIPT)?;
    let (mut ranges, mut countries, mut seen) = (0, 0, BTreeSet::new());
    let mut insert = tx.prepare("INSERT INTO range VALUES (?1, ?2, ?3)")?;
    mmdb.each_range(|Range { first, last, country }| {
        ranges += 1;
        if ranges > MAX_RANGES {
            return Err(Problem::Source(format!("has more than {MAX_RANGES} ranges")));
        }
        countries += u32::from(seen.insert(country));
        insert.execute(params![first.octets(), last.octets(), country.to_string()])?;
        Ok(())
    })?;
    drop(insert);
    let database_type = mmdb.database_type();
    if ranges == 0 {
        return Err(Problem::Source(format!(
            "no country in it (it calls itself \"{database_type}\"): expected data by country"
        )));
    }
    tx.execute(
        "INSERT INTO meta VALUES ('database_type', ?1), ('ranges', ?2), ('countries', ?3),
             ('built', strftime('%Y-%m-%dT%H:%M:%SZ', ?4, 'unixepoch'))",
        params![database_type, ranges, countries, mmdb.built()],
    )?;
    tx.commit()?;
    conn.close().map_err(|(_, error)| error.into())
}
