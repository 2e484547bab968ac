//! Each attempt counts once, however many lines it leaves.

use pam_prefixquota::config::Settings;

use super::super::summary::Summary;
use super::{at, count, history};

/// A log of lines with the seconds at which they were written.
fn log(lines: &[(u32, &str)]) -> String {
    lines.iter().map(|(second, line)| format!("{} web {line}\n", at(*second))).collect()
}

fn counted(lines: &[(u32, &str)]) -> (u32, u32) {
    count(&history(&[&log(lines)]))
}

const PAM: &str = "sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root";
const FAILED: &str = "sshd[7]: Failed password for root from 192.0.2.7 port 4 ssh2";

#[test]
fn a_password_for_sshd() {
    let lines = [
        (0, "sshd[7]: Invalid user ann from 192.0.2.7 port 4"),
        (0, "sshd[7]: pam_unix(sshd:auth): check pass; user unknown"),
        (
            0,
            "sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7 ",
        ),
        (2, "sshd[7]: Failed password for invalid user ann from 192.0.2.7 port 4 ssh2"),
        (3, "sshd[7]: Connection closed by invalid user ann 192.0.2.7 port 4 [preauth]"),
    ];
    assert_eq!(counted(&lines), (1, 0));
}

#[test]
fn six_passwords_on_one_connection() {
    let lines = [
        (0, PAM),
        (2, FAILED),
        (
            12,
            "sshd[7]: message repeated 5 times: [ Failed password for root from 192.0.2.7 port 4 ssh2]",
        ),
        (
            12,
            "sshd[7]: error: maximum authentication attempts exceeded for root from 192.0.2.7 port 4 ssh2 [preauth]",
        ),
        (
            12,
            "sshd[7]: Disconnecting authenticating user root 192.0.2.7 port 4: Too many authentication failures [preauth]",
        ),
        (
            12,
            "sshd[7]: PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
        ),
    ];
    assert_eq!(counted(&lines), (6, 0));
}

#[test]
fn a_wrong_password_and_then_the_right_one() {
    let lines = [
        (0, PAM),
        (2, FAILED),
        (5, "sshd[7]: Accepted password for root from 192.0.2.7 port 4 ssh2"),
    ];
    assert_eq!(counted(&lines), (1, 1));
}

/// PAM runs in a process of its own there.
#[test]
fn a_conversation_with_sshd() {
    let lines = [
        (
            0,
            "sshd[8]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
        ),
        (2, "sshd[7]: error: PAM: Authentication failure for root from 192.0.2.7"),
        (2, "sshd[7]: Failed keyboard-interactive/pam for root from 192.0.2.7 port 4 ssh2"),
        (4, "sshd[7]: error: PAM: Authentication failure for root from 192.0.2.7"),
    ];
    assert_eq!(counted(&lines), (2, 0));
    let method = "sshd[7]: Failed keyboard-interactive/pam for root from 192.0.2.7 port 4 ssh2";
    assert_eq!(counted(&[(0, method), (3, method)]), (2, 0), "of a log without the conversation");
}

#[test]
fn pam_unix_counts_where_the_service_does_not_tell() {
    assert_eq!(counted(&[(0, PAM), (4, PAM)]), (2, 0));
    assert_eq!(counted(&[(0, PAM), (2, FAILED), (3_000, PAM)]), (2, 0), "50 minutes later");
    let other = "sshd[9]: pam_unix(sshd:auth): authentication failure; logname= rhost=192.0.2.8";
    assert_eq!(counted(&[(0, PAM), (2, FAILED), (3, other)]), (2, 0), "another source");
    let old = "sshd(pam_unix)[7]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=192.0.2.7 ";
    assert_eq!(counted(&[(0, "sshd(pam_unix)[7]: check pass; user unknown"), (0, old)]), (1, 0));
    assert_eq!(counted(&[(0, old), (0, "last message repeated 2 times")]), (3, 0));
    let cockpit =
        "cockpit[7]: pam_unix(cockpit:auth): authentication failure; logname= rhost=192.0.2.7";
    assert_eq!(counted(&[(0, FAILED), (1, cockpit)]), (2, 0), "another service");
}

#[test]
fn a_host_name_is_the_address_of_the_same_process() {
    let named = "sshd[7]: pam_unix(sshd:auth): authentication failure; logname= rhost=a.example.net  user=root";
    assert_eq!(counted(&[(0, named), (2, FAILED)]), (1, 0));
    let hung_up =
        "sshd[7]: Connection closed by authenticating user root 192.0.2.7 port 4 [preauth]";
    let told = history(&[&log(&[(0, named), (1, hung_up)])]);
    assert_eq!(count(&told), (1, 0));
    let source = &told.told.sources[told.attempts[0].source as usize];
    assert_eq!(source.to_string(), "192.0.2.7");
    let alone = history(&[&log(&[(0, named), (700, hung_up)])]);
    let source = &alone.told.sources[alone.attempts[0].source as usize];
    assert!(source.address().is_none(), "another client of a process of that number");
}

#[test]
fn machines_tell_of_their_own_sshd_only() {
    let [pam, failed] = [PAM, FAILED].map(|line| log(&[(0, line)]));
    let elsewhere = |log: &str| log.replace(" web ", " db ");
    let both = |one: &str, other: &str| count(&history(&[one, other]));
    let named = pam.replace("192.0.2.7", "a.example.net");
    assert_eq!(both(&named, &elsewhere(&failed)), (2, 0), "a host name, and another log's address");
    assert_eq!(both(&pam, &elsewhere(&failed)), (2, 0), "one source at two machines");
    assert_eq!(both(&pam, &failed), (1, 0), "two logs of one machine");
    let conversation =
        log(&[(0, "sshd[7]: error: PAM: Authentication failure for root from 192.0.2.7")]);
    assert_eq!(both(&conversation, &elsewhere(&failed)), (2, 0), "by the method there");
}

#[test]
fn console_logins_have_no_address() {
    let sudo = "sudo: pam_unix(sudo:auth): authentication failure; logname=ann uid=1000 euid=0 tty=/dev/pts/0 ruser=ann rhost=  user=ann";
    let told = history(&[&log(&[(0, sudo)])]);
    let json = Summary::of(&told, &Settings::default()).unwrap().json();
    assert_eq!((&json["failures"], &json["without_address"]), (&1.into(), &1.into()));
    assert_eq!((&json["sources"], &json["denied"]), (&0.into(), &0.into()));
    // saslauthd knows no address, but Postfix does.
    let lines = [
        (
            0,
            "saslauthd[7]: pam_unix(smtp:auth): authentication failure; logname= uid=0 euid=0 tty= ruser= rhost=  user=ann",
        ),
        (
            2,
            "postfix/smtpd[8]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: authentication failure",
        ),
    ];
    assert_eq!(counted(&lines), (1, 0));
}

#[test]
fn three_passwords_for_dovecot() {
    let pam = "auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=ann rhost=192.0.2.7  user=ann";
    let worker = "dovecot: auth-worker(9): pam(ann,192.0.2.7,<a>): pam_authenticate() failed: Authentication failure (Password mismatch?)";
    let login = "dovecot: imap-login: Disconnected (auth failed, 3 attempts in 14 secs): user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<a>";
    let all = [(0, pam), (2, worker), (5, pam), (7, worker), (10, pam), (12, worker), (14, login)];
    assert_eq!(counted(&all), (3, 0));
    let without = |which: &str| -> Vec<(u32, &str)> {
        all.iter().filter(|(_, line)| !line.starts_with(which)).copied().collect()
    };
    assert_eq!(counted(&without("auth:")), (3, 0));
    assert_eq!(counted(&without("dovecot: auth-worker")), (3, 0));
    assert_eq!(counted(&without("dovecot: imap-login")), (3, 0));
    assert_eq!(counted(&[(14, login)]), (3, 0));
    assert_eq!(counted(&[(0, pam), (5, pam), (10, pam)]), (3, 0));
    // One more that the passdb has not told of.
    assert_eq!(counted(&[(2, worker), (7, worker), (14, login)]), (3, 0));
}

#[test]
fn a_wrong_password_for_dovecot_and_then_the_right_one() {
    let worker = "dovecot: auth-worker(9): pam(ann,192.0.2.7): pam_authenticate() failed: Authentication failure (Password mismatch?)";
    let login = "dovecot: imap-login: Login: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=9, session=<a>";
    assert_eq!(counted(&[(0, worker), (3, login)]), (1, 1));
}

#[test]
fn two_passdbs_tell_of_one_password() {
    let pam = "dovecot: auth-worker(9): pam(ann,192.0.2.7): pam_authenticate() failed: Authentication failure (Password mismatch?)";
    let file = "dovecot: auth: passwd-file(ann,192.0.2.7): Password mismatch";
    let login = "dovecot: imap-login: Aborted login (auth failed, 2 attempts in 9 secs): user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1";
    assert_eq!(counted(&[(0, pam), (0, file), (5, pam), (5, file), (9, login)]), (2, 0));
    assert_eq!(counted(&[(0, file), (0, pam), (5, file), (5, pam), (9, login)]), (2, 0));
}

#[test]
fn a_password_for_postfix_behind_dovecot() {
    let lines = [
        (
            0,
            "auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=ann rhost=192.0.2.7  user=ann",
        ),
        (
            2,
            "dovecot: auth-worker(9): pam(ann,192.0.2.7): pam_authenticate() failed: Authentication failure (Password mismatch?)",
        ),
        (
            2,
            "postfix/submission/smtpd[8]: warning: unknown[192.0.2.7]: SASL PLAIN authentication failed: UGFzc3dvcmQ6, sasl_username=ann",
        ),
        (
            3,
            "postfix/submission/smtpd[8]: disconnect from unknown[192.0.2.7] ehlo=1 auth=0/1 commands=1/2",
        ),
    ];
    assert_eq!(counted(&lines), (1, 0));
}

#[test]
fn a_mail_connection_is_one_login() {
    let mail = "postfix/submission/smtpd[8]: 4ZpT: client=a.example[192.0.2.7], sasl_method=PLAIN, sasl_username=ann";
    let end =
        "postfix/submission/smtpd[8]: disconnect from a.example[192.0.2.7] ehlo=1 auth=1 mail=2";
    assert_eq!(counted(&[(0, mail), (1, mail), (2, end), (3, mail), (4, end)]), (0, 2));
}

#[test]
fn one_attempt_in_two_logs() {
    let pam = log(&[(
        0,
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=ann rhost=192.0.2.7  user=ann",
    )]);
    let own = "Fri Nov 20 10:00:02 2026 [pid 9] [ann] FAIL LOGIN: Client \"::ffff:192.0.2.7\"\n";
    assert_eq!(count(&history(&[&pam, own])), (1, 0));
    assert_eq!(count(&history(&[own, &pam])), (1, 0));
}

#[test]
fn proftpd_tells_once() {
    let lines = [
        (
            0,
            "proftpd[9]: pam_unix(proftpd:auth): authentication failure; logname= uid=0 euid=0 tty= ruser= rhost=192.0.2.7  user=ann",
        ),
        (
            2,
            "proftpd[9]: ftp (a.example[192.0.2.7]) - USER ann (Login failed): Incorrect password.",
        ),
        (
            4,
            "proftpd[9]: ftp (a.example[192.0.2.7]) - USER bob: no such user found from a.example [192.0.2.7] to 192.0.2.1:21",
        ),
        (
            5,
            "proftpd[9]: ftp (a.example[192.0.2.7]) - Maximum login attempts (3) exceeded, connection refused",
        ),
        (8, "proftpd[9]: ftp (a.example[192.0.2.7]) - USER ann: Login successful."),
    ];
    assert_eq!(counted(&lines), (2, 1));
}
