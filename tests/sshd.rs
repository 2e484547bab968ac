//! The module in the real sshd, attacked with the real ssh. Each test has a machine of its own
//! (`common::lab`); root only.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

mod common;

use std::net::Ipv6Addr;

use common::lab::bulk::{BULK, guesses_that_reach_the_check};
use common::lab::client::Outcome;
use common::lab::sshd::{INTERACTIVE, PASSWORD, Sshd};
use common::lab::{self, Lab, MATE, RIGHT, SSHD, USER, await_until, wrong};

const SOURCE: &str = "2001:db8:1:2::3";
/// In the same /64 as `SOURCE`.
const NEIGHBOUR: &str = "2001:db8:1:2:aaaa::3";

#[test]
fn password_guesses_from_one_address() {
    let Some(lab) = lab::enter("password_guesses_from_one_address", &[SSHD]) else { return };
    let refusal = two_guesses_close_one_address(&lab, PASSWORD);
    // With this method sshd keeps the texts of a failed attempt to itself.
    assert!(refusal.said.contains("Permission denied"), "{}", refusal.said);
}

#[test]
fn interactive_guesses_from_one_address() {
    let Some(lab) = lab::enter("interactive_guesses_from_one_address", &[SSHD]) else { return };
    let refusal = two_guesses_close_one_address(&lab, INTERACTIVE);
    let told = "Too many failed attempts from your network";
    assert!(refusal.said.contains(told), "the client was not told why: {}", refusal.said);
}

/// Gives the refusal of the right password.
fn two_guesses_close_one_address(lab: &Lab, method: &str) -> Outcome {
    let sshd = guarded_sshd(lab);
    let prefix = format!("{SOURCE}/128");
    guess_twice(lab, &sshd, method);
    let exposed = lab.exposed_files();
    assert!(exposed.is_empty(), "sshd runs with umask 022; others may read {exposed:?}");
    assert_eq!(lab.count(&prefix), 2.0, "count of {prefix} after two guesses");

    let refusal = sshd.login(SOURCE, USER, method, RIGHT);
    refusal.expect_refused("the right password after two guesses");
    sshd.login(SOURCE, MATE, method, &wrong()).expect_refused("another user after two guesses");
    assert_eq!(lab.wrong_passwords("sshd", SOURCE), 2, "guesses that reached pam_unix");
    lab.await_log(&["pam_prefixquota(sshd:auth)", "denied", &prefix]);
    assert_eq!(lab.count(&prefix), 2.0, "denied attempts are not counted");

    sshd.login(NEIGHBOUR, USER, method, RIGHT).expect_admitted("a neighbour in the same /64");
    assert_eq!(lab.count(&format!("{NEIGHBOUR}/128")), 0.0, "a right password is refunded");
    assert_eq!(lab.count(&prefix), 2.0, "the neighbour's success forgives nothing else");
    refusal
}

#[test]
fn hopping_over_a_64() {
    let Some(lab) = lab::enter("hopping_over_a_64", &[SSHD]) else { return };
    // Every half of the /64, every quarter, ... gets its even share of the guesses.
    let reached = guesses_that_reach_the_check(&lab, USER, 100, |i| {
        Ipv6Addr::from_bits(0x2001_0db8_0001_0002_u128 << 64 | u128::from(i.reverse_bits()))
    });
    assert_eq!(reached, 66, "guesses from one /64 that reached the password check");

    lab.guard_unix("sshd", BULK);
    let sshd = Sshd::start(&lab, "");
    let fresh = "2001:db8:1:2:1234:5678:9abc:def1";
    sshd.login(fresh, USER, PASSWORD, RIGHT).expect_refused("a fresh address in the full /64");
    lab.await_log(&["pam_prefixquota(sshd:auth)", "denied", "2001:db8:1:2::/64"]);
    sshd.login("2001:db8:1:3::1", USER, PASSWORD, RIGHT).expect_admitted("the sibling /64");
}

#[test]
fn hopping_over_a_32() {
    let Some(lab) = lab::enter("hopping_over_a_32", &[SSHD]) else { return };
    let reached = guesses_that_reach_the_check(&lab, USER, 700, |i| {
        Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(i.reverse_bits()) << 32 | 1)
    });
    assert_eq!(reached, 626, "guesses from one /32 that reached the password check");

    lab.guard_unix("sshd", BULK);
    let sshd = Sshd::start(&lab, "");
    let fresh = "2001:db8:fedc:ba98::1";
    sshd.login(fresh, USER, PASSWORD, RIGHT).expect_refused("a fresh /64 in the full /32");
    lab.await_log(&["pam_prefixquota(sshd:auth)", "denied", "2001:db8::/32"]);
    sshd.login("2001:db9::1", USER, PASSWORD, RIGHT).expect_admitted("the sibling /32");
    sshd.login("198.18.7.7", USER, PASSWORD, RIGHT).expect_admitted("an IPv4 address");
}

#[test]
fn key_login_from_a_closed_address() {
    let Some(lab) = lab::enter("key_login_from_a_closed_address", &[SSHD]) else { return };
    let sshd = guarded_sshd(&lab);
    guess_twice(&lab, &sshd, PASSWORD);
    sshd.login(SOURCE, USER, PASSWORD, RIGHT).expect_refused("a password from a closed address");
    sshd.key_login(SOURCE, USER).expect_admitted("a key, which cannot be guessed,");
    assert_eq!(lab.count(&format!("{SOURCE}/128")), 2.0, "a key login refunds no guesses");
}

#[test]
fn a_key_does_not_forgive_the_guess_before_it() {
    let Some(lab) = lab::enter("a_key_does_not_forgive_the_guess_before_it", &[SSHD]) else {
        return;
    };
    // Where nobody is known, each guess is one of a stranger.
    lab.guard_unix("sshd", "known_quota=0 known_wide_quota=0");
    let sshd = Sshd::start(&lab, "");
    let prefix = format!("{SOURCE}/128");
    sshd.key_login(SOURCE, USER).expect_admitted("a key alone");
    for guess in 1..=4 {
        sshd.guess_then_key(SOURCE, USER).expect_admitted("a wrong password, then a key");
        // sshd tells after it has let the user in.
        let counted = f64::from(guess).min(2.0);
        await_until("the guess to be counted", || lab.count(&prefix) == counted);
    }
    assert_eq!(lab.wrong_passwords("sshd", SOURCE), 2, "guesses that reached pam_unix");
    sshd.login(NEIGHBOUR, USER, PASSWORD, &wrong()).expect_refused("a wrong password");
    sshd.login(NEIGHBOUR, USER, PASSWORD, RIGHT).expect_admitted("a right one");
    assert_eq!(lab.count(&format!("{NEIGHBOUR}/128")), 1.0, "a right password is refunded");

    // At a known place it is one of the user's own.
    lab.guard_unix("sshd", "");
    sshd.guess_then_key("2001:db8:1:2::4", USER).expect_admitted("a wrong password, then a key");
    let own = "SELECT round(sum(level), 1) FROM known WHERE place = '2001:db8:1:2::/64'";
    await_until("the guess to be counted", || lab.sqlite3(own) == "1.0");
    assert_eq!(lab.count("2001:db8:1:2::4/128"), 0.0, "strangers have nothing to do with it");
}

#[test]
fn a_cancelled_prompt_costs_nothing() {
    let Some(lab) = lab::enter("a_cancelled_prompt_costs_nothing", &[SSHD]) else { return };
    let sshd = guarded_sshd(&lab);
    // More often than a quota of 2 would bear.
    for times in 1..=3 {
        sshd.hang_up(SOURCE, USER);
        await_until("sshd to notice that the client is gone", || {
            lab.log_with(&["Connection closed by", SOURCE]).len() == times
        });
    }
    sshd.login(SOURCE, USER, INTERACTIVE, RIGHT).expect_admitted("a user who tries again");
    assert_eq!(lab.count(&format!("{SOURCE}/128")), 0.0, "count after cancelled prompts");
}

#[test]
fn ten_right_logins_at_once() {
    let Some(lab) = lab::enter("ten_right_logins_at_once", &[SSHD]) else { return };
    let sshd = &guarded_sshd(&lab);
    std::thread::scope(|scope| {
        let login = |method| scope.spawn(move || sshd.login(SOURCE, USER, method, RIGHT));
        let logins = [PASSWORD, INTERACTIVE].repeat(5).into_iter().map(login);
        for login in logins.collect::<Vec<_>>() {
            login.join().unwrap().expect_admitted("each of ten right logins at once");
        }
    });
    assert_eq!(lab.count(&format!("{SOURCE}/128")), 0.0, "count after right logins alone");
}

#[test]
fn a_client_with_a_name() {
    let Some(lab) = lab::enter("a_client_with_a_name", &[SSHD]) else { return };
    lab.hosts(&format!("{SOURCE} guesser.example\n"));
    lab.guard_unix("sshd", "");
    let sshd = Sshd::start(&lab, "UseDNS yes");
    for _ in 0..2 {
        sshd.login(SOURCE, USER, PASSWORD, &wrong()).expect_refused("a wrong password");
    }
    let named = lab.wrong_passwords("sshd", "guesser.example");
    assert_eq!(named, 2, "guesses that reached pam_unix with PAM_RHOST as a name");
    let prefix = format!("{SOURCE}/128");
    assert_eq!(lab.count(&prefix), 2.0, "count of the address behind the name");
    sshd.login(SOURCE, USER, PASSWORD, RIGHT).expect_refused("a closed address with a name");
    lab.await_log(&["pam_prefixquota(sshd:auth)", "denied", &prefix]);
    sshd.login(NEIGHBOUR, USER, PASSWORD, RIGHT).expect_admitted("its neighbour without a name");
}

fn guarded_sshd(lab: &Lab) -> Sshd<'_> {
    lab.guard_unix("sshd", "");
    Sshd::start(lab, "")
}

/// Uses up the quota of `SOURCE`.
fn guess_twice(lab: &Lab, sshd: &Sshd<'_>, method: &str) {
    for _ in 0..2 {
        sshd.login(SOURCE, USER, method, &wrong()).expect_refused("a wrong password");
    }
    assert_eq!(lab.wrong_passwords("sshd", SOURCE), 2, "guesses that reached pam_unix");
}
