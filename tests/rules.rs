//! Rules and grants in the store, wrong passwords that come again, the second count of strict mode,
//! and prefixes that many share.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use common::book::{Book, inside, v6};
use common::store::{HOUR, Lab, is_charged, login, source, stranger};
use pam_prefixquota::config::Settings;
use pam_prefixquota::decay::wait;
use pam_prefixquota::decide::{Refusal, Verdict};
use pam_prefixquota::guard::{Admission, Clock, Pass};
use pam_prefixquota::login::Login;
use pam_prefixquota::quota::Multiple;
use pam_prefixquota::repeat::{Guess, Mark, Remembered, Repeat};
use pam_prefixquota::rules::{Action, Kind, RuleId, StoredRule};
use pam_prefixquota::source::{Source, parse_prefix};

const DAY: i64 = 24 * HOUR;

fn rule(prefix: &str, kind: Kind) -> StoredRule {
    let id = RuleId { prefix: parse_prefix(prefix).unwrap(), kind, user: Vec::new() };
    StoredRule { id, until: None, uses: None, tries: 0, note: String::new() }
}

fn grant(prefix: &str, uses: u32) -> StoredRule {
    StoredRule { uses: Some(uses), ..rule(prefix, Kind::Grant) }
}

fn put(lab: &Lab, rule: &StoredRule) {
    lab.write(|write| drop(write.put_rule(rule, lab.clock.now()).unwrap()));
}

const EXEMPT: Kind = Kind::Rule(Action::Exempt);
const DENY: Kind = Kind::Rule(Action::Deny);
const COUNT: Kind = Kind::Rule(Action::Count);

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Exempt(_) => "exempt",
        Verdict::Admit(..) | Verdict::Wait(_) => "count",
        Verdict::Deny(_) => "deny",
    }
}

#[test]
fn the_longest_rule_decides_wherever_it_is_kept() {
    let lab = Lab::new(|s| {
        s.deny = vec![parse_prefix("::/0").unwrap(), parse_prefix("0.0.0.0/0").unwrap()];
        s.count = vec![parse_prefix("2001:db8:1::/48").unwrap()];
        s.exempt = vec![parse_prefix("2001:db8:2::/48").unwrap()];
    });
    let expect = |address: &str, expected: &str| {
        assert_eq!(word(&lab.look(&stranger(address))), expected, "{address}");
    };
    put(&lab, &rule("2001:db8::/32", EXEMPT));
    expect("2001:db8::1", "exempt");
    expect("2001:db8:1::1", "count");
    expect("2001:db9::1", "deny");
    // At equal length the store wins over the settings; then deny, exempt, count.
    put(&lab, &rule("2001:db8:1::/48", EXEMPT));
    expect("2001:db8:1::1", "exempt");
    put(&lab, &rule("2001:db8:2::/48", COUNT));
    expect("2001:db8:2::1", "count");
    put(&lab, &rule("2001:db8:2::/48", DENY));
    expect("2001:db8:2::1", "deny");
    put(&lab, &rule("192.0.2.0/24", COUNT));
    put(&lab, &rule("192.0.2.7", EXEMPT));
    expect("192.0.2.1", "count");
    expect("::ffff:192.0.2.7", "exempt");
    expect("198.51.100.1", "deny");
    // What denies everybody denies those without an address.
    let nameless = Login::of_stranger(Source::nameless("vsftpd"));
    assert_eq!(word(&lab.look(&nameless)), "deny");
    lab.write(|write| {
        assert!(write.remove_rule(&rule("192.0.2.7", EXEMPT).id).unwrap());
        assert!(!write.remove_rule(&rule("192.0.2.7", EXEMPT).id).unwrap());
    });
    expect("192.0.2.7", "count");
}

#[test]
fn a_rule_of_the_store_denies_those_without_an_address() {
    for everybody in ["::/0", "0.0.0.0/0"] {
        let lab = Lab::new(|_| {});
        let nameless = Login::of_stranger(Source::nameless("vsftpd"));
        put(&lab, &rule("100::/8", DENY));
        assert_eq!(word(&lab.look(&nameless)), "count");
        put(&lab, &rule(everybody, DENY));
        assert_eq!(word(&lab.look(&nameless)), "deny", "{everybody}");
    }
}

#[test]
fn rules_end_with_their_time_or_their_uses() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.deny = vec![parse_prefix("::/0").unwrap()];
    });
    let until = Some(lab.clock.now() + HOUR);
    put(&lab, &StoredRule { until, ..rule("2001:db8::/32", COUNT) });
    put(&lab, &StoredRule { uses: Some(2), ..rule("2001:db9::/32", EXEMPT) });
    let timed = login("alice", "2001:db8::1");
    let used = login("alice", "2001:db9::1");
    lab.log_in(&timed);
    let passes: Vec<Pass> = (0..3).map(|_| lab.charge_login(&used)).collect();
    assert!(passes.iter().all(|pass| pass.exempt && pass.ticket.is_none()));
    assert_eq!(lab.succeed(&used, &passes[0]), Ok(()));
    assert_eq!(lab.succeed(&used, &passes[1]), Ok(()));
    let prefix = parse_prefix("2001:db9::/32").unwrap();
    assert_eq!(lab.succeed(&used, &passes[2]), Err(Refusal::UsedUp(prefix)));
    assert_eq!(word(&lab.look(&used)), "deny");
    lab.pass(HOUR);
    assert_eq!(word(&lab.look(&timed)), "deny");
    // The next rule takes those away that have ended.
    put(&lab, &rule("2001:dba::/32", DENY));
    assert_eq!(lab.store().reader().all_rules().unwrap().len(), 1);
}

#[test]
fn a_grant_lets_in_who_is_denied_or_over_quota() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.deny = vec![parse_prefix("2001:db8::/32").unwrap()];
    });
    let denied = login("alice", "2001:db8:a:b::1");
    put(&lab, &grant("2001:db8:a:b::/64", 1));
    let pass = lab.charge_login(&denied);
    assert!(pass.ticket.is_some(), "what it lets in is counted");
    assert_eq!(lab.succeed(&denied, &pass), Ok(()));
    assert!(lab.count("2001:db8:a:b::1", 128).abs() < 1e-9, "and refunded");
    assert_eq!(word(&lab.look(&denied)), "deny", "once");

    let over = login("bob", "2001:db9::1");
    while is_charged(&lab.admit_login(&over)) {}
    put(
        &lab,
        &StoredRule {
            id: RuleId { user: b"bob".to_vec(), ..grant("2001:db9::/64", 1).id },
            ..grant("2001:db9::/64", 1)
        },
    );
    assert!(matches!(lab.admit_login(&login("carol", "2001:db9::1")), Admission::Refused(_)));
    lab.log_in(&over);
    // Who has room needs no grant, and takes no use of one.
    put(&lab, &grant("2001:dba::/64", 1));
    lab.log_in(&login("dave", "2001:dba::1"));
    let grants = lab.store().reader().all_rules().unwrap();
    assert_eq!(grants.iter().map(|rule| rule.uses).collect::<Vec<_>>(), [Some(1)]);
}

#[test]
fn a_grant_behind_a_deny_rule_wipes_no_count() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.deny = vec![parse_prefix("2001:db8::/32").unwrap()];
    });
    put(&lab, &grant("2001:db8::/64", 3));
    let alice = login("alice", "2001:db8::1");
    for _ in 0..5 {
        lab.charge_login(&alice);
    }
    let level = || lab.store().reader().entries(None).unwrap()[0].failures.count.level;
    assert!((level() - 5.0).abs() < 1e-9);
    let right = lab.charge_login(&alice);
    lab.succeed(&alice, &right).unwrap();
    assert!((level() - 5.0).abs() < 1e-9);
}

#[test]
fn two_people_behind_one_address_may_have_a_grant_each() {
    let lab = Lab::new(|s| s.deny = vec![parse_prefix("0.0.0.0/0").unwrap()]);
    put(&lab, &grant("192.0.2.1", 1));
    put(&lab, &grant("192.0.2.1", 1));
    let (alice, bob) = (login("alice", "192.0.2.1"), login("bob", "192.0.2.1"));
    let (first, second) = (lab.charge_login(&alice), lab.charge_login(&bob));
    assert_eq!((lab.succeed(&alice, &first), lab.succeed(&bob, &second)), (Ok(()), Ok(())));
    assert_eq!(word(&lab.look(&alice)), "deny");
}

#[test]
fn what_people_do_to_rules_by_hand_opens_nothing() {
    let edits = [
        "UPDATE rule SET note = CAST(x'42fc726f' AS TEXT)",
        "UPDATE rule SET user = 1001 WHERE action = 'grant'",
        "UPDATE rule SET prefix = 'x' WHERE action = 'grant'",
        "PRAGMA ignore_check_constraints = 1; UPDATE rule SET bits = 999 WHERE action = 'grant'",
        "UPDATE rule SET uses = -5 WHERE action = 'grant'",
        "UPDATE rule SET tries = 9223372036854775807 WHERE action = 'grant'",
        "UPDATE rule SET until = -9223372036854775808 WHERE action = 'grant'",
    ];
    for edit in edits {
        let lab = Lab::new(|s| s.settle = 0);
        put(&lab, &rule("::/0", DENY));
        put(&lab, &StoredRule { until: Some(lab.clock.now() + DAY), ..grant("2001:db8::/64", 3) });
        rusqlite::Connection::open(&lab.settings.database).unwrap().execute_batch(edit).unwrap();
        let there = lab.look(&login("mallory", "2001:db8:1::1"));
        assert_eq!(word(&there), "deny", "{edit}");
        if !edit.contains("note") {
            assert_eq!(word(&lab.look(&login("mallory", "2001:db8::1"))), "deny", "{edit}");
        }
    }
    // A grant without a number of uses bears any.
    let lab = Lab::new(|_| {});
    put(&lab, &rule("::/0", DENY));
    put(&lab, &rule("2001:db8::/64", Kind::Grant));
    lab.log_in(&login("alice", "2001:db8::1"));
    lab.log_in(&login("alice", "2001:db8::1"));
}

#[test]
fn parallel_successes_never_share_a_use() {
    let lab = Lab::new(|s| s.deny = vec![parse_prefix("::/0").unwrap()]);
    put(&lab, &grant("2001:db8::/64", 1));
    let alice = login("alice", "2001:db8::1");
    let passes: Vec<Pass> = (0..10).map(|_| lab.charge_login(&alice)).collect();
    let let_in = passes.iter().filter(|pass| lab.succeed(&alice, pass).is_ok()).count();
    assert_eq!(let_in, 1);
    assert!(lab.count("2001:db8::1", 32).abs() < 1e-9, "right passwords are no failures");
}

#[test]
fn a_grant_bears_ten_wrong_passwords() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.deny = vec![parse_prefix("::/0").unwrap()];
    });
    for uses in [1, 5] {
        put(&lab, &grant("2001:db8::/64", uses));
        let alice = login("alice", "2001:db8::1");
        let guesses = (0..100).filter(|_| is_charged(&lab.admit_login(&alice))).count();
        assert_eq!(guesses, 9 + uses as usize);
    }
    // Right ones are none.
    put(&lab, &grant("2001:db9::/64", 100));
    for _ in 0..50 {
        lab.log_in(&login("alice", "2001:db9::1"));
    }
}

fn guess<'a>(lab: &Lab, password: &'a [u8]) -> Guess<'a> {
    Guess { password, began: lab.clock.now() }
}

fn try_password(lab: &Lab, login: &Login, password: &[u8]) -> Admission {
    let guess = guess(lab, password);
    lab.guard().admit(&mut lab.store(), login, Some(guess)).unwrap()
}

fn is_free(admission: &Admission) -> bool {
    matches!(admission, Admission::Passed(Pass { ticket: None, exempt: false, .. }))
}

#[test]
fn the_same_wrong_password_is_counted_once() {
    let lab = Lab::new(|s| s.settle = 0);
    let phone = login("alice", "192.0.2.1");
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    for _ in 0..500 {
        assert!(is_free(&try_password(&lab, &phone, b"stale")));
        lab.pass(60_000);
    }
    assert!(is_charged(&try_password(&lab, &phone, b"other")));
    assert!(is_charged(&try_password(&lab, &login("bob", "192.0.2.1"), b"stale")), "per user");
    assert!(is_charged(&try_password(&lab, &login("alice", "203.0.113.1"), b"stale")), "per place");
    assert!(is_free(&try_password(&lab, &login("alice", "192.0.2.99"), b"stale")), "one place");
    lab.pass(DAY - 500 * 60_000);
    assert!(is_charged(&try_password(&lab, &phone, b"stale")), "after repeat_for");
}

#[test]
fn a_repeat_needs_room_and_never_passes_a_rule() {
    let lab = Lab::new(|s| s.settle = 0);
    let phone = login("alice", "2001:db8::1");
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    assert!(is_charged(&try_password(&lab, &phone, b"other")));
    let refused = try_password(&lab, &phone, b"stale");
    assert!(matches!(refused, Admission::Refused(Refusal::Full(_))));
    put(&lab, &rule("2001:db8::/32", DENY));
    let refused = try_password(&lab, &phone, b"stale");
    assert!(matches!(refused, Admission::Refused(Refusal::Rule(_))));
    // Through a grant every attempt counts.
    put(&lab, &grant("2001:db8::/64", 1));
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
}

#[test]
fn guesses_at_the_same_moment_are_no_repeats() {
    let lab = Lab::new(|_| {});
    let phone = login("alice", "2001:db8::1");
    let together = guess(&lab, b"guess");
    lab.pass(1);
    let admit = || lab.guard().admit(&mut lab.store(), &phone, Some(together)).unwrap();
    assert!(is_charged(&admit()));
    assert!(is_charged(&admit()), "when it began nobody knew that the other is wrong");
    assert!(matches!(admit(), Admission::Refused(_)));
}

/// Slots of wrong passwords in the store.
fn remembered(lab: &Lab) -> i64 {
    let conn = rusqlite::Connection::open(&lab.settings.database).unwrap();
    conn.query_row("SELECT count(*) FROM wrong", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_right_password_is_not_remembered() {
    let lab = Lab::new(|s| s.settle = 0);
    let alice = login("alice", "192.0.2.1");
    let Admission::Passed(right) = try_password(&lab, &alice, b"right") else { panic!() };
    lab.succeed(&alice, &right).unwrap();
    assert_eq!(remembered(&lab), 0);
    assert!(is_charged(&try_password(&lab, &alice, b"right")));
}

#[test]
fn the_junk_of_sshd_is_counted_each_time() {
    let lab = Lab::new(|s| s.settle = 0);
    let unknown = login("nobody", "192.0.2.1");
    let junk = b"\x08\n\r\x7fINCORRECT\x08\n\r\x7fINCORR";
    for length in [1, 4, 13, junk.len()] {
        assert!(is_charged(&try_password(&lab, &unknown, &junk[..length])));
        assert!(is_charged(&try_password(&lab, &unknown, &junk[..length])));
    }
}

#[test]
fn repeat_no_counts_every_attempt() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.repeat = Repeat::No;
    });
    let phone = login("alice", "192.0.2.1");
    for _ in 0..10 {
        assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    }
    assert_eq!(remembered(&lab), 0);
}

#[test]
fn repeat_known_is_for_known_places() {
    let lab = Lab::new(|s| {
        s.settle = 0;
        s.repeat = Repeat::Known;
    });
    let phone = login("alice", "192.0.2.1");
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    assert!(is_charged(&try_password(&lab, &phone, b"stale")));
    lab.log_in(&phone);
    assert!(is_free(&try_password(&lab, &phone, b"stale")));
    assert!(is_charged(&try_password(&lab, &login("bob", "192.0.2.1"), b"stale")));
}

#[test]
fn eight_wrong_passwords_are_remembered() {
    let mut remembered = Remembered::default();
    for tag in 0..9 {
        remembered = remembered.with(tag, i64::from(tag));
    }
    let read = Remembered::from_bytes(&remembered.to_bytes());
    assert_eq!(read, remembered);
    let has = |tag| read.has(tag, 100, 100, 1_000);
    assert!(!has(0) && (1..9).all(has) && !has(9));
    assert!(!read.has(8, 7, 100, 1_000), "charged after the attempt began");
    assert!(!read.has(8, 100, 1_008, 1_000), "too long ago");
    // Nothing that a file may hold breaks it.
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 37) as u8).collect();
        assert!(Remembered::from_bytes(&bytes).to_bytes().len() <= 80);
    }
}

#[test]
fn marks_depend_on_everything_and_tell_little() {
    let mark = |secret: u8, user: &str, address: &str, password: &[u8]| {
        let login = Login { source: source(address), user: user.as_bytes().to_vec() };
        Mark::of(&[secret; 32], &login, password)
    };
    let one = mark(1, "alice", "2001:db8::1", b"stale");
    assert_eq!(one, mark(1, "alice", "2001:db8::2", b"stale"), "one place");
    // At another place the slot is another, but the tag must not be: two tags would confirm it.
    let elsewhere = mark(1, "alice", "192.0.2.1", b"stale").unwrap();
    assert_eq!(elsewhere.tag, one.unwrap().tag);
    assert_ne!(elsewhere.slot, one.unwrap().slot);
    let others = [
        mark(2, "alice", "2001:db8::1", b"stale"),
        mark(1, "alic", "2001:db8::1", b"estale"),
        mark(1, "alice", "2001:db8:0:1::1", b"stale"),
        mark(1, "alice", "2001:db8::1", b"stale "),
    ];
    assert!(others.iter().all(|other| *other != one));
    // Of 65536 other passwords about one has the same tag: nobody can confirm one by it.
    let same = (0..300_000_u32)
        .filter(|i| mark(1, "alice", "2001:db8::1", &i.to_be_bytes()) == one)
        .count();
    assert!((1..20).contains(&same), "{same}");
}

#[test]
fn strict_counts_twice() {
    let strict = || Book::new(Settings { settle: 0, strict: true, ..Settings::default() });
    let mut book = strict();
    let address = v6("2001:db8::1");
    let mut admitted = 0;
    let mut day = [0; 4];
    for minute in 0..4 * 24 * 60 {
        book.now = 1_000_000_000_000 + minute * 60_000;
        if book.attempt(address) {
            admitted += 1;
            day[usize::try_from(minute / 1_440).unwrap()] += 1;
        }
    }
    // Eight in the slow count (4 * 2), then one in each 24 h * log2(8 / 7): 5 or 6 a day.
    assert!((5..=6).contains(&day[3]), "{day:?}, {admitted} in all");
    // One who mistypes waits half an hour, not one.
    let mut book = strict();
    assert_eq!(book.fill(address, 128), 2);
    assert_eq!(book.wait(address), wait(2.0, 2, 30 * 60_000));
    // A /64 keeps within what a half-life of 6 hours would give (182 a day).
    let mut book = strict();
    let mut last = 0;
    for step in 0..3 * 24 * 30 {
        book.now = 1_000_000_000_000 + step * 120_000;
        let guess = inside(v6("2001:db8::"), 64, u32::try_from(step).unwrap());
        if book.attempt(guess) && step >= 2 * 24 * 30 {
            last += 1;
        }
    }
    assert!((170..=190).contains(&last), "{last} guesses on the third day");
}

#[test]
fn shared_prefixes_have_more_and_shut_nobody_out() {
    let multiple = |prefix: &str, times| Multiple { prefix: parse_prefix(prefix).unwrap(), times };
    let mut settings = Settings { settle: 0, ..Settings::default() };
    settings.multiply = vec![
        multiple("2001:470::/32", 4),
        multiple("198.51.100.7", 10),
        multiple("203.0.113.0/24", 3),
        multiple("203.0.113.128/25", 5),
    ];
    let quota = |prefix: &str| {
        let prefix = parse_prefix(prefix).unwrap();
        let family = Source::of(prefix.addr(), &[]).family();
        settings.quotas(family).of(prefix)
    };
    assert_eq!(quota("2001:470::/32"), 4 * 626);
    assert_eq!(quota("2001:470:1::/64"), 4 * 66);
    assert_eq!(quota("2001:471::/32"), 626);
    assert_eq!(quota("198.51.100.7/32"), 100);
    // Around it: what the curve says, and what the address has more.
    assert_eq!(quota("198.51.100.6/31"), 14 + 90);
    assert_eq!(quota("198.51.0.0/16"), 314 + 90);
    assert_eq!(quota("203.0.113.129/32"), 50);
    assert_eq!(quota("203.0.113.1/32"), 30);
    assert_eq!(quota("203.0.113.0/24"), 3 * 98 + 2 * 80);
    let mut book = Book::new(settings);
    let nat = "198.51.100.7".parse().unwrap();
    assert_eq!(book.fill(nat, 32), 100);
    assert_eq!(book.fill("198.51.100.6".parse().unwrap(), 32), 4, "as beside any full address");
    assert_eq!(book.fill(v6("2001:470::"), 32), 4 * 626);
}

#[test]
fn services_without_strict_keep_the_slow_count() {
    let mut lab = Lab::new(|s| {
        s.settle = 0;
        s.strict = true;
    });
    let slow = |lab: &Lab| {
        let judgement = lab.guard().look(&mut lab.store(), &stranger("2001:db8::1")).unwrap();
        judgement.strangers.sum(128).slow
    };
    for _ in 0..5 {
        lab.charge("2001:db8::1");
        lab.pass(2 * HOUR);
    }
    let before = slow(&lab);
    lab.settings.strict = false;
    lab.charge("2001:db8::1");
    assert!((slow(&lab) - before - 1.0).abs() < 1e-9);
}

#[test]
fn the_widest_lengths_count() {
    let mut settings = Settings { settle: 0, ..Settings::default() };
    settings.ipv6.widest = 19;
    settings.ipv4.widest = 8;
    for strict in [false, true] {
        let settings = Settings { strict, ..settings.clone() };
        assert_eq!(Book::new(settings.clone()).fill(v6("2001:db8::"), 19), 1_146);
        assert_eq!(Book::new(settings).fill("198.51.100.7".parse().unwrap(), 8), 658);
    }
}
