//! Whatever befalls the store or the process: the module answers in time as `on_error` says, says
//! why, and goes on counting as soon as it is mended. Root only, in a lab of its own.
//!
//! The table in `docs/faults.md` is made here: with PREFIXQUOTA_WRITE_DOCS set it is written, else it
//! must be the committed one, but for the times.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::cell::RefCell;
use std::ffi::c_int;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::lab::{self, Lab, run};
use common::pam::{MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, guess, stack, write_stack};

const STATE: &str = "/run/prefixquota";
const DATABASE: &str = "/run/prefixquota/prefixquota.db";
/// What is said to stand there.
const USUAL_STATE: &str = "/var/lib/prefixquota";

const SOURCE: &str = "2001:db8::1";
const NEXT: &str = "2001:db8:2::1";

/// Nothing may take much longer than `lock_wait`, which is a second here; some more for a machine
/// that has other things to do.
const ARGUMENTS: &str = "settle=0s half_life=36500d lock_wait=1s";
const BOUND: Duration = Duration::from_secs(3);

/// What goes wrong, and when.
#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    /// Before the attempt, from outside.
    before: fn(&Scene),
    /// In the process of the attempt, before it begins.
    within: fn(),
    /// While the user is at the prompt.
    at_prompt: fn(),
    /// Between `auth` and `account`.
    after_auth: Option<fn()>,
    mend: fn(&Scene),
}

const NONE: Fault = Fault {
    name: "none",
    before: |_| {},
    within: || {},
    at_prompt: || {},
    after_auth: None,
    mend: |_| {},
};

/// Something about the store, from outside.
const fn store(name: &'static str, before: fn(&Scene), mend: fn(&Scene)) -> Fault {
    Fault { name, before, mend, ..NONE }
}

/// Something about the process.
const fn process(name: &'static str, within: fn()) -> Fault {
    Fault { name, within, ..NONE }
}

/// Something while the user is at the prompt.
const fn prompt(name: &'static str, at_prompt: fn(), mend: fn(&Scene)) -> Fault {
    Fault { name, at_prompt, mend, ..NONE }
}

const FAULTS: &[Fault] = &[
    NONE,
    store("disk full", |_| fill_disk(), |_| empty_disk()),
    store("disk full, no store yet", |s| (s.remove(), fill_disk()).1, |_| empty_disk()),
    store("file system read-only", |_| remount("ro"), |_| remount("rw")),
    store(
        "file system read-only, no store yet",
        |s| (s.remove(), remount("ro")).1,
        |_| remount("rw"),
    ),
    store("directory missing", |s| s.unmount(), |s| s.mount()),
    store("directory writable by others (0777)", |_| mode(STATE, 0o777), |_| mode(STATE, 0o700)),
    store("directory of somebody else", |_| own(STATE, 1), |_| own(STATE, 0)),
    store("store writable by others (0666)", |_| mode(DATABASE, 0o666), |_| mode(DATABASE, 0o600)),
    store("store of somebody else", |_| own(DATABASE, 1), |_| own(DATABASE, 0)),
    store("store without any rights (0000)", |_| mode(DATABASE, 0o000), |_| mode(DATABASE, 0o600)),
    store("store a symbolic link", |_| link_away(), Scene::remove),
    store("store deleted, its log left", |_| fs::remove_file(DATABASE).unwrap(), |_| {}),
    store("store emptied, its log left", |_| cut("", |_| 0), |_| {}),
    store("store cut to 100 bytes", |_| cut("", |_| 100), Scene::remove),
    store("store cut to half, no log", |s| (s.fold_log(), cut("", |len| len / 2)).1, Scene::remove),
    store("store all noise, no log", |s| (s.fold_log(), noise("", 0)).1, Scene::remove),
    store("a database of another program", |s| (s.remove(), foreign()).1, Scene::remove),
    store("log (-wal) all noise", |_| noise("-wal", 0), |_| {}),
    store("log (-wal) cut in the middle of a page", |_| cut("-wal", |len| len - 3_000), |_| {}),
    store("log (-wal) of another store", |s| s.swap_log(), |_| {}),
    store("index (-shm) all noise", |_| noise("-shm", 0), |_| {}),
    store("a journal (-journal) of noise left behind", |_| leave_journal(), |_| {}),
    store("locked by a writer", |s| s.lock("BEGIN IMMEDIATE;"), |_| {}),
    store("locked as a whole", |s| s.lock(EXCLUSIVE), |_| {}),
    store("directory locked, no store yet", |s| s.lock_directory(), |_| {}),
    prompt("store deleted at the prompt", || fs::remove_file(DATABASE).unwrap(), |_| {}),
    prompt("store replaced at the prompt", replace_store, |_| {}),
    prompt("store overwritten with noise at the prompt", noise_everywhere, Scene::remove),
    prompt("disk full since the prompt", fill_disk, |_| empty_disk()),
    Fault { after_auth: Some(lock_for_long), ..named("locked by a writer after `auth`") },
    Fault {
        after_auth: Some(fill_disk),
        mend: |_| empty_disk(),
        ..named("disk full after `auth`")
    },
    // With fewer libpam itself fails.
    process("two descriptors left (RLIMIT_NOFILE)", || descriptors(2)),
    process("three descriptors left", || descriptors(3)),
    process("four descriptors left", || descriptors(4)),
    process("256 MiB of memory (RLIMIT_AS), as in Dovecot", || limit(libc::RLIMIT_AS, 256 << 20)),
    process("no file may grow (RLIMIT_FSIZE = 0)", || limit(libc::RLIMIT_FSIZE, 0)),
    process("umask 0777", umask_0777),
    Fault { before: Scene::remove, ..process("umask 0777, no store yet", umask_0777) },
    process("standard input, output and error closed", close_standard),
    store("no /dev/log", |_| away("/dev/log"), |_| back("/dev/log")),
    store("no /dev/urandom", |_| away("/dev/urandom"), |_| back("/dev/urandom")),
];

const fn named(name: &'static str) -> Fault {
    Fault { name, ..NONE }
}

/// Takes and keeps the lock that excludes readers too.
const EXCLUSIVE: &str = "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; \
                         UPDATE meta SET value = value WHERE key = 'rows'; COMMIT;";

#[test]
fn faults_are_answered_logged_and_mended() {
    let Some(lab) = lab::enter("faults_are_answered_logged_and_mended", &[]) else { return };
    let stacks = Stacks::new(lab);
    let rows: Vec<Row> = FAULTS.iter().map(|fault| stacks.row(fault)).collect();
    compare(&table(&rows));
}

/// One fault, and what came of it.
struct Row {
    cells: [String; 4],
    longest: Duration,
}

/// What became of one attempt.
struct Outcome {
    code: c_int,
    logged: Vec<String>,
    /// That the longer of the two hooks took.
    time: Duration,
    /// Failures of its address, once the fault is mended.
    count: f64,
}

/// The four stacks of the lab: both answers of `on_error`, and both of the password check.
struct Stacks {
    lab: Lab,
    confdir: PathBuf,
}

impl Stacks {
    fn new(lab: Lab) -> Stacks {
        let confdir = lab.dir().join("stacks");
        fs::create_dir(&confdir).unwrap();
        // Else libpam says that it is missing.
        write_stack(&confdir, "other", "auth required pam_deny.so\n");
        for on_error in ["ignore", "deny"] {
            for (password, verdict) in [("wrong", "perm_denied"), ("right", "success")] {
                let arguments = format!("database={DATABASE} on_error={on_error} {ARGUMENTS}");
                let service = format!("{on_error}-{password}");
                write_stack(&confdir, &service, &stack(&arguments, verdict));
            }
        }
        Stacks { lab, confdir }
    }

    /// Runs the four attempts, each with a store of its own.
    fn row(&self, fault: &Fault) -> Row {
        eprintln!("{}", fault.name);
        let [ignored, denied] = ["ignore-wrong", "deny-wrong"].map(|one| self.attempt(fault, one));
        let [let_in, right] = ["ignore-right", "deny-right"].map(|one| self.attempt(fault, one));
        let longest = [&ignored, &denied, &let_in, &right].map(|one| one.time).into_iter().max();
        let longest = longest.unwrap();
        let name = fault.name;
        assert!(longest < BOUND, "{name}: {longest:?}");

        // With on_error = ignore nobody is kept out, whatever happens.
        assert_eq!((ignored.code, let_in.code), (PERM_DENIED, SUCCESS), "{name}");
        let is_error = denied.code == MAXTRIES;
        assert_eq!(denied.code, if is_error { MAXTRIES } else { PERM_DENIED }, "{name}");
        assert_eq!(right.code, if is_error { MAXTRIES } else { SUCCESS }, "{name}");
        let counted = f64::from(u8::from(!is_error));
        assert_eq!((ignored.count, denied.count), (counted, counted), "{name}: wrong passwords");
        let stands = fault.after_auth.map_or(0.0, |_| 1.0);
        assert_eq!((let_in.count, right.count), (stands, stands), "{name}: right passwords");

        let said = if fault.after_auth.is_some() { &let_in.logged } else { &ignored.logged };
        assert_eq!(is_error || stands > 0.0, !said.is_empty(), "{name}: {said:?}");
        let answer = "; this attempt is not counted (on_error)";
        for (line, also) in said.iter().zip(&denied.logged) {
            assert_eq!(
                line.replace(answer, "; this attempt is denied (on_error)"),
                *also,
                "{name}"
            );
        }
        let [ignore, deny] = match (is_error, stands > 0.0) {
            (true, _) => ["not counted", "refused"],
            (_, true) => ["let in, charge stands"; 2],
            (_, false) => ["counted"; 2],
        };
        let said: Vec<&str> =
            said.iter().map(|line| line.strip_suffix(answer).unwrap_or(line)).collect();
        let said = if said.is_empty() { "nothing".to_owned() } else { said.join(" · ") };
        Row { cells: [name.to_owned(), ignore.to_owned(), deny.to_owned(), said], longest }
    }

    fn attempt(&self, fault: &Fault, service: &str) -> Outcome {
        let scene = Scene::new(self);
        let before = self.logged().len();
        (fault.before)(&scene);
        let password = guess();
        let (mut times, sender) = std::io::pipe().unwrap();
        let codes = at_once(1, |_| {
            let mut pam = self.start(service, SOURCE, &password);
            pam.meanwhile(fault.at_prompt);
            (fault.within)();
            let (mut code, mut longest) = timed(|| pam.authenticate());
            if code == SUCCESS {
                fault.after_auth.inspect(|work| work());
                let (account, time) = timed(|| pam.account());
                (code, longest) = (account, longest.max(time));
            }
            (&sender).write_all(&longest.to_ne_bytes()).unwrap();
            code
        });
        let mut longest = [0; 8];
        times.read_exact(&mut longest).unwrap();
        let time = Duration::from_millis(u64::from_ne_bytes(longest));
        scene.end_others();
        (fault.mend)(&scene);
        let logged = self.logged().split_off(before);
        let count = scene.count(SOURCE);
        let next = at_once(1, |_| self.start("deny-wrong", NEXT, b"next").authenticate());
        assert_eq!(next, [PERM_DENIED], "{}: the next attempt, once mended", fault.name);
        assert_eq!(scene.count(NEXT), 1.0, "{}: the next attempt is counted", fault.name);
        Outcome { code: codes[0], logged, time, count }
    }

    fn start(&self, service: &str, rhost: &str, password: &[u8]) -> Pam {
        start(&self.confdir, service, rhost, password)
    }

    /// What the module has said of errors so far.
    fn logged(&self) -> Vec<String> {
        let lines = self.lab.log_with(&["pam_prefixquota("]);
        let said = lines.iter().map(|line| line.split_once("): ").unwrap().1);
        said.map(|line| without_random_name(&line.replace(STATE, USUAL_STATE))).collect()
    }
}

/// What a hook answers, and after how many milliseconds.
fn timed(hook: impl FnOnce() -> c_int) -> (c_int, u64) {
    let started = Instant::now();
    let code = hook();
    (code, started.elapsed().as_millis().try_into().unwrap())
}

/// A store that is being made has a random name.
fn without_random_name(line: &str) -> String {
    match line.split_once(".new-") {
        Some((before, rest)) => format!("{before}.new-...{}", &rest[16..]),
        None => line.to_owned(),
    }
}

/// A small file system with a store that some others have used, and other processes that use it.
struct Scene {
    confdir: PathBuf,
    others: RefCell<Vec<Child>>,
}

impl Scene {
    fn new(stacks: &Stacks) -> Scene {
        let scene = Scene { confdir: stacks.confdir.clone(), others: RefCell::default() };
        scene.mount();
        scene.fill();
        scene
    }

    fn mount(&self) {
        fs::create_dir(STATE).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=0700", "state", STATE]);
    }

    fn unmount(&self) {
        run("umount", &["-l", STATE]);
        fs::remove_dir(STATE).unwrap();
    }

    fn fill(&self) {
        let codes = at_once(1, |_| {
            let mut codes = (0..5).map(|i| {
                let mut pam =
                    start(&self.confdir, "deny-wrong", &format!("2001:db9::{i}"), &[b'a' + i]);
                pam.authenticate()
            });
            c_int::from(!codes.all(|code| code == PERM_DENIED))
        });
        assert_eq!(codes, [0]);
    }

    fn remove(&self) {
        for file in fs::read_dir(STATE).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// Folds the log into the file, as a reboot or a backup might.
    fn fold_log(&self) {
        run("sqlite3", &[DATABASE, "PRAGMA wal_checkpoint(TRUNCATE)"]);
        assert!(fs::metadata(beside("-wal")).map_or(0, |log| log.len()) == 0);
    }

    fn swap_log(&self) {
        let log = fs::read(beside("-wal")).unwrap();
        self.remove();
        self.fill();
        fs::write(beside("-wal"), log).unwrap();
        fs::remove_file(beside("-shm")).unwrap();
    }

    fn lock(&self, sql: &str) {
        self.others.borrow_mut().push(locker(sql));
    }

    fn lock_directory(&self) {
        self.remove();
        let mut flock = Command::new("flock");
        flock.args([STATE, "sh", "-c", "echo held; exec cat"]);
        self.others.borrow_mut().push(holding(&mut flock));
    }

    fn end_others(&self) {
        for mut other in self.others.take() {
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }

    fn count(&self, source: &str) -> f64 {
        if fs::metadata(DATABASE).map_or(0, |file| file.len()) == 0 {
            return 0.0;
        }
        let conn = rusqlite::Connection::open(DATABASE).unwrap();
        let ask = "SELECT round(total(level), 6) FROM failure WHERE source = ?1";
        conn.query_row(ask, [source], |row| row.get(0)).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.unmount();
        }
    }
}

/// Everybody has a name of his own, so that nobody is known where another has logged in.
fn start(confdir: &Path, service: &str, rhost: &str, password: &[u8]) -> Pam {
    Pam::start(confdir, service, rhost.as_bytes(), Some(password)).rhost(rhost.as_bytes())
}

fn beside(suffix: &str) -> PathBuf {
    PathBuf::from(format!("{DATABASE}{suffix}"))
}

fn fill_disk() {
    let mut filler = fs::File::create(format!("{STATE}/filler")).unwrap();
    for block in [65_536, 4_096, 1] {
        while filler.write(&vec![1; block]).is_ok_and(|written| written == block) {}
    }
}

fn empty_disk() {
    // A wrong password never comes to what is done after `auth`.
    let _ = fs::remove_file(format!("{STATE}/filler"));
}

fn remount(how: &str) {
    run("mount", &["-o", &format!("remount,{how}"), STATE]);
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn own(path: &str, user: u32) {
    chown(path, Some(user), None).unwrap();
}

fn link_away() {
    let away = format!("{STATE}/away.db");
    fs::rename(DATABASE, &away).unwrap();
    symlink(away, DATABASE).unwrap();
}

fn cut(suffix: &str, to: fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(beside(suffix)).unwrap();
    file.set_len(to(file.metadata().unwrap().len())).unwrap();
}

/// Overwrites a file with noise from an offset on; its length stays.
fn noise(suffix: &str, from: u64) {
    let mut file = OpenOptions::new().write(true).open(beside(suffix)).unwrap();
    let length = file.metadata().unwrap().len() - from;
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&common::Random(7).bytes(usize::try_from(length).unwrap())).unwrap();
}

fn noise_everywhere() {
    noise("", 0);
    noise("-wal", 0);
}

fn leave_journal() {
    fs::write(beside("-journal"), common::Random(8).bytes(4_096)).unwrap();
}

fn foreign() {
    run("sqlite3", &[DATABASE, "CREATE TABLE t (x)"]);
    mode(DATABASE, 0o600);
}

/// Puts a store with other counts in the place of the one that is open.
fn replace_store() {
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(beside(suffix)).unwrap();
    }
    let record = ["--database", DATABASE, "record", "2001:db8:9::9"];
    assert!(common::command().args(record).output().unwrap().status.success());
}

/// A process that runs `sql` on the store and keeps what locks it has then.
fn locker(sql: &str) -> Child {
    let mut other = Command::new("sqlite3");
    other.args(["-bail", "-cmd", sql, "-cmd", "SELECT 'held'", DATABASE]);
    holding(&mut other)
}

/// Starts a process that says `held` and goes on until its standard input ends.
fn holding(command: &mut Command) -> Child {
    let mut other = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"), "{command:?} ended");
    other
}

/// Locked by a process that ends with this one.
fn lock_for_long() {
    std::mem::forget(locker("BEGIN IMMEDIATE;"));
}

fn away(path: &str) {
    fs::rename(path, format!("{path}.away")).unwrap();
}

fn back(path: &str) {
    fs::rename(format!("{path}.away"), path).unwrap();
}

fn limit(what: libc::__rlimit_resource_t, to: u64) {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: a child limits itself.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}

/// Leaves this process so many more descriptors.
fn descriptors(more: usize) {
    // SAFETY: only asks.
    let is_free = |&descriptor: &c_int| unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0;
    let first_too_many = (0..).filter(is_free).nth(more).unwrap();
    limit(libc::RLIMIT_NOFILE, first_too_many.try_into().unwrap());
}

fn umask_0777() {
    // SAFETY: a child changes its own.
    unsafe { libc::umask(0o777) };
}

fn close_standard() {
    for descriptor in 0..3 {
        // SAFETY: a child that uses none of them.
        unsafe { libc::close(descriptor) };
    }
}

/// Damage at random places is found or harmless: there is an answer, no crash, and no wait.
#[test]
fn a_store_damaged_anywhere_is_answered() {
    let Some(lab) = lab::enter("a_store_damaged_anywhere_is_answered", &[]) else { return };
    let stacks = Stacks::new(lab);
    let mut refused = 0;
    let mut random = common::Random(2026);
    const DAMAGES: u32 = 150;
    for seed in 0..DAMAGES {
        let scene = Scene::new(&stacks);
        let suffix = if seed % 3 == 0 { "-wal" } else { "" };
        if suffix.is_empty() {
            scene.fold_log();
        }
        let mut file = OpenOptions::new().write(true).open(beside(suffix)).unwrap();
        let length = file.metadata().unwrap().len();
        for _ in 0..=random.below(8) {
            file.seek(SeekFrom::Start(random.below(length))).unwrap();
            let bytes = random.below(64) + 1;
            file.write_all(&random.bytes(usize::try_from(bytes).unwrap())).unwrap();
        }
        let answers = at_once(1, |_| {
            let wrong = stacks.start("deny-wrong", SOURCE, b"wrong").authenticate();
            let mut pam = stacks.start("ignore-right", NEXT, b"right");
            let right = (pam.authenticate(), pam.account());
            match (wrong, right) {
                (PERM_DENIED, (SUCCESS, SUCCESS)) => 0,
                (MAXTRIES, (SUCCESS, SUCCESS)) => 1,
                _ => 2,
            }
        });
        assert!(answers[0] < 2, "damage {seed}");
        refused += answers[0];
        scene.remove();
        let next = at_once(1, |_| stacks.start("deny-wrong", SOURCE, b"next").authenticate());
        assert_eq!(next, [PERM_DENIED], "damage {seed}, mended");
    }
    eprintln!(
        "{DAMAGES} damaged stores: {refused} could not be used, {} could",
        DAMAGES - refused as u32
    );
}

/// Holds the table against the committed one, or writes it.
fn compare(table: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let text = fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once("<!-- table -->\n").expect("where the table begins");
    let (old, tail) = rest.split_once("<!-- end -->\n").expect("where it ends");
    if std::env::var_os("PREFIXQUOTA_WRITE_DOCS").is_some() {
        let new = format!("{head}<!-- table -->\n{table}<!-- end -->\n{tail}");
        return fs::write(file, new).unwrap();
    }
    // The last column is the time.
    let stable = |table: &str| {
        let lines = table.lines().map(|line| line.rsplitn(3, '|').last().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(stable(table), stable(old), "PREFIXQUOTA_WRITE_DOCS=1 writes docs/faults.md anew");
}

fn table(rows: &[Row]) -> String {
    let mut table =
        "| fault | `on_error = ignore` | `on_error = deny` | in the log | longest, ms |\n\
                     | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for Row { cells, longest } in rows {
        let cells = cells.join(" | ");
        writeln!(table, "| {cells} | {} |", longest.as_millis()).unwrap();
    }
    table
}
