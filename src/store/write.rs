//! What one writing transaction does.

use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use rusqlite::{OptionalExtension, ToSql, Transaction};

use super::{COLUMNS, StoreError, failures_near, from_sqlite};
use crate::config::Settings;
use crate::decay::{FADED, remaining};
use crate::decide::{Failures, Open, Pace, Tally};
use crate::quota::Curve;
use crate::source::{Family, Source, key_range};

/// How many faded rows of its own prefix one attempt removes at most: enough to keep up with the
/// one row that it may add, and little enough not to be felt.
const PRUNE: usize = 16;
/// With each so many new rows, [`WINDOW`] others are looked at.
const SWEEP_EVERY: i64 = 8;
const WINDOW: i64 = 128;

/// What a charge needs of the table `meta`.
struct Meta {
    policy: String,
    rows: i64,
    sweep_from: [u8; 16],
}

/// What refunds one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: Ipv6Addr,
    /// When it was charged, Unix milliseconds.
    at: i64,
    /// Of the row that it was added to.
    since: i64,
}

/// A transaction that holds the write lock; rolled back unless [`Write::commit`] is called.
pub struct Write<'s> {
    tx: Transaction<'s>,
    path: &'s Path,
}

impl<'s> Write<'s> {
    pub(super) fn new(tx: Transaction<'s>, path: &'s Path) -> Write<'s> {
        Write { tx, path }
    }

    /// As [`super::Store::failures_near`], inside the transaction.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn failures_near(
        &self,
        source: &Source,
        curve: &Curve,
    ) -> Result<Vec<Failures>, StoreError> {
        failures_near(&self.tx, self.path, source, curve)
    }

    /// Adds one failure of `source`, whose `tally` was read in this transaction, and removes a few
    /// faded rows.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn charge(
        &self,
        source: &Source,
        tally: &Tally,
        now: i64,
        settings: &Settings,
    ) -> Result<Ticket, StoreError> {
        let charge = || {
            let meta = self.meta()?;
            self.keep_policy(&meta, settings)?;
            self.remove(tally.faded().iter().take(PRUNE))?;
            let since = match tally.own() {
                Some(own) => {
                    self.add_to(own, now, settings)?;
                    own.since
                }
                None => {
                    self.insert(source, now)?;
                    self.sweep(&meta, source, now, settings)?;
                    now
                }
            };
            Ok(Ticket { key: source.key(), at: now, since })
        };
        charge().map_err(|error| from_sqlite(self.path, error))
    }

    /// Takes one charge back; nothing if the row that it was added to was removed meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn refund(self, ticket: &Ticket, pace: Pace) -> Result<Write<'s>, StoreError> {
        self.change(ticket, |own| {
            own.level -= remaining(1.0, ticket.at, own.at, pace.half_life);
            own.open = own.open.closed(ticket.at, pace.settle);
        })
    }

    /// Declares that a charge is final and will never be refunded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn settle(self, ticket: &Ticket, pace: Pace) -> Result<Write<'s>, StoreError> {
        self.change(ticket, |own| own.open = own.open.closed(ticket.at, pace.settle))
    }

    /// After the clock was set back: no row may be from the future. Counts stay as they are, and
    /// decay from now on; charges made before can no longer be told from others, and stand.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn mend_clock(self, now: i64) -> Result<Write<'s>, StoreError> {
        self.tx
            .execute(
                "UPDATE failure SET at = ?1, since = ?1, open_since = ?1, open = 0, open_before = 0
                 WHERE at > ?1",
                [now],
            )
            .map_err(|error| from_sqlite(self.path, error))?;
        Ok(self)
    }

    /// Removes every failure inside `prefix`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn forgive(self, prefix: &IpNet) -> Result<Write<'s>, StoreError> {
        let (first, last) = key_range(prefix);
        // Keys of IPv4 lie inside ::/0, but IPv4 addresses do not.
        let is_v4 = Family::of_key(first) == Family::V4;
        self.tx
            .execute(
                "DELETE FROM failure WHERE address BETWEEN ?1 AND ?2
                 AND (hex(address) LIKE '00000000000000000000FFFF%') = ?3",
                (first.octets(), last.octets(), is_v4),
            )
            .map_err(|error| from_sqlite(self.path, error))?;
        Ok(self)
    }

    /// Writes it all, durably against killed processes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`]; nothing was written.
    pub fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().map_err(|error| from_sqlite(self.path, error))
    }

    /// Whatever people made of it by hand has a meaning: nothing there is like nothing known yet.
    fn meta(&self) -> rusqlite::Result<Meta> {
        let select = "SELECT (SELECT value FROM meta WHERE key = 'policy'),
                             (SELECT value FROM meta WHERE key = 'rows'),
                             (SELECT value FROM meta WHERE key = 'sweep_from')";
        self.tx.query_row(select, [], |row| {
            let sweep_from = row.get_ref(2)?.as_blob().ok().and_then(|key| key.try_into().ok());
            Ok(Meta {
                policy: row.get_ref(0)?.as_str().unwrap_or_default().to_owned(),
                rows: row.get_ref(1)?.as_i64().unwrap_or(0),
                sweep_from: sweep_from.unwrap_or([0; 16]),
            })
        })
    }

    fn set_meta(&self, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
        let set = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        self.tx.execute(set, (key, value)).map(drop)
    }

    /// Keeps the curve and the half-life in the store, for the view that people read.
    fn keep_policy(&self, meta: &Meta, settings: &Settings) -> rusqlite::Result<()> {
        let policy = format!("{:?} {:?} {}", settings.ipv6, settings.ipv4, settings.half_life);
        if meta.policy == policy {
            return Ok(());
        }
        self.set_meta("policy", &policy)?;
        self.set_meta("half_life_ms", settings.half_life)?;
        self.tx.execute("DELETE FROM quota", [])?;
        let mut insert = self.tx.prepare("INSERT INTO quota VALUES (?1, ?2, ?3)")?;
        for family in Family::ALL {
            let curve = settings.curve(family);
            for length in curve.widest..=family.bits() {
                insert.execute((family.number(), length, curve.quota(length)))?;
            }
        }
        Ok(())
    }

    fn add_to(&self, own: &Failures, now: i64, settings: &Settings) -> rusqlite::Result<()> {
        let pace = settings.pace();
        let level = own.left(now, pace.half_life) + 1.0;
        self.update(&Failures { level, at: now, open: own.open.charged(now, pace.settle), ..*own })
    }

    fn insert(&self, source: &Source, now: i64) -> rusqlite::Result<()> {
        let open = Open::first(now);
        let lengths = source.lengths();
        one_row(self.tx.execute(
            "INSERT INTO failure (address, source, level, at, since, open_since, open, open_before,
                                  widest, narrowest)
             VALUES (?1, ?2, 1.0, ?3, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                source.key().octets(),
                source.to_string(),
                now,
                open.since,
                open.current,
                open.before,
                lengths.start(),
                lengths.end(),
            ),
        ))
    }

    fn update(&self, row: &Failures) -> rusqlite::Result<()> {
        one_row(self.tx.execute(
            "UPDATE failure SET level = ?2, at = ?3, open_since = ?4, open = ?5, open_before = ?6
             WHERE address = ?1",
            (
                row.key.octets(),
                row.level,
                row.at,
                row.open.since,
                row.open.current,
                row.open.before,
            ),
        ))
    }

    /// Counts a new row. With every eighth the search for faded rows goes on; when there are too
    /// many rows, the lightest of those that it sees go as well.
    fn sweep(
        &self,
        meta: &Meta,
        new: &Source,
        now: i64,
        settings: &Settings,
    ) -> rusqlite::Result<()> {
        let rows = meta.rows.saturating_add(1);
        self.set_meta("rows", rows)?;
        let excess = rows.saturating_sub(i64::from(settings.max_rows));
        let excess = usize::try_from(excess).unwrap_or(0).min(PRUNE);
        if excess == 0 && rows % SWEEP_EVERY != 0 {
            return Ok(());
        }
        let window = self.after(meta.sweep_from)?;
        let next = window.last().map_or([0; 16], |row| row.key.octets());
        self.set_meta("sweep_from", next)?;
        if next <= meta.sweep_from {
            // Once in each round, whatever was done by hand is counted again.
            let count = "SELECT count(*) FROM failure";
            let rows: i64 = self.tx.query_row(count, [], |row| row.get(0))?;
            self.set_meta("rows", rows)?;
        }
        // Even if it is the lightest: else every guess from a new address would be free.
        let others = window.iter().filter(|row| row.key != new.key());
        let mut seen: Vec<(Ipv6Addr, f64)> =
            others.map(|row| (row.key, row.left(now, settings.half_life))).collect();
        seen.sort_by(|a, b| a.1.total_cmp(&b.1));
        let faded = seen.iter().take_while(|(_, left)| *left < FADED).count();
        self.remove(seen.iter().map(|(key, _)| key).take(faded.max(excess)))
    }

    /// The [`WINDOW`] rows after `from`, going round to the first.
    fn after(&self, from: [u8; 16]) -> rusqlite::Result<Vec<Failures>> {
        let some = |which| {
            format!(
                "SELECT {COLUMNS} FROM (SELECT * FROM failure WHERE address {which} ?1 ORDER BY address LIMIT ?2)"
            )
        };
        let sql = format!("{} UNION ALL {} LIMIT ?2", some(">"), some("<="));
        let mut select = self.tx.prepare(&sql)?;
        let rows = select.query_map((from, WINDOW), super::failures)?;
        rows.filter_map(Result::transpose).collect()
    }

    fn remove<'k>(&self, keys: impl Iterator<Item = &'k Ipv6Addr>) -> rusqlite::Result<()> {
        let mut keys = keys.peekable();
        if keys.peek().is_none() {
            return Ok(());
        }
        let mut delete = self.tx.prepare("DELETE FROM failure WHERE address = ?1")?;
        keys.try_for_each(|key| delete.execute([key.octets()]).map(drop))
    }

    fn change(
        self,
        ticket: &Ticket,
        change: impl FnOnce(&mut Failures),
    ) -> Result<Write<'s>, StoreError> {
        let write = || {
            let select = format!("SELECT {COLUMNS} FROM failure WHERE address = ?1");
            let row =
                self.tx.query_row(&select, [ticket.key.octets()], super::failures).optional()?;
            let Some(mut own) = row.flatten().filter(|own| own.since == ticket.since) else {
                return Ok(());
            };
            change(&mut own);
            if own.level < FADED { self.remove([own.key].iter()) } else { self.update(&own) }
        };
        write().map_err(|error| from_sqlite(self.path, error))?;
        Ok(self)
    }
}

/// A charge that was not written, whatever kept it from being, is not a charge.
fn one_row(written: rusqlite::Result<usize>) -> rusqlite::Result<()> {
    match written? {
        1 => Ok(()),
        other => Err(rusqlite::Error::StatementChangedRows(other)),
    }
}
