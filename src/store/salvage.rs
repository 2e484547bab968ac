//! What can still be read from a broken store, into a new one. The file may hold anything: a row
//! that its table would not take, or that contradicts itself, is left behind.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, Statement, Transaction, params_from_iter};

use super::read::{ELSEWHERE, RULE, place_of, rule};
use super::sound::Bound;
use super::sweep::COUNT_ROWS;
use crate::source::parse_prefix;

/// How many rows were carried over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Failing addresses, also those of users whose provider is known.
    pub addresses: usize,
    /// Places of users, and their strangers' counts.
    pub places: usize,
    /// Rules and grants.
    pub rules: usize,
}

/// After so many unreadable stretches of a table the rest is given up.
const HOLES: usize = 10_000;

/// The columns of `failure`; `familiar` has the first nine.
const COLUMNS: [&str; 11] = [
    "address",
    "source",
    "level",
    "at",
    "since",
    "open_since",
    "open",
    "open_before",
    "slow",
    "widest",
    "narrowest",
];

/// Carries over what `old` still gives. What cannot be read is no error.
pub(super) fn carry(
    old: &Connection,
    bound: &Bound,
    new: &Transaction<'_>,
) -> rusqlite::Result<Carried> {
    let mut carried = Carried::default();
    let may_read = |name| {
        // One that has no end must not take the time of the others.
        bound.renew();
        is_plain(old, name)
    };
    if may_read("failure") {
        carried.addresses += addresses(old, new, "failure", &COLUMNS)?;
        new.execute(COUNT_ROWS, [])?;
    }
    if may_read("familiar") {
        let columns = COLUMNS.get(..9).unwrap_or_default();
        carried.addresses += addresses(old, new, "familiar", columns)?;
    }
    if may_read("known") {
        carried.places = places(old, new)?;
    }
    if may_read("rule") {
        carried.rules = rules(old, new)?;
    }
    if may_read("meta") && may_read("wrong") {
        wrong_passwords(old, new)?;
    }
    Ok(carried)
}

/// Whether to read a table runs no SQL that stands in the file: it is one whose columns all hold what
/// was written to them. (No index or trigger runs any.)
fn is_plain(old: &Connection, name: &str) -> bool {
    let sql = "SELECT type = 'table' AND sql LIKE 'CREATE TABLE%' AND NOT EXISTS
                   (SELECT 1 FROM pragma_table_xinfo(?1) WHERE hidden <> 0)
               FROM sqlite_schema WHERE name = ?1";
    old.query_row(sql, [name], |row| row.get(0)).unwrap_or(false)
}

fn addresses(
    old: &Connection,
    new: &Transaction<'_>,
    table: &str,
    columns: &[&str],
) -> rusqlite::Result<usize> {
    // A store of an older version has fewer.
    let found = column_names(old, table).unwrap_or_default();
    let columns: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| found.iter().any(|other| other == column))
        .collect();
    if columns.is_empty() {
        return Ok(0);
    }
    let (list, marks) = (columns.join(", "), vec!["?"; columns.len()].join(", "));
    let mut insert =
        new.prepare(&format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})"))?;
    let select = format!("SELECT {list} FROM {table} WHERE address >= ?1 ORDER BY address");
    let of_key = |key: u128| Value::Blob(key.to_be_bytes().to_vec());
    let key_of = |value: ValueRef<'_>| {
        let bytes: [u8; 16] = value.as_blob().ok()?.try_into().ok()?;
        Some(u128::from_be_bytes(bytes))
    };
    let mut carried = 0;
    walk(old, &select, (of_key, key_of), u128::MAX, |row| {
        carried += usize::from(copy(&mut insert, row, columns.len()));
    });
    Ok(carried)
}

fn column_names(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut names = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    names.query_map([table], |row| row.get(0))?.collect()
}

/// Copies one row as it is; whether the new table took it.
fn copy(insert: &mut Statement<'_>, row: &Row<'_>, columns: usize) -> bool {
    let values: rusqlite::Result<Vec<ToSqlOutput<'_>>> =
        (0..columns).map(|column| row.get_ref(column).map(ToSqlOutput::Borrowed)).collect();
    let copied = values.and_then(|values| insert.execute(params_from_iter(values)));
    copied.is_ok_and(|rows| rows == 1)
}

/// Reads a table in the order of its keys, the first column, which are numbers up to `last`. Behind
/// a stretch that cannot be read it goes on.
fn walk(
    old: &Connection,
    select: &str,
    (of_key, key_of): (impl Fn(u128) -> Value, impl Fn(ValueRef<'_>) -> Option<u128>),
    last: u128,
    mut each: impl FnMut(&Row<'_>),
) {
    let Ok(mut select) = old.prepare(select) else { return };
    let mut next = 0;
    for _ in 0..HOLES {
        let mut scan = || -> rusqlite::Result<()> {
            let mut rows = select.query([of_key(next)])?;
            while let Some(row) = rows.next()? {
                each(row);
                if let Some(key) = key_of(row.get_ref(0)?) {
                    next = next.max(key.saturating_add(1));
                }
            }
            Ok(())
        };
        if scan().is_ok() {
            return;
        }
        let mut reads = |key: u128| {
            let first = select.query([of_key(key)]).and_then(|mut rows| rows.next().map(drop));
            first.is_ok()
        };
        match behind_hole(next, last, &mut reads) {
            Some(key) => next = key,
            None => return,
        }
    }
}

/// The first key from `hole` on from where the table reads again: in strides that double, then by
/// halves.
fn behind_hole(hole: u128, last: u128, reads: &mut impl FnMut(u128) -> bool) -> Option<u128> {
    let (mut broken, mut stride) = (hole, 1_u128);
    let mut whole = loop {
        let key = hole.saturating_add(stride).min(last);
        if reads(key) {
            break key;
        }
        if key == last {
            return None;
        }
        broken = key;
        stride = stride.saturating_mul(2);
    };
    while whole - broken > 1 {
        let middle = broken + (whole - broken) / 2;
        if reads(middle) {
            whole = middle;
        } else {
            broken = middle;
        }
    }
    Some(whole)
}

/// Known places, from both ends of the table, and then from the index, which has no counts.
fn places(old: &Connection, new: &Transaction<'_>) -> rusqlite::Result<usize> {
    const LIST: &str = "user, place, seen, level, at, since, open_since, open, open_before";
    let mut whole = new.prepare(&format!(
        "INSERT OR IGNORE INTO known ({LIST}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?;
    let mut bare = new.prepare(
        "INSERT OR IGNORE INTO known (user, place, seen, at, since) SELECT ?1, ?2, ?3, ?3, ?3",
    )?;
    let is_place = |row: &Row<'_>| {
        let place = row.get_ref(1).ok().and_then(|place| place.as_str().ok());
        place.is_some_and(|place| place == ELSEWHERE || parse_prefix(place).is_ok())
    };
    let mut carried = 0;
    both_ways(old, &format!("SELECT {LIST} FROM known"), ["user", "place"], |row| {
        carried += usize::from(is_place(row) && copy(&mut whole, row, 9));
    });
    both_ways(
        old,
        "SELECT user, place, seen FROM known INDEXED BY known_seen",
        ["seen", "user"],
        |row| carried += usize::from(is_place(row) && copy(&mut bare, row, 3)),
    );
    Ok(carried)
}

/// Rules and grants. They decide who gets in, so one whose parts contradict each other is none.
fn rules(old: &Connection, new: &Transaction<'_>) -> rusqlite::Result<usize> {
    let mut insert = new.prepare(
        "INSERT OR IGNORE INTO rule (prefix, action, user, until, uses, tries, note, bits, first)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let agrees = |row: &Row<'_>| {
        let Ok(Some(rule)) = rule(row) else { return false };
        let (bits, first) = place_of(&rule.id.prefix);
        row.get(7) == Ok(i64::from(bits))
            && row.get_ref(8).is_ok_and(|key| key.as_blob() == Ok(&first))
    };
    let mut carried = 0;
    let select = format!("SELECT {RULE}, bits, first FROM rule");
    both_ways(old, &select, ["bits", "first"], |row| {
        carried += usize::from(agrees(row) && copy(&mut insert, row, 9));
    });
    Ok(carried)
}

/// Reads a table from its first row on, and if that ends too early from its last one as well.
fn both_ways(old: &Connection, select: &str, order: [&str; 2], mut each: impl FnMut(&Row<'_>)) {
    let [first, second] = order;
    for way in ["ASC", "DESC"] {
        let sql = format!("{select} ORDER BY {first} {way}, {second} {way}");
        let mut scan = || -> rusqlite::Result<()> {
            let mut select = old.prepare(&sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                each(row);
            }
            Ok(())
        };
        if scan().is_ok() {
            return;
        }
    }
}

/// The marks of wrong passwords mean nothing without their key, nor the key without them.
fn wrong_passwords(old: &Connection, new: &Transaction<'_>) -> rusqlite::Result<()> {
    let select = "SELECT value FROM meta WHERE key = 'repeat_key' AND length(value) = 32";
    let key = old.query_row(select, [], |row| row.get::<_, Vec<u8>>(0));
    let Ok(key) = key else { return Ok(()) };
    new.execute("INSERT OR REPLACE INTO meta VALUES ('repeat_key', ?1)", [key])?;
    let mut insert = new.prepare("INSERT OR IGNORE INTO wrong (slot, tags) VALUES (?, ?)")?;
    let select = "SELECT slot, tags FROM wrong WHERE slot >= ?1 ORDER BY slot";
    let of_key = |key: u128| Value::Integer(i64::try_from(key).unwrap_or(i64::MAX));
    let key_of = |value: ValueRef<'_>| value.as_i64().ok()?.try_into().ok();
    walk(old, select, (of_key, key_of), u16::MAX.into(), |row| {
        copy(&mut insert, row, 2);
    });
    Ok(())
}
