//! The file of the store: how it comes into being, who may own it, what is left when it goes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::book::{inside, v6};
use common::store::{Lab, START, login};
use pam_prefixquota::guard::Admission;
use pam_prefixquota::store::Store;

#[test]
fn files_are_private_whatever_the_umask() {
    let lab = Lab::new(|_| {});
    // A process of its own, since the umask is everybody's: the command makes stores as the module
    // does.
    let made = Command::new("sh")
        .arg("-c")
        .arg("umask 0777; exec \"$0\" --database \"$1\" record 2001:db8::1")
        .arg(common::command().get_program())
        .arg(&lab.settings.database)
        .status();
    assert!(made.unwrap().success());
    for entry in fs::read_dir(lab.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    assert_eq!(
        fs::read_dir(lab.dir.path()).unwrap().count(),
        3,
        "the store, its log and its index"
    );
}

#[test]
fn a_store_that_others_could_change_is_refused() {
    let refused = |spoil: &dyn Fn(&Lab)| {
        let lab = Lab::new(|_| {});
        spoil(&lab);
        let error = Store::open(&lab.settings.database, Duration::ZERO).err().expect("refused");
        error.to_string()
    };
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let text = refused(&|lab| mode(lab.dir.path(), 0o770));
    assert!(text.contains("may be written by others"), "{text}");
    let text = refused(&|lab| {
        drop(lab.store());
        mode(&lab.settings.database, 0o660);
    });
    assert!(text.contains("may be written by others"), "{text}");
    let text = refused(&|lab| symlink("/dev/null", &lab.settings.database).unwrap());
    assert!(text.contains("symbolic link"), "{text}");
    let text = refused(&|lab| fs::create_dir(&lab.settings.database).unwrap());
    assert!(text.contains("not a regular file"), "{text}");
    let text = refused(&|lab| fs::remove_dir(lab.dir.path()).unwrap());
    assert!(text.contains("No such file"), "{text}");
    let text = refused(&|lab| fs::write(&lab.settings.database, "noise, not a database").unwrap());
    assert!(text.contains("not a database") || text.contains("not a store"), "{text}");
    let text = refused(&|lab| {
        rusqlite::Connection::open(&lab.settings.database)
            .and_then(|other| other.execute_batch("CREATE TABLE t (a)"))
            .unwrap();
    });
    assert!(text.contains("not a store of prefixquota"), "{text}");
    let text = refused(&|lab| {
        drop(lab.store());
        let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
        conn.execute_batch("PRAGMA user_version = 99").unwrap();
    });
    assert!(text.contains("has version 99"), "{text}");
}

#[test]
fn an_empty_file_is_no_store_yet() {
    // What `sqlite3 prefixquota.db` leaves when it is asked before the first attempt.
    let lab = Lab::new(|_| {});
    fs::write(&lab.settings.database, "").unwrap();
    assert!(Store::open_existing(&lab.settings.database, Duration::ZERO).unwrap().is_none());
    lab.charge("2001:db8::1");
    assert_eq!(lab.rows(), 1);
    assert_eq!(fs::metadata(&lab.settings.database).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_older_store_is_brought_up_to_date() {
    let lab = Lab::new(|_| {});
    let old = rusqlite::Connection::open(&lab.settings.database).unwrap();
    // Version 0: ours, and nothing in it yet.
    old.execute_batch("PRAGMA application_id = 0x50667851; PRAGMA journal_mode = WAL").unwrap();
    fs::set_permissions(&lab.settings.database, fs::Permissions::from_mode(0o600)).unwrap();
    lab.charge("2001:db8::1");
    let version = || old.query_row("PRAGMA user_version", [], |row| row.get(0));
    assert_eq!((version(), lab.rows()), (Ok(2), 1));
}

#[test]
fn a_store_of_the_first_version_keeps_its_counts() {
    let lab = Lab::new(|s| s.settle = 0);
    let old = rusqlite::Connection::open(&lab.settings.database).unwrap();
    old.execute_batch("PRAGMA application_id = 0x50667851; PRAGMA journal_mode = WAL").unwrap();
    old.execute_batch(include_str!("../src/schema/1.sql")).unwrap();
    old.execute_batch("CREATE VIEW prefix_count AS SELECT source FROM failure").unwrap();
    let address = "20010db8000000000000000000000001";
    old.execute_batch(&format!(
        "INSERT INTO quota VALUES (6, 128, 2);
         INSERT INTO failure (address, source, level, at) VALUES (x'{address}', '2001:db8::1', 2.0, {START});
         PRAGMA user_version = 1"
    ))
    .unwrap();
    fs::set_permissions(&lab.settings.database, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Refused(_)));
    lab.log_in(&login("alice", "2001:db8:1::1"));
    let ask = |sql: &str| old.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ask("PRAGMA user_version"), 2);
    assert_eq!(ask("SELECT count(*) FROM quota WHERE length = 128 AND quota = 2"), 1);
    assert_eq!(ask("SELECT count(*) FROM known"), 2);
}

#[test]
fn a_symbolic_link_on_the_way_is_refused() {
    let lab = Lab::new(|_| {});
    drop(lab.store());
    let way = common::private_dir();
    symlink(lab.dir.path(), way.path().join("link")).unwrap();
    let through =
        |path: &Path| Store::open(path, Duration::ZERO).err().expect("refused").to_string();
    let text = through(&way.path().join("link/q.db"));
    assert!(text.contains("symbolic link"), "{text}");
    fs::create_dir(lab.dir.path().join("deep")).unwrap();
    mode_0700(&lab.dir.path().join("deep"));
    drop(Store::open(&lab.dir.path().join("deep/q.db"), Duration::ZERO).unwrap());
    let text = through(&way.path().join("link/deep/q.db"));
    assert!(text.contains("symbolic link"), "{text}");
}

fn mode_0700(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_deleted_store_leaves_nothing_behind() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..300_u32 {
        lab.charge(&inside(v6("2001:db8::"), 32, i).to_string());
    }
    fs::remove_file(&lab.settings.database).unwrap();
    assert!(lab.count("2001:db8::1", 32).abs() < 1e-9);
    lab.charge("2001:db8::1");
    let check: String = rusqlite::Connection::open(&lab.settings.database)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!((check.as_str(), lab.rows()), ("ok", 1));
    // Nor does one that could not be made.
    fs::remove_file(&lab.settings.database).unwrap();
    fs::create_dir(&lab.settings.database).unwrap();
    assert!(Store::open(&lab.settings.database, Duration::ZERO).is_err());
    let left = fs::read_dir(lab.dir.path()).unwrap().map(|file| file.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains(".new-")));
}

#[test]
fn a_replaced_store_is_noticed() {
    let lab = Lab::new(|_| {});
    let store = lab.store();
    assert!(store.is_current());
    for name in ["q.db", "q.db-wal", "q.db-shm"] {
        let _ = fs::remove_file(lab.dir.path().join(name));
    }
    assert!(!store.is_current());
    let _new = lab.store();
    assert!(!store.is_current());
}

#[test]
fn the_log_stays_short() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..400_u32 {
        lab.charge(&inside(v6("2001:db8::"), 32, i).to_string());
    }
    let log = fs::metadata(lab.dir.path().join("q.db-wal")).unwrap().len();
    assert!(log < 2 * 100 * 4_120, "{log} bytes");
}
