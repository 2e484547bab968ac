//! What is kept beside the counts: known places, rules and grants, wrong passwords.

use std::io::Read;

use ipnet::IpNet;
use rusqlite::{OptionalExtension, params};

use super::read::{ELSEWHERE, KNOWN_COUNT, Name, THIS, UserPlace, count_of, place_of};
use super::write::Write;
use super::{StoreError, from_sqlite};
use crate::config::Settings;
use crate::count::{Count, is_set};
use crate::decay::SPENT;
use crate::login::{Login, Place, Tier};
use crate::repeat::Remembered;
use crate::rules::{RuleId, StoredRule};
use crate::source::Family;

/// How many places of one user are kept: those of the latest logins. In the model of 400 users,
/// mobile phones among them, nobody needed more.
const PLACES: u32 = 64;
/// How many outdated places of all users go when a new one comes.
const OUTDATED: u32 = 16;

impl Write<'_> {
    /// Learns from where a user has logged in.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn learn(&self, login: &Login, now: i64, settings: &Settings) -> Result<(), StoreError> {
        let Some(places) = login.places().filter(|_| is_set(now)) else { return Ok(()) };
        let user = || Name(&login.user);
        let learn = || {
            let mut is_new = false;
            for Place { prefix, tier } in places {
                let place = prefix.to_string();
                let seen = "UPDATE known SET seen = ?3 WHERE user = ?1 AND place = ?2";
                if self.tx.execute(seen, (user(), &place, now))? == 0 {
                    let alike = self.alike(&login.user, tier)?;
                    let count = Count::fullest(alike, now, settings.known_pace());
                    let insert = "INSERT INTO known (user, place, seen, level, at, since)
                                  VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                    let (level, at, since) = (count.level, count.at, count.since);
                    self.tx.execute(insert, (user(), &place, now, level, at, since))?;
                    is_new = true;
                }
            }
            if is_new {
                self.forget_oldest(&login.user)?;
                let outdated = "DELETE FROM known WHERE (user, place) IN
                                (SELECT user, place FROM known
                                 WHERE seen <= ?1 AND (level = 0 OR at <= ?2) LIMIT ?3)";
                let end = now.saturating_sub(settings.known_for);
                // Nor does anybody get new tries when a place is forgotten.
                let half_life = settings.known_half_life.max(settings.elsewhere_pace().half_life);
                let faded = now.saturating_sub(half_life.saturating_mul(SPENT));
                self.tx.execute(outdated, (end, end.min(faded), OUTDATED))?;
            }
            Ok(())
        };
        learn().map_err(|error| from_sqlite(self.path, error))
    }

    /// The counts of all places of a user that are known as closely, of both families: those of one
    /// may have pushed out those of the other.
    fn alike(&self, user: &[u8], tier: Tier) -> rusqlite::Result<Vec<Count>> {
        let sql = format!(
            "SELECT {KNOWN_COUNT} FROM known WHERE user = ?1 AND (place LIKE ?2 OR place LIKE ?3)"
        );
        let mut select = self.tx.prepare(&sql)?;
        let [v4, v6] = [Family::V4, Family::V6].map(|family| format!("%/{}", tier.length(family)));
        let counts = select.query_map((Name(user), v4, v6), |row| count_of(row, 0))?;
        counts.collect()
    }

    fn forget_oldest(&self, user: &[u8]) -> rusqlite::Result<()> {
        let latest = format!(
            "SELECT place FROM known WHERE user = ?1 AND place <> '{ELSEWHERE}'
             ORDER BY seen DESC, place LIMIT ?2"
        );
        let forget = format!(
            "DELETE FROM known WHERE user = ?1 AND place <> '{ELSEWHERE}' AND place NOT IN ({latest})"
        );
        self.tx.execute(&forget, (Name(user), PLACES)).map(drop)
    }

    /// Forgets the known places that `which` names; how many.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn forget_known(&self, which: impl Fn(&UserPlace) -> bool) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        for known in self.reader().all_known()?.iter().filter(|known| which(known)) {
            let place = place_text(known);
            self.tx
                .execute(
                    "DELETE FROM known WHERE user = ?1 AND place = ?2",
                    (Name(&known.user), place),
                )
                .map_err(|error| from_sqlite(self.path, error))?;
            forgotten += usize::from(known.place.is_some());
        }
        Ok(forgotten)
    }

    /// Removes the failures of users at known places, and of their strangers (no place), where
    /// `which` says so. Returns how many had any.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn forgive_known(
        &self,
        which: impl Fn(&[u8], Option<IpNet>) -> bool,
    ) -> Result<usize, StoreError> {
        let (all, mut forgiven) = (self.reader().all_known()?, 0);
        for known in all.iter().filter(|known| which(&known.user, known.place)) {
            forgiven += self
                .tx
                .execute(
                    "UPDATE known SET level = 0, open = 0, open_before = 0, since = at + 1
                     WHERE user = ?1 AND place = ?2 AND level > 0",
                    (Name(&known.user), place_text(known)),
                )
                .map_err(|error| from_sqlite(self.path, error))?;
        }
        Ok(forgiven)
    }

    /// Adds a rule or grant, joined to one of the same kind for the same prefix and user; those
    /// that ended before `now` go. Returns what is there then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn put_rule(&self, rule: &StoredRule, now: i64) -> Result<StoredRule, StoreError> {
        let (bits, first) = place_of(&rule.id.prefix);
        let old = self.reader().rule(&rule.id)?.filter(|old| old.is_live(now));
        let rule = old.map_or_else(|| rule.clone(), |old| rule.joined(&old));
        let put = || {
            self.tx.execute("DELETE FROM rule WHERE until <= ?1 OR uses <= 0", [now])?;
            self.tx.execute(
                "INSERT OR REPLACE INTO rule (bits, first, action, user, prefix, until, uses, tries, note)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    bits,
                    first,
                    rule.id.kind.to_string(),
                    Name(&rule.id.user),
                    rule.id.prefix.to_string(),
                    rule.until,
                    rule.uses,
                    rule.tries,
                    rule.note
                ],
            )
        };
        put().map_err(|error| from_sqlite(self.path, error))?;
        Ok(rule)
    }

    /// Removes one rule or grant; whether it was there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn remove_rule(&self, rule: &RuleId) -> Result<bool, StoreError> {
        let delete = format!("DELETE FROM rule WHERE {THIS}");
        let removed = self.on_rule(&delete, rule);
        removed.map(|rows| rows > 0).map_err(|error| from_sqlite(self.path, error))
    }

    /// Takes one use of a rule for a success; whether there was one left. The transaction makes
    /// sure that two successes never share one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn take_use(&self, rule: &RuleId) -> Result<bool, StoreError> {
        let take = || {
            let left = "uses IS NULL OR uses > 0";
            let update = format!("UPDATE rule SET uses = uses - 1 WHERE {THIS} AND ({left})");
            let taken = self.on_rule(&update, rule)?;
            self.on_rule(&format!("DELETE FROM rule WHERE {THIS} AND uses <= 0"), rule)?;
            Ok(taken == 1)
        };
        take().map_err(|error| from_sqlite(self.path, error))
    }

    /// Counts an attempt that a grant let in, or no longer does.
    pub(super) fn count_try(&self, grant: &RuleId, by: i64) -> rusqlite::Result<()> {
        let update = format!("UPDATE rule SET tries = max(tries + ({by}), 0) WHERE {THIS}");
        self.on_rule(&update, grant).map(drop)
    }

    fn on_rule(&self, sql: &str, rule: &RuleId) -> rusqlite::Result<usize> {
        let (bits, first) = place_of(&rule.prefix);
        self.tx.execute(sql, (bits, first, rule.kind.to_string(), Name(&rule.user)))
    }

    /// The key of the marks of wrong passwords, made when it is first needed. `None` where there
    /// is no randomness to make it of: then nothing is remembered.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn secret(&self) -> Result<Option<[u8; 32]>, StoreError> {
        let secret = || -> rusqlite::Result<Option<[u8; 32]>> {
            let select = "SELECT value FROM meta WHERE key = 'repeat_key'";
            let found: Option<[u8; 32]> = self
                .tx
                .query_row(select, [], |row| {
                    Ok(row.get_ref(0)?.as_blob().ok().map(TryFrom::try_from))
                })
                .optional()?
                .flatten()
                .and_then(Result::ok);
            if found.is_some() {
                return Ok(found);
            }
            let Some(made) = random() else { return Ok(None) };
            self.set_meta("repeat_key", made)?;
            Ok(Some(made))
        };
        secret().map_err(|error| from_sqlite(self.path, error))
    }

    /// The wrong passwords that share a slot.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`].
    pub fn remembered(&self, slot: u16) -> Result<Remembered, StoreError> {
        self.tags(slot).map_err(|error| from_sqlite(self.path, error))
    }

    pub(super) fn tags(&self, slot: u16) -> rusqlite::Result<Remembered> {
        let select = "SELECT tags FROM wrong WHERE slot = ?1";
        let found = self.tx.query_row(select, [slot], |row| {
            Ok(Remembered::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default()))
        });
        found.optional().map(Option::unwrap_or_default)
    }

    pub(super) fn remember(&self, slot: u16, tags: &Remembered) -> rusqlite::Result<()> {
        if tags.is_empty() {
            return self.tx.execute("DELETE FROM wrong WHERE slot = ?1", [slot]).map(drop);
        }
        let put = "INSERT OR REPLACE INTO wrong VALUES (?1, ?2)";
        self.tx.execute(put, (slot, tags.to_bytes())).map(drop)
    }
}

fn place_text(known: &UserPlace) -> String {
    known.place.map_or(ELSEWHERE.to_owned(), |place| place.to_string())
}

/// From the kernel; it never blocks once the machine has started.
fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
