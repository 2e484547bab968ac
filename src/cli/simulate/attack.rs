//! The attackers: which networks they own, and in which order they use them. They know every rule
//! and every count, and do not try where they know that they would be refused.

use clap::ValueEnum;
use pam_prefixquota::login::Login;
use pam_prefixquota::source::Source;

use super::network::{
    BUILDING, EVERYWHERE, HOLDER, HOME_ISP, HOSTING, MOBILE_ISP, Network, OFFICE, OTHER_ISP, SITE,
    carrier,
};
use super::people::office_names;
use super::random::Random;

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
/// Milliseconds between two tries of an attacker in a hurry.
const FAST: i64 = SECOND / 2;

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attacker {
    /// One IPv6 address, two tries a second
    #[value(name = "address")]
    Address,
    /// A whole /64, a random address each time
    #[value(name = "/64")]
    Net64,
    /// A whole /56
    #[value(name = "/56")]
    Net56,
    /// A whole /48
    #[value(name = "/48")]
    Net48,
    /// A whole /32
    #[value(name = "/32")]
    Net32,
    /// A whole /29
    #[value(name = "/29")]
    Net29,
    /// Ten /32s of as many holders
    #[value(name = "10x/32")]
    Ten32,
    /// One IPv4 address, which a carrier gives to many
    #[value(name = "ipv4")]
    V4,
    /// A /48, one /64 after the other, a try a second
    #[value(name = "ascending")]
    Ascending,
    /// A /48, a random address each second
    #[value(name = "random")]
    Random,
    /// A /48, each /64 as far as can be from those before, a try a second
    #[value(name = "bit-reversed")]
    BitReversed,
    /// A /48, a thousand tries at the beginning of each hour
    #[value(name = "bursts")]
    Bursts,
    /// A /64, a try every 151 seconds: too slow for any rule of 5 in 10 minutes
    #[value(name = "slow")]
    Slow,
    /// An office's /64, by somebody in it who knows all user names there
    #[value(name = "insider")]
    Insider,
    /// 2000 machines, a /64 each, with three providers
    #[value(name = "botnet")]
    Botnet,
    /// 10000 machines, a /64 each, all over the internet
    #[value(name = "world-botnet")]
    WorldBotnet,
}

/// In which order the parts of a network are used.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// A random address.
    Random,
    /// Counting the prefixes of so many bits.
    Ascending(u32),
    /// The same with the bits of the number reversed: no part fills before the rest.
    BitReversed(u32),
}

/// An attack.
#[derive(Clone, Debug)]
pub struct Attack {
    /// What the attacker owns.
    pub networks: Vec<Network>,
    /// How he walks through it.
    pub order: Order,
    /// Milliseconds between two tries.
    pub every: i64,
    /// After so many tries he rests for so many milliseconds.
    pub rest: Option<(u64, i64)>,
    /// The user names that he tries; those of nobody here if there are none.
    pub names: Vec<Vec<u8>>,
    /// Whose right logins are looked at: those of his neighbours.
    pub beside: Vec<Network>,
}

impl Attack {
    /// Random addresses of `networks`, at names of nobody here, without a rest.
    pub fn on(networks: &[Network], every: i64) -> Attack {
        Attack {
            networks: networks.to_vec(),
            order: Order::Random,
            every,
            rest: None,
            names: Vec::new(),
            beside: networks.to_vec(),
        }
    }
}

impl Attacker {
    /// What he does.
    pub fn attack(self, seed: u64) -> Attack {
        let attack = Attack::on;
        let fast = |network: Network| attack(&[network], FAST);
        let hop = |order: Order| Attack { order, ..attack(&[SITE], SECOND) };
        let bots = |number: usize, isps: &[Network]| {
            let mut random = Random::new(seed, "bots");
            let mut bot = || random.pick(isps).copied().unwrap_or(EVERYWHERE);
            let networks: Vec<Network> = (0..number).map(|_| bot()).collect();
            let networks: Vec<Network> =
                networks.into_iter().map(|isp| isp.part_of(64, &mut random)).collect();
            Attack { beside: isps.to_vec(), ..attack(&networks, FAST) }
        };
        match self {
            Attacker::Address => {
                Attack { beside: vec![HOSTING], ..fast(HOSTING.numbered(0xbad, 128)) }
            }
            Attacker::Net64 => fast(HOSTING),
            Attacker::Net56 => fast(BUILDING),
            Attacker::Net48 => fast(SITE),
            Attacker::Net32 => fast(HOME_ISP),
            Attacker::Net29 => fast(HOLDER),
            Attacker::Ten32 => {
                let isps: Vec<Network> =
                    (0..10).map(|n| EVERYWHERE.numbered(0x100 + 0x10 * n, 32)).collect();
                attack(&isps, FAST)
            }
            Attacker::V4 => fast(carrier(1)),
            Attacker::Ascending => hop(Order::Ascending(64)),
            Attacker::Random => hop(Order::Random),
            Attacker::BitReversed => hop(Order::BitReversed(64)),
            Attacker::Bursts => Attack { rest: Some((1_000, HOUR - 1_000 * FAST)), ..fast(SITE) },
            Attacker::Slow => Attack { every: 151 * SECOND, ..fast(HOSTING) },
            Attacker::Insider => Attack { names: office_names(), ..fast(OFFICE) },
            Attacker::Botnet => bots(2_000, &[HOME_ISP, MOBILE_ISP, OTHER_ISP]),
            Attacker::WorldBotnet => bots(10_000, &[EVERYWHERE]),
        }
    }
}

impl Attack {
    /// Whether the user of `source` is a neighbour of the attacker.
    pub fn is_beside(&self, source: &Source) -> bool {
        self.beside.iter().any(|network| network.contains(source.key()))
    }

    /// When try number `i` happens, counted from the first.
    pub fn at(&self, i: u64) -> i64 {
        let rested = self.rest.map_or(0, |(tries, rest)| (i / tries) as i64 * rest);
        i as i64 * self.every + rested
    }

    /// Try number `i`.
    pub fn login(&self, i: u64, random: &mut Random) -> Login {
        let network = random.pick(&self.networks).copied().unwrap_or(EVERYWHERE);
        let address = match self.order {
            Order::Random => network.random_address(random),
            Order::Ascending(bits) => network.numbered(u128::from(i), bits).address(),
            Order::BitReversed(bits) => network.spread(u128::from(i), bits).address(),
        };
        let user = random.pick(&self.names).cloned().unwrap_or_default();
        Login { source: Source::of(address, &[]), user }
    }
}
