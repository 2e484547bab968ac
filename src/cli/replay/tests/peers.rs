//! The rules that the guard is compared with.

use super::super::peers::{fail2ban, penalties};
use super::super::rehearse::Verdicts;
use super::{accepted, at, failed, history};

fn verdicts(let_through: u64, spared: u64, refused: u64) -> Verdicts {
    Verdicts { let_through, spared, refused }
}

#[test]
fn fail2ban_bans_after_five_in_ten_minutes_for_ten() {
    let burst: String = (0..8).map(|i| failed(i, "root", "192.0.2.7")).collect();
    assert_eq!(fail2ban(&history(&[&burst])), verdicts(5, 3, 0));
    let slow: String = (0..20).map(|i| failed(i * 151, "root", "192.0.2.7")).collect();
    assert_eq!(fail2ban(&history(&[&slow])), verdicts(20, 0, 0), "four in any ten minutes");
    let after = |second| burst.clone() + &failed(second, "root", "192.0.2.7");
    assert_eq!(fail2ban(&history(&[&after(4 + 599)])), verdicts(5, 4, 0));
    assert_eq!(fail2ban(&history(&[&after(4 + 600)])), verdicts(6, 3, 0));
    let login = burst.clone()
        + &accepted(20, "publickey", "ann", "192.0.2.7")
        + &accepted(20, "password", "bob", "192.0.2.8");
    assert_eq!(fail2ban(&history(&[&login])), verdicts(5, 3, 1), "keys are shut out too");
    let own: String = (0..8).map(|i| failed(i, "root", "127.0.0.1")).collect();
    assert_eq!(fail2ban(&history(&[&own])), verdicts(8, 0, 0));
}

#[test]
fn penalties_count_connections_at_the_address() {
    let connections: String = (0..6).map(|i| failed(i, "root", "192.0.2.7")).collect();
    assert_eq!(penalties(&history(&[&connections])), verdicts(4, 2, 0), "the fifth is refused");
    // Six guesses on each connection cost what one costs.
    let connection = |pid: u32| {
        let line = format!(
            "{} web sshd[{pid}]: Failed password for root from 192.0.2.7 port 4 ssh2\n",
            at(pid)
        );
        line.repeat(6)
    };
    let log: String = (1..=5).map(connection).collect();
    assert_eq!(penalties(&history(&[&log])), verdicts(24, 6, 0));
    let paced: String = (0..50).map(|i| failed(i * 6, "root", "192.0.2.7")).collect();
    assert_eq!(penalties(&history(&[&paced])), verdicts(50, 0, 0), "one in more than five seconds");
    let neighbour = connections.clone() + &accepted(6, "password", "ann", "192.0.2.8");
    assert_eq!(penalties(&history(&[&neighbour])).refused, 0);
    let same = connections.clone() + &accepted(6, "publickey", "ann", "192.0.2.7");
    assert_eq!(penalties(&history(&[&same])).refused, 1);
    let later = connections + &accepted(60, "password", "ann", "192.0.2.7");
    assert_eq!(penalties(&history(&[&later])).refused, 0);
}

#[test]
fn penalties_spare_connections_that_end_with_a_login_and_other_services() {
    let connection = |pid: u32| {
        let sshd = |what: &str| {
            format!(
                "{} web sshd[{pid}]: {what} password for ann from 192.0.2.7 port 4 ssh2\n",
                at(pid)
            )
        };
        sshd("Failed") + &sshd("Accepted")
    };
    let log: String = (1..=8).map(connection).collect();
    assert_eq!(penalties(&history(&[&log])), verdicts(8, 0, 0));
    let mail: String = (0..9)
        .map(|i| format!("{} mx postfix/smtpd[{i}]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: x\n", at(i)))
        .collect();
    assert_eq!(penalties(&history(&[&mail])), verdicts(9, 0, 0));
}
