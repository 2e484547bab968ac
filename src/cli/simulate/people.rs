//! The right users: who they are, from where they log in, and how they mistype.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use pam_prefixquota::login::Login;
use pam_prefixquota::source::Source;

use super::network::{
    BUILDING, EVERYWHERE, HOME_ISP, HOSTING, MOBILE_ISP, Network, OFFICE, OTHER_ISP, SITE, carrier,
};
use super::random::Random;
use super::{DAY, QUIET_DAYS, START};

/// How many users there are.
const PEOPLE: usize = 400;
const FIRST_IN_OFFICE: usize = 200;
const LAST_IN_OFFICE: usize = 239;
/// Logins of one user in a day.
const LOGINS: u64 = 4;
/// Between two tries of one person, in milliseconds.
const PAUSE: i64 = 5_000;
/// So many logins of a hundred begin with wrong passwords.
const MISTYPED: u64 = 5;
/// So many logins of a hundred are of somebody new, at the place of the others.
const NEW: u64 = 10;
/// Providers where travellers turn up, besides their own.
const ABROAD: u64 = 20;

/// One password that a right user types.
pub struct Try {
    /// When, Unix milliseconds.
    pub at: i64,
    /// Who, from where.
    pub login: Login,
    /// Whether it is the right one.
    pub is_right: bool,
    /// Whether the user has logged in from that place, or that provider, in the quiet days.
    pub is_familiar: bool,
}

/// From where somebody logs in.
#[derive(Clone, Copy)]
enum Habit {
    /// A /64 of his own in a provider's network, another address each day.
    Home(Network, Network),
    /// A /64 that many share, another address each day.
    Shared(Network),
    /// Always the same address in a /64 that many share.
    Hosted(Network),
    /// Another /64 of the provider each time.
    Mobile(Network),
    /// One of the carrier's three addresses.
    Carrier,
    /// A home, and every other time anywhere.
    Traveller(Network),
}

impl Habit {
    /// That of user `number`.
    fn of_user(number: usize, random: &mut Random) -> Habit {
        let mut home = |isp: Network| isp.part_of(64, random);
        match number {
            0..110 => Habit::Home(HOME_ISP, home(HOME_ISP)),
            110..140 => Habit::Home(SITE, home(SITE)),
            140..160 => Habit::Home(OTHER_ISP, home(OTHER_ISP)),
            160..200 => Habit::Traveller(home(HOME_ISP)),
            FIRST_IN_OFFICE..=LAST_IN_OFFICE => Habit::Shared(OFFICE),
            240..280 => Habit::Hosted(HOSTING.part_of(128, random)),
            280..340 => Habit::Mobile(MOBILE_ISP),
            _ => Habit::Carrier,
        }
    }

    /// The address of one login; `today` is what a machine chose for the day.
    fn address(self, today: u128, random: &mut Random) -> IpAddr {
        match self {
            Habit::Home(_, home) | Habit::Shared(home) => home.numbered(today, 128).address(),
            Habit::Hosted(machine) => machine.address(),
            Habit::Mobile(isp) => isp.random_address(random),
            Habit::Carrier => carrier(random.below(3) as u8 + 1).address(),
            Habit::Traveller(home) if random.percent(50) => home.numbered(today, 128).address(),
            Habit::Traveller(_) => {
                let number = random.below(ABROAD + 2);
                let isp = match number {
                    0 => HOME_ISP,
                    1 => OTHER_ISP,
                    _ => EVERYWHERE.numbered(0x400 + u128::from(number), 32),
                };
                isp.random_address(random)
            }
        }
    }

    /// From where somebody logs in who is new there.
    fn of_newcomer(self, random: &mut Random) -> Habit {
        match self {
            Habit::Home(isp, _) => Habit::Home(isp, isp.part_of(64, random)),
            Habit::Hosted(_) => Habit::Hosted(HOSTING.part_of(128, random)),
            Habit::Shared(_) | Habit::Mobile(_) | Habit::Carrier => self,
            Habit::Traveller(_) => Habit::Shared(BUILDING.part_of(64, random)),
        }
    }
}

/// The names of those in the office, whom an insider knows.
pub fn office_names() -> Vec<Vec<u8>> {
    (FIRST_IN_OFFICE..=LAST_IN_OFFICE).map(name).collect()
}

fn name(number: usize) -> Vec<u8> {
    format!("user{number}").into_bytes()
}

/// All that the right users type in the quiet days and in `days` more, in order.
pub fn tries(seed: u64, days: u16) -> Vec<Try> {
    let mut random = Random::new(seed, "people");
    let mut logins = Vec::new();
    for number in 0..PEOPLE {
        let habit = Habit::of_user(number, &mut random);
        for day in 0..QUIET_DAYS + i64::from(days) {
            let today = random.bits();
            for _ in 0..LOGINS {
                let at = START + day * DAY + random.below(DAY as u64) as i64;
                let (user, habit) = if random.percent(NEW) {
                    let user = format!("new{}", logins.len()).into_bytes();
                    (user, habit.of_newcomer(&mut random))
                } else {
                    (name(number), habit)
                };
                let source = Source::of(habit.address(today, &mut random), &[]);
                logins.push((at, Login { source, user }, wrong_tries(&mut random)));
            }
        }
    }
    logins.sort_by_key(|(at, _, _)| *at);

    let mut familiar: HashSet<(Vec<u8>, IpNet)> = HashSet::new();
    let mut tries = Vec::new();
    for (at, login, wrong) in logins {
        let places = login.places().into_iter().flatten();
        let places: Vec<_> = places.map(|place| (login.user.clone(), place.prefix)).collect();
        let is_familiar = places.iter().any(|place| familiar.contains(place));
        if at < START + QUIET_DAYS * DAY {
            familiar.extend(places);
        }
        tries.extend((0..=wrong).map(|n| Try {
            at: at + i64::from(n) * PAUSE,
            login: login.clone(),
            is_right: n == wrong,
            is_familiar,
        }));
    }
    tries.sort_by_key(|one| one.at);
    tries
}

/// Of those who mistype, 70 of a hundred do so once, 20 twice and 10 three times.
fn wrong_tries(random: &mut Random) -> u8 {
    if !random.percent(MISTYPED) {
        return 0;
    }
    match random.below(10) {
        0..7 => 1,
        7..9 => 2,
        _ => 3,
    }
}
