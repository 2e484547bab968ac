//! The kinds of programs that call the module: threads, forks, long-lived workers, callers that are
//! not root, and the file that they load.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use common::pam::{MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once, failures, guess, lab};

const NOBODY: u32 = 65_534;

fn start(confdir: &Path, service: &str, rhost: &str) -> Pam {
    Pam::start(confdir, service, b"alice", Some(&guess())).rhost(rhost.as_bytes())
}

#[test]
fn threads_may_call_at_once_and_exit() {
    let _alone = common::alone();
    // Without `-z nodelete` a thread that exits after pam_end jumps into unmapped memory.
    let dir = lab("");
    let path = dir.path();
    std::thread::scope(|scope| {
        for i in 0..8 {
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut pam = start(path, "right", &format!("2001:db8:{i}::1"));
                    assert_eq!((pam.authenticate(), pam.account()), (SUCCESS, SUCCESS));
                }
            });
        }
    });
    assert!(failures(path) < 1e-3);
}

#[test]
fn a_fork_of_the_handle_charges_and_refunds_for_itself() {
    let _alone = common::alone();
    // sshd's keyboard-interactive: the monitor starts the handle, a child runs auth and account
    // and leaves by _exit, and the monitor goes on.
    let dir = lab("");
    let monitor = start(dir.path(), "right", "2001:db8::1");
    let monitor = Mutex::new(monitor);
    let child = at_once(1, |_| {
        let mut pam = monitor.lock().unwrap();
        let code = pam.authenticate();
        if code == SUCCESS { pam.account() } else { code }
    });
    assert_eq!(child, [SUCCESS]);
    assert!(failures(dir.path()) < 1e-3);
    let mut monitor = monitor.into_inner().unwrap();
    assert_eq!(monitor.setcred(2), SUCCESS, "setcred knows nothing of the child's charge");
    assert!(failures(dir.path()) < 1e-3);
}

#[test]
fn a_caller_that_is_not_root_is_left_alone_unless_nonroot() {
    let _alone = common::alone();
    if !common::root_or_skip("a_caller_that_is_not_root_is_left_alone_unless_nonroot") {
        return;
    }
    for (arguments, expected) in [("", PERM_DENIED), ("nonroot=yes", MAXTRIES)] {
        let dir = lab(&format!("{arguments} settle=0s"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(dir.path(), Some(NOBODY), None).unwrap();
        let codes = at_once(1, |_| {
            // SAFETY: a child that only becomes somebody else, and runs three attempts.
            assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
            start(dir.path(), "wrong", "2001:db8::1").authenticate();
            start(dir.path(), "wrong", "2001:db8::1").authenticate();
            start(dir.path(), "wrong", "2001:db8::1").authenticate()
        });
        assert_eq!(codes, [expected], "{arguments}");
        assert_eq!(dir.path().join("q.db").exists(), expected == MAXTRIES);
    }
}

#[test]
fn a_limited_file_size_is_an_error_and_no_signal() {
    let _alone = common::alone();
    let dir = lab("on_error=deny");
    for limit in [0, 4_096, 8_192, 30_000] {
        let codes = at_once(1, |_| {
            let sizes = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: a child that limits only itself.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const sizes) }, 0);
            start(dir.path(), "wrong", "2001:db8::1").authenticate()
        });
        assert_eq!(codes, [MAXTRIES], "{limit} bytes");
    }
    assert_eq!(start(dir.path(), "wrong", "2001:db8::1").authenticate(), PERM_DENIED, "mended");
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let _alone = common::alone();
    if !common::root_or_skip("a_directory_of_somebody_else_is_refused") {
        return;
    }
    let dir = lab("on_error=deny");
    chown(dir.path(), Some(NOBODY), None).unwrap();
    assert_eq!(start(dir.path(), "wrong", "2001:db8::1").authenticate(), MAXTRIES);
}

#[test]
fn the_file_exports_six_hooks_and_is_hardened() {
    let _alone = common::alone();
    let module = common::module();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(&module).output();
        let output = output.unwrap_or_else(|error| panic!("{program} (binutils): {error}"));
        String::from_utf8(output.stdout).unwrap()
    };
    let symbols = run("nm", &["-D", "--defined-only", "--format=just-symbols"]);
    let hooks =
        ["acct_mgmt", "authenticate", "chauthtok", "close_session", "open_session", "setcred"];
    let mut symbols: Vec<_> = symbols.lines().collect();
    symbols.sort_unstable();
    assert_eq!(symbols, hooks.map(|hook| format!("pam_sm_{hook}")));
    let dynamic = run("readelf", &["-dlW"]);
    for wanted in ["NODELETE", "NOW", "GNU_RELRO"] {
        assert!(dynamic.contains(wanted), "{wanted} is missing");
    }
    let stack = dynamic.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains(" RW ") && !stack.contains("RWE"), "{stack}");
    for needed in dynamic.lines().filter(|line| line.contains("NEEDED")) {
        let few = ["libpam.so.0", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux"];
        assert!(few.iter().any(|name| needed.contains(name)), "{needed}");
    }
}

#[test]
fn the_release_file_is_small() {
    let _alone = common::alone();
    if std::env::var_os("PREFIXQUOTA_MODULE").is_none() {
        eprintln!("the_release_file_is_small: skipped, PREFIXQUOTA_MODULE names no release build");
        return;
    }
    let size = fs::metadata(common::module()).unwrap().len();
    assert!(size <= 1_500_000, "{size} bytes");
}
