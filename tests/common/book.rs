//! Counts in memory, to drive the pure core without a store.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use pam_prefixquota::config::Settings;
use pam_prefixquota::count::{Count, Failures};
use pam_prefixquota::decide::{self, Records, Standing, Verdict};
use pam_prefixquota::login::Login;
use pam_prefixquota::rules::Ruled;
use pam_prefixquota::source::Source;
use pam_prefixquota::tally::Tally;

/// Rows in memory, and a clock that stands until it is moved.
#[derive(Clone)]
pub struct Book {
    pub settings: Settings,
    pub now: i64,
    rows: BTreeMap<Ipv6Addr, Failures>,
}

impl Default for Book {
    fn default() -> Book {
        Book::new(Settings { settle: 0, ..Settings::default() })
    }
}

impl Book {
    pub fn new(settings: Settings) -> Book {
        Book { settings, now: 1_000_000_000_000, rows: BTreeMap::new() }
    }

    pub fn rows(&self) -> Vec<Failures> {
        self.rows.values().copied().collect()
    }

    pub fn standings(&self, address: IpAddr) -> Vec<Standing> {
        let source = Source::of(address, &[]);
        let quotas = self.settings.quotas(source.family());
        decide::standings(&source, &self.tally(&source), &quotas, self.settings.pace()).collect()
    }

    /// Milliseconds until `address` is admitted.
    pub fn wait(&self, address: IpAddr) -> i64 {
        self.standings(address).iter().map(|standing| standing.wait).max().unwrap_or(0)
    }

    pub fn failures(&self, address: IpAddr) -> f64 {
        let source = Source::of(address, &[]);
        self.tally(&source).count(source.family().bits())
    }

    pub fn admits(&self, address: IpAddr) -> bool {
        let login = Login::of_stranger(Source::of(address, &[]));
        let records = Records { strangers: self.rows(), ..Records::default() };
        let ruled = Ruled::default();
        let judgement = decide::judge(&login, &ruled, &records, &self.settings, self.now);
        matches!(judgement.verdict, Verdict::Admit(..))
    }

    /// A wrong guess: charged if admitted.
    pub fn attempt(&mut self, address: IpAddr) -> bool {
        let admitted = self.admits(address);
        if admitted {
            self.charge(address);
        }
        admitted
    }

    pub fn charge(&mut self, address: IpAddr) {
        let key = Source::of(address, &[]).key();
        let row = self.rows.entry(key).or_insert(Failures { key, count: Count::none(self.now) });
        row.count = row.count.charged(self.now, self.settings.pace());
    }

    /// Guesses from addresses spread over the prefix of `length` bits around `base`, until one is
    /// refused; how many were admitted.
    pub fn fill(&mut self, base: IpAddr, length: u8) -> u32 {
        let mut admitted = 0;
        while self.attempt(inside(base, length, admitted)) {
            admitted += 1;
        }
        admitted
    }

    fn tally(&self, source: &Source) -> Tally {
        Tally::new(source, &self.rows(), self.now, self.settings.pace())
    }
}

/// Address number `i` of the prefix of `length` bits around `base`, in an order that fills no part
/// of it before the rest: bit-reversed counting.
pub fn inside(base: IpAddr, length: u8, i: u32) -> IpAddr {
    match base {
        IpAddr::V6(v6) => {
            let host = u128::from(i).reverse_bits().checked_shr(length.into()).unwrap_or(0);
            let mask = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !mask | host).into()
        }
        IpAddr::V4(v4) => {
            let host = i.reverse_bits().checked_shr(length.into()).unwrap_or(0);
            let mask = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & !mask | host).into())
        }
    }
}

/// The `i`-th of the numbers of `bits` bits, in bit-reversed order.
pub fn spread(i: u16, bits: u32) -> u16 {
    i.reverse_bits() >> (16 - bits)
}

pub fn v6(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
