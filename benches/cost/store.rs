//! Stores with many rows.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::Rng;

/// A store that is laid anew before it is used, so that it has always as many rows.
pub struct Store {
    pub database: PathBuf,
    rows: u32,
    /// Very large ones are left as they are: some thousand rows more make no difference there.
    template: Option<PathBuf>,
}

/// Beyond that a store is not copied.
const LARGE: u32 = 100_000;

impl Store {
    /// Adds `rows` addresses to a store, each in a /64 of its own, in the /32s from `first` on,
    /// `bits` of which vary.
    pub fn fill(database: PathBuf, rows: u32, (first, bits): (u32, u32), rng: &mut Rng) -> Store {
        let mut connection = Connection::open(&database).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_millis()).unwrap();
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction
                .prepare("INSERT INTO failure (address, source, level, at) VALUES (?, ?, 1.0, ?)")
                .unwrap();
            for _ in 0..rows {
                let address = address(first + (rng.next() as u32 & bits), rng);
                insert.execute((address.octets(), address.to_string(), now)).unwrap();
            }
        }
        transaction.commit().unwrap();
        let log = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0));
        assert_eq!(log, Ok(0), "nobody else has the store open");
        drop(connection);
        // What the kernel has still to write must not slow the attempts.
        // SAFETY: sync(2) has no preconditions.
        unsafe { libc::sync() };
        let template = (rows < LARGE).then(|| {
            let template = database.with_extension("template");
            fs::copy(&database, &template).unwrap();
            template
        });
        let rows = count(&database);
        Store { database, rows, template }
    }

    /// Lays it anew.
    pub fn restore(&mut self) {
        let Some(template) = &self.template else { return };
        for end in ["-wal", "-shm"] {
            let mut beside = self.database.clone().into_os_string();
            beside.push(end);
            fs::remove_file(beside).unwrap();
        }
        fs::copy(template, &self.database).unwrap();
        fs::File::open(&self.database).unwrap().sync_all().unwrap();
        self.rows = count(&self.database);
    }

    /// How many rows came since this was last asked, or since it was laid.
    pub fn new_rows(&mut self) -> u32 {
        let before = std::mem::replace(&mut self.rows, count(&self.database));
        self.rows - before
    }
}

fn count(database: &Path) -> u32 {
    let store = Connection::open(database).unwrap();
    // The log stays, as the module leaves it.
    store.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    store.query_row("SELECT count(*) FROM failure", (), |row| row.get(0)).unwrap()
}

/// An address in the /32 that `widest` names.
fn address(widest: u32, rng: &mut Rng) -> Ipv6Addr {
    let bits =
        u128::from(widest) << 96 | u128::from(rng.next() >> 32) << 64 | u128::from(rng.next());
    Ipv6Addr::from_bits(bits)
}
