//! The figures of the simulation against those that are known from theory, from another simulator
//! and from real servers.

use super::*;
use attack::{Attack, Order};
use network::{BUILDING, HOLDER, HOME_ISP, HOSTING, Network, SITE, carrier};

const SECOND: i64 = 1_000;

/// Guesses on the last of so many days that reach the password, with nobody else around.
fn alone(kind: Kind, settings: &Settings, attack: &Attack, days: u16) -> u64 {
    let mut random = Random::new(1, "test");
    trial::run(&mut *kind.start(settings), attack, &[], days, &mut random).reached
}

#[track_caller]
fn assert_near(found: u64, expected: u64, percent: f64) {
    let apart = (found as f64 / expected as f64 - 1.0).abs() * 100.0;
    assert!(apart <= percent, "{found}, expected {expected}");
}

#[test]
fn the_second_day_alone_is_what_the_curve_says() {
    let settings = Settings::default();
    let address = HOSTING.numbered(0xbad, 128);
    for (network, expected) in [
        (address, 24),
        (HOSTING, 1_090),
        (BUILDING, 1_822),
        (SITE, 3_618),
        (HOME_ISP, 10_406),
        (carrier(1), 158),
    ] {
        // Several tries for each that has room, and few enough to be simulated soon.
        let attack = Attack::on(&[network], DAY / expected as i64 / 6);
        assert_near(alone(Kind::Own, &settings, &attack, 2), expected, 1.0);
    }
    // Some owners have more than a /32: the /29 may be counted as well.
    let mut wider = settings.clone();
    wider.ipv6.widest = 29;
    let holder = Attack::on(&[HOLDER], SECOND);
    assert_near(alone(Kind::Own, &wider, &holder, 2), 12_152, 0.5);
}

#[test]
fn no_order_of_hopping_is_better_than_a_random_one() {
    let settings = Settings::default();
    let first_day = |network: Network, order: Order| {
        alone(Kind::Own, &settings, &Attack { order, ..Attack::on(&[network], SECOND) }, 1)
    };
    assert_near(first_day(HOSTING, Order::Ascending(128)), 292, 1.0);
    assert_near(first_day(HOSTING, Order::Random), 1_155, 1.0);
    assert_near(first_day(HOSTING, Order::BitReversed(128)), 1_155, 1.0);
    assert_near(first_day(SITE, Order::Ascending(64)), 3_513, 1.0);
    assert_near(first_day(SITE, Order::Random), 3_831, 1.0);
    assert_near(first_day(HOME_ISP, Order::Ascending(48)), 10_447, 1.0);
    assert_near(first_day(HOME_ISP, Order::BitReversed(64)), 10_991, 1.0);
    assert_near(alone(Kind::Own, &settings, &Attacker::Bursts.attack(1), 1), 2_820, 5.0);
}

#[test]
fn slow_and_low_is_the_same_sustained_figure() {
    // A /64 has room again after 79 seconds; who waits so long is never refused, and no better off.
    let slow = Attack::on(&[HOSTING], 80 * SECOND);
    assert_eq!(alone(Kind::Own, &Settings::default(), &slow, 2), 86_400 / 80);
}

#[test]
fn fixed_lengths_stop_who_has_no_more_than_that() {
    let settings = Settings::default();
    let address = HOSTING.numbered(0xbad, 128);
    let all = 86_400;
    for (kind, network, expected) in [
        (Kind::Fail2ban(128), address, 720),
        (Kind::Fail2ban(128), HOSTING, all),
        (Kind::Fail2ban(64), HOSTING, 720),
        (Kind::Fail2ban(64), SITE, all),
        (Kind::Fail2ban(48), SITE, 720),
        (Kind::Fail2ban(48), HOME_ISP, all),
        (Kind::Fail2ban(64), carrier(1), 720),
        (Kind::PamAbl, address, 30),
        (Kind::PamAbl, HOSTING, all),
    ] {
        assert_near(alone(kind, &settings, &Attack::on(&[network], SECOND), 2), expected, 1.0);
    }
    // As measured on a real sshd: six guesses for each connection, one connection in 5 seconds; and
    // a little less for who types two a second, and so gets late to his first penalty.
    let fast = Attack::on(&[address], SECOND / 2);
    assert_near(alone(Kind::OpenSsh(128), &settings, &fast, 1), 103_680, 8.0);
    let hopping = Attack::on(&[HOSTING], SECOND / 2);
    assert_near(alone(Kind::OpenSsh(64), &settings, &hopping, 1), 103_680, 8.0);
    assert_eq!(alone(Kind::OpenSsh(128), &settings, &hopping, 1), 172_800);
}

#[test]
fn a_botnet_has_the_quotas_of_its_providers_and_one_all_over_the_world_has_no_limit() {
    let settings = Settings::default();
    let slowly = |attacker: Attacker, every| Attack { every, ..attacker.attack(1) };
    let botnet = alone(Kind::Own, &settings, &slowly(Attacker::Botnet, SECOND), 2);
    assert_near(botnet, 3 * 10_406, 1.0);
    let world = alone(Kind::Own, &settings, &slowly(Attacker::WorldBotnet, 8 * SECOND), 1);
    assert_eq!(world, 10_800);
}

/// All refused logins of a hundred, at known places and of strangers.
fn refused(kind: Kind, settings: &Settings, attacker: Attacker, every: i64) -> (f64, f64) {
    let mut attack = attacker.attack(1);
    attack.every = attack.every.max(every);
    let mut random = Random::new(1, "test");
    let figures =
        trial::run(&mut *kind.start(settings), &attack, &people::tries(1, 1), 1, &mut random);
    assert!(figures.familiar.logins > 15, "{attacker:?} {figures:?}");
    (figures.familiar.percent().unwrap(), figures.strangers.percent().unwrap_or(0.0))
}

#[test]
fn whoever_is_known_gets_in_beside_every_attacker_but_one_who_knows_his_name() {
    let settings = Settings::default();
    // Those who only walk in another order are no different here.
    let is_else = |attacker: &&Attacker| {
        !matches!(attacker, Attacker::Random | Attacker::Ascending | Attacker::BitReversed)
    };
    for attacker in Attacker::value_variants().iter().filter(is_else) {
        let every = if *attacker == Attacker::Insider { 2 } else { 6 } * SECOND;
        let (familiar, _) = refused(Kind::Own, &settings, *attacker, every);
        match attacker {
            Attacker::Insider => assert!((92.0..=100.0).contains(&familiar), "{familiar}"),
            // Of mobile phones, which have a new /64 each time, 1.1 % are refused.
            Attacker::Botnet => assert!(familiar < 1.1, "{familiar}"),
            _ => assert_eq!(familiar, 0.0, "{attacker:?}"),
        }
    }
}

#[test]
fn without_known_places_the_neighbours_are_locked_out() {
    let settings = Settings { known_quota: 0, known_wide_quota: 0, ..Settings::default() };
    for (attacker, expected) in [
        (Attacker::Net64, 95.0..=100.0),
        (Attacker::Net48, 85.0..=100.0),
        (Attacker::Net32, 80.0..=100.0),
    ] {
        let (familiar, strangers) = refused(Kind::Own, &settings, attacker, SECOND);
        assert!(expected.contains(&familiar), "{attacker:?} {familiar}");
        assert!(expected.contains(&strangers), "{attacker:?} {strangers}");
    }
    let settings = Settings::default();
    let (familiar, strangers) = refused(Kind::Fail2ban(64), &settings, Attacker::Net64, SECOND);
    assert!(familiar > 95.0 && strangers > 95.0, "{familiar} {strangers}");
    let (familiar, _) = refused(Kind::OpenSsh(64), &settings, Attacker::Net64, SECOND);
    assert!((0.0..95.0).contains(&familiar), "{familiar}");
    assert_eq!(refused(Kind::Fail2ban(128), &settings, Attacker::Net64, SECOND).0, 0.0);
}

#[test]
fn people_are_those_of_the_model_and_always_the_same() {
    let tries = people::tries(7, 2);
    let right = tries.iter().filter(|one| one.is_right).count();
    assert_eq!(right, 400 * 4 * 12);
    let wrong = tries.len() - right;
    // 5 % of the logins, with 1.4 wrong tries each.
    assert_near(wrong as u64, (right as f64 * 0.05 * 1.4) as u64, 8.0);
    let names: std::collections::HashSet<_> = tries.iter().map(|one| &one.login.user).collect();
    assert_near(names.len() as u64, 400 + right as u64 / 10, 8.0);
    let again = people::tries(7, 2);
    assert!(tries.iter().zip(&again).all(|(a, b)| a.at == b.at && a.login == b.login));
    assert!(tries.iter().zip(&people::tries(8, 2)).any(|(a, b)| a.at != b.at));
}
