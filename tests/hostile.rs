//! A store that somebody else made and root put in place: it runs no SQL of its own, whatever stands
//! in it, and every statement on it comes to an end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::Run;
use common::pam::{MAXTRIES, PERM_DENIED, Pam, guess};
use common::store::{Lab, login, source};
use pam_prefixquota::country::{Country, country_of};
use pam_prefixquota::guard::{Admission, Pass};
use pam_prefixquota::rules::{Kind, RuleId, StoredRule};
use pam_prefixquota::store::{Depth, Health, Repair, Store, StoreError, repair};
use rusqlite::Connection;

/// SQL that takes its time within one function.
const SLOW: &str = "instr(zeroblob(8000000), CAST(zeroblob(4000000) || 1 AS BLOB))";
const ENDLESS: &str = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)";

/// A store with a row in every table that has counts.
fn lab() -> Lab {
    let lab = Lab::new(|_| {});
    let (alice, grant) = (login("alice", "192.0.2.7"), "192.0.2.7/32".parse().unwrap());
    lab.log_in(&alice);
    lab.charge("2001:db8::1");
    lab.write(|write| {
        let id = RuleId { prefix: grant, kind: Kind::Grant, user: Vec::new() };
        let rule = StoredRule { id, until: None, uses: None, tries: 0, note: String::new() };
        write.put_rule(&rule, lab.clock.now.get()).unwrap();
    });
    lab
}

/// What a person, or an attacker, does to the closed file with sqlite3.
fn edit(lab: &Lab, sql: &str) {
    Connection::open(&lab.settings.database).unwrap().execute_batch(sql).unwrap();
}

fn open(lab: &Lab) -> Result<Store, StoreError> {
    Store::open(&lab.settings.database, Duration::from_secs(5))
}

#[test]
fn a_foreign_trigger_view_column_or_index_is_refused() {
    let lost = "CREATE TABLE lost AS SELECT * FROM";
    let planted = [
        "CREATE TRIGGER t BEFORE INSERT ON failure BEGIN SELECT RAISE(IGNORE); END".to_owned(),
        "CREATE TRIGGER t AFTER UPDATE ON known BEGIN DELETE FROM failure; END".to_owned(),
        "CREATE TRIGGER t AFTER DELETE ON rule BEGIN UPDATE known SET level = 0; END".to_owned(),
        format!(
            "CREATE TRIGGER t BEFORE INSERT ON failure BEGIN
             DELETE FROM wrong WHERE slot IN ({ENDLESS} SELECT x FROM n); END"
        ),
        format!(
            "{lost} rule; DROP TABLE rule; CREATE VIEW rule AS {ENDLESS}
             SELECT lost.*, x FROM lost, n"
        ),
        // One of ours that does something else.
        "DROP TRIGGER failure_removed; CREATE TRIGGER failure_removed AFTER DELETE ON failure
         BEGIN DELETE FROM known; END"
            .to_owned(),
        "ALTER TABLE known ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))".to_owned(),
        "CREATE INDEX i ON failure (hex(zeroblob(length(source))))".to_owned(),
        // One step of one statement that would take an hour.
        format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema
             SET sql = replace(sql, 'CREATE TABLE failure (', 'CREATE TABLE failure (
                               more TEXT AS ({SLOW}),') WHERE name = 'failure'"
        ),
        format!("CREATE INDEX i ON familiar (level) WHERE {SLOW} = source"),
        // No second failure would be kept.
        "CREATE UNIQUE INDEX i ON failure (open)".to_owned(),
        "DROP TABLE quota; CREATE TABLE quota (family, length, first, last, quota)".to_owned(),
        // Under a name that is not the table's.
        "CREATE TRIGGER t AFTER INSERT ON failure BEGIN DELETE FROM failure; END;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET tbl_name = 'FAILURE' WHERE name = 't'"
            .to_owned(),
    ];
    for sql in planted {
        let lab = lab();
        edit(&lab, &sql);
        let seen = Health::of(&lab.settings.database, Duration::ZERO, Depth::Full).unwrap();
        let faults = seen.unwrap().faults;
        assert!(faults[0].ends_with("is not as this program makes it"), "{sql}: {faults:?}");
        let error = open(&lab).err().expect(&sql);
        assert!(matches!(error, StoreError::Damaged(..)), "{sql}: {error}");
        // It is mended without running any of that.
        let repaired = repair(&lab.settings.database, Duration::ZERO, ".old").unwrap();
        assert!(matches!(repaired, Repair::Mended { .. }), "{sql}: {repaired:?}");
        assert!(open(&lab).is_ok(), "{sql}");
    }
    // SQLite itself refuses one that claims to belong to another table.
    let lab = lab();
    edit(
        &lab,
        "CREATE TABLE mine (a); PRAGMA writable_schema = ON;
         CREATE TRIGGER t AFTER INSERT ON failure BEGIN DELETE FROM failure; END;
         UPDATE sqlite_schema SET tbl_name = 'mine' WHERE name = 't'",
    );
    let error = open(&lab).err().expect("refused").to_string();
    assert!(error.contains("malformed database schema"), "{error}");
}

#[test]
fn what_people_add_for_themselves_does_no_harm() {
    let lab = lab();
    edit(
        &lab,
        "CREATE VIEW mine AS SELECT source, level FROM failure; CREATE TABLE notes (text);
         CREATE INDEX on_notes ON notes (text); CREATE INDEX by_source ON failure (source, at DESC);
         CREATE INDEX \"by at\" ON \"failure\" (\n\t\"at\"\tASC\n);
         ANALYZE; VACUUM; REINDEX",
    );
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Passed(_)));
}

#[test]
fn a_database_of_another_program_is_not_mended_whatever_it_holds() {
    let lab = lab();
    let path = lab.settings.database.with_file_name("other.db");
    let long = "x".repeat(20_000);
    Connection::open(&path)
        .unwrap()
        .execute_batch(&format!("CREATE TABLE t (a /*{long}*/)"))
        .unwrap();
    private(&path);
    let repaired = repair(&path, Duration::ZERO, ".old");
    assert!(matches!(repaired, Err(StoreError::Foreign(_))), "{repaired:?}");
}

#[test]
fn a_table_that_refers_to_ours_brings_no_triggers() {
    let lab = lab();
    edit(
        &lab,
        &format!(
            "CREATE TABLE seen (a);
             CREATE TABLE mine (a BLOB REFERENCES failure (address) ON DELETE SET NULL);
             INSERT INTO mine SELECT address FROM failure;
             CREATE TRIGGER t AFTER UPDATE ON mine
             BEGIN INSERT INTO seen {ENDLESS} SELECT x FROM n; END"
        ),
    );
    lab.write(|write| write.forgive(&"::/0".parse().unwrap()).unwrap());
    assert_eq!(lab.rows(), 0);
    let conn = Connection::open(&lab.settings.database).unwrap();
    assert_eq!(conn.query_row("SELECT count(*) FROM seen", [], |row| row.get(0)), Ok(0));
}

/// SQLite reads these by itself, before anybody can look at them.
#[test]
fn planted_statistics_end() {
    let slow = SLOW.replace("000000)", "000000 + length(idx))");
    let lab = lab();
    edit(
        &lab,
        &format!(
            "ANALYZE; PRAGMA writable_schema = ON; UPDATE sqlite_schema
             SET sql = 'CREATE TABLE sqlite_stat1 (tbl, idx, stat AS (repeat))'
             WHERE name = 'sqlite_stat1';
             UPDATE sqlite_schema SET sql = replace(sql, 'repeat', '{slow}')
             WHERE name = 'sqlite_stat1'"
        ),
    );
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Passed(_)));
}

#[test]
fn an_old_store_with_planted_sql_is_not_brought_up_to_date() {
    let lab = Lab::new(|_| {});
    let conn = Connection::open(&lab.settings.database).unwrap();
    conn.execute_batch(include_str!("../src/schema/1.sql")).unwrap();
    conn.execute_batch(
        "PRAGMA application_id = 0x50667851; PRAGMA user_version = 1;
         CREATE TABLE seen (a); CREATE TRIGGER t AFTER UPDATE ON meta
         BEGIN INSERT INTO seen VALUES (1); END",
    )
    .unwrap();
    private(&lab.settings.database);
    assert!(matches!(open(&lab), Err(StoreError::Damaged(..))));
    let ran = conn.query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
    assert_eq!(ran, Ok(0));
    conn.execute_batch("DROP TRIGGER t").unwrap();
    drop(conn);
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Passed(_)));
}

fn remove_log(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_country_database_runs_no_sql_of_its_own() {
    let lab = lab();
    let path = lab.settings.database.with_file_name("country.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA application_id = 0x50667843; PRAGMA user_version = 1").unwrap();
    conn.execute_batch(include_str!("../src/country/schema.sql")).unwrap();
    private(&path);
    let of = || country_of(&path, &source("2001:db8::1"));
    assert_eq!(of().unwrap(), Some(Country::Unknown));
    conn.execute_batch(&format!(
        "DROP TABLE range; CREATE VIEW range (first, last, country) AS {ENDLESS} SELECT x, x, x FROM n"
    ))
    .unwrap();
    let error = of().unwrap_err();
    assert!(matches!(error, StoreError::Country(..)), "{error}");
}

/// Bytes of a page, as stores are made.
const PAGE: usize = 4096;
/// The levels of a tangled tree; SQLite follows no more than twenty.
const LEVELS: u32 = 12;
/// The children of each of its pages: together 600^12 rows in a file that stays small.
const CHILDREN: u16 = 600;

/// Makes of the tree of `table` one whose pages all have the next page as each of their children.
fn tangle(path: &Path, table: &str) {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: u32 = conn.query_row(sql, [table], |row| row.get(0)).unwrap();
    let root = usize::try_from(root).unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(conn);
    let mut bytes = fs::read(path).unwrap();
    let leaf = bytes[(root - 1) * PAGE..root * PAGE].to_vec();
    let at = usize::from(u16::from_be_bytes([leaf[8], leaf[9]]));
    assert!(leaf[0] == 0x0a && leaf[at] < 0x80, "a leaf of an index, with short rows");
    let row = &leaf[at..=at + usize::from(leaf[at])];
    let first_new = u32::try_from(bytes.len() / PAGE).unwrap() + 1;
    for level in 0..LEVELS {
        let mut page = vec![0; PAGE];
        let child = (first_new + level).to_be_bytes();
        let start = PAGE - 4 - row.len();
        let short = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        page[0] = 0x02;
        page[3..5].copy_from_slice(&CHILDREN.to_be_bytes());
        page[5..7].copy_from_slice(&short(start));
        page[8..12].copy_from_slice(&child);
        for cell in 0..usize::from(CHILDREN) {
            page[12 + 2 * cell..14 + 2 * cell].copy_from_slice(&short(start));
        }
        page[start..start + 4].copy_from_slice(&child);
        page[start + 4..].copy_from_slice(row);
        match level {
            0 => bytes[(root - 1) * PAGE..root * PAGE].copy_from_slice(&page),
            _ => bytes.extend(page),
        }
    }
    bytes.extend(leaf);
    let pages = u32::try_from(bytes.len() / PAGE).unwrap();
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    fs::write(path, bytes).unwrap();
}

/// What the module does with a store, and the widest things that the command does.
fn use_all(lab: &Lab) -> Vec<Result<(), StoreError>> {
    let mut store = open(lab).unwrap();
    let (guard, alice) = (lab.guard(), login("alice", "192.0.2.7"));
    let mut done = vec![
        guard.look(&mut store, &alice).map(drop),
        guard.record(&mut store, &login("bob", "2001:db8::1")).map(drop),
        guard.succeed(&mut store, &alice, &Pass::default()).map(drop),
    ];
    let write = store.begin().unwrap();
    done.push(write.reader().all_known().map(drop));
    done.push(write.mend_clock(lab.clock.now.get() - 1));
    done
}

#[test]
fn a_tree_that_leads_back_into_itself_comes_to_an_end() {
    for table in ["failure", "known", "rule", "meta", "quota"] {
        let lab = lab();
        if table == "quota" {
            // The row that remains is short; and the policy is written anew.
            edit(
                &lab,
                "DELETE FROM quota WHERE family <> 4 OR length <> 32;
                 UPDATE meta SET value = '' WHERE key = 'policy'",
            );
        }
        if table == "meta" {
            edit(&lab, "DELETE FROM meta WHERE key <> 'rows'");
        }
        tangle(&lab.settings.database, table);
        let done = use_all(&lab);
        let is_stopped =
            |done: &Result<(), StoreError>| matches!(done, Err(StoreError::Damaged(..)));
        // In the other trees SQLite finds out by itself.
        let reads_on = ["failure", "known", "rule"].contains(&table);
        assert_eq!(done.iter().any(is_stopped), reads_on, "{table}: {done:?}");
    }
}

#[test]
fn the_command_says_what_is_wrong_and_mends_it() {
    for (table, fault) in [("failure", "would not end"), ("rule", "would not end"), ("", "not as")]
    {
        let lab = lab();
        match table {
            "" => edit(&lab, "CREATE TRIGGER t AFTER INSERT ON rule BEGIN SELECT 1; END"),
            table => tangle(&lab.settings.database, table),
        }
        let settings = lab.settings.database.with_file_name("settings");
        fs::write(&settings, "").unwrap();
        let run = |arguments: &[&str]| {
            let mut command = common::command();
            command.arg("--config").arg(&settings).arg("--database").arg(&lab.settings.database);
            let run = Run::of(command.args(arguments));
            (run.status, run.out + &run.err)
        };
        let (_, told) = run(&["doctor"]);
        let mend = format!("prefixquota --database {} repair", lab.settings.database.display());
        assert!(told.contains(&format!("Run: {mend}")), "{table}: {told}");
        let (status, told) = run(&["status"]);
        assert!(status == 2 && told.contains(fault), "{table}: {told}");
        assert!(told.contains(&format!("mend it: {mend}")), "{table}: {told}");
        let (status, told) = run(&["repair"]);
        assert_eq!(status, 0, "{table}: {told}");
        // What stands in the other tables is kept.
        let store = open(&lab).unwrap();
        assert_eq!(store.reader().all_known().unwrap().len(), 2, "{table}");
        assert_eq!(store.reader().all_rules().unwrap().len(), 1, "{table}");
        assert_eq!(run(&["list"]).0, 0, "{table}");
    }
}

/// Nothing that is counted on, nothing that is free: as with every other damaged store.
#[test]
fn a_login_is_answered_as_on_error_says() {
    for (on_error, answer) in [("ignore", PERM_DENIED), ("deny", MAXTRIES)] {
        let dir = common::pam::lab(&format!("settle=0s on_error={on_error}"));
        let path = dir.path().join("q.db");
        let attempt = || {
            let pam = Pam::start(dir.path(), "wrong", b"alice", Some(&guess()));
            pam.without_delay().rhost(b"192.0.2.7").authenticate()
        };
        assert_eq!(attempt(), PERM_DENIED);
        let sound = fs::read(&path).unwrap();
        tangle(&path, "failure");
        assert_eq!(attempt(), answer, "{on_error}");
        remove_log(&path);
        fs::write(&path, &sound).unwrap();
        let planted = "CREATE TRIGGER t BEFORE UPDATE ON failure BEGIN SELECT RAISE(IGNORE); END";
        Connection::open(&path).unwrap().execute_batch(planted).unwrap();
        assert_eq!(attempt(), answer, "{on_error}");
        Connection::open(&path).unwrap().execute_batch("DROP TRIGGER t").unwrap();
        assert_eq!(attempt(), PERM_DENIED);
    }
}

#[test]
fn the_rules_of_the_settings_hold_beside_a_store_that_cannot_be_read() {
    let rules = [("ignore deny=192.0.2.0/24", MAXTRIES), ("deny exempt=192.0.2.0/24", PERM_DENIED)];
    for (settings, answer) in rules {
        let dir = common::pam::lab(&format!("settle=0s on_error={settings}"));
        let path = dir.path().join("q.db");
        let attempt = || {
            let pam = Pam::start(dir.path(), "wrong", b"alice", Some(&guess()));
            pam.without_delay().rhost(b"192.0.2.7").authenticate()
        };
        assert_eq!(attempt(), answer, "{settings}");
        Connection::open(&path)
            .unwrap()
            .execute_batch(
                "INSERT INTO rule (bits, first, action, prefix) VALUES (0, zeroblob(16), 'count', '::/0')",
            )
            .unwrap();
        tangle(&path, "rule");
        assert_eq!(attempt(), answer, "{settings}");
    }
}

#[test]
fn the_search_for_faded_rows_ends_too() {
    let lab = lab();
    // It goes on at the end, with the next new row, and then all are counted anew.
    edit(
        &lab,
        "UPDATE meta SET value = 7 WHERE key = 'rows';
         UPDATE meta SET value = x'ffffffffffffffffffffffffffffffff' WHERE key = 'sweep_from'",
    );
    tangle(&lab.settings.database, "failure");
    let error = lab.guard().record(&mut lab.store(), &login("", "2001:dc8::1")).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(..)), "{error}");
    assert!(error.to_string().contains("would not end"), "{error}");
}

#[test]
fn a_file_that_claims_to_be_huge() {
    let lab = lab();
    edit(&lab, "PRAGMA wal_checkpoint(TRUNCATE)");
    File::options().write(true).open(&lab.settings.database).unwrap().set_len(1 << 40).unwrap();
    tangle_header(&lab.settings.database);
    use_all(&lab).into_iter().for_each(drop);
    assert!(matches!(lab.admit("2001:db8:1::1"), Admission::Passed(_)));
}

/// Says that the file has as many pages as are possible.
fn tangle_header(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&0x0fff_ffff_u32.to_be_bytes(), 28).unwrap();
}
