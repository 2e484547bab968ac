//! `enable` and `disable` on the stacks that distributions ship (`tests/stacks/`), driven by libpam.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Run;
use common::lab::{self, RIGHT, USER};
use common::pam::{MAXTRIES, Pam, SUCCESS, guess};
use serde_json::Value;

const DISTRIBUTIONS: [&str; 3] = ["debian-12", "ubuntu-24.04", "fedora-41"];
const SERVICES: [&str; 3] = ["sshd", "dovecot", "vsftpd"];
/// In the lab: Debian's libpam looks for `@include` there alone.
const PAM_D: &str = "/etc/pam.d";
const STORE: &str = "/var/lib/prefixquota/prefixquota.db";

fn data(distribution: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks").join(distribution)
}

/// The stacks of a distribution, to be changed.
fn copied(distribution: &str) -> tempfile::TempDir {
    let dir = common::private_dir();
    for file in fs::read_dir(data(distribution)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

fn put_in_force(distribution: &str) {
    for file in fs::read_dir(data(distribution)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), Path::new(PAM_D).join(file.file_name())).unwrap();
    }
}

fn run(dir: &Path, arguments: &[&str]) -> Run {
    Run::of(common::command().args(arguments).arg("--pam-dir").arg(dir))
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let run = run(dir, arguments);
    assert_eq!((run.status, run.err.as_str()), (0, ""), "{arguments:?}: {}", run.out);
    run.out
}

fn refused(dir: &Path, arguments: &[&str], expected: &str) {
    let before = contents(dir);
    let run = run(dir, arguments);
    assert!(run.status == 2 && run.err.contains(expected), "{arguments:?}: {}{}", run.out, run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert_eq!(contents(dir), before, "{arguments:?} changed something");
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let mut found: Vec<_> = files
        .map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

/// A login through the stack: what `auth` says, and what `account` says behind a success.
fn log_in(service: &str, rhost: &str, password: &[u8]) -> (i32, Option<i32>) {
    let pam =
        Pam::start(Path::new(PAM_D), service, USER.as_bytes(), Some(password)).without_delay();
    let mut pam = pam.rhost(rhost.as_bytes());
    let auth = pam.authenticate();
    (auth, (auth == SUCCESS).then(|| pam.account()))
}

const IN: (i32, Option<i32>) = (SUCCESS, Some(SUCCESS));

fn failures() -> f64 {
    let conn = rusqlite::Connection::open(STORE).unwrap();
    conn.query_row("SELECT coalesce(sum(level), 0.0) FROM failure", [], |row| row.get(0)).unwrap()
}

#[test]
fn enabled_stacks_of_the_distributions_let_in_and_count() {
    let test = "enabled_stacks_of_the_distributions_let_in_and_count";
    let Some(lab) = lab::enter(test, &[]) else { return };
    let mut source = 0;
    // Each in a /32 of its own: a right password makes the whole /32 known for its user.
    let mut next = || {
        source += 1;
        format!("3ffe:{source:x}::1")
    };
    // Without the module file, enabled stacks let in as before.
    for distribution in DISTRIBUTIONS {
        for service in SERVICES {
            let what = format!("{distribution}, {service}, no module");
            put_in_force(distribution);
            assert_eq!(log_in(service, "2001:db8::1", RIGHT.as_bytes()), IN, "{what}");
            let out = done(Path::new(PAM_D), &["enable", service]);
            assert!(out.contains("in none of PAM's module directories"), "{out}");
            assert_eq!(log_in(service, "2001:db8::1", RIGHT.as_bytes()), IN, "{what}");
            assert_ne!(log_in(service, "2001:db8::1", &guess()).0, SUCCESS, "{what}");
        }
    }
    lab.install();
    lab.etc("security/prefixquota.conf", "settle = 0s\n");
    for distribution in DISTRIBUTIONS {
        for service in SERVICES {
            let what = format!("{distribution}, {service}");
            put_in_force(distribution);
            let _ = fs::remove_file(STORE);
            let out = done(Path::new(PAM_D), &["enable", service]);
            assert!(!out.contains("module directories"), "{out}");
            let rhost = next();
            assert_eq!(log_in(service, &rhost, RIGHT.as_bytes()), IN, "{what}");
            assert!(failures() < 1e-9, "{what}: a right password costs nothing");
            let stranger = next();
            assert_ne!(log_in(service, &stranger, &guess()).0, SUCCESS, "{what}");
            assert!((failures() - 1.0).abs() < 0.01, "{what}: a wrong one is counted");
            assert_ne!(log_in(service, &stranger, &guess()).0, SUCCESS, "{what}");
            assert_eq!(log_in(service, &stranger, RIGHT.as_bytes()).0, MAXTRIES, "{what}");
            let shipped = fs::read(data(distribution).join(service)).unwrap();
            done(Path::new(PAM_D), &["disable", service]);
            assert_eq!(fs::read(Path::new(PAM_D).join(service)).unwrap(), shipped, "{what}");
            assert_eq!(log_in(service, &stranger, RIGHT.as_bytes()), IN, "{what}");
        }
    }
}

#[test]
fn enable_is_idempotent_and_disable_its_inverse_byte_for_byte() {
    for distribution in DISTRIBUTIONS {
        for service in SERVICES {
            let dir = copied(distribution);
            let file = dir.path().join(service);
            let shipped = fs::read(&file).unwrap();
            done(dir.path(), &["enable", service]);
            let enabled = fs::read(&file).unwrap();
            assert!(done(dir.path(), &["enable", service]).contains("is enabled already; nothing"));
            assert_eq!(fs::read(&file).unwrap(), enabled);
            let backup = dir.path().join(format!("{service}.prefixquota-backup"));
            assert_eq!(fs::read(backup).unwrap(), shipped);
            done(dir.path(), &["disable", service]);
            assert_eq!(fs::read(&file).unwrap(), shipped, "{distribution}, {service}");
            assert!(done(dir.path(), &["disable", service]).contains("is not enabled; nothing"));
        }
    }
    // What people's editors make of a file.
    let dir = common::private_dir();
    for odd in [
        &b"auth required pam_unix.so\naccount required pam_unix.so"[..],
        b"# \xe4 latin\r\nauth required pam_unix.so\r\naccount required pam_unix.so\r\n",
        b"# ends in \\\nauth required pam_unix.so\naccount required \\\n  pam_unix.so\n\n\n",
    ] {
        fs::write(dir.path().join("odd"), odd).unwrap();
        done(dir.path(), &["enable", "odd"]);
        assert_ne!(fs::read(dir.path().join("odd")).unwrap(), odd);
        assert!(done(dir.path(), &["enable", "odd"]).contains("enabled already"));
        done(dir.path(), &["disable", "odd"]);
        assert_eq!(fs::read(dir.path().join("odd")).unwrap(), odd);
    }
}

#[test]
fn with_a_second_factor_repeats_are_counted() {
    let dir = common::private_dir();
    let stack = "auth include common\naccount required pam_unix.so\n";
    fs::write(dir.path().join("sshd"), stack).unwrap();
    let common = "auth required pam_unix.so\nauth required /lib/security/pam_oath.so window=3\n";
    fs::write(dir.path().join("common"), common).unwrap();
    done(dir.path(), &["enable", "sshd"]);
    let enabled = fs::read_to_string(dir.path().join("sshd")).unwrap();
    assert_eq!(enabled.matches("  pam_prefixquota.so repeat=no\n").count(), 2, "{enabled}");
    done(dir.path(), &["disable", "sshd"]);
    assert_eq!(fs::read_to_string(dir.path().join("sshd")).unwrap(), stack);
}

#[test]
fn a_stack_that_would_refuse_everybody_is_not_made() {
    let dir = copied("debian-12");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let cases = [
        // libpam takes the lines of `other` where a stack has none.
        ("noauth", "account required pam_unix.so\n", "has no auth line of its own"),
        ("noaccount", "@include common-auth\n", "has no account line of its own"),
        ("empty", "# nothing\n", "has no auth line of its own"),
        ("session", "@include common-session\n", "has no auth line of its own"),
    ];
    for (name, text, expected) in cases {
        write(name, text);
        refused(dir.path(), &["enable", name], expected);
        refused(dir.path(), &["enable", name, "--dry-run"], expected);
    }
    write("inner", "auth required pam_unix.so\naccount required pam_unix.so\n");
    write("jumper", "auth [success=1 default=ignore] pam_rootok.so\n@include inner\n");
    refused(dir.path(), &["enable", "inner"], "jumper includes inner behind a line that jumps");
    let jumper = fs::read(dir.path().join("jumper")).unwrap();
    write("jumper", "auth sufficient pam_rootok.so\n@include inner\n");
    done(dir.path(), &["enable", "inner"]);
    fs::write(dir.path().join("jumper"), jumper).unwrap();
    refused(dir.path(), &["disable", "inner"], "jumper includes inner behind a line that jumps");
}

#[test]
fn lines_that_stand_wrong_are_named() {
    let dir = copied("debian-12");
    let ours = "[success=ok ignore=ignore module_unknown=ignore default=die] pam_prefixquota.so";
    let write = |text: String| fs::write(dir.path().join("svc"), text).unwrap();
    write(format!(
        "auth sufficient pam_unix.so\nauth {ours}\naccount {ours}\naccount required pam_unix.so\n"
    ));
    refused(dir.path(), &["enable", "svc"], "line 1: stands before the module's auth line");
    write(format!("auth {ours}\n@include common-auth\n@include common-account\naccount {ours}\n"));
    refused(dir.path(), &["enable", "svc"], "line 2: stands before the module's account line");
    write(format!("auth {ours}\n@include common-auth\n@include common-account\n"));
    refused(dir.path(), &["enable", "svc"], "only one of the module's two lines");
    write(format!(
        "auth [success=1 default=ignore] pam_rootok.so\nauth {ours}\nauth required pam_unix.so\n"
    ));
    refused(dir.path(), &["disable", "svc"], "line 1: this line jumps over others");
    // A line of ours over two lines of the file goes as a whole.
    write(format!(
        "auth [success=ok ignore=ignore \\\n default=die] pam_prefixquota.so\naccount {ours}\n@include common-auth\n"
    ));
    done(dir.path(), &["disable", "svc"]);
    assert_eq!(fs::read_to_string(dir.path().join("svc")).unwrap(), "@include common-auth\n");
}

#[test]
fn odd_files_are_refused() {
    let dir = copied("fedora-41");
    symlink("sshd", dir.path().join("link")).unwrap();
    refused(dir.path(), &["enable", "link"], "is a symbolic link to sshd");
    refused(dir.path(), &["disable", "link"], "is a symbolic link to sshd");
    fs::create_dir(dir.path().join("folder")).unwrap();
    refused(dir.path(), &["enable", "folder"], "is no PAM stack");
    fs::write(dir.path().join("binary"), b"auth\0required").unwrap();
    refused(dir.path(), &["enable", "binary"], "is no PAM stack");
    fs::write(dir.path().join("huge"), vec![b'#'; 2 << 20]).unwrap();
    refused(dir.path(), &["enable", "huge"], "is no PAM stack");
    refused(dir.path(), &["enable", "missing"], "no such stack");
    refused(dir.path(), &["enable", "password-auth"], "no service of its own");
    // authselect's files are links; a service beside them is not.
    fs::rename(dir.path().join("password-auth"), dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("password-auth")).unwrap();
    done(dir.path(), &["enable", "sshd"]);
}

#[test]
fn a_rehearsal_shows_a_diff_that_patch_applies() {
    for distribution in DISTRIBUTIONS {
        let dir = copied(distribution);
        let json = done(dir.path(), &["enable", "sshd", "--dry-run", "--format", "json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["changed"], false);
        let diff = json["diff"].as_str().unwrap();
        let file = dir.path().join("sshd").display().to_string();
        assert!(diff.starts_with(&format!("--- {file}\n+++ {file}\n@@ -1")), "{diff}");
        let text = done(dir.path(), &["enable", "sshd", "--dry-run"]);
        assert!(text.contains(diff), "{text}");
        assert_eq!(
            fs::read(dir.path().join("sshd")).unwrap(),
            fs::read(data(distribution).join("sshd")).unwrap()
        );
        done(dir.path(), &["enable", "sshd"]);
        if Command::new("patch").arg("--version").output().is_ok() {
            fs::write(dir.path().join("diff"), diff).unwrap();
            let patched = dir.path().join("patched");
            let run = Command::new("patch")
                .arg("-o")
                .arg(&patched)
                .arg(data(distribution).join("sshd"))
                .arg(dir.path().join("diff"))
                .output();
            assert!(run.unwrap().status.success());
            assert_eq!(fs::read(&patched).unwrap(), fs::read(dir.path().join("sshd")).unwrap());
        }
    }
}

#[test]
fn owner_rights_and_attributes_stay() {
    let dir = copied("debian-12");
    let file = dir.path().join("sshd");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let is_root = fs::metadata(&file).unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&file, Some(0), Some(42)).unwrap();
    }
    let label = b"a label";
    let labelled =
        rustix::fs::setxattr(&file, "user.label", label, rustix::fs::XattrFlags::empty());
    for command in ["enable", "disable"] {
        done(dir.path(), &[command, "sshd"]);
        let found = fs::metadata(&file).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o640, "{command}");
        assert!(!is_root || found.gid() == 42, "{command}");
        if labelled.is_ok() {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(&file, "user.label", &mut value[..]).unwrap();
            assert_eq!(&value[..length], label, "{command}");
        } else {
            eprintln!("no attributes on this file system");
        }
    }
    let left = contents(dir.path()).into_iter().map(|(name, _)| name);
    assert!(left.into_iter().all(|name| !name.contains("prefixquota-new")));
}
