//! Grants in the real Dovecot: how many logins one opens, for whom, and the worked example of
//! `pam.d-examples/README.md` as it is written, with the real sudo. Each test has a machine of its
//! own (`common::lab`); root only.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use common::lab::dovecot::Dovecot;
use common::lab::{self, DOVECOT, Lab, MATE, RIGHT, SUDO, USER, run, wrong};

const SOURCE: &str = "2001:db8:1:2::3";
/// In the same /64 as `SOURCE`.
const NEIGHBOUR: &str = "2001:db8:1:2:aaaa::3";
const IPV4: &str = "198.18.7.7";

#[test]
fn a_grant_opens_one_login_of_ten_from_a_denied_address() {
    let test = "a_grant_opens_one_login_of_ten_from_a_denied_address";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    lab.guard_slow_unix("dovecot");
    let dovecot = Dovecot::start(&lab);
    lab.prefixquota(&["rule", "add", "::/0", "deny"]);
    lab.prefixquota(&["rule", "add", "0.0.0.0/0", "deny"]);
    for source in [SOURCE, IPV4] {
        dovecot.imap_login(source, USER, RIGHT).expect_refused("a denied address");
        one_of_ten_gets_in(&lab, &dovecot, source);
        dovecot.imap_login(source, USER, RIGHT).expect_refused("a known place that is denied");
    }
    // The grant of an IPv6 address is for its /64, whose addresses a client changes as it likes;
    // that of an IPv4 address is for it alone.
    lab.prefixquota(&["grant", SOURCE]);
    dovecot.imap_login(NEIGHBOUR, USER, RIGHT).expect_admitted("another address of the same /64");
    lab.prefixquota(&["grant", IPV4]);
    dovecot.imap_login("198.18.7.8", USER, RIGHT).expect_refused("another IPv4 address");
}

#[test]
fn a_grant_opens_one_login_of_ten_from_a_full_address() {
    let test = "a_grant_opens_one_login_of_ten_from_a_full_address";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    // Else the first success makes the address a known place for the other nine.
    lab.etc("security/prefixquota.conf", "known_quota = 0\nknown_wide_quota = 0\n");
    lab.guard_slow_unix("dovecot");
    let dovecot = Dovecot::start(&lab);
    for _ in 0..2 {
        dovecot.imap_login(SOURCE, USER, &wrong()).expect_refused("a wrong password");
    }
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("a full address");
    one_of_ten_gets_in(&lab, &dovecot, SOURCE);
    let prefix = format!("{SOURCE}/128");
    assert_eq!(lab.count(&prefix), 2.0, "a grant forgives nothing, and right passwords cost none");

    lab.prefixquota(&["grant", SOURCE]);
    dovecot.imap_login(SOURCE, USER, &wrong()).expect_refused("a wrong password with a grant");
    assert_eq!(lab.count(&prefix), 3.0, "wrong passwords with a grant are counted");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_admitted("the grant, which took no harm");
}

/// Grants one login, and tries ten.
fn one_of_ten_gets_in(lab: &Lab, dovecot: &Dovecot, source: &str) {
    let (_, said) = lab.prefixquota(&["grant", source]);
    assert!(said.trim_end().ends_with("granted for 60s, one login."), "{said}");
    let admitted = std::thread::scope(|scope| {
        let login = || dovecot.imap_login(source, USER, RIGHT);
        let logins: Vec<_> = (0..10).map(|_| scope.spawn(login)).collect();
        logins.into_iter().map(|login| login.join().unwrap()).filter(|one| one.admitted).count()
    });
    assert_eq!(admitted, 1, "right passwords from {source} that one grant let in");
    assert_eq!(grants(lab), "0", "the grant is used up");
}

#[test]
fn a_grant_may_be_taken_back_and_may_be_for_one_user() {
    let test = "a_grant_may_be_taken_back_and_may_be_for_one_user";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    let dovecot = denying_dovecot(&lab);
    lab.prefixquota(&["grant", SOURCE, "--toggle"]);
    assert_eq!(grants(&lab), "1");
    let (_, said) = lab.prefixquota(&["grant", NEIGHBOUR, "--toggle"]);
    assert_eq!(said, "2001:db8:1:2::/64: took the grant back.\n");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("after the second knock");
    lab.prefixquota(&["grant", SOURCE, "--toggle"]);
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_admitted("after the third");

    lab.prefixquota(&["grant", SOURCE, "--user", USER]);
    dovecot.imap_login(SOURCE, MATE, RIGHT).expect_refused("another user");
    assert_eq!(grants(&lab), "1", "he took nothing of it");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_admitted("the user of the grant");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("his second login");

    // A minute later.
    lab.prefixquota(&["grant", SOURCE]);
    lab.sqlite3("UPDATE rule SET until = until - 60000 WHERE action = 'grant'");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("a grant whose time is over");
}

#[test]
fn a_grant_bears_ten_wrong_passwords() {
    let Some(lab) = lab::enter("a_grant_bears_ten_wrong_passwords", &[DOVECOT]) else { return };
    let dovecot = denying_dovecot(&lab);
    lab.prefixquota(&["grant", SOURCE]);
    for _ in 0..12 {
        dovecot.imap_login(SOURCE, USER, &wrong()).expect_refused("a wrong password");
    }
    assert_eq!(lab.wrong_passwords("dovecot", SOURCE), 10, "guesses that one grant let through");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("a grant that was guessed to pieces");
}

/// `pam.d-examples/README.md`, "Nothing may log in over IMAP until a web page has granted it".
#[test]
fn the_web_page_of_the_example_opens_imap() {
    let test = "the_web_page_of_the_example_opens_imap";
    let Some(lab) = lab::enter(test, &[DOVECOT, SUDO]) else { return };
    install_example(&lab);
    let dovecot = &Dovecot::start(&lab);
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("nobody has been granted anything");
    dovecot.imap_login("::1", USER, RIGHT).expect_admitted("the webmail of this host");

    let text = include_str!("../pam.d-examples/README.md");
    let sudoers = include_str!("../pam.d-examples/sudoers-grant");
    let allowed = sudoers.lines().last().unwrap();
    assert!(text.contains(&format!("\n{allowed}\n")), "README.md and sudoers-grant differ");
    let call = text.lines().find(|line| line.starts_with("sudo -n /usr/sbin/prefixquota"));
    let call = call.expect("the call of the page in pam.d-examples/README.md");
    let page = |address: &str| as_web_server(&["sh", "-c", call], address);
    let done = page(SOURCE);
    assert!(done.status.success(), "{call}: {}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(grants(&lab), "1");
    std::thread::scope(|scope| {
        let logins: Vec<_> =
            (0..5).map(|_| scope.spawn(|| dovecot.imap_login(SOURCE, USER, RIGHT))).collect();
        for login in logins {
            login.join().unwrap().expect_admitted("each of the five connections of a mail client");
        }
    });
    for _ in 5..20 {
        dovecot.imap_login(SOURCE, USER, RIGHT).expect_admitted("one of twenty logins");
    }
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("the 21st of twenty logins");
    dovecot.imap_login("2001:db9::1", USER, RIGHT).expect_refused("an address without a grant");

    // Whatever the client makes the page pass on, nothing else reaches the command.
    let (bad, worse) = (["", "-", "--help", "x", "é", "fffff"], ["::1 --for 1d", "::/0", "::1;id"]);
    for address in bad.into_iter().chain(worse) {
        assert!(!page(address).status.success(), "the page granted \"{address}\"");
    }
    for arguments in ["grant --for 10m --uses 20", "grant", "grant --for 9d --uses 20", "forgive"] {
        let line = format!("sudo -n /usr/sbin/prefixquota {arguments} 2001:db9::1");
        let words: Vec<&str> = line.split(' ').collect();
        let allowed = arguments == "grant --for 10m --uses 20";
        assert_eq!(as_web_server(&words, "").status.success(), allowed, "{line}");
    }
    assert_eq!(grants(&lab), "1", "the one that is allowed");
}

/// Puts the example's stack and sudoers line in place as they are. Only the file of the module has
/// another name here.
fn install_example(lab: &Lab) {
    install_command(lab);
    let at = |name: &str| lab.dir().join(name).to_str().unwrap().to_owned();
    let module = at("module.so");
    fs::copy(common::module(), &module).unwrap();
    // Last: the build may be in there.
    run("mount", &["-t", "tmpfs", "-o", "mode=755", "lab", "/var/lib"]);
    run("install", &["-d", "-m", "0700", "/var/lib/prefixquota"]);
    run("mount", &["--bind", &at("state"), "/var/lib/prefixquota"]);
    let stack = include_str!("../pam.d-examples/dovecot-grant");
    lab.etc("pam.d/dovecot", &stack.replace("  pam_prefixquota.so", &format!("  {module}")));
    lab.etc("pam.d/common-auth", "auth required pam_unix.so nodelay\n");
    lab.etc("pam.d/common-account", "account required pam_unix.so\n");
    lab.etc("pam.d/common-session", "session required pam_permit.so\n");
    let sudoers = "/etc/sudoers.d/prefixquota-grant";
    fs::write(sudoers, include_str!("../pam.d-examples/sudoers-grant")).unwrap();
    fs::set_permissions(sudoers, fs::Permissions::from_mode(0o440)).unwrap();
    run("visudo", &["-c", "-q", "-f", sudoers]);
}

/// `/usr/sbin/prefixquota`, beside all that is there.
fn install_command(lab: &Lab) {
    let (real, ours) = (lab.dir().join("sbin.real"), lab.dir().join("sbin"));
    for dir in [&real, &ours] {
        fs::create_dir(dir).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_prefixquota"), ours.join("prefixquota")).unwrap();
    run("mount", &["--bind", "/usr/sbin", real.to_str().unwrap()]);
    for file in fs::read_dir(&real).unwrap().map(|file| file.unwrap()) {
        if file.file_name() != "prefixquota" {
            symlink(file.path(), ours.join(file.file_name())).unwrap();
        }
    }
    run("mount", &["--bind", ours.to_str().unwrap(), "/usr/sbin"]);
}

/// Runs a command as the web server's account, with what a web server tells a page.
fn as_web_server(command: &[&str], address: &str) -> Output {
    Command::new("setpriv")
        .args(["--reuid", "www-data", "--regid", "www-data", "--clear-groups"])
        .args(command)
        .env("REMOTE_ADDR", address)
        .output()
        .expect("setpriv (util-linux)")
}

/// How many grants there are in the store.
fn grants(lab: &Lab) -> String {
    lab.sqlite3("SELECT count(*) FROM rule WHERE action = 'grant'")
}

fn denying_dovecot(lab: &Lab) -> Dovecot {
    lab.guard_unix("dovecot", "deny=::/0");
    Dovecot::start(lab)
}
