//! Passwords and the names that were guessed: what becomes of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::lab;
use common::pam::{Pam, SUCCESS, at_once, stack, write_stack};

/// Not even with `debug`, and whatever fails.
#[test]
fn no_password_and_no_guessed_name_is_kept_or_logged() {
    let test = "no_password_and_no_guessed_name_is_kept_or_logged";
    let Some(lab) = lab::enter(test, &[]) else { return };
    let confdir = lab.dir().join("stacks");
    fs::create_dir(&confdir).unwrap();
    let state = lab.dir().join("state");
    let arguments = format!("{} settle=0s debug", lab.arguments());
    for (service, arguments) in [
        ("one", arguments.clone()),
        ("deny", format!("{arguments} deny=192.0.2.0/24")),
        ("strict", format!("{arguments} strict=yes repeat=no [stranger_quota=3 per 1h]")),
        ("broken", "database=/nonexistent/q.db debug on_error=deny".to_owned()),
    ] {
        write_stack(&confdir, service, &stack(&arguments, "perm_denied"));
    }
    const SECRETS: [&str; 2] = ["Xq7-password-Zw", "Xq7-typed-as-user-Zw"];
    // In a process of its own, as all that calls libpam here.
    let codes = at_once(1, |_| {
        let [password, name] = SECRETS;
        for service in ["one", "deny", "strict", "broken"] {
            for (i, rhost) in ["2001:db8::1", "192.0.2.1", "host.example", ""].iter().enumerate() {
                for j in 0..4 {
                    let password = format!("{password}{i}{j}");
                    let user = format!("{name}{i}");
                    let pam =
                        Pam::start(&confdir, service, user.as_bytes(), Some(password.as_bytes()));
                    if pam.rhost(rhost.as_bytes()).authenticate() == SUCCESS {
                        return 1;
                    }
                }
            }
        }
        0
    });
    assert_eq!(codes, [0]);
    let lines = lab.log_with(&["pam_prefixquota("]);
    let has = |word: &str| lines.iter().any(|line| line.contains(word));
    assert!(has("denied: ") && has("charged") && has("(on_error)"), "{lines:#?}");
    let mut kept = vec![("syslog".to_owned(), lines.join("\n").into_bytes())];
    for file in fs::read_dir(state).unwrap().map(|file| file.unwrap().path()) {
        kept.push((file.display().to_string(), fs::read(file).unwrap()));
    }
    assert!(kept.len() >= 3, "syslog, the store and its log");
    for (what, bytes) in kept {
        for secret in SECRETS {
            let is_there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!is_there, "{secret} in {what}");
        }
    }
}

/// Tells [`holder`] where its stacks are, which of them to use, and how long the password is.
const HOLDER: &str = "PREFIXQUOTA_HOLDER";
/// As long as what is hashed in one block of 64 bytes, and so long that nothing else soon gets its
/// memory when it is freed.
const LENGTHS: [usize; 2] = [40, 500];

/// A password that no program has as a constant.
fn password(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'!' + (i * i * i / 7 % 94) as u8).collect()
}

/// Not the module nor the hash in it: afterwards no more of the password is in memory, freed memory
/// and stacks included, than without the module.
#[test]
fn no_copy_of_a_password_stays_in_memory() {
    let dir = common::private_dir();
    let arguments = format!("database={} settle=0s", dir.path().join("q.db").display());
    let guarded = stack(&arguments, "perm_denied");
    // Who asks in place of the module, and leaves what libpam and the caller leave.
    let asks = "auth optional pam_unix.so nodelay\n";
    let denies = "auth required pam_deny.so\n";
    write_stack(dir.path(), "bare", &format!("{asks}{denies}"));
    write_stack(dir.path(), "guarded", &format!("{guarded}{asks}{denies}"));
    for length in LENGTHS {
        let [bare, guarded] =
            ["bare", "guarded"].map(|service| copies(dir.path(), service, length));
        assert!(bare > 0, "the caller of the test itself has one");
        assert_eq!(guarded, bare, "copies of {length} bytes, with the module and without");
    }
}

/// How many copies of the password a process has after a failed login.
fn copies(confdir: &Path, service: &str, length: usize) -> usize {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--nocapture"])
        .env(HOLDER, format!("{} {service} {length}", confdir.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("has failed")), "{service}");
    // What frees memory overwrites 16 bytes at its start.
    let copies = count_in_memory(holder.id(), &password(length)[20..40]);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    copies
}

fn count_in_memory(process: u32, needle: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let writable = maps.lines().filter(|line| line.contains(" rw"));
    let count = |line: &str| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Some pages of the kernel's cannot be read.
        let bytes = memory.read_exact_at(&mut bytes, from).map_or(vec![], |()| bytes);
        bytes.windows(needle.len()).filter(|part| *part == needle).count()
    };
    writable.map(count).sum()
}

/// The process with the password; nothing unless [`copies`] starts it.
#[test]
fn holder() {
    let Ok(order) = std::env::var(HOLDER) else { return };
    let [confdir, service, length] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let password = password(length.parse().unwrap());
    let mut pam = Pam::start(Path::new(confdir), service, b"eve", Some(&password));
    pam = pam.rhost(b"2001:db8::1");
    assert_ne!(pam.authenticate(), SUCCESS);
    println!("{service} has failed");
    std::io::stdout().flush().unwrap();
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
}
