//! What is read from the store. Rows may have been edited by people: what makes no sense counts for
//! nothing, and never keeps the rows beside it from being counted.

use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::{StoreError, from_sqlite};
use crate::config::Settings;
use crate::count::{Count, Failures, Open};
use crate::decide::{Records, known_place};
use crate::login::{Known, Login, Place, Tier};
use crate::quota::Curve;
use crate::rules::{Kind, RuleId, StoredRule};
use crate::source::{Family, Source, key_range, parse_prefix};

/// In place of a prefix in `known`: the failures of strangers for this user.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// The columns that [`count_of`] reads, in this order, for tables with and without a slow count.
pub(super) const COUNT: &str = "level, at, since, open_since, open, open_before, slow";
pub(super) const KNOWN_COUNT: &str = "level, at, since, open_since, open, open_before, 0.0";

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

/// A known place and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct UserPlace {
    /// The user, as bytes.
    pub user: Vec<u8>,
    /// The place; `None` for the count of the user's strangers.
    pub place: Option<IpNet>,
    /// When the user last logged in from there, Unix milliseconds.
    pub seen: i64,
    /// The failures there.
    pub count: Count,
}

/// A user's name in SQL: text where it is UTF-8, for people to read, and bytes where it is not.
pub(super) struct Name<'a>(pub &'a [u8]);

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match std::str::from_utf8(self.0) {
            Ok(_) => ValueRef::Text(self.0),
            Err(_) => ValueRef::Blob(self.0),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// Reads, inside or outside a transaction.
pub struct Reader<'c> {
    conn: &'c Connection,
    path: &'c Path,
}

impl<'c> Reader<'c> {
    pub(super) fn new(conn: &'c Connection, path: &'c Path) -> Reader<'c> {
        Reader { conn, path }
    }

    /// The rules and grants that cover `source`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn rules(&self, source: &Source) -> Result<Vec<StoredRule>, StoreError> {
        rules(self.conn, source).map_err(|error| from_sqlite(self.path, error))
    }

    /// All rules and grants, in the order of their prefixes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn all_rules(&self) -> Result<Vec<StoredRule>, StoreError> {
        let sql = format!("SELECT {RULE} FROM rule ORDER BY first, bits, action, user");
        self.select(&sql, [], rule)
    }

    /// One rule or grant, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn rule(&self, id: &RuleId) -> Result<Option<StoredRule>, StoreError> {
        let (bits, first) = place_of(&id.prefix);
        let sql = format!("SELECT {RULE} FROM rule WHERE {THIS}");
        let found = self.select(&sql, (bits, first, id.kind.to_string(), Name(&id.user)), rule)?;
        Ok(found.into_iter().find(|found| found.id == *id))
    }

    /// The counts that decide about `login`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn records(
        &self,
        login: &Login,
        settings: &Settings,
        now: i64,
    ) -> Result<Records, StoreError> {
        let curve = settings.curve(login.source.family());
        let known = self.known(login)?;
        let by_provider =
            known_place(&known, now, settings).is_some_and(|known| known.place.tier == Tier::Wide);
        let familiar =
            if by_provider { self.near("familiar", &login.source, curve)? } else { Vec::new() };
        let elsewhere = match settings.elsewhere() {
            Some(_) => self.elsewhere(&login.user, now)?,
            None => None,
        };
        let strangers = self.near("failure", &login.source, curve)?;
        Ok(Records { strangers, familiar, known, elsewhere })
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
        let sql = format!(
            "SELECT address, {COUNT}, source, widest, narrowest FROM failure
             WHERE address BETWEEN ?1 AND ?2 ORDER BY address"
        );
        let entries = self.select(&sql, (first.octets(), last.octets()), |row| {
            let Some(failures) = failures(row)? else { return Ok(None) };
            let length = |column| row.get(column).map(|n: i64| n.clamp(0, 128) as u8);
            let lengths = (length(9)?, length(10)?);
            Ok(Some(Entry { failures, source: text(row, 8)?, lengths }))
        })?;
        // Keys of IPv4 lie inside ::/0, but IPv4 addresses do not.
        let same = |entry: &Entry| family.is_none_or(|f| f == Family::of_key(entry.failures.key));
        Ok(entries.into_iter().filter(same).collect())
    }

    /// All known places of all users, by user and then the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn all_known(&self) -> Result<Vec<UserPlace>, StoreError> {
        let sql = format!(
            "SELECT {KNOWN_COUNT}, user, place, seen FROM known ORDER BY user, seen DESC, place"
        );
        self.select(&sql, [], |row| {
            let place = text(row, 8)?;
            let place = (place != ELSEWHERE).then(|| parse_prefix(&place));
            let Ok(place) = place.transpose() else { return Ok(None) };
            let user = name(row.get_ref(7)?);
            Ok(Some(UserPlace { user, place, seen: row.get(9)?, count: count_of(row, 0)? }))
        })
    }

    /// The places around the source of `login` that its user is known to come from.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`].
    pub fn known(&self, login: &Login) -> Result<Vec<Known>, StoreError> {
        let Some([near, wide]) = login.places() else { return Ok(Vec::new()) };
        let texts = [near.to_string(), wide.to_string()];
        let sql = format!(
            "SELECT {KNOWN_COUNT}, place, seen FROM known WHERE user = ?1 AND place IN (?2, ?3)"
        );
        let [first, second] = &texts;
        self.select(&sql, (Name(&login.user), first, second), |row| {
            let is_near = row.get_ref(7)?.as_str() == Ok(first.as_str());
            let place: Place = if is_near { near } else { wide };
            Ok(Some(Known { place, seen: row.get(8)?, count: count_of(row, 0)? }))
        })
    }

    /// The count of the strangers of a user who has logged in before.
    fn elsewhere(&self, user: &[u8], now: i64) -> Result<Option<Count>, StoreError> {
        let sql =
            format!("SELECT {KNOWN_COUNT} FROM known WHERE user = ?1 AND place = '{ELSEWHERE}'");
        let counted = self.select(&sql, [Name(user)], |row| count_of(row, 0).map(Some))?;
        if let Some(count) = counted.first() {
            return Ok(Some(*count));
        }
        let exists = self
            .conn
            .query_row("SELECT 1 FROM known WHERE user = ?1 LIMIT 1", [Name(user)], |_| Ok(()))
            .optional();
        let exists = exists.map_err(|error| from_sqlite(self.path, error))?;
        Ok(exists.map(|()| Count::none(now)))
    }

    /// The rows of the widest prefix that counts for `source`.
    fn near(
        &self,
        table: &str,
        source: &Source,
        curve: &Curve,
    ) -> Result<Vec<Failures>, StoreError> {
        let widest = source.prefix(*curve.lengths(source).start());
        let (first, last) = key_range(&widest);
        let sql = format!("SELECT address, {COUNT} FROM {table} WHERE address BETWEEN ?1 AND ?2");
        self.select(&sql, (first.octets(), last.octets()), failures)
    }

    fn select<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Vec<T>, StoreError> {
        let select = || -> rusqlite::Result<Vec<T>> {
            let mut select = self.conn.prepare(sql)?;
            let rows = select.query_map(params, read)?;
            rows.filter_map(Result::transpose).collect()
        };
        select().map_err(|error| from_sqlite(self.path, error))
    }
}

/// The columns that [`rule`] reads, in this order.
pub(super) const RULE: &str = "prefix, action, user, until, uses, tries, note";

/// One row of `rule`: by [`place_of`] its prefix, its kind, and its user.
pub(super) const THIS: &str = "bits = ?1 AND first = ?2 AND action = ?3 AND user = ?4";

/// How a prefix is looked up: its length and first address as parts of a key.
pub(super) fn place_of(prefix: &IpNet) -> (u8, [u8; 16]) {
    let (first, _) = key_range(prefix);
    let family = Family::of_key(first);
    ((128 - family.bits()).saturating_add(prefix.prefix_len()), first.octets())
}

/// One seek for each length that is in use at all, so that thousands of grants cost what one does.
fn rules(conn: &Connection, source: &Source) -> rusqlite::Result<Vec<StoredRule>> {
    let mut found = Vec::new();
    let mut next = conn.prepare("SELECT max(bits) FROM rule WHERE bits < ?1")?;
    let mut bits: u8 = 129;
    while let Some(used) = next.query_row([bits], |row| row.get::<_, Option<u8>>(0))? {
        bits = used;
        let Some(first) = first_key(source, bits) else { continue };
        let sql = format!("SELECT {RULE} FROM rule WHERE bits = ?1 AND first = ?2");
        let mut select = conn.prepare(&sql)?;
        for row in select.query_map((bits, first.octets()), rule)? {
            found.extend(row?);
        }
    }
    Ok(found)
}

/// The first key of the prefix of so many bits around `source`. A client without an address is
/// everywhere at once: in ::/0 and in 0.0.0.0/0.
fn first_key(source: &Source, bits: u8) -> Option<Ipv6Addr> {
    let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits.into())?).unwrap_or(0);
    match (source.address(), bits) {
        (Some(_), _) => Some(Ipv6Addr::from_bits(source.key().to_bits() & mask)),
        (None, 0) => Some(Ipv6Addr::UNSPECIFIED),
        (None, 96) => Some(Ipv6Addr::from_bits(0xffff << 32)),
        (None, _) => None,
    }
}

pub(super) fn rule(row: &Row<'_>) -> rusqlite::Result<Option<StoredRule>> {
    let kind = row.get_ref(1)?.as_str().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|known| known.to_string() == kind);
    let prefix = row.get_ref(0)?.as_str().ok().and_then(|text| parse_prefix(text).ok());
    let (Some(kind), Some(prefix)) = (kind, prefix) else { return Ok(None) };
    let Ok(user) = row.get_ref(2)?.as_bytes() else { return Ok(None) };
    let number = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
    Ok(Some(StoredRule {
        id: RuleId { prefix, kind, user: user.to_vec() },
        until: row.get(3)?,
        uses: row.get::<_, Option<i64>>(4)?.map(number),
        tries: number(row.get(5)?),
        note: text(row, 6)?,
    }))
}

/// Text that people wrote, in whatever encoding.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(&name(row.get_ref(column)?)).into_owned())
}

fn name(value: ValueRef<'_>) -> Vec<u8> {
    value.as_bytes().unwrap_or_default().to_vec()
}

/// An address and its count; `None` if the address is none.
pub(super) fn failures(row: &Row<'_>) -> rusqlite::Result<Option<Failures>> {
    let key = row.get_ref(0)?.as_blob().ok().and_then(|key| <[u8; 16]>::try_from(key).ok());
    let Some(key) = key else { return Ok(None) };
    Ok(Some(Failures { key: Ipv6Addr::from(key), count: count_of(row, 1)? }))
}

/// The count that begins at a column.
pub(super) fn count_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Count> {
    let level = |column| {
        let level = row.get(first + column);
        level.map(|level: f64| if level.is_finite() { level.max(0.0) } else { 0.0 })
    };
    let count =
        |column| row.get(first + column).map(|n: i64| n.clamp(0, i64::from(u32::MAX)) as u32);
    Ok(Count {
        level: level(0)?,
        slow: level(6)?,
        at: row.get(first + 1)?,
        since: row.get(first + 2)?,
        open: Open { since: row.get(first + 3)?, current: count(4)?, before: count(5)? },
    })
}
