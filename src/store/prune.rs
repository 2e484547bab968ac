//! Clearing the store at one go of all that means nothing any more. Logins do the same a little at
//! a time; this also gives the space back.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::read::{COUNT, failures};
use super::sweep::COUNT_ROWS;
use super::{Store, StoreError, from_sqlite, pragma};
use crate::config::Settings;
use crate::repeat::Remembered;

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Addresses whose failures have faded.
    pub addresses: usize,
    /// Rules and grants that have ended.
    pub rules: usize,
    /// Known places of users who have not come for `known_for`, and faded counts of strangers.
    pub places: usize,
    /// Slots that had only wrong passwords older than `repeat_for`.
    pub wrong: usize,
}

/// How many rows one transaction looks at: logins get their turn in between.
const WINDOW: usize = 10_000;

impl Store {
    /// Removes faded failures, rules that have ended, outdated places and forgotten passwords; then
    /// makes file and log as small as they can be.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Sqlite`]; what went before is gone.
    pub fn prune(&mut self, now: i64, settings: &Settings) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        for table in ["failure", "familiar"] {
            let mut after = Some([0; 16]);
            while let Some(from) = after {
                let window = self.prune_addresses(table, from, now, settings);
                let (removed, next) = window.map_err(|error| from_sqlite(&self.path, error))?;
                pruned.addresses += removed;
                after = next;
            }
        }
        self.prune_rest(&mut pruned, now, settings)?;
        shrink(&self.conn).map_err(|error| from_sqlite(&self.path, error))?;
        Ok(pruned)
    }

    /// Looks at the addresses from a key on; how many went, and from where to go on.
    fn prune_addresses(
        &mut self,
        table: &str,
        from: [u8; 16],
        now: i64,
        settings: &Settings,
    ) -> rusqlite::Result<(usize, Option<[u8; 16]>)> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut select = tx.prepare(&format!(
            "SELECT address, {COUNT} FROM {table} WHERE address >= ?1 ORDER BY address LIMIT {WINDOW}"
        ))?;
        let window: Vec<_> =
            select.query_map([from], failures)?.collect::<rusqlite::Result<_>>()?;
        let mut delete = tx.prepare(&format!("DELETE FROM {table} WHERE address = ?1"))?;
        let mut removed = 0;
        let pace = settings.pace();
        for row in window.iter().flatten().filter(|row| row.count.is_faded(now, pace)) {
            removed += delete.execute([row.key.octets()])?;
        }
        let last = window.iter().flatten().next_back().map(|row| row.key.octets());
        drop((select, delete));
        tx.commit()?;
        Ok((removed, last.filter(|_| window.len() == WINDOW)))
    }

    fn prune_rest(
        &mut self,
        pruned: &mut Pruned,
        now: i64,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        self.transact(|write| {
            for rule in write.reader().all_rules()?.iter().filter(|rule| !rule.is_live(now)) {
                pruned.rules += usize::from(write.remove_rule(&rule.id)?);
            }
            pruned.places = write.forget_known(|known| match known.place {
                Some(_) => !settings.remembers(known.seen, now),
                None => known.count.is_faded(now, settings.elsewhere_pace()),
            })?;
            let rows = write.tx.execute(COUNT_ROWS, []);
            rows.map_err(|error| from_sqlite(write.path, error))?;
            let wrong = prune_wrong(&write.tx, now, settings.repeat_for);
            pruned.wrong = wrong.map_err(|error| from_sqlite(write.path, error))?;
            Ok(())
        })
    }
}

/// Forgets wrong passwords of long ago; how many slots became empty.
fn prune_wrong(tx: &Transaction<'_>, now: i64, repeat_for: i64) -> rusqlite::Result<usize> {
    let mut select = tx.prepare("SELECT slot, tags FROM wrong")?;
    let mut delete = tx.prepare("DELETE FROM wrong WHERE slot = ?1")?;
    let slots = select.query_map([], |row| {
        let tags = row.get_ref(1)?.as_blob().unwrap_or_default();
        Ok((row.get::<_, i64>(0)?, Remembered::from_bytes(tags).lately(now, repeat_for).is_empty()))
    })?;
    let mut removed = 0;
    for (slot, is_empty) in slots.collect::<rusqlite::Result<Vec<_>>>()? {
        if is_empty {
            removed += delete.execute([slot])?;
        }
    }
    Ok(removed)
}

/// Gives free pages back, and folds the log into the file.
fn shrink(conn: &Connection) -> rusqlite::Result<()> {
    if pragma(conn, "PRAGMA freelist_count")? > 0 {
        conn.execute_batch("VACUUM")?;
    }
    conn.execute_batch("PRAGMA optimize")?;
    // Whoever reads just now keeps it from getting short; the next login does it then.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
