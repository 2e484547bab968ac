//! Protection that does not hurt the right people, in the real sshd and the real Dovecot: known
//! places, repeated passwords, rules and countries. Each test has a machine of its own
//! (`common::lab`); root only.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

mod common;

use std::fs;
use std::net::Ipv6Addr;

use common::lab::bulk::{BULK, guesses_that_reach_the_check};
use common::lab::dovecot::Dovecot;
use common::lab::sshd::{INTERACTIVE, PASSWORD, Sshd};
use common::lab::{self, DOVECOT, Lab, MATE, RIGHT, SSHD, USER, wrong};
use common::mmdb::Mmdb;
use common::pam::{AUTH_ERR, Pam};

/// Where the user is at home, and elsewhere in his provider's /32.
const HOME: &str = "2001:db8:1:2::3";
const ON_THE_ROAD: &str = "2001:db8:abcd:ef01::3";
/// The address of an office, and one in another network.
const OFFICE: &str = "198.18.7.7";
const ABROAD: &str = "198.19.7.7";

#[test]
fn known_users_get_in_while_their_provider_is_attacked() {
    let test = "known_users_get_in_while_their_provider_is_attacked";
    let Some(lab) = lab::enter(test, &[SSHD, DOVECOT]) else { return };
    let (sshd, dovecot) = (sshd_with_keys(&lab), guarded_dovecot(&lab));
    dovecot.imap_login(HOME, USER, RIGHT).expect_admitted("a login before the attack");
    fill_the_32(&lab, &sshd);

    dovecot.imap_login(ON_THE_ROAD, USER, RIGHT).expect_admitted("a new /64 of a known /32");
    dovecot.imap_login("2001:db8:1:2::77", USER, RIGHT).expect_admitted("the known /64");
    let road = sshd.login("2001:db8:eeee::5", USER, PASSWORD, RIGHT);
    road.expect_admitted("what IMAP has taught, by ssh");
    dovecot.imap_login(HOME, MATE, RIGHT).expect_refused("one who is not known, in the same /64");
    dovecot.imap_login(ON_THE_ROAD, MATE, RIGHT).expect_refused("one who is not known");
    lab.await_log(&["pam_prefixquota(dovecot:auth)", "denied", "2001:db8::/32"]);

    sshd.key_login("2001:db8:77::1", MATE).expect_admitted("a key");
    dovecot.imap_login("2001:db8:77::1", MATE, RIGHT).expect_admitted("what a key has taught");
    dovecot.imap_login(ON_THE_ROAD, MATE, RIGHT).expect_admitted("in its /32 as well");
    dovecot.imap_login(ON_THE_ROAD, "nobody", RIGHT).expect_refused("one who is still unknown");
    assert_eq!(lab.count("2001:db8::/32"), 626.0, "right passwords change nothing");

    lab.prefixquota(&["known", "forget", MATE]);
    dovecot.imap_login(ON_THE_ROAD, MATE, RIGHT).expect_refused("a user who was forgotten");
}

/// 620 guesses from all over 2001:db8::/32 by libpam, and the last six by ssh.
fn fill_the_32(lab: &Lab, sshd: &Sshd<'_>) {
    let reached = guesses_that_reach_the_check(lab, "root", 620, |i| {
        Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(i.reverse_bits()) << 32 | 1)
    });
    assert_eq!(reached, 620, "guesses before those by ssh");
    let source = |i| format!("2001:db8:{i:x}bad::1");
    for i in 1..=8 {
        sshd.login(&source(i), MATE, PASSWORD, &wrong()).expect_refused("a guess");
    }
    let checked: usize = (1..=8).map(|i| lab.wrong_passwords("sshd", &source(i))).sum();
    assert_eq!(checked, 6, "guesses by ssh that reached the password check");
    assert_eq!(lab.count("2001:db8::/32"), 626.0, "the /32 is full");
}

#[test]
fn who_knows_the_name_closes_new_places_and_not_the_old_one() {
    let test = "who_knows_the_name_closes_new_places_and_not_the_old_one";
    let Some(lab) = lab::enter(test, &[DOVECOT]) else { return };
    let dovecot = guarded_dovecot(&lab);
    dovecot.imap_login(HOME, USER, RIGHT).expect_admitted("a login before the attack");
    let reached = guesses_that_reach_the_check(&lab, USER, 700, |i| {
        Ipv6Addr::from_bits(0x2001_0db8_8000_u128 << 80 | u128::from(i.reverse_bits()) << 31 | 1)
    });
    // Three at the known /32, and what the /33 holds in which the attacker is.
    assert_eq!(reached, 3 + 593, "guesses from one /33 at a known name");
    dovecot.imap_login("2001:db8:abcd::1", USER, RIGHT).expect_refused("a new place beside him");
    dovecot.imap_login("2001:db8:1:2::77", USER, RIGHT).expect_admitted("the known /64");
}

#[test]
fn a_botnet_cannot_guess_on_at_one_user() {
    let Some(lab) = lab::enter("a_botnet_cannot_guess_on_at_one_user", &[DOVECOT]) else { return };
    lab.etc("security/prefixquota.conf", "stranger_quota = 5 per 24h\n");
    let dovecot = guarded_dovecot(&lab);
    dovecot.imap_login(HOME, USER, RIGHT).expect_admitted("a login before the attack");
    let reached = |user| {
        // Each from a network of its own.
        let bots = |i| Ipv6Addr::from_bits((0x2a00_0000_u128 + u128::from(i)) << 96 | 1);
        guesses_that_reach_the_check(&lab, user, 20, bots)
    };
    assert_eq!(reached(USER), 5, "guesses of all strangers at a user who has logged in");
    assert_eq!(reached("root"), 20, "guesses at one who never has");
    dovecot.imap_login("2001:db9::1", USER, RIGHT).expect_refused("a place that is not known");
    lab.await_log(&["denied", "2001:db9::1", "prefixquota forgive --user labuser"]);
    dovecot.imap_login("2001:db9::1", MATE, RIGHT).expect_admitted("another user");
    dovecot.imap_login(HOME, USER, RIGHT).expect_admitted("the known /64");
    dovecot.imap_login(ON_THE_ROAD, USER, RIGHT).expect_admitted("the known /32");
    lab.prefixquota(&["forgive", "--user", USER]);
    dovecot.imap_login("2001:db9::1", USER, RIGHT).expect_admitted("a user who was forgiven");
}

#[test]
fn a_stale_password_is_charged_once() {
    let Some(lab) = lab::enter("a_stale_password_is_charged_once", &[DOVECOT]) else { return };
    let dovecot = &guarded_dovecot(&lab);
    let stale = &wrong();
    dovecot.imap_login(OFFICE, USER, stale).expect_refused("a wrong password");
    // A phone that goes on and on: ten connections of five tries.
    std::thread::scope(|scope| {
        let phones: Vec<_> =
            (0..10).map(|_| scope.spawn(|| dovecot.imap_tries(OFFICE, USER, stale, 5))).collect();
        for tries in phones.into_iter().map(|phone| phone.join().unwrap()) {
            assert_eq!(tries.len(), 5);
            tries.iter().for_each(|one| one.expect_refused("the same wrong password"));
        }
    });
    // The rest by libpam, through the same stack.
    let confdir = lab.dir().join("etc/pam.d");
    for _ in 0..449 {
        let pam = Pam::start(&confdir, "dovecot", USER.as_bytes(), Some(stale.as_bytes()));
        assert_eq!(pam.rhost(OFFICE.as_bytes()).authenticate(), AUTH_ERR);
    }
    assert_eq!(lab.wrong_passwords("dovecot", OFFICE), 500, "tries that were checked");
    assert_eq!(lab.count("198.18.7.7/32"), 1.0, "what 500 tries of one password cost");

    dovecot.imap_login(OFFICE, MATE, RIGHT).expect_admitted("a colleague in the same office");
    dovecot.imap_login(OFFICE, USER, RIGHT).expect_admitted("the owner of the phone");
    assert_eq!(lab.count("198.18.7.7/32"), 1.0, "right passwords are refunded");
    // Another user with the same wrong password is another guess.
    dovecot.imap_login(OFFICE, "root", stale).expect_refused("a wrong password");
    assert_eq!(lab.count("198.18.7.7/32"), 2.0, "the same password for two users");
}

#[test]
fn what_sshd_refuses_itself_is_charged_every_time() {
    let test = "what_sshd_refuses_itself_is_charged_every_time";
    let Some(lab) = lab::enter(test, &[SSHD]) else { return };
    lab.guard_unix("sshd", BULK);
    let sshd = Sshd::start(&lab, &format!("AllowUsers {USER}"));
    let (same, mut expected) = (wrong(), 0.0);
    // sshd passes junk of the same length to PAM, whatever was typed.
    for user in ["nobody-here", MATE] {
        for method in [PASSWORD, PASSWORD, INTERACTIVE] {
            sshd.login(OFFICE, user, method, &same).expect_refused("a user of whom sshd knows not");
            expected += 1.0;
            assert_eq!(lab.count("198.18.7.7/32"), expected, "{user} by {method}");
        }
    }
    for method in [PASSWORD, PASSWORD, INTERACTIVE] {
        sshd.login(OFFICE, USER, method, &same).expect_refused("a wrong password");
    }
    assert_eq!(lab.wrong_passwords("sshd", OFFICE), 9, "passwords that were checked");
    assert_eq!(lab.count("198.18.7.7/32"), 7.0, "the same password of a user who may log in");
}

/// The lines that the README shows for a site of known networks only.
const APPROVED_ONLY: &str =
    "deny = ::/0 0.0.0.0/0\nexempt = 2001:db8:77::/48\ncount = 198.18.0.0/16 2001:db9::/32\n";

#[test]
fn only_approved_networks_by_the_settings() {
    let test = "only_approved_networks_by_the_settings";
    let Some(lab) = lab::enter(test, &[SSHD]) else { return };
    lab.etc("security/prefixquota.conf", APPROVED_ONLY);
    lab.guard_unix("sshd", BULK);
    let sshd = sshd_with_keys(&lab);

    for stranger in [HOME, ABROAD] {
        let refusal = sshd.login(stranger, USER, INTERACTIVE, RIGHT);
        refusal.expect_refused("a right password from a network that is not approved");
        let told = "Logins from your network are not allowed.";
        assert!(refusal.said.contains(told), "the client was told: {}", refusal.said);
    }
    lab.await_log(&["denied", HOME, "rule=\"deny ::/0\""]);
    lab.await_log(&["denied", ABROAD, "rule=\"deny 0.0.0.0/0\""]);
    let approved = "2001:db8:77::1";
    for _ in 0..3 {
        sshd.login(approved, USER, PASSWORD, &wrong()).expect_refused("a wrong password");
    }
    sshd.login(approved, USER, PASSWORD, RIGHT).expect_admitted("an exempt network");
    assert_eq!(lab.count(&format!("{approved}/128")), 0.0, "exempt is not counted");
    sshd.login(OFFICE, USER, PASSWORD, RIGHT).expect_admitted("a network that is counted");
    let counted = "2001:db9::1";
    for _ in 0..2 {
        sshd.login(counted, USER, PASSWORD, &wrong()).expect_refused("a wrong password");
    }
    sshd.login(counted, USER, PASSWORD, RIGHT).expect_refused("a counted address that is full");

    // A key is no guess, and is let in from everywhere, unless the account line says otherwise.
    sshd.key_login(HOME, USER).expect_admitted("a key from a denied network");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_refused("known or not, denied is denied");
    lab.guard_unix("sshd", "enforce");
    sshd.key_login(HOME, USER).expect_refused("a key from a denied network, with enforce");
    sshd.key_login(approved, USER).expect_admitted("a key from an approved network");
}

#[test]
fn only_approved_networks_by_rules_at_run_time() {
    let test = "only_approved_networks_by_rules_at_run_time";
    let Some(lab) = lab::enter(test, &[SSHD]) else { return };
    lab.guard_unix("sshd", "");
    let sshd = Sshd::start(&lab, "");
    let rule = |arguments: &str| {
        let words = arguments.split(' ');
        let (_, said) = lab.prefixquota(&["rule"].into_iter().chain(words).collect::<Vec<_>>());
        said.trim_end().to_owned()
    };
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_admitted("anybody, before the rules");
    assert_eq!(rule("add ::/0 deny"), "::/0: deny.");
    assert_eq!(rule("add 0.0.0.0/0 deny"), "0.0.0.0/0: deny.");
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_refused("a known place that is denied");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_refused("a network that is not approved");

    assert_eq!(rule("add 2001:db8:1::/48 exempt --for 1h"), "2001:db8:1::/48: exempt for 60m.");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_admitted("a network that was let in");
    // An hour later.
    lab.sqlite3("UPDATE rule SET until = until - 3600000 WHERE until IS NOT NULL");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_refused("a network whose time is over");

    assert_eq!(rule("add 198.18.0.0/16 count --uses 2"), "198.18.0.0/16: count, 2 logins.");
    sshd.login(OFFICE, USER, PASSWORD, &wrong()).expect_refused("a wrong password");
    for _ in 0..2 {
        sshd.login(OFFICE, USER, PASSWORD, RIGHT).expect_admitted("one of two logins");
    }
    sshd.login(OFFICE, USER, PASSWORD, RIGHT).expect_refused("the third of two logins");
    assert_eq!(lab.count("198.18.7.7/32"), 1.0, "a wrong password takes no use, and is counted");
    let (admitted, why) = lab.prefixquota(&["check", OFFICE]);
    assert!(!admitted && why.contains("by the rule \"deny 0.0.0.0/0\""), "{why}");

    assert_eq!(rule("remove 0.0.0.0/0"), "0.0.0.0/0: removed deny.");
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_admitted("anybody again");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_refused("an IPv6 address, still");
}

#[test]
fn only_some_countries() {
    let Some(lab) = lab::enter("only_some_countries", &[SSHD]) else { return };
    let networks = [("198.18.0.0/16", "DE"), ("2001:db8::/32", "DE"), ("198.19.0.0/16", "FR")];
    let (data, database) = (lab.dir().join("data.mmdb"), lab.dir().join("state/country.db"));
    fs::write(&data, Mmdb::of(6, 24, &networks).write()).unwrap();
    let countries = format!(
        "country_database = {}\ncountry_allow = DE\nexempt = 2001:db9:1::/48\n",
        database.display()
    );
    lab.etc("security/prefixquota.conf", &countries);
    lab.guard_unix("sshd", "");
    let sshd = Sshd::start(&lab, "");

    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_admitted("anybody, while there is no data");
    lab.await_log(&["no country is denied (on_error)"]);
    lab.prefixquota(&["country", "import", data.to_str().unwrap()]);
    sshd.login(OFFICE, USER, PASSWORD, RIGHT).expect_admitted("a country that is allowed");
    sshd.login(HOME, USER, PASSWORD, RIGHT).expect_admitted("a country that is allowed");
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_refused("another country");
    lab.await_log(&["denied", ABROAD, "country=FR"]);
    sshd.login("2001:db9::1", USER, PASSWORD, RIGHT).expect_refused("no country that is known");
    lab.await_log(&["denied", "2001:db9::1", "country=unknown"]);
    sshd.login("2001:db9:1::1", USER, PASSWORD, RIGHT).expect_admitted("a prefix that is exempt");
    // Inside an allowed country as everywhere.
    for _ in 0..2 {
        sshd.login(HOME, MATE, PASSWORD, &wrong()).expect_refused("a wrong password");
    }
    sshd.login(HOME, MATE, PASSWORD, RIGHT).expect_refused("an address that is full");
    lab.prefixquota(&["grant", ABROAD]);
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_admitted("another country, with a grant");
    sshd.login(ABROAD, USER, PASSWORD, RIGHT).expect_refused("another country, after it");
}

fn guarded_dovecot(lab: &Lab) -> Dovecot {
    lab.guard_unix("dovecot", BULK);
    Dovecot::start(lab)
}

/// Both users have a key.
fn sshd_with_keys(lab: &Lab) -> Sshd<'_> {
    lab.guard_unix("sshd", BULK);
    let key = lab.dir().join("userkey.pub");
    Sshd::start(lab, &format!("AuthorizedKeysFile {}", key.display()))
}
