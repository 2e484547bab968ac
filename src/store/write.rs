//! What one writing transaction does to the counts.

use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use rusqlite::{OptionalExtension, ToSql, Transaction};

use super::read::{COUNT, ELSEWHERE, KNOWN_COUNT, Name, Reader, count_of};
use super::sound::Bound;
use super::{StoreError, from_sqlite};
use crate::config::Settings;
use crate::count::{Count, Pace};
use crate::decide::{Judgement, Lane};
use crate::login::{Login, Tier};
use crate::repeat::{Mark, Remembered};
use crate::rules::{Kind, RuleId};
use crate::source::{Family, key_range};

/// A row that has a count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Row {
    /// An address, among strangers.
    Failure(Ipv6Addr),
    /// An address, among those whose provider is known.
    Familiar(Ipv6Addr),
    /// A user at a place.
    Known(Vec<u8>, String),
    /// A user's strangers.
    Elsewhere(Vec<u8>),
}

impl Row {
    fn pace(&self, settings: &Settings) -> Pace {
        match self {
            Row::Failure(_) | Row::Familiar(_) => settings.pace(),
            Row::Known(..) => settings.known_pace(),
            Row::Elsewhere(_) => settings.elsewhere_pace(),
        }
    }
}

/// What refunds one charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// When it was charged, Unix milliseconds.
    at: i64,
    /// The rows that it was added to, and since when each of them is there.
    rows: Vec<(Row, i64)>,
    /// The grant that let it in.
    grant: Option<RuleId>,
    /// How the password is remembered.
    mark: Option<Mark>,
}

/// A transaction that holds the write lock; rolled back unless [`Write::commit`] is called.
pub struct Write<'s> {
    pub(super) tx: Transaction<'s>,
    pub(super) path: &'s Path,
    pub(super) bound: &'s Bound,
}

impl<'s> Write<'s> {
    pub(super) fn new(tx: Transaction<'s>, path: &'s Path, bound: &'s Bound) -> Write<'s> {
        Write { tx, path, bound }
    }

    /// What can be read inside the transaction.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.tx, self.path)
    }

    /// Adds one failure to the lane that `judgement`, made in this transaction, has chosen, and
    /// its password to those that `trace` says are remembered in its slot; removes a few faded rows.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn charge(
        &self,
        login: &Login,
        judgement: &Judgement,
        (lane, spends): (Lane, Option<&RuleId>),
        trace: Option<(Mark, Remembered)>,
        now: i64,
        settings: &Settings,
    ) -> Result<Ticket, StoreError> {
        let key = login.source.key();
        let known = judgement.known.map(|known| known.place.to_string()).unwrap_or_default();
        let known = Row::Known(login.user.clone(), known);
        let own = judgement.known.map(|known| known.count);
        let counts = match lane {
            Lane::Stranger => vec![
                Some((Row::Failure(key), judgement.strangers.own().copied())),
                judgement.elsewhere.map(|count| (Row::Elsewhere(login.user.clone()), Some(count))),
            ],
            Lane::Known(Tier::Near) => vec![Some((known, own))],
            Lane::Known(Tier::Wide) => vec![
                Some((known, own)),
                Some((Row::Familiar(key), judgement.familiar.own().copied())),
            ],
        };
        let charge = || {
            self.remove("failure", judgement.strangers.faded())?;
            self.remove("familiar", judgement.familiar.faded())?;
            // Behind that: rows that go are taken off the number of rows.
            let meta = self.meta()?;
            self.keep_policy(&meta, settings)?;
            let mut rows = Vec::new();
            for (row, count) in counts.into_iter().flatten() {
                let is_new = count.is_none();
                let count = count.unwrap_or(Count::none(now)).charged(now, row.pace(settings));
                self.put(&row, &count, login)?;
                if is_new && row == Row::Failure(key) {
                    self.sweep(&meta, &login.source, now, settings)?;
                }
                rows.push((row, count.since));
            }
            let grant = spends.filter(|rule| rule.kind == Kind::Grant).cloned();
            if let Some(grant) = &grant {
                self.count_try(grant, 1)?;
            }
            let mark = trace.as_ref().map(|(mark, _)| *mark);
            if let Some((mark, remembered)) = trace {
                self.remember(mark.slot, &remembered.with(mark.tag, now))?;
            }
            Ok(Ticket { at: now, rows, grant, mark })
        };
        charge().map_err(|error| from_sqlite(self.path, error))
    }

    /// Takes one charge back; nothing from rows that were removed meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn refund(&self, ticket: &Ticket, settings: &Settings) -> Result<(), StoreError> {
        let refund = || {
            self.change(ticket, settings, |count, pace| count.refunded(ticket.at, pace))?;
            if let Some(grant) = &ticket.grant {
                self.count_try(grant, -1)?;
            }
            match ticket.mark {
                Some(mark) => self.remember(mark.slot, &self.tags(mark.slot)?.without(mark.tag)),
                None => Ok(()),
            }
        };
        refund().map_err(|error| from_sqlite(self.path, error))
    }

    /// Declares that a charge is final and will never be refunded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn settle(&self, ticket: &Ticket, settings: &Settings) -> Result<(), StoreError> {
        self.change(ticket, settings, |count, pace| count.settled(ticket.at, pace))
            .map_err(|error| from_sqlite(self.path, error))
    }

    /// Charges once more what `ticket` charged, as a final failure; not a known place that was
    /// forgotten meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn charge_again(
        &self,
        ticket: &Ticket,
        login: &Login,
        now: i64,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        let charge = || {
            for (row, _) in &ticket.rows {
                let (pace, count) = (row.pace(settings), self.get(row)?);
                if count.is_none() && matches!(row, Row::Known(..)) {
                    continue;
                }
                let charged = count.unwrap_or(Count::none(now)).charged(now, pace);
                self.put(row, &charged.settled(now, pace), login)?;
            }
            Ok(())
        };
        charge().map_err(|error| from_sqlite(self.path, error))
    }

    /// After the clock was set back: no row may be from the future. Counts stay as they are, and
    /// decay from now on; charges made before can no longer be told from others, and stand.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn mend_clock(&self, now: i64) -> Result<(), StoreError> {
        ["failure", "familiar", "known"]
            .iter()
            .try_for_each(|table| {
                let mend = format!(
                    "UPDATE {table} SET at = ?1, since = ?1, open_since = ?1, open = 0,
                     open_before = 0 WHERE at > ?1"
                );
                self.tx.execute(&mend, [now]).map(drop)
            })
            .and_then(|()| {
                self.tx.execute("UPDATE known SET seen = ?1 WHERE seen > ?1", [now]).map(drop)
            })
            .map_err(|error| from_sqlite(self.path, error))
    }

    /// Removes every failure inside `prefix`, also those of users at their known places there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn forgive(&self, prefix: &IpNet) -> Result<(), StoreError> {
        let (first, last) = key_range(prefix);
        // Keys of IPv4 lie inside ::/0, but IPv4 addresses do not.
        let is_v4 = Family::of_key(first) == Family::V4;
        let addresses = || {
            ["failure", "familiar"].iter().try_for_each(|table| {
                let delete = format!(
                    "DELETE FROM {table} WHERE address BETWEEN ?1 AND ?2
                     AND (hex(address) LIKE '00000000000000000000FFFF%') = ?3"
                );
                self.tx.execute(&delete, (first.octets(), last.octets(), is_v4)).map(drop)
            })
        };
        addresses().map_err(|error| from_sqlite(self.path, error))?;
        self.forgive_known(|_, place| place.is_some_and(|place| prefix.contains(&place))).map(drop)
    }

    /// Writes it all, durably against killed processes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`]; nothing was written.
    pub fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().map_err(|error| from_sqlite(self.path, error))
    }

    /// Changes the rows of a ticket, if they are still those that were charged.
    fn change(
        &self,
        ticket: &Ticket,
        settings: &Settings,
        change: impl Fn(&Count, Pace) -> Count,
    ) -> rusqlite::Result<()> {
        for (row, since) in &ticket.rows {
            let Some(count) = self.get(row)?.filter(|count| count.since == *since) else {
                continue;
            };
            let pace = row.pace(settings);
            let changed = change(&count, pace);
            match row {
                Row::Failure(key) if changed.is_faded(changed.at, pace) => {
                    self.remove("failure", &[*key])?;
                }
                Row::Familiar(key) if changed.is_faded(changed.at, pace) => {
                    self.remove("familiar", &[*key])?;
                }
                _ => self.update(row, &changed).and_then(one_row)?,
            }
        }
        Ok(())
    }

    fn get(&self, row: &Row) -> rusqlite::Result<Option<Count>> {
        let (table, columns, place) = match row {
            Row::Failure(_) => ("failure", COUNT, ""),
            Row::Familiar(_) => ("familiar", COUNT, ""),
            Row::Known(_, place) => ("known", KNOWN_COUNT, place.as_str()),
            Row::Elsewhere(_) => ("known", KNOWN_COUNT, ELSEWHERE),
        };
        let found = |sql: &str, params: &[&dyn ToSql]| {
            self.tx.query_row(sql, params, |row| count_of(row, 0)).optional()
        };
        match row {
            Row::Failure(key) | Row::Familiar(key) => {
                let sql = format!("SELECT {columns} FROM {table} WHERE address = ?1");
                found(&sql, &[&key.octets()])
            }
            Row::Known(user, _) | Row::Elsewhere(user) => {
                let sql = format!("SELECT {columns} FROM {table} WHERE user = ?1 AND place = ?2");
                found(&sql, &[&Name(user), &place])
            }
        }
    }

    /// Writes a count, to a new row if there is none.
    fn put(&self, row: &Row, count: &Count, login: &Login) -> rusqlite::Result<()> {
        if self.update(row, count)? == 1 {
            return Ok(());
        }
        let source = &login.source;
        let (at, since, open) = (count.at, count.since, count.open);
        let insert = |columns: &str, values: &[&dyn ToSql]| {
            let marks = vec!["?"; values.len()].join(", ");
            self.tx.execute(&format!("INSERT INTO {columns} VALUES ({marks})"), values)
        };
        const OF_ADDRESS: &str =
            "(address, source, level, slow, at, since, open_since, open, open_before";
        let (key, text) = (source.key().octets(), source.to_string());
        let of_address: [&dyn ToSql; 9] = [
            &key,
            &text,
            &count.level,
            &count.slow,
            &at,
            &since,
            &open.since,
            &open.current,
            &open.before,
        ];
        let written = match row {
            Row::Failure(_) => {
                let lengths = source.lengths();
                let more: [&dyn ToSql; 2] = [lengths.start(), lengths.end()];
                let columns = format!("failure {OF_ADDRESS}, widest, narrowest)");
                insert(&columns, &[&of_address[..], &more].concat())
            }
            Row::Familiar(_) => insert(&format!("familiar {OF_ADDRESS})"), &of_address),
            // Only a success makes one.
            Row::Known(..) => Ok(0),
            Row::Elsewhere(user) => insert(
                "known (user, place, seen, level, at, since, open_since, open, open_before)",
                &[
                    &Name(user),
                    &ELSEWHERE,
                    &at,
                    &count.level,
                    &at,
                    &since,
                    &open.since,
                    &open.current,
                    &open.before,
                ],
            ),
        };
        written.and_then(one_row)
    }

    /// Writes a count to a row that is there; how many there were.
    fn update(&self, row: &Row, count: &Count) -> rusqlite::Result<usize> {
        const SET: &str = "SET level = ?1, at = ?2, open_since = ?3, open = ?4, open_before = ?5";
        let open = count.open;
        let set: [&dyn ToSql; 5] =
            [&count.level, &count.at, &open.since, &open.current, &open.before];
        let update =
            |sql: &str, more: &[&dyn ToSql]| self.tx.execute(sql, &[&set[..], more].concat()[..]);
        let of_address = |table: &str, key: &Ipv6Addr| {
            let sql = format!("UPDATE {table} {SET}, slow = ?6 WHERE address = ?7");
            update(&sql, &[&count.slow, &key.octets()])
        };
        let of_user = |user: &[u8], place: &str| {
            let sql = format!("UPDATE known {SET} WHERE user = ?6 AND place = ?7");
            update(&sql, &[&Name(user), &place])
        };
        match row {
            Row::Failure(key) => of_address("failure", key),
            Row::Familiar(key) => of_address("familiar", key),
            Row::Known(user, place) => of_user(user, place),
            Row::Elsewhere(user) => of_user(user, ELSEWHERE),
        }
    }
}

/// A charge that was not written, whatever kept it from being, is not a charge.
fn one_row(written: usize) -> rusqlite::Result<()> {
    match written {
        1 => Ok(()),
        other => Err(rusqlite::Error::StatementChangedRows(other)),
    }
}
