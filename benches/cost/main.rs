//! What a login attempt costs: with the module and with its peers, against `pam_deny` alone.
//!
//! `cargo bench --bench cost`, as root; `PREFIXQUOTA_MODULE` names the module under test. Each
//! attempt runs from `pam_start` to `pam_end` in a process of its own, as with sshd, so loading
//! the module and opening its store are paid each time. The candidates take turns in random order,
//! so that a machine whose speed drifts slows all of them alike: read the ratios, not the times.
//! Nothing here fails because it is slow. What is asserted is that every attempt got the answer,
//! and every charge the row, without which its time would mean nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::pam::{AUTH_ERR, MAXTRIES, Pam, at_once, write_stack};
use rusqlite::Connection;
use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv6Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

const ROUNDS: u32 = 400;
const MANY_ROWS: u32 = 1_000_000;
/// More than a /19 ever has: its quota of 1146 bounds it to 9088.
const ROWS_OF_A_19: u32 = 10_000;
const CROWDS: [usize; 2] = [50, 200];

/// A user of every system: `pam_faillock` counts no user that does not exist.
const USER: &str = "nobody";
const EXHAUSTED: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1);
/// Longer than the default `settle`: younger charges are waited for before a denial.
const SETTLED: Duration = Duration::from_millis(3200);

/// The password check of the attempts: every guess is wrong.
const DENY: &str = "auth required pam_deny.so\n";

fn main() {
    // SAFETY: geteuid(2) has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        println!("cost: skipped, the module does nothing for callers that are not root");
        return;
    }
    let dir = common::private_dir();
    costs(dir.path());
    races(dir.path());
    size(dir.path());
}

fn costs(dir: &Path) {
    let confdir = &subdir(dir, "pam.d");
    let (few, many) = (subdir(dir, "few").join("db"), subdir(dir, "many").join("db"));
    write_stack(confdir, "pam_deny", DENY);
    write_stack(confdir, "few", &(our_line(&few) + DENY));
    write_stack(confdir, "many", &(our_line(&many) + DENY));
    let wide = subdir(dir, "wide").join("db");
    let widest = "strict=yes ipv6_widest=19 ipv6_base=1000000";
    let line = our_line(&wide).replace('\n', &format!(" {widest}\n"));
    write_stack(confdir, "wide", &(line + DENY));
    write_stack(confdir, "faillock", &faillock_stack(&subdir(dir, "faillock")));
    write_stack(confdir, "abl", &abl_stack(&subdir(dir, "abl")));
    // Every system has it; without, libpam takes its time to complain.
    write_stack(confdir, "other", DENY);
    let mut candidates = [
        Candidate::new("pam_deny", Source::Stranger, AUTH_ERR),
        Candidate::new("few", Source::Loopback, AUTH_ERR),
        Candidate::new("few", Source::Stranger, AUTH_ERR),
        Candidate::new("few", Source::Exhausted, MAXTRIES),
        Candidate::new("many", Source::Stranger, AUTH_ERR),
        Candidate::new("faillock", Source::Stranger, AUTH_ERR),
        Candidate::new("abl", Source::Stranger, AUTH_ERR),
        Candidate::new("wide", Source::Stranger, AUTH_ERR),
    ];
    let [deny, exempt, charged, denied, charged_many, faillock, abl, charged_wide] =
        [0, 1, 2, 3, 4, 5, 6, 7];

    let mut caller = Caller::start(dir, confdir);
    let mut rng = Rng(1);
    caller.attempt("many", EXHAUSTED); // makes the store
    fill(&many, MANY_ROWS, (0x2400_0000, 0xff_ffff), &mut rng);
    caller.attempt("wide", EXHAUSTED);
    // The attempts come from here, and each of them reads all of these.
    fill(&wide, ROWS_OF_A_19, (0x2600_0000, 0x1fff), &mut rng);
    for _ in 0..2 {
        caller.attempt("few", EXHAUSTED);
    }
    std::thread::sleep(SETTLED);

    for round in 0..ROUNDS {
        for i in rng.shuffled(candidates.len()) {
            let time = candidates[i].attempt(&mut caller, round, &mut rng);
            candidates[i].microseconds.push(time);
        }
    }
    caller.end();
    assert_eq!(rows(&few), ROUNDS + 1, "one row for each charge, and none for a denial");

    let median = candidates.map(|mut candidate| {
        candidate.microseconds.sort_unstable_by(f64::total_cmp);
        candidate.microseconds[candidate.microseconds.len() / 2]
    });
    println!("{:<44}{:>10}{:>9}   limit", "attempt / compared with", "median us", "ratio");
    for (what, of, to, limit) in [
        ("pam_deny alone", deny, deny, "(floor)"),
        ("exempt / pam_deny", exempt, deny, "-"),
        ("charged / pam_deny", charged, deny, "at most 4"),
        ("denied by quota / pam_deny", denied, deny, "at most 3"),
        ("charged, 1000000 rows / charged, few rows", charged_many, charged, "at most 1.2"),
        ("charged, 10000 rows in its /19, strict", charged_wide, charged, "-"),
        ("pam_faillock / pam_deny", faillock, deny, "-"),
        ("pam_abl / pam_deny", abl, deny, "-"),
        ("pam_abl / charged", abl, charged, "at least 8"),
    ] {
        let (time, ratio) = (median[of], median[of] / median[to]);
        println!("{what:<44}{time:>10.0}{ratio:>9.2}   {limit}");
    }
}

/// Of guesses that all start before the first is answered, how many reach the password check.
fn races(dir: &Path) {
    own_shadow(dir);
    let confdir = &subdir(dir, "races");
    for crowd in CROWDS {
        let line = our_line(&subdir(dir, &format!("crowd{crowd}")).join("db"));
        write_stack(confdir, "race", &format!("{line}auth required pam_unix.so nodelay\n"));
        let answers = at_once(crowd, |i| {
            let password = format!("guess {i}");
            let mut pam = Pam::start(confdir, "race", b"root", Some(password.as_bytes()));
            pam = pam.rhost(b"2a00::1");
            pam.authenticate()
        });
        let reached = answers.iter().filter(|&&answer| answer != MAXTRIES).count();
        let what = format!("{crowd} guesses at once: reach pam_unix");
        println!("{what:<54}{reached:>9}   exactly 2");
    }
}

/// Gives this process an `/etc/shadow` of its own, in which root has a yescrypt password: then
/// `pam_unix` takes its usual time, whatever the passwords of this machine are.
fn own_shadow(dir: &Path) {
    const ROOT: &str = "root:$y$j9T$abcdefghijklmnopqrstu.\
                        $1I1lG3rDlhsuy8leGmcPnvDlLK2Q.SkO4HTCtINZ1G5:20000:0:99999:7:::\n";
    let shadow = dir.join("shadow");
    fs::write(&shadow, ROOT).unwrap();
    let shadow = CString::new(shadow.to_str().unwrap()).unwrap();
    let mount = |source: &CStr, target: &CStr, flags| {
        let (source, target, none) = (source.as_ptr(), target.as_ptr(), std::ptr::null());
        // SAFETY: two C strings; neither call that follows reads a type or data.
        let result = unsafe { libc::mount(source, target, none, flags, none.cast()) };
        assert_eq!(result, 0, "mount: {}", std::io::Error::last_os_error());
    };
    // SAFETY: the mounts become those of this process, which has one thread, and end with it.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "unshare");
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE);
    mount(&shadow, c"/etc/shadow", libc::MS_BIND);
}

/// The module file as it is installed.
fn size(dir: &Path) {
    let stripped = dir.join("stripped.so");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(common::module()).status();
    assert!(status.is_ok_and(|status| status.success()), "strip, of binutils");
    let kilobytes = fs::metadata(stripped).unwrap().len().div_ceil(1000);
    println!("{:<54}{kilobytes:>9}   at most 1500", "module file, stripped, kB");
}

/// What is measured: a service of `pam.d`, where its attempts come from, and the answer they get.
struct Candidate<'a> {
    service: &'a str,
    source: Source,
    answer: c_int,
    microseconds: Vec<f64>,
}

enum Source {
    /// Each from a /32 of its own: never over quota.
    Stranger,
    Exhausted,
    Loopback,
}

impl<'a> Candidate<'a> {
    fn new(service: &'a str, source: Source, answer: c_int) -> Self {
        Candidate { service, source, answer, microseconds: Vec::new() }
    }

    fn attempt(&self, caller: &mut Caller, round: u32, rng: &mut Rng) -> f64 {
        let source = match self.source {
            Source::Stranger => rng.address(0x2600_0000 + round),
            Source::Exhausted => EXHAUSTED,
            Source::Loopback => Ipv6Addr::LOCALHOST,
        };
        let (answer, microseconds) = caller.attempt(self.service, source);
        assert_eq!(answer, self.answer, "{}", self.service);
        microseconds
    }
}

/// The PAM application: `caller.c` in a process of its own.
struct Caller {
    process: Child,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
}

impl Caller {
    fn start(dir: &Path, confdir: &Path) -> Caller {
        let program = dir.join("caller");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/caller.c");
        let mut compiler = Command::new("cc");
        compiler.arg("-O2").arg(source).arg("-o").arg(&program).arg("-lpam");
        assert!(compiler.status().is_ok_and(|status| status.success()), "cc");
        let mut process = Command::new(program)
            .args([confdir.as_os_str(), USER.as_ref()])
            // Cargo's: the loader would look there first for each library of each module.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let results = BufReader::new(process.stdout.take().unwrap());
        Caller { process, orders, results }
    }

    /// One whole attempt: the answer, and the microseconds from the fork to the end.
    fn attempt(&mut self, service: &str, source: Ipv6Addr) -> (c_int, f64) {
        writeln!(self.orders, "{service} {source}").unwrap();
        let mut result = String::new();
        self.results.read_line(&mut result).unwrap();
        let (answer, nanoseconds) = result.trim_end().split_once(' ').unwrap();
        (answer.parse().unwrap(), nanoseconds.parse::<f64>().unwrap() / 1000.0)
    }

    fn end(mut self) {
        drop(self.orders);
        self.process.wait().unwrap();
    }
}

/// The line that `prefixquota enable` writes.
fn our_line(database: &Path) -> String {
    let control = "[success=ok ignore=ignore module_unknown=ignore default=die]";
    format!("auth {control} {} database={}\n", common::module().display(), database.display())
}

/// As in faillock(8), with a limit that is never met.
fn faillock_stack(dir: &Path) -> String {
    let arguments = format!("dir={} deny=10000 nodelay", dir.display());
    format!(
        "auth required pam_faillock.so preauth {arguments}\n\
         {DENY}\
         auth [default=die] pam_faillock.so authfail {arguments}\n"
    )
}

/// Debian's settings, but for the rules: one for hosts, and none that would lock the user out.
fn abl_stack(dir: &Path) -> String {
    let settings = dir.join("abl.conf");
    let home = dir.display();
    fs::write(
        &settings,
        format!(
            "db_home={home}\nlimits=1000-1200\n\
             host_db={home}/hosts.db\nhost_purge=1d\nhost_rule=*:10/1h,30/1d\n\
             user_db={home}/users.db\nuser_purge=1d\n"
        ),
    )
    .unwrap();
    format!("auth required pam_abl.so config={}\n{DENY}", settings.display())
}

/// Adds addresses, each in a /64 of its own, in the /32s from `first` on, `bits` of which vary.
fn fill(database: &Path, rows: u32, (first, bits): (u32, u32), rng: &mut Rng) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let mut store = Connection::open(database).unwrap();
    let transaction = store.transaction().unwrap();
    {
        let mut insert = transaction
            .prepare("INSERT INTO failure (address, source, level, at) VALUES (?, ?, 1.0, ?)")
            .unwrap();
        for _ in 0..rows {
            let widest = first + (rng.next() as u32 & bits);
            let address = rng.address(widest);
            insert.execute((address.octets(), address.to_string(), now)).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(store);
    // What the kernel has still to write must not slow the attempts.
    // SAFETY: sync(2) has no preconditions.
    unsafe { libc::sync() };
}

fn rows(database: &Path) -> u32 {
    let store = Connection::open(database).unwrap();
    store.query_row("SELECT count(*) FROM failure", (), |row| row.get(0)).unwrap()
}

fn subdir(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    path
}

/// SplitMix64: the same addresses and turns in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An address in the /32 that `widest` names.
    fn address(&mut self, widest: u32) -> Ipv6Addr {
        let bits = u128::from(widest) << 96
            | u128::from(self.next() >> 32) << 64
            | u128::from(self.next());
        Ipv6Addr::from_bits(bits)
    }

    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.next() as usize % (i + 1));
        }
        order
    }
}
