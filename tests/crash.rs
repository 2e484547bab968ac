//! Killed at any moment: whatever the process was doing to the store, the store stays sound, holds a
//! whole attempt or none of it, and keeps nobody out.
//!
//! A tracer stops the process at each of its system calls in turn and kills it there. Where another
//! process has the store open, also at random instructions behind it: the index of the write-ahead
//! log, which they share, is memory and changes between system calls.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use common::pam::{PERM_DENIED, Pam, SUCCESS, at_once, shared_flag, stack, write_stack};

/// Whom the killed process tries to log in, from where. Afterwards another one comes from `NEXT`.
const FROM: &str = "2001:db8::1";
const NEXT: &str = "2001:db9::1";

/// How the process that is killed came upon the store.
enum Before {
    /// There is none yet.
    Missing,
    /// It holds the counts of some others.
    Used,
    /// The same, and another process has it open: then nobody makes the shared index anew.
    InUse,
    /// Its write-ahead log is long enough to be folded into the file.
    LongLog,
    /// An older version made it.
    Older,
}

/// What is in the store of the attempt: failures of its address, wrong passwords remembered, places
/// known.
type State = (i64, i64, i64);

const NOTHING: State = (0, 0, 0);
const CHARGED: State = (1, 1, 0);
const LEARNT: State = (0, 0, 2);

/// One test: the children of one must not be forked while another is inside SQLite.
#[test]
fn a_killed_attempt_is_all_or_nothing() {
    let cases = [
        ("a store is made", Before::Missing, "wrong", &[NOTHING, CHARGED][..]),
        ("a charge", Before::Used, "wrong", &[NOTHING, CHARGED]),
        ("a charge and its refund", Before::Used, "right", &[NOTHING, CHARGED, LEARNT]),
        ("the same, others there", Before::InUse, "right", &[NOTHING, CHARGED, LEARNT]),
        ("the log is folded", Before::LongLog, "wrong", &[NOTHING, CHARGED]),
        ("an upgrade", Before::Older, "wrong", &[NOTHING, CHARGED]),
    ];
    stay_on_one_processor();
    for (what, before, service, states) in cases {
        let scene = Scene::new(&before);
        let kills = scene.kill_everywhere(service, states, matches!(before, Before::InUse));
        eprintln!("{what}: killed at each of {kills} system calls");
        assert!(kills > 50, "{what}: only {kills} system calls");
    }
}

/// Tracer and traced take turns a million times: side by side they would wait for each other longer.
fn stay_on_one_processor() {
    // SAFETY: an empty set, to which the processor of this moment is added.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// A folder with PAM stacks, and the files of a store as each killed process finds them.
struct Scene {
    dir: tempfile::TempDir,
    template: tempfile::TempDir,
    /// How far the attempt came: whether `auth` has answered, and `account`.
    answered: [&'static AtomicBool; 2],
}

impl Scene {
    fn new(before: &Before) -> Scene {
        // Nothing decays, and nobody waits.
        let (dir, template) = (memory(), memory());
        let database = dir.path().join("q.db");
        let arguments = format!("database={} settle=0s half_life=36500d", database.display());
        write_stack(dir.path(), "wrong", &stack(&arguments, "perm_denied"));
        write_stack(dir.path(), "right", &stack(&arguments, "success"));
        let scene = Scene { dir, template, answered: [shared_flag(), shared_flag()] };
        match before {
            Before::Missing => {}
            Before::Used | Before::InUse => scene.attempts(3),
            Before::LongLog => scene.grow_log(),
            Before::Older => scene.make_old(),
        }
        for file in files(scene.dir.path()) {
            // What a crash leaves: the index is made anew from the log.
            if !file.to_string_lossy().ends_with("-shm") {
                fs::copy(&file, scene.template.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        scene
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("q.db")
    }

    /// Some failures of others.
    fn attempts(&self, count: u32) {
        let codes = at_once(1, |_| {
            let ones = (0..count).map(|i| self.guess(&format!("2001:dba:{i:x}::1"), i));
            c_int::from(ones.filter(|&code| code == PERM_DENIED).count() != count as usize)
        });
        assert_eq!(codes, [0]);
    }

    /// A reader that stays keeps the log from being folded meanwhile.
    fn grow_log(&self) {
        self.attempts(1);
        let mut reader =
            common::other_process(&self.database(), "BEGIN; SELECT count(*) FROM failure;");
        self.attempts(60);
        let log = fs::metadata(self.dir.path().join("q.db-wal")).unwrap().len();
        assert!(log > 500_000, "a log of {log} bytes");
        end(&mut reader);
    }

    fn make_old(&self) {
        let old = rusqlite::Connection::open(self.database()).unwrap();
        old.execute_batch("PRAGMA application_id = 0x50667851; PRAGMA journal_mode = WAL").unwrap();
        old.execute_batch(include_str!("../src/schema/1.sql")).unwrap();
        old.execute_batch("CREATE VIEW prefix_count AS SELECT source FROM failure").unwrap();
        old.execute_batch("PRAGMA user_version = 1").unwrap();
        common::lab::run("chmod", &["0600", self.database().to_str().unwrap()]);
    }

    /// Everything as the process that is killed finds it.
    fn set(&self) {
        for file in files(self.dir.path()) {
            fs::remove_file(file).unwrap();
        }
        for file in files(self.template.path()) {
            fs::copy(&file, self.dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }

    fn guess(&self, rhost: &str, i: u32) -> c_int {
        self.start("wrong", rhost, i).authenticate()
    }

    fn start(&self, service: &str, rhost: &str, i: u32) -> Pam {
        let password = format!("guess {i}");
        let pam = Pam::start(self.dir.path(), service, b"alice", Some(password.as_bytes()));
        pam.rhost(rhost.as_bytes())
    }

    /// Kills an attempt at its first system call, another at its second and so on, until one comes
    /// to its end; how many were killed. What is found of one must be among `states`: after an
    /// answer of the module at least what it has answered.
    fn kill_everywhere(&self, service: &str, states: &[State], in_use: bool) -> u32 {
        let mut random = common::Random(1);
        let mut found_all = vec![false; states.len()];
        for call in 0.. {
            let mut ended = false;
            let more = u32::from(in_use);
            for step in 0..=more {
                let steps = if step == 0 { 0 } else { 1 + random.below(1_000) };
                self.set();
                let mut other = in_use.then(|| {
                    common::other_process(&self.database(), "SELECT count(*) FROM failure;")
                });
                ended = self.kill_at(call, steps, service);
                let found = self.examine();
                if let Some(other) = &mut other {
                    end(other);
                }
                let answers =
                    self.answered.iter().filter(|answered| answered.load(Ordering::Acquire));
                let least = answers.count().min(states.len() - 1);
                let at = format!("killed at system call {call} and {steps} instructions");
                let index = states.iter().position(|state| *state == found);
                let index = index.unwrap_or_else(|| panic!("{at}: {found:?}"));
                assert!(index >= least, "{at}: {found:?} after {least} answers");
                found_all[index] = true;
                assert!(!ended || index == states.len() - 1, "to its end, and {found:?}");
            }
            if ended {
                assert!(found_all.iter().all(|&found| found), "not all were met: {found_all:?}");
                return call;
            }
        }
        unreachable!()
    }

    /// Runs an attempt in a child, and kills it when it is about to make its system call number
    /// `call`, or `steps` instructions later; whether it ended before that.
    fn kill_at(&self, call: u32, steps: u64, service: &str) -> bool {
        for answered in self.answered {
            answered.store(false, Ordering::Release);
        }
        // SAFETY: the child lets itself be traced, and leaves by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            let mut pam = self.start(service, FROM, 1);
            // SAFETY: as above.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
            }
            let code = pam.authenticate();
            self.answered[0].store(true, Ordering::Release);
            if code == SUCCESS {
                pam.account();
                self.answered[1].store(true, Ordering::Release);
            }
            // SAFETY: as sshd's children leave.
            unsafe { libc::_exit(0) };
        }
        let stopped = wait(pid);
        assert!(libc::WIFSTOPPED(stopped) && libc::WSTOPSIG(stopped) == libc::SIGSTOP);
        let ended = (0..=2 * call).any(|_| go_on(pid, libc::PTRACE_SYSCALL))
            || (0..steps).any(|_| go_on(pid, libc::PTRACE_SINGLESTEP));
        if !ended {
            // SAFETY: our own child, which is stopped.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            let status = wait(pid);
            assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
        }
        ended
    }

    /// The next attempt works at once, and the store is sound. What there is of the one before?
    fn examine(&self) -> State {
        assert_eq!(at_once(1, |_| self.guess(NEXT, 2)), [PERM_DENIED]);
        let conn = rusqlite::Connection::open(self.database()).unwrap();
        let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let ask = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let level = |address: &str| {
            let sql = "SELECT coalesce(sum(round(1000 * level)), 0) FROM failure WHERE source = ?1";
            let level: f64 = conn.query_row(sql, [address], |row| row.get(0)).unwrap();
            assert!(level == 0.0 || level == 1_000.0, "{address}: {level}");
            (level / 1_000.0) as i64
        };
        assert_eq!(level(NEXT), 1, "the next attempt is counted");
        let counted = "SELECT (SELECT count(*) FROM failure)
                       = (SELECT value FROM meta WHERE key = 'rows')";
        assert_eq!(ask(counted), 1, "the number of rows in `meta` is that of the table");
        // The passwords of all others are as many as their failures.
        let others = "SELECT (SELECT total(length(tags) / 10) FROM wrong)
                      - (SELECT count(*) FROM failure WHERE source <> '2001:db8::1')";
        let others = conn.query_row(others, [], |row| row.get::<_, f64>(0)).unwrap() as i64;
        (level(FROM), others, ask("SELECT count(*) FROM known"))
    }
}

/// A private directory in memory: power failures are not what is tried here, and thousands of syncs
/// take their time.
fn memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pq").tempdir_in("/dev/shm").expect("a file system in memory")
}

/// The files of the store in `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    all.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("q.db")).collect()
}

fn end(process: &mut Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Lets the child run to where it enters or leaves a system call, or for one instruction; whether it
/// has ended.
fn go_on(pid: libc::pid_t, how: libc::c_uint) -> bool {
    // SAFETY: our own child, which is stopped.
    let code = unsafe { libc::ptrace(how, pid, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
    assert_eq!(code, 0, "ptrace: {}", std::io::Error::last_os_error());
    let status = wait(pid);
    assert!(!libc::WIFSIGNALED(status), "the child died: {status:#x}");
    if libc::WIFEXITED(status) {
        return true;
    }
    assert_eq!(libc::WSTOPSIG(status), libc::SIGTRAP, "no signal but the tracer's");
    false
}

fn wait(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}
