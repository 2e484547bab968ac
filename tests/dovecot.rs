//! The module in the real Dovecot, beside sshd, and the store as an administrator sees it. Each
//! test has a machine of its own (`common::lab`); root only.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

mod common;

use common::lab::dovecot::Dovecot;
use common::lab::sshd::{PASSWORD, Sshd};
use common::lab::{self, DOVECOT, Lab, MATE, RIGHT, SSHD, USER, wrong};

const SOURCE: &str = "2001:db8:1:2::3";
const PREFIX: &str = "2001:db8:1:2::3/128";
/// In the same /64 as `SOURCE`.
const NEIGHBOUR: &str = "2001:db8:1:2:aaaa::3";
const IPV4: &str = "198.18.7.7";

#[test]
fn imap_pop3_and_ssh_share_one_count() {
    let test = "imap_pop3_and_ssh_share_one_count";
    let Some(lab) = lab::enter(test, &[DOVECOT, SSHD]) else { return };
    let dovecot = guarded_dovecot(&lab);
    lab.guard_unix("sshd", "");
    let sshd = Sshd::start(&lab, "");

    dovecot.imap_login(SOURCE, USER, &wrong()).expect_refused("a wrong password by IMAP");
    assert_eq!(lab.count(PREFIX), 1.0, "count after a guess by IMAP");
    dovecot.pop3_login(SOURCE, USER, &wrong()).expect_refused("a wrong password by POP3");
    assert_eq!(lab.count(PREFIX), 2.0, "count after a guess by IMAP and one by POP3");

    let ssh = sshd.login(SOURCE, USER, PASSWORD, RIGHT);
    ssh.expect_refused("ssh after a guess by IMAP and one by POP3");
    lab.await_log(&["pam_prefixquota(sshd:auth)", "denied", PREFIX]);
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("IMAP from a closed address");
    dovecot.pop3_login(SOURCE, USER, RIGHT).expect_refused("POP3 from a closed address");
    dovecot.imap_login(NEIGHBOUR, USER, RIGHT).expect_admitted("a neighbour by IMAP");
    dovecot.pop3_login(NEIGHBOUR, USER, RIGHT).expect_admitted("a neighbour by POP3");
    sshd.login(NEIGHBOUR, USER, PASSWORD, RIGHT).expect_admitted("a neighbour by ssh");
}

#[test]
fn ten_right_imap_logins_at_once() {
    let Some(lab) = lab::enter("ten_right_imap_logins_at_once", &[DOVECOT]) else { return };
    // Slow enough for the charges of several workers to be open at once.
    lab.guard_slow_unix("dovecot");
    let dovecot = Dovecot::start(&lab);
    std::thread::scope(|scope| {
        let login = || dovecot.imap_login(SOURCE, USER, RIGHT);
        let logins: Vec<_> = (0..10).map(|_| scope.spawn(login)).collect();
        for login in logins {
            login.join().unwrap().expect_admitted("each of ten right logins at once");
        }
    });
    assert_eq!(lab.count(PREFIX), 0.0, "count after right logins alone");
}

#[test]
fn no_password_of_a_closed_address_is_looked_at() {
    let test = "no_password_of_a_closed_address_is_looked_at";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    let dovecot = guarded_dovecot(&lab);
    guess_twice(&lab, &dovecot);

    for user in [USER, MATE, "nobody-here"] {
        dovecot.imap_login(SOURCE, user, &wrong()).expect_refused("a third guess");
    }
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("the right password");
    let seen = lab.log_with(&["pam_unix(dovecot:", SOURCE]);
    assert_eq!(seen.len(), 2, "only two guesses may reach pam_unix: {seen:#?}");
    let denied = lab.log_with(&["pam_prefixquota(dovecot:auth)", "denied", PREFIX]);
    assert!(!denied.is_empty(), "no denial in the log");
    let guessed = lab.log_with(&["pam_prefixquota", "nobody-here"]);
    assert!(guessed.is_empty(), "people type passwords as user names: {guessed:#?}");
}

#[test]
fn the_store_reads_like_a_table() {
    let Some(lab) = lab::enter("the_store_reads_like_a_table", &[DOVECOT]) else { return };
    let dovecot = guarded_dovecot(&lab);
    guess_twice(&lab, &dovecot);
    dovecot.pop3_login(IPV4, MATE, &wrong()).expect_refused("a wrong password");

    let view = |prefixes: &str| {
        lab.sqlite3(&format!(
            "SELECT prefix, length, round(failures, 1), quota, full FROM prefix_count \
             WHERE prefix IN ({prefixes}) ORDER BY length DESC"
        ))
    };
    assert_eq!(
        view("'2001:db8:1:2::3/128', '2001:db8:1:2::2/127', '2001:db8:1:2::/64', '2001:db8::/32'"),
        "2001:db8:1:2::3/128|128|2.0|2|1\n\
         2001:db8:1:2::2/127|127|2.0|3|0\n\
         2001:db8:1:2::/64|64|2.0|66|0\n\
         2001:db8::/32|32|2.0|626|0"
    );
    assert_eq!(
        view("'198.18.7.7/32', '198.18.7.6/31', '198.18.0.0/16'"),
        "198.18.7.7/32|32|1.0|10|0\n\
         198.18.7.6/31|31|1.0|14|0\n\
         198.18.0.0/16|16|1.0|314|0"
    );
    assert_eq!(
        lab.sqlite3(
            "SELECT source, hex(address), round(level, 1), \
             abs(at / 1000 - strftime('%s')) < 60 FROM failure ORDER BY address"
        ),
        "198.18.7.7|00000000000000000000FFFFC6120707|1.0|1\n\
         2001:db8:1:2::3|20010DB8000100020000000000000003|2.0|1"
    );
}

#[test]
fn a_row_deleted_by_hand_opens_the_address() {
    let test = "a_row_deleted_by_hand_opens_the_address";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    let dovecot = guarded_dovecot(&lab);
    guess_twice(&lab, &dovecot);
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_refused("a closed address");
    lab.sqlite3(&format!("DELETE FROM failure WHERE source = '{SOURCE}'"));
    assert_eq!(lab.count("2001:db8:1:2::/64"), 0.0, "the wider prefixes forget the row as well");
    dovecot.imap_login(SOURCE, USER, RIGHT).expect_admitted("an address opened by hand");
}

fn guarded_dovecot(lab: &Lab) -> Dovecot {
    lab.guard_unix("dovecot", "");
    Dovecot::start(lab)
}

/// Uses up the quota of `SOURCE`.
fn guess_twice(lab: &Lab, dovecot: &Dovecot) {
    for _ in 0..2 {
        dovecot.imap_login(SOURCE, USER, &wrong()).expect_refused("a wrong password");
    }
    assert_eq!(lab.wrong_passwords("dovecot", SOURCE), 2, "guesses that reached pam_unix");
}
