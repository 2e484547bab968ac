//! What keeps a file that was not made here, restored or planted, from doing harm: it is root's, but
//! it may hold anything. What its rows say is believed; it runs no SQL of its own, and work on it
//! comes to an end.

use std::ffi::c_int;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::file;
use crate::sys::processor_time;

/// The longest row or value, in bytes: the policy of a settings file as large as they come.
const LONGEST: c_int = 1 << 24;
/// And until the schema was seen to be ours, which has 3 kB in its longest row: SQLite reads the
/// table `sqlite_stat1` before anybody can look at it, and runs what stands in its columns. The time
/// of one function grows with the square of this.
const LONGEST_AT_FIRST: c_int = 1 << 14;
/// The longest pattern of LIKE, in bytes; ours end in a prefix length.
const PATTERN: c_int = 100;

/// After so many steps of SQLite's machine in one statement the time is looked at: that is a tenth
/// of a millisecond, more than any statement of a usual login takes.
const STEPS: c_int = 500;

/// What work on a file may take of the processor, at least. Not of the clock: a login must not fail
/// because the machine is busy, or because a user thinks about his password.
const LEAST: Duration = Duration::from_millis(200);

/// For whom the work is done: nanoseconds that it may take besides, for each byte of the file.
#[derive(Clone, Copy)]
pub struct Work(u64);

impl Work {
    /// For a login. Now and then it counts all rows, which takes 1 ns; to weigh them all, which no
    /// login ever should, takes 5, and to change them all, when the clock was set back, takes 8. A
    /// small machine is ten times slower.
    pub const LOGIN: Work = Work(100);
    /// For a person, who can end it. To forgive a million addresses takes 60 ns, more than anything
    /// else.
    #[cfg(feature = "cli")]
    pub const COMMAND: Work = Work(1_000);
}

/// How every file is opened, besides for reading or writing.
pub const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW)
    .union(OpenFlags::SQLITE_OPEN_EXRESCODE);

/// Sets the limits of a connection to the file at `path`, before anything is read.
pub fn confine(conn: &mut Connection, path: &Path, work: Work) -> rusqlite::Result<Bound> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A table beside ours could refer to them, and bring the triggers that it has.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_AT_FIRST)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN)?;
    limit(conn, path, work)
}

/// What bounds the work on a connection.
pub struct Bound(Arc<AtomicBool>);

impl Bound {
    /// Here begins a new piece of work, with a time of its own: what was done so far, in this file or
    /// anywhere else, has come to an end by itself.
    pub fn renew(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bounds what is done with `conn` from here on. A tree whose pages lead back into themselves has
/// more rows than could ever be read.
pub fn limit(conn: &mut Connection, path: &Path, work: Work) -> rusqlite::Result<Bound> {
    // Rows may all be in the log, as long as somebody reads.
    let files = [path.to_owned(), file::beside(path, "-wal")];
    let is_new = Arc::new(AtomicBool::new(true));
    let bound = Bound(Arc::clone(&is_new));
    let mut end = Duration::ZERO;
    let is_over = move || {
        let now = processor_time();
        if is_new.swap(false, Ordering::Relaxed) {
            // What is on the disk: a file may claim to be of any length.
            let blocks =
                files.iter().map(|file| fs::metadata(file).map_or(0, |file| file.blocks()));
            let bytes = blocks.fold(0, u64::saturating_add).saturating_mul(512);
            let more = Duration::from_nanos(bytes.saturating_mul(work.0));
            end = now.saturating_add(LEAST).saturating_add(more);
        }
        now > end
    };
    conn.progress_handler(STEPS, Some(is_over)).map(|()| bound)
}

/// Lets rows and values have any length that ours could have.
pub fn trust(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST).map(drop)
}

/// How the tables of a file should look: texts as SQLite keeps them.
pub struct Schema {
    /// The tables that are used, in lower case.
    pub tables: &'static [&'static str],
    /// The scripts that made them, in their order.
    pub scripts: &'static [&'static str],
    /// What `ALTER TABLE` has put into one of these.
    pub added: &'static str,
}

impl Schema {
    /// The first of the tables, or of their indexes and triggers, that is none of the scripts: it
    /// could do anything, and a single function of SQL can take for ever. Whatever people made for
    /// themselves beside is left out: no statement of ours reaches it. So are plain indexes. If there
    /// is none, `conn` is trusted.
    pub fn foreign(&self, conn: &Connection) -> rusqlite::Result<Option<String>> {
        let mut select = conn.prepare("SELECT tbl_name, sql, type, name FROM sqlite_schema")?;
        let mut rows = select.query([])?;
        // Every login asks this, and the rows come in the order of the scripts.
        let mut after = Place::default();
        while let Some(row) = rows.next()? {
            let table = row.get_ref(0)?.as_str().unwrap_or_default();
            let is_used = self.tables.iter().any(|used| used.eq_ignore_ascii_case(table));
            let sql = row.get_ref(1)?;
            // SQLite makes the indexes of primary keys without a text.
            if !is_used || sql == ValueRef::Null {
                continue;
            }
            let sql = sql.as_str().unwrap_or_default();
            match self.find(sql, after).or_else(|| self.find(sql, Place::default())) {
                Some(place) => after = place,
                None if is_plain_index(sql) => {}
                None => {
                    let (kind, name): (String, String) = (row.get(2)?, row.get(3)?);
                    return Ok(Some(format!("{kind} {name}")));
                }
            }
        }
        trust(conn).map(|()| None)
    }

    /// Where in the scripts `sql` stands, as a whole statement, from a place on.
    fn find(&self, sql: &str, from: Place) -> Option<Place> {
        let scripts = self.scripts.iter().enumerate().skip(from.script);
        scripts.into_iter().find_map(|(script, text)| {
            let first = if script == from.script { from.byte } else { 0 };
            let mut byte = first;
            text.get(first..)?.split_inclusive('\n').find_map(|line| {
                let start = byte;
                byte += line.len();
                let place = Place { script, byte: start };
                self.begins(text.get(start..)?, sql).then_some(place)
            })
        })
    }

    /// Whether `text` begins with the statement `sql`, as it was or with what was added later.
    fn begins(&self, text: &str, sql: &str) -> bool {
        let common = text.bytes().zip(sql.bytes()).take_while(|(a, b)| a == b).count();
        let (Some(text), Some(sql)) = (text.get(common..), sql.get(common..)) else { return false };
        let sql = sql.strip_prefix(self.added).unwrap_or(sql);
        text.strip_prefix(sql).is_some_and(|rest| rest.starts_with(';'))
    }
}

/// Whether `sql` is an index of columns and nothing else, which people may make to search faster. It
/// computes nothing, and keeps no row out.
fn is_plain_index(sql: &str) -> bool {
    // Without another parenthesis there is no function; names may be quoted.
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_, \t\r\n\"`[]".contains(c);
    let columns = sql.strip_prefix("CREATE INDEX ").and_then(|index| index.split_once('('));
    let columns = columns.and_then(|(_, columns)| columns.strip_suffix(')'));
    columns.is_some_and(|columns| columns.chars().all(is_name))
}

/// A line of a script.
#[derive(Clone, Copy, Default)]
struct Place {
    script: usize,
    byte: usize,
}
