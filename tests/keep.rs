//! Keeping the store in order: backups, pruning, and repair of whatever a disk can do to a file.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::Run;
use common::book::{inside, v6};
use common::pam::{MAXTRIES, PERM_DENIED, Pam, failures, guess};
use common::store::{HOUR, Lab, login};
use pam_prefixquota::guard::Admission;
use pam_prefixquota::rules::{Action, Kind, RuleId, StoredRule};
use pam_prefixquota::store::{Carried, Depth, Health, Repair, Store, repair};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);
const DAY: i64 = 24 * HOUR;

/// A store with something of everything: 2000 failing addresses on dozens of pages, 600 known
/// places, 20 rules; all in one file.
fn full_lab() -> Lab {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let lab = lab();
    let whole = WHOLE.get_or_init(|| {
        let lab = self::lab();
        fill(&lab);
        fold(&lab.settings.database);
        fs::read(&lab.settings.database).unwrap()
    });
    replace(&lab, whole);
    fs::set_permissions(&lab.settings.database, fs::Permissions::from_mode(0o600)).unwrap();
    lab
}

fn lab() -> Lab {
    Lab::new(|s| s.settle = 0)
}

fn fill(lab: &Lab) {
    let now = lab.clock.now.get();
    for i in 0..300_u32 {
        lab.log_in(&login(&format!("user{i}"), &format!("2001:db9:{i:x}::1")));
    }
    lab.write(|write| {
        for i in 0..20_u32 {
            write.put_rule(&rule(&format!("2001:db8:{i:x}::/48"), None), now).unwrap();
        }
    });
    let mut conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    let tx = conn.transaction().unwrap();
    for i in 0..2_000_u32 {
        let source = common::store::source(&inside(v6("2001:db8::"), 32, i).to_string());
        tx.execute(
            "INSERT INTO failure (address, source, level, at, since) VALUES (?1, ?2, 1.0, ?3, ?3)",
            (source.key().octets(), source.to_string(), now),
        )
        .unwrap();
    }
    tx.execute("UPDATE meta SET value = 2000 WHERE key = 'rows'", []).unwrap();
    tx.commit().unwrap();
    assert_eq!((lab.rows(), places(lab), rules(lab)), (2_000, 600, 20));
}

fn rule(prefix: &str, until: Option<i64>) -> StoredRule {
    let kind = Kind::Rule(Action::Exempt);
    let id = RuleId { prefix: prefix.parse().unwrap(), kind, user: Vec::new() };
    StoredRule { id, until, uses: None, tries: 0, note: "a note".to_owned() }
}

fn places(lab: &Lab) -> usize {
    lab.store().reader().all_known().unwrap().len()
}

fn rules(lab: &Lab) -> usize {
    lab.store().reader().all_rules().unwrap().len()
}

fn mend(lab: &Lab) -> Repair {
    repair(&lab.settings.database, PATIENCE, ".broken-today").unwrap()
}

/// All in one file, as it is after the log was folded in.
fn fold(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The store must be sound, and count.
fn expect_counting(lab: &Lab, what: &str) {
    let health = Health::of(&lab.settings.database, PATIENCE, Depth::Full).unwrap().unwrap();
    assert_eq!(health.faults, Vec::<String>::new(), "{what}");
    let before = lab.count("2001:dba::1", 128);
    assert!(matches!(lab.admit("2001:dba::1"), Admission::Passed(_)), "{what}");
    assert!((lab.count("2001:dba::1", 128) - before - 1.0).abs() < 1e-6, "{what}");
    assert_eq!(fs::metadata(&lab.settings.database).unwrap().mode() & 0o777, 0o600, "{what}");
}

/// A generator of our own: the same noise in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

#[test]
fn a_sound_store_is_left_alone() {
    let lab = full_lab();
    let before = (fs::read(&lab.settings.database).unwrap(), names(lab.dir.path()));
    assert_eq!(mend(&lab), Repair::Sound);
    assert_eq!(fs::read(&lab.settings.database).unwrap(), before.0);
    let new: Vec<String> =
        names(lab.dir.path()).into_iter().filter(|name| !before.1.contains(name)).collect();
    assert!(new.iter().all(|name| name == "q.db-shm" || name == "q.db-wal"), "{new:?}");
    let empty = Lab::new(|_| {});
    assert_eq!(mend(&empty), Repair::Missing);
    assert_eq!(names(empty.dir.path()), Vec::<String>::new(), "who only looks makes no store");
}

#[test]
fn after_noise_anywhere_the_store_counts_again() {
    let lab = full_lab();
    let whole = fs::read(&lab.settings.database).unwrap();
    let (mut mended, mut kept) = (0, 0);
    for seed in 0..60 {
        let mut noise = Noise(seed);
        let mut bytes = whole.clone();
        let length = 1 + noise.below(3_000);
        // Every sixth hits the header and the schema.
        let end = if seed % 6 == 0 { 4_096 } else { bytes.len() };
        let start = noise.below(end);
        for byte in bytes.iter_mut().skip(start).take(length) {
            *byte = noise.next() as u8;
        }
        let what = format!("seed {seed}: {length} bytes of noise at {start}");
        replace(&lab, &bytes);
        match mend(&lab) {
            Repair::Mended { aside, carried, faults } => {
                assert!(!faults.is_empty(), "{what}");
                assert_eq!(fs::read(&aside).unwrap(), bytes, "{what}: the broken file is kept");
                assert_eq!(lab.rows(), carried.addresses, "{what}");
                mended += 1;
                kept += carried.addresses;
                fs::remove_file(&aside).unwrap();
                let _ = fs::remove_file(format!("{}-wal", aside.display()));
            }
            // Noise in a page that nothing uses, or in the value of a cell.
            Repair::Sound => {}
            Repair::Missing => panic!("{what}"),
        }
        expect_counting(&lab, &what);
        let left = names(lab.dir.path());
        assert!(
            left.iter().all(|name| ["q.db", "q.db-wal", "q.db-shm"].contains(&&**name)),
            "{left:?}"
        );
    }
    assert!(mended > 40, "only {mended} of 60 were found broken");
    let share = kept as f64 / f64::from(mended) / 2_000.0;
    assert!(share > 0.85, "only {share:.3} of the addresses were carried over");
}

fn replace(lab: &Lab, bytes: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", lab.settings.database.display()));
    }
    fs::write(&lab.settings.database, bytes).unwrap();
}

#[test]
fn after_truncation_the_store_counts_again() {
    let lab = full_lab();
    let whole = fs::read(&lab.settings.database).unwrap();
    for length in
        [1, 15, 16, 99, 100, 512, 4_095, 4_096, 9_000, whole.len() / 2, whole.len() - 4_096]
    {
        let what = format!("{length} of {} bytes", whole.len());
        replace(&lab, &whole[..length]);
        let Repair::Mended { aside, .. } = mend(&lab) else { panic!("{what}: not noticed") };
        assert_eq!(fs::read(&aside).unwrap(), whole[..length], "{what}");
        fs::remove_file(aside).unwrap();
        expect_counting(&lab, &what);
    }
}

#[test]
fn one_broken_page_costs_its_own_rows_and_nothing_else() {
    let lab = full_lab();
    let mut bytes = fs::read(&lab.settings.database).unwrap();
    // The leaf that holds one address in the middle.
    let middle = [0x20, 0x01, 0x0d, 0xb8, 0x80];
    let at = bytes.windows(5).position(|window| window == middle).unwrap();
    let page = at / 4_096 * 4_096;
    bytes[page..page + 4_096].fill(0xa5);
    replace(&lab, &bytes);
    let Repair::Mended { carried, .. } = mend(&lab) else { panic!("not noticed") };
    assert_eq!((carried.places, carried.rules), (600, 20));
    assert!((1_900..2_000).contains(&carried.addresses), "{carried:?}");
    let known: Vec<_> = lab.store().reader().all_known().unwrap();
    assert!(known.iter().any(|known| known.user == b"user7"));
    // A known place is one again, and a rule decides again.
    assert!(matches!(lab.admit_login(&login("user7", "2001:db9:7::2")), Admission::Passed(_)));
    assert_eq!(lab.store().reader().all_rules().unwrap()[0], rule("2001:db8::/48", None));
    expect_counting(&lab, "one page");
}

#[test]
fn what_was_counted_last_is_carried_over_from_the_log() {
    let lab = full_lab();
    lab.charge("2001:dbb::1");
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    let root: i64 = conn
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'familiar'", [], |row| {
            row.get(0)
        })
        .unwrap();
    drop(conn);
    lab.charge("2001:dbb::2");
    let mut bytes = fs::read(&lab.settings.database).unwrap();
    let page = (usize::try_from(root).unwrap() - 1) * 4_096;
    bytes[page..page + 4_096].fill(0xa5);
    fs::write(&lab.settings.database, bytes).unwrap();
    let Repair::Mended { carried, aside, .. } = mend(&lab) else { panic!("not noticed") };
    assert_eq!(carried.addresses, 2_002);
    assert!((lab.count("2001:dbb::2", 64) - 2.0).abs() < 1e-6);
    assert!(fs::metadata(format!("{}-wal", aside.display())).unwrap().len() > 0, "with its log");
}

#[test]
fn two_repairs_at_the_same_moment_keep_both_files() {
    let lab = full_lab();
    for round in 1..=2 {
        replace(&lab, format!("noise number {round}").repeat(500).as_bytes());
        assert!(matches!(mend(&lab), Repair::Mended { .. }));
    }
    let broken = |name: &str| fs::read_to_string(lab.dir.path().join(name)).unwrap();
    assert!(broken("q.db.broken-today").starts_with("noise number 1"));
    assert!(broken("q.db.broken-today-2").starts_with("noise number 2"));
}

#[test]
fn what_is_not_ours_is_not_repaired() {
    let lab = Lab::new(|_| {});
    let other = rusqlite::Connection::open(&lab.settings.database).unwrap();
    other.execute_batch("CREATE TABLE t (a)").unwrap();
    fs::set_permissions(&lab.settings.database, fs::Permissions::from_mode(0o600)).unwrap();
    let error = repair(&lab.settings.database, PATIENCE, ".broken").unwrap_err().to_string();
    assert!(error.contains("not a store of prefixquota"), "{error}");
    let lab = full_lab();
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    conn.execute_batch("PRAGMA user_version = 99").unwrap();
    let error = repair(&lab.settings.database, PATIENCE, ".broken").unwrap_err().to_string();
    assert!(error.contains("has version 99"), "{error}");
}

#[test]
fn logins_go_on_while_a_store_is_repaired() {
    let lab = full_lab();
    let mut bytes = fs::read(&lab.settings.database).unwrap();
    let middle = [0x20, 0x01, 0x0d, 0xb8, 0x80];
    let page = bytes.windows(5).position(|window| window == middle).unwrap() / 4_096 * 4_096;
    bytes[page..page + 4_096].fill(0xa5);
    replace(&lab, &bytes);
    // Processes, as logins are: the locks of one process do not hold between its threads.
    let mut logins: Vec<_> = (0..4)
        .map(|number| {
            let script = format!(
                "for n in 1 2 3 4 5 6 7 8 9 10; do \"$0\" --database \"$1\" record 2001:dbc:{number}::$n \
                 >/dev/null 2>&1; done; exec \"$0\" --database \"$1\" record 2001:dbc:{number}::bad"
            );
            let mut login = Command::new("sh");
            login.args(["-c", &script]).arg(common::command().get_program());
            login.arg(&lab.settings.database).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(matches!(mend(&lab), Repair::Mended { .. }));
    let late = run(&lab, &["record", "2001:dbc:f::1"]);
    assert_eq!(late.0, 0, "{late:?}");
    for login in &mut logins {
        assert!(login.wait().unwrap().success(), "the last attempt is counted in the new store");
    }
    expect_counting(&lab, "after repair beside logins");
    let found = lab.store().reader().entries(Some(&"2001:dbc::/32".parse().unwrap())).unwrap();
    assert!(found.iter().any(|entry| entry.source == "2001:dbc:f::1"), "{found:?}");
}

#[test]
fn the_module_counts_again_after_a_repair() {
    let dir = common::pam::lab("settle=0s");
    let attempt = || {
        let mut pam = Pam::start(dir.path(), "wrong", b"somebody", Some(&guess()));
        pam = pam.rhost(b"2001:db8::7");
        pam.authenticate()
    };
    let repair = || {
        let mut command = common::command();
        command.arg("--database").arg(dir.path().join("q.db")).arg("repair");
        assert!(command.output().unwrap().status.success());
    };
    assert_eq!(attempt(), PERM_DENIED);
    assert!((failures(dir.path()) - 1.0).abs() < 0.01);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("q.db{suffix}")));
    }
    fs::write(dir.path().join("q.db"), "noise".repeat(4_000)).unwrap();
    assert_eq!(attempt(), PERM_DENIED, "the attempt goes on uncounted (on_error = ignore)");
    repair();
    assert!(failures(dir.path()) < 0.01, "nothing could be read");
    for tried in [1.0, 2.0] {
        assert_eq!(attempt(), PERM_DENIED);
        assert!((failures(dir.path()) - tried).abs() < 0.01);
    }
    assert_eq!(attempt(), MAXTRIES);
    repair();
    assert_eq!(attempt(), MAXTRIES, "a sound store keeps its counts");
}

#[test]
fn prune_removes_what_means_nothing_any_more() {
    let lab = Lab::new(|s| s.settle = 0);
    for i in 0..300_u32 {
        lab.charge(&inside(v6("2001:db8::"), 32, i).to_string());
    }
    lab.log_in(&login("alice", "2001:db9::1"));
    lab.pass(61 * DAY);
    lab.log_in(&login("bob", "2001:db9:1::1"));
    lab.charge("2001:db8::1");
    let now = lab.clock.now.get();
    lab.write(|write| {
        write.put_rule(&rule("2001:db8::/48", Some(now + 1)), now).unwrap();
        write.put_rule(&rule("2001:db8:1::/48", None), now).unwrap();
    });
    lab.pass(10);
    // Logins have cleared away some already; the rest goes now.
    assert!(lab.rows() > 100);
    fold(&lab.settings.database);
    let before = fs::metadata(&lab.settings.database).unwrap().len();
    let pruned = lab.store().prune(lab.clock.now.get(), &lab.settings).unwrap();
    assert!(pruned.addresses > 100, "{pruned:?}");
    assert_eq!((lab.rows(), rules(&lab), pruned.rules), (1, 1, 1));
    let known = lab.store().reader().all_known().unwrap();
    assert!(known.iter().all(|known| known.user == b"bob") && known.len() == 2, "{known:?}");
    assert!((lab.count("2001:db8::1", 128) - 1.0).abs() < 1e-4, "what counts stays");
    let after = fs::metadata(&lab.settings.database).unwrap().len();
    assert!(after < before, "{before} bytes became {after}");
    let log = lab.dir.path().join("q.db-wal");
    assert_eq!(fs::metadata(log).map_or(0, |log| log.len()), 0);
    let counter = "SELECT value FROM meta WHERE key = 'rows'";
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    assert_eq!(conn.query_row(counter, [], |row| row.get::<_, i64>(0)), Ok(1));
    let again = lab.store().prune(lab.clock.now.get(), &lab.settings).unwrap();
    assert_eq!(again, pam_prefixquota::store::Pruned::default());
}

/// Exit status, standard output and standard error of the command on the store of a lab.
fn run(lab: &Lab, arguments: &[&str]) -> (i32, String, String) {
    let mut command = common::command();
    Run::of(command.arg("--database").arg(&lab.settings.database).args(arguments)).parts()
}

#[test]
fn a_backup_is_the_store_in_one_file() {
    let lab = full_lab();
    let to = lab.dir.path().join("copy.db");
    let shown = to.display().to_string();
    // While somebody holds the lock, and with a log.
    let mut busy = lab.store();
    let write = busy.begin().unwrap();
    let (status, out, error) = run(&lab, &["backup", &shown]);
    assert_eq!((status, error.as_str()), (0, ""), "{out}");
    drop(write);
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o600);
    assert!(
        !names(lab.dir.path())
            .iter()
            .any(|name| name.starts_with("copy.db-") || name.contains(".new-"))
    );
    let copied = Store::open(&to, PATIENCE).unwrap();
    assert_eq!(copied.reader().entries(None).unwrap(), lab.store().reader().entries(None).unwrap());
    assert_eq!(copied.reader().all_known().unwrap(), lab.store().reader().all_known().unwrap());
    drop(copied);
    // Open, its log lies beside it: it may be in use.
    let (status, _, error) = run(&lab, &["backup", &shown]);
    assert!(status == 2 && error.contains("a store in use"), "{error}");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{shown}{suffix}"));
    }
    lab.charge("2001:dbb::1");
    let (status, out, _) = run(&lab, &["backup", &shown, "--format", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &json["replaced"]), (0, &true.into()));
    assert_eq!(Store::open(&to, PATIENCE).unwrap().reader().entries(None).unwrap().len(), 2_001);
}

#[test]
fn a_backup_overwrites_nothing_else() {
    let lab = full_lab();
    let file = |name: &str| lab.dir.path().join(name);
    fs::write(file("letter"), "dear reader").unwrap();
    symlink(file("letter"), file("link")).unwrap();
    fs::create_dir(file("folder")).unwrap();
    rusqlite::Connection::open(file("other.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (a)")
        .unwrap();
    let store = lab.settings.database.clone();
    for (target, expected) in [
        (file("letter"), "no backup of prefixquota"),
        (file("link"), "not a regular file"),
        (file("folder"), "not a regular file"),
        (file("other.db"), "no backup of prefixquota"),
        (store, "a store in use"),
        (PathBuf::from("/none/at/all.db"), "No such file"),
    ] {
        let before = fs::read(&target).ok();
        let (status, out, error) = run(&lab, &["backup", target.to_str().unwrap()]);
        assert_eq!((status, out.as_str()), (2, ""), "{target:?}");
        assert!(error.contains(expected), "{target:?}: {error}");
        assert_eq!(fs::read(&target).ok(), before);
    }
    let empty = Lab::new(|_| {});
    let (status, _, error) = run(&empty, &["backup", empty.dir.path().join("c").to_str().unwrap()]);
    assert!(status == 2 && error.contains("no store yet"), "{error}");
}

#[test]
fn the_command_says_what_it_did() {
    let lab = full_lab();
    let (status, out, _) = run(&lab, &["repair"]);
    assert_eq!((status, out.contains("is sound; nothing was changed")), (0, true), "{out}");
    // The clock of the lab is not that of the command.
    let (status, out, _) = run(&lab, &["prune", "--format", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &json["rules"]), (0, &0.into()), "{out}");
    replace(&lab, "noise".repeat(2_000).as_bytes());
    let (status, out, _) = run(&lab, &["repair"]);
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("was broken (") && out.contains("It is kept as "), "{out}");
    assert!(names(lab.dir.path()).iter().any(|name| name.starts_with("q.db.broken-2")));
    expect_counting(&lab, "after the command");
    let empty = Lab::new(|_| {});
    for command in ["repair", "prune"] {
        let (status, out, _) = run(&empty, &[command]);
        assert!(status == 0 && out.contains("there is no store yet"), "{out}");
    }
    assert_eq!(Carried::default().rules, 0);
}
