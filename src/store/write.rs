//! What one writing transaction does.

use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use rusqlite::Transaction;

use super::{StoreError, failures_near, from_sqlite};
use crate::config::Settings;
use crate::decay::{FADED, remaining};
use crate::decide::{Failures, Tally, is_young};
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
            match tally.own() {
                Some(own) => self.add_to(own, now, settings)?,
                None => {
                    self.insert(source, now)?;
                    self.sweep(&meta, source, now, settings)?;
                }
            }
            Ok(Ticket { key: source.key(), at: now })
        };
        charge().map_err(|error| from_sqlite(self.path, error))
    }

    /// Takes one charge back. A row that was removed meanwhile stays removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn refund(self, ticket: &Ticket, half_life: i64) -> Result<Write<'s>, StoreError> {
        self.change(ticket, |own| {
            own.level -= remaining(1.0, ticket.at, own.at, half_life);
            own.open = own.open.saturating_sub(1);
        })
    }

    /// Declares that a charge is final and will never be refunded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn settle(self, ticket: &Ticket) -> Result<Write<'s>, StoreError> {
        self.change(ticket, |own| own.open = own.open.saturating_sub(1))
    }

    /// After the clock was set back: no row may be from the future. Counts stay as they are, and
    /// decay from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn mend_clock(self, now: i64) -> Result<Write<'s>, StoreError> {
        self.tx
            .execute("UPDATE failure SET at = ?1 WHERE at > ?1", [now])
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

    fn meta(&self) -> rusqlite::Result<Meta> {
        let select = "SELECT (SELECT value FROM meta WHERE key = 'policy'),
                             (SELECT value FROM meta WHERE key = 'rows'),
                             (SELECT value FROM meta WHERE key = 'sweep_from')";
        self.tx.query_row(select, [], |row| {
            Ok(Meta { policy: row.get(0)?, rows: row.get(1)?, sweep_from: row.get(2)? })
        })
    }

    /// Keeps the curve and the half-life in the store, for the view that people read.
    fn keep_policy(&self, meta: &Meta, settings: &Settings) -> rusqlite::Result<()> {
        let policy = format!("{:?} {:?} {}", settings.ipv6, settings.ipv4, settings.half_life);
        if meta.policy == policy {
            return Ok(());
        }
        self.tx.execute("UPDATE meta SET value = ?1 WHERE key = 'policy'", [&policy])?;
        self.tx.execute(
            "UPDATE meta SET value = ?1 WHERE key = 'half_life_ms'",
            [settings.half_life],
        )?;
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
        let level = remaining(own.level, own.at, now, pace.half_life) + 1.0;
        let open = if is_young(own.at, now, pace) { own.open.saturating_add(1) } else { 1 };
        self.tx.execute(
            "UPDATE failure SET level = ?2, at = ?3, open = ?4 WHERE address = ?1",
            (own.key.octets(), level, now, open),
        )?;
        Ok(())
    }

    fn insert(&self, source: &Source, now: i64) -> rusqlite::Result<()> {
        let lengths = source.lengths();
        self.tx.execute(
            "INSERT INTO failure (address, source, level, at, open, widest, narrowest)
             VALUES (?1, ?2, 1.0, ?3, 1, ?4, ?5)",
            (source.key().octets(), source.to_string(), now, lengths.start(), lengths.end()),
        )?;
        Ok(())
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
        self.tx.execute("UPDATE meta SET value = ?1 WHERE key = 'rows'", [rows])?;
        let excess = rows.saturating_sub(i64::from(settings.max_rows));
        let excess = usize::try_from(excess).unwrap_or(0).min(PRUNE);
        if excess == 0 && rows % SWEEP_EVERY != 0 {
            return Ok(());
        }
        let mut seen = self.after(meta.sweep_from, now, settings)?;
        let next = seen.last().map_or([0; 16], |(key, _)| key.octets());
        self.tx.execute("UPDATE meta SET value = ?1 WHERE key = 'sweep_from'", [next])?;
        // Even if it is the lightest: else every guess from a new address would be free.
        seen.retain(|(key, _)| *key != new.key());
        seen.sort_by(|a, b| a.1.total_cmp(&b.1));
        let faded = seen.iter().take_while(|(_, left)| *left < FADED).count();
        self.remove(seen.iter().map(|(key, _)| key).take(faded.max(excess)))
    }

    /// The [`WINDOW`] rows after `from`, going round to the first, with what is left of them.
    fn after(
        &self,
        from: [u8; 16],
        now: i64,
        settings: &Settings,
    ) -> rusqlite::Result<Vec<(Ipv6Addr, f64)>> {
        let mut select = self.tx.prepare(
            "SELECT address, level, at FROM (SELECT * FROM failure WHERE address > ?1 ORDER BY address LIMIT ?2)
             UNION ALL
             SELECT address, level, at FROM (SELECT * FROM failure WHERE address <= ?1 ORDER BY address LIMIT ?2)
             LIMIT ?2",
        )?;
        select
            .query_map((from, WINDOW), |row| {
                let left = remaining(row.get(1)?, row.get(2)?, now, settings.half_life);
                Ok((Ipv6Addr::from(row.get::<_, [u8; 16]>(0)?), left))
            })?
            .collect()
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
            let row = self
                .tx
                .prepare("SELECT address, level, at, open FROM failure WHERE address = ?1")?
                .query_map([ticket.key.octets()], super::failures)?
                .next()
                .transpose()?;
            let Some(mut own) = row else { return Ok(()) };
            change(&mut own);
            if own.level < FADED {
                return self.remove([own.key].iter());
            }
            self.tx.execute(
                "UPDATE failure SET level = ?2, open = ?3 WHERE address = ?1",
                (own.key.octets(), own.level, own.open),
            )?;
            Ok(())
        };
        write().map_err(|error| from_sqlite(self.path, error))?;
        Ok(self)
    }
}
