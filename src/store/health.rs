//! Whether the file of a store is sound. Nothing is changed by looking.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::sound::{self, Work};
use super::{
    APPLICATION_ID, ENDLESS, SCHEMA, SCHEMA_VERSION, StoreError, file, from_sqlite, not_ours,
    pragma, upgrade,
};

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The structure of the file: a second for a million rows.
    Quick,
    /// The indexes and constraints too.
    Full,
}

/// How many faults are listed.
const FAULTS: usize = 10;

/// No release will ever have this schema version: the header of the file is damaged.
const NO_VERSION: i64 = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is broken, a sentence each; empty for a sound store.
    pub faults: Vec<String>,
    /// The version of its schema.
    pub version: i64,
    /// Whether an older program made it: the next login brings it up to date.
    pub is_old: bool,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the write-ahead log.
    pub log: u64,
    /// When the last failure was counted, Unix milliseconds.
    pub latest: Option<i64>,
}

impl Health {
    /// Looks at the store at `path`; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// It cannot be looked at ([`StoreError::Unsafe`], [`StoreError::Io`], [`StoreError::Busy`]),
    /// or is sound but nothing of ours ([`StoreError::Foreign`], [`StoreError::Newer`]).
    pub fn of(
        path: &Path,
        lock_wait: Duration,
        depth: Depth,
    ) -> Result<Option<Health>, StoreError> {
        if file::examine(path)?.is_none() {
            return Ok(None);
        }
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        let (size, log) = (length(path), length(&file::beside(path, "-wal")));
        let health = Health { size, log, ..Health::default() };
        let Seen { id, version, mut faults, latest } =
            match open(path, lock_wait).and_then(|c| look(&c, depth)) {
                Ok(found) => found,
                // Ours has no such long row.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::TooBig)
                        && is_foreign(path, lock_wait) =>
                {
                    return Err(StoreError::Foreign(path.to_owned()));
                }
                Err(error) if is_damage(&error) => {
                    return Ok(Some(Health { faults: vec![fault(&error)], ..health }));
                }
                Err(error) => return Err(from_sqlite(path, error)),
            };
        if id != APPLICATION_ID {
            // What is foreign is not ours to mend, however broken.
            if is_foreign(path, lock_wait) {
                return Err(StoreError::Foreign(path.to_owned()));
            }
            faults.push("header: not marked as a store of prefixquota".to_owned());
        }
        if !(0..=NO_VERSION).contains(&version) {
            faults.push(format!("header: version {version}"));
        } else if is_newer(version) {
            return Err(StoreError::Newer(path.to_owned(), version));
        }
        let is_old = version < SCHEMA_VERSION;
        Ok(Some(Health { faults, version, is_old, latest, ..health }))
    }
}

fn is_newer(version: i64) -> bool {
    version > SCHEMA_VERSION && version <= NO_VERSION
}

/// Whether an error tells of a broken file, and not of its surroundings.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => !matches!(
            failure.code,
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::DiskFull
        ),
        _ => true,
    }
}

fn fault(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => ENDLESS.to_owned(),
        _ => error.to_string(),
    }
}

fn open(path: &Path, lock_wait: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | sound::FLAGS;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(lock_wait)?;
    sound::confine(&mut conn, path, Work::COMMAND)?;
    Ok(conn)
}

struct Seen {
    id: i64,
    version: i64,
    faults: Vec<String>,
    latest: Option<i64>,
}

fn look(conn: &Connection, depth: Depth) -> rusqlite::Result<Seen> {
    // One look at one state, whatever is charged meanwhile.
    let tx = conn.unchecked_transaction()?;
    let (id, version) =
        (pragma(&tx, "PRAGMA application_id")?, pragma(&tx, "PRAGMA user_version")?);
    // To look further would run what such a file says.
    let mut faults: Vec<String> = SCHEMA.foreign(&tx)?.iter().map(|part| not_ours(part)).collect();
    if !faults.is_empty() || is_newer(version) {
        return Ok(Seen { id, version, faults, latest: None });
    }
    let check = match depth {
        Depth::Quick => format!("PRAGMA quick_check({FAULTS})"),
        Depth::Full => format!("PRAGMA integrity_check({FAULTS})"),
    };
    let mut check = tx.prepare(&check)?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let found = row.get_ref(0)?.as_str().unwrap_or_default().to_owned();
        faults.extend(found.lines().filter(|line| *line != "ok").map(str::to_owned));
    }
    faults.truncate(FAULTS);
    let mode: String = tx.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        faults.push(format!("journal mode {mode}, not wal"));
    }
    if version == SCHEMA_VERSION {
        let expected = model()?;
        let found = columns(&tx)?;
        let missing = expected.iter().filter(|column| !found.contains(column));
        faults.extend(missing.map(|column| format!("schema: {column} is missing")));
    }
    // In a broken one that may be anything.
    let latest = tx.query_row("SELECT max(at) FROM failure", [], |row| row.get(0)).unwrap_or(None);
    Ok(Seen { id, version, faults, latest })
}

/// An empty store in memory: how tables should look.
fn model() -> rusqlite::Result<Vec<String>> {
    let mut model = Connection::open_in_memory()?;
    upgrade(&mut model)?;
    columns(&model)
}

/// Every column and trigger, by a name that says it all.
fn columns(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT m.name || '.' || c.name || ' ' || c.type FROM sqlite_schema AS m,
                      pragma_table_info(m.name) AS c WHERE m.type = 'table'
               UNION ALL SELECT type || ' ' || name FROM sqlite_schema
               WHERE type IN ('index', 'trigger') AND sql IS NOT NULL";
    conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Whether there are tables, but not ours. (What is left of a file that was cut short has none.)
fn is_foreign(path: &Path, lock_wait: Duration) -> bool {
    let ask = || {
        let conn = open(path, lock_wait)?;
        sound::trust(&conn)?;
        let ours = "name IN ('failure', 'quota', 'meta')";
        pragma(&conn, &format!("SELECT count(*) > 0 AND sum({ours}) < 3 FROM sqlite_schema"))
    };
    ask().is_ok_and(|foreign| foreign == 1)
}
