//! What each charge does for the whole store: it keeps the policy for people to read, counts the
//! rows, and clears away a few that have faded.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use rusqlite::{ToSql, params};

use super::read::{COUNT, failures};
use super::write::Write;
use crate::config::Settings;
use crate::count::{Failures, Pace, SLOW_HALF_LIFE};
use crate::decay::SPENT;
use crate::quota::Quotas;
use crate::source::{Family, Source, key_range, prefix_of};

/// How many faded rows of its own prefix one attempt removes at most: enough to keep up with the
/// one row that it may add, and little enough not to be felt.
const PRUNE: usize = 16;
/// With each so many new rows, [`WINDOW`] others are looked at.
const SWEEP_EVERY: i64 = 8;
const WINDOW: i64 = 128;

/// Counts the rows anew, whatever was done to them by hand.
#[cfg(feature = "cli")]
pub(super) const COUNT_ROWS: &str =
    "UPDATE meta SET value = (SELECT count(*) FROM failure) WHERE key = 'rows'";

/// What a charge needs of the table `meta`.
pub(super) struct Meta {
    policy: String,
    rows: i64,
    sweep_from: [u8; 16],
}

impl Write<'_> {
    /// Whatever people made of it by hand has a meaning: nothing there is like nothing known yet.
    pub(super) fn meta(&self) -> rusqlite::Result<Meta> {
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

    pub(super) fn set_meta(&self, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
        let set = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        self.tx.execute(set, (key, value)).map(drop)
    }

    /// Keeps the quotas and the half-life in the store, for the view that people read.
    pub(super) fn keep_policy(&self, meta: &Meta, settings: &Settings) -> rusqlite::Result<()> {
        let pace = settings.pace();
        let policy = format!(
            "{:?} {:?} {:?} {} {:?}",
            settings.ipv6, settings.ipv4, settings.multiply, pace.half_life, pace.strict
        );
        if meta.policy == policy {
            return Ok(());
        }
        self.set_meta("policy", &policy)?;
        self.set_meta("half_life_ms", pace.half_life)?;
        self.tx.execute("DELETE FROM quota", [])?;
        Family::ALL
            .into_iter()
            .try_for_each(|family| self.keep_quotas(&settings.quotas(family), pace))
    }

    /// One row for each length, and more for the prefixes in and around those that many share.
    fn keep_quotas(&self, quotas: &Quotas<'_>, pace: Pace) -> rusqlite::Result<()> {
        let family = quotas.curve.family;
        let number = family.number();
        let mut for_all = self.tx.prepare(
            "INSERT INTO quota VALUES (?1, ?2, '', 'g', ?3, ?4, ?5, substr(?6, 1, 31 - ?4), ?7, ?8)",
        )?;
        let mut for_some = self.tx.prepare(
            "INSERT OR REPLACE INTO quota (family, length, first, last, quota)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let shared = quotas.multiples.iter().map(|multiple| multiple.prefix);
        let shared: Vec<IpNet> =
            shared.filter(|prefix| Family::of_key(key_range(prefix).0) == family).collect();
        for length in quotas.curve.widest..=family.bits() {
            let bits = 128 - family.bits() + length;
            let (keep, map) = (bits / 4, masked_digits(bits % 4));
            for_all.execute(params![
                number,
                length,
                quotas.curve.quota(length),
                keep,
                if keep == 32 { String::new() } else { map },
                "0".repeat(32),
                pace.half_life,
                pace.strict.then_some(SLOW_HALF_LIFE)
            ])?;
            let mut done = HashSet::new();
            for prefix in &shared {
                let range = key_range(prefix);
                let around = prefix_of(range.0, length);
                // Around many there is one.
                if length <= prefix.prefix_len() && !done.insert(around) {
                    continue;
                }
                // Inside, all prefixes of one length have the same quota, except those around or
                // inside another shared prefix, which have rows of their own.
                let ((first, last), quota) = if length <= prefix.prefix_len() {
                    (key_range(&around), quotas.of(around))
                } else {
                    (range, quotas.inside(prefix, length))
                };
                // How many rows there are, the settings say, and not the file.
                self.bound.renew();
                let digits = |key: Ipv6Addr| format!("{:032x}", key.to_bits());
                let row = (number, length, digits(first), digits(last), quota);
                for_some.execute(row)?;
            }
        }
        Ok(())
    }

    /// Counts a new row. With every eighth the search for faded rows goes on; when there are too
    /// many rows, the lightest of those that it sees go as well.
    pub(super) fn sweep(
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
        self.sweep_familiar(now, settings.pace())?;
        let window = self.after(meta.sweep_from)?;
        let next = window.last().map_or([0; 16], |row| row.key.octets());
        self.set_meta("sweep_from", next)?;
        if next <= meta.sweep_from {
            // Once in each round, whatever was done by hand is counted again.
            // (Row by row, so that it comes to an end in a damaged tree.)
            let count = "SELECT count(*) FROM failure WHERE address >= x''";
            let rows: i64 = self.tx.query_row(count, [], |row| row.get(0))?;
            self.set_meta("rows", rows)?;
        }
        // Even if it is the lightest: else every guess from a new address would be free.
        let mut others: Vec<Failures> =
            window.into_iter().filter(|row| row.key != new.key()).collect();
        let pace = settings.pace();
        let weight = |row: &Failures| (!row.count.is_faded(now, pace), row.count.left(now, pace));
        others.sort_by(|a, b| {
            let ((a_lives, a), (b_lives, b)) = (weight(a), weight(b));
            a_lives.cmp(&b_lives).then(a.total_cmp(&b))
        });
        let faded = others.iter().take_while(|row| row.count.is_faded(now, pace)).count();
        let lightest = others.iter().take(faded.max(excess)).map(|row| row.key);
        self.delete("failure", lightest)
    }

    /// There are few of these, a handful for each user who is guessed at: their age is enough.
    fn sweep_familiar(&self, now: i64, pace: Pace) -> rusqlite::Result<()> {
        let half_life = if pace.strict { SLOW_HALF_LIFE } else { pace.half_life };
        let end = now.saturating_sub(half_life.saturating_mul(SPENT));
        let old = "DELETE FROM familiar WHERE address IN
                   (SELECT address FROM familiar WHERE at < ?1 LIMIT ?2)";
        self.tx.execute(old, (end, PRUNE as i64)).map(drop)
    }

    /// The [`WINDOW`] rows after `from`, going round to the first.
    fn after(&self, from: [u8; 16]) -> rusqlite::Result<Vec<Failures>> {
        let some = |which| {
            format!(
                "SELECT address, {COUNT} FROM (SELECT * FROM failure WHERE address {which} ?1
                                               ORDER BY address LIMIT ?2)"
            )
        };
        let sql = format!("{} UNION ALL {} LIMIT ?2", some(">"), some("<="));
        let mut select = self.tx.prepare(&sql)?;
        let rows = select.query_map((from, WINDOW), failures)?;
        rows.filter_map(Result::transpose).collect()
    }

    /// Removes some of the rows that a tally found faded.
    pub(super) fn remove(&self, table: &str, keys: &[Ipv6Addr]) -> rusqlite::Result<()> {
        self.delete(table, keys.iter().take(PRUNE).copied())
    }

    fn delete(&self, table: &str, keys: impl Iterator<Item = Ipv6Addr>) -> rusqlite::Result<()> {
        let mut keys = keys.peekable();
        if keys.peek().is_none() {
            return Ok(());
        }
        let mut delete = self.tx.prepare(&format!("DELETE FROM {table} WHERE address = ?1"))?;
        keys.try_for_each(|key| delete.execute([key.octets()]).map(drop))
    }
}

/// What each of the 16 hexadecimal digits becomes when only its first `bits` are kept.
fn masked_digits(bits: u8) -> String {
    let mask = 0xf0_u8 >> bits & 0xf;
    (0..16_u8).map(|digit| format!("{:x}", digit & mask)).collect()
}
