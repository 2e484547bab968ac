//! How many lines a second `prefixquota replay` reads, on one core.
//!
//! `cargo bench --bench replay`. Each log is read three times by the command as it is installed;
//! the fastest counts. Nothing here fails because it is slow.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const LINES: u32 = 1_000_000;
const ROUNDS: u32 = 3;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut logs = vec![
        ("lines that do not matter", write(dir.path(), "other", &other()), false),
        ("sshd, 1 guess in 5 lines", write(dir.path(), "sshd", &sshd()), false),
        ("sshd, packed by gzip", packed(dir.path(), &sshd()), false),
        ("sshd, as a journal", write(dir.path(), "journal", &journal()), true),
        ("Dovecot and Postfix", write(dir.path(), "mail", &mail()), false),
    ];
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let corpora = std::env::var_os("PREFIXQUOTA_CORPORA").map_or(corpora, PathBuf::from);
    match fs::read_to_string(corpora.join("loghub/OpenSSH_2k.log")) {
        Ok(log) => {
            let log = format!("{}\n", log.trim_end()).repeat(LINES as usize / 2_000);
            logs.push((
                "a real log of sshd, over and over",
                write(dir.path(), "real", &log),
                false,
            ));
        }
        Err(error) => println!("no real log: {} ({error})", corpora.display()),
    }
    println!("{:<36}{:>12}{:>10}{:>14}", "log", "lines", "attempts", "lines/s");
    for (name, file, is_journal) in logs {
        let (lines, attempts, seconds) = fastest(&file, is_journal);
        println!("{name:<36}{lines:>12}{attempts:>10}{:>14.0}", lines as f64 / seconds);
    }
}

/// Lines, attempts, and the seconds that the command was busy.
fn fastest(file: &Path, is_journal: bool) -> (u64, u64, f64) {
    let mut best = (0, 0, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (before, started) = (busy(), Instant::now());
        let mut command = Command::new(env!("CARGO_BIN_EXE_prefixquota"));
        command.args(["replay", "--format", "json"]).args(is_journal.then_some("--journal"));
        let output = command.arg(file).output().unwrap();
        let seconds = (busy() - before).min(started.elapsed().as_secs_f64());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| json[name].as_u64().unwrap();
        if seconds < best.2 {
            best = (count("lines"), count("attempts"), seconds);
        }
    }
    best
}

/// The seconds that all children have kept a core busy: others may share the machine.
fn busy() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a struct of the right type, which the call fills.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn write(dir: &Path, name: &str, log: &str) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, log).unwrap();
    file
}

fn packed(dir: &Path, log: &str) -> PathBuf {
    let file = dir.join("packed.gz");
    let to = fs::File::create(&file).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    gzip.write_all(log.as_bytes()).unwrap();
    gzip.finish().unwrap();
    file
}

/// Thirty days of November, evenly.
fn stamp(i: u32) -> String {
    let second = u64::from(i) * 29 * 86_400 / u64::from(LINES);
    let (day, second) = (second / 86_400 + 1, second % 86_400);
    format!("Nov {day:>2} {:02}:{:02}:{:02} web", second / 3_600, second / 60 % 60, second % 60)
}

/// One of 20 000 addresses in 200 networks.
fn address(i: u32) -> String {
    let i = i.wrapping_mul(2_654_435_761) >> 8;
    match i % 2 {
        0 => format!("2001:db8:{:x}:{:x}::7", i / 2 % 100, i / 200 % 100),
        _ => format!("198.{}.{}.7", 18 + i / 2 % 2, i / 4 % 100),
    }
}

fn other() -> String {
    let mut log = String::new();
    for i in 0..LINES {
        let _ = match i % 4 {
            0 => writeln!(
                log,
                "{} kernel: [UFW BLOCK] IN=eth0 OUT= SRC={} LEN=40 PROTO=TCP",
                stamp(i),
                address(i)
            ),
            1 => writeln!(
                log,
                "{} CRON[{i}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
                stamp(i)
            ),
            2 => writeln!(log, "{} systemd[1]: Started Session {i} of user ann.", stamp(i)),
            _ => writeln!(
                log,
                "{} - - [20/Nov/2026:10:00:00 +0000] \"GET /{i} HTTP/1.1\" 200 512 \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"",
                address(i)
            ),
        };
    }
    log
}

/// What sshd and pam_unix say of one guess, and now and then of a login.
fn conversation(i: u32) -> String {
    let (pid, address) = (1_000 + i / 5 % 30_000, address(i / 5));
    if (i / 5).is_multiple_of(20) {
        let user = i / 100 % 400;
        return match i % 5 {
            0 => format!("sshd[{pid}]: Connection from {address} port 4242 on 192.0.2.1 port 22"),
            1 => format!(
                "sshd[{pid}]: Accepted password for user{user} from {address} port 4242 ssh2"
            ),
            2 => format!(
                "sshd[{pid}]: pam_unix(sshd:session): session opened for user user{user}(uid=1000) by (uid=0)"
            ),
            3 => format!(
                "sshd[{pid}]: Received disconnect from {address} port 4242:11: disconnected by user"
            ),
            _ => format!("sshd[{pid}]: pam_unix(sshd:session): session closed for user user{user}"),
        };
    }
    match i % 5 {
        0 => format!("sshd[{pid}]: Invalid user admin{} from {address} port 4242", i % 90),
        1 => format!("sshd[{pid}]: pam_unix(sshd:auth): check pass; user unknown"),
        2 => format!(
            "sshd[{pid}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address} "
        ),
        3 => format!(
            "sshd[{pid}]: Failed password for invalid user admin{} from {address} port 4242 ssh2",
            i % 90
        ),
        _ => format!(
            "sshd[{pid}]: Connection closed by invalid user admin {address} port 4242 [preauth]"
        ),
    }
}

fn sshd() -> String {
    let mut log = String::new();
    for i in 0..LINES {
        let _ = writeln!(log, "{} {}", stamp(i), conversation(i));
    }
    log
}

fn journal() -> String {
    let mut log = String::new();
    for i in 0..LINES / 4 {
        let time = 1_790_000_000_000_000 + u64::from(i) * 1_000_000;
        let text = conversation(i);
        let (_, message) = text.split_once(": ").unwrap();
        let _ = writeln!(
            log,
            "{{\"__CURSOR\":\"s=0123456789abcdef0123456789abcdef;i={i:x}\",\"__REALTIME_TIMESTAMP\":\"{time}\",\
             \"_HOSTNAME\":\"web\",\"_BOOT_ID\":\"0123456789abcdef0123456789abcdef\",\"PRIORITY\":\"6\",\
             \"_SYSTEMD_UNIT\":\"ssh.service\",\"_UID\":\"0\",\"_GID\":\"0\",\"_COMM\":\"sshd\",\
             \"_EXE\":\"/usr/sbin/sshd\",\"SYSLOG_FACILITY\":\"10\",\"SYSLOG_IDENTIFIER\":\"sshd\",\
             \"_PID\":\"{}\",\"MESSAGE\":\"{message}\"}}",
            1_000 + i / 5
        );
    }
    log
}

fn mail() -> String {
    let mut log = String::new();
    for i in 0..LINES {
        let (pid, address) = (1_000 + i / 4 % 30_000, address(i / 4));
        let _ = match i % 4 {
            0 => writeln!(
                log,
                "{} dovecot: auth-worker({pid}): pam(ann,{address},<a>): pam_authenticate() failed: Authentication failure (Password mismatch?)",
                stamp(i)
            ),
            1 => writeln!(
                log,
                "{} dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<ann>, method=PLAIN, rip={address}, lip=192.0.2.1, TLS, session=<a>",
                stamp(i)
            ),
            2 => {
                writeln!(log, "{} postfix/smtpd[{pid}]: connect from unknown[{address}]", stamp(i))
            }
            _ => writeln!(
                log,
                "{} postfix/smtpd[{pid}]: disconnect from unknown[{address}] ehlo=1 auth=0/1 commands=1/2",
                stamp(i)
            ),
        };
    }
    log
}
