//! The attack on one peer: who guesses from where, how fast, and who logs in afterwards.

use std::ffi::c_int;
use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::lab::{Lab, RIGHT, USER};
use crate::common::pam::{AUTH_ERR, MAXTRIES, PERM_DENIED, Pam, SUCCESS, at_once};
use crate::peers::Peer;

pub const GUESSES: usize = 300;
/// As fast as a handful of connections to sshd are.
pub const EACH: Duration = Duration::from_millis(200);
pub const CROWD: usize = 50;
/// How long fifty at once are at the prompt together, as they can be with keyboard-interactive.
const AT_PROMPT: Duration = Duration::from_secs(1);
/// Until every guess is settled in every book, and every line read.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Users of the lab, all with the same right password.
const NEIGHBOUR: &str = "neighbour";
const STRANGER: &str = "stranger";
const INSIDER: &str = "insider";

/// What the attacker has, and what he does with it.
pub struct Scenario {
    pub name: &'static str,
    /// The length of the prefix that is all his; each guess has an address of its own there.
    pub bits: u32,
    /// Each guess is for another user.
    pub spray: bool,
}

pub const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "one address", bits: 128, spray: false },
    Scenario { name: "a /64", bits: 64, spray: false },
    Scenario { name: "a /48", bits: 48, spray: false },
    Scenario { name: "a /32", bits: 32, spray: false },
    Scenario { name: "a /64, each guess another user", bits: 64, spray: true },
];

/// The same number of guesses in the same time, either way.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// One after another.
    Serial,
    /// Fifty at the same moment, and then a pause.
    Crowds,
}

/// One peer under one attack, with a pam.d, a book and a log of its own.
pub struct Cell {
    pub peer: Peer,
    pub scenario: &'static Scenario,
    pub manner: Manner,
    pub dir: PathBuf,
    number: u16,
}

/// What came of it.
pub struct Outcome<'a> {
    pub cell: &'a Cell,
    /// How many guesses the password check has answered.
    pub reached: usize,
    pub logins: Logins,
}

/// Who gets in with the right password after the attack.
#[derive(Clone, Copy)]
pub struct Logins {
    /// From the next prefix of the same length.
    pub neighbour: bool,
    /// From within the attacker's prefix, never seen there.
    pub stranger: bool,
    /// From within the attacker's prefix, where he had logged in before.
    pub insider: bool,
    /// Whose password was guessed at, from a network of which nothing is known.
    pub owner_elsewhere: bool,
    /// The same from a network where he had logged in before.
    pub owner_known: bool,
}

/// Adds everybody to the lab's users, with the same password as its first.
pub fn add_users(lab: &Lab) {
    let read = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap();
    let (mut passwd, mut shadow) = (read("passwd"), read("shadow"));
    let secret = shadow.lines().find_map(|line| line.strip_prefix(&format!("{USER}:")));
    let secret = secret.unwrap().to_owned();
    let others = [NEIGHBOUR, STRANGER, INSIDER].map(str::to_owned);
    for (i, user) in others.into_iter().chain((0..GUESSES).map(victim)).enumerate() {
        passwd += &format!("{user}:x:{}:2001::/:/bin/sh\n", 3000 + i);
        shadow += &format!("{user}:{secret}\n");
    }
    lab.etc("passwd", &passwd);
    lab.etc("shadow", &shadow);
}

fn victim(i: usize) -> String {
    format!("victim{i}")
}

impl Cell {
    pub fn new(
        lab: &Lab,
        number: u16,
        peer: Peer,
        scenario: &'static Scenario,
        manner: Manner,
    ) -> Cell {
        let dir = lab.dir().join(format!("state/cell{number}"));
        fs::create_dir(&dir).unwrap();
        let cell = Cell { peer, scenario, manner, dir, number };
        peer.prepare(&cell);
        cell
    }

    pub fn name(&self) -> String {
        format!("cell{}", self.number)
    }

    /// In a process of its own: the attack, then the logins, whose outcome it leaves in a file.
    /// The cells take turns: `turn` of `turns`.
    pub fn run(&self, turn: usize, turns: usize) -> c_int {
        let insiders_place = self.inside(GUESSES + 1);
        let owners_place = self.elsewhere(1);
        assert!(self.login(INSIDER, insiders_place), "before the attack");
        assert!(self.login(&self.target(0), owners_place), "before the attack");
        let (together, pause) = match self.manner {
            Manner::Serial => (1, EACH),
            Manner::Crowds => (CROWD, EACH * CROWD as u32),
        };
        let start = Instant::now() + pause * turn as u32 / turns as u32;
        for first in (0..GUESSES).step_by(together) {
            let due = start + EACH * first as u32;
            sleep(due.saturating_duration_since(Instant::now()));
            let answered = at_once(together, |i| self.guess(first + i));
            assert!(answered.iter().all(|&status| status == 0), "see above");
        }
        sleep(AFTERWARDS);
        let logins = [
            self.login(NEIGHBOUR, self.next_door()),
            self.login(INSIDER, insiders_place),
            self.login(STRANGER, self.inside(GUESSES)),
            self.login(&self.target(0), owners_place),
            self.login(&self.target(0), self.elsewhere(2)),
        ];
        fs::write(self.dir.join("logins"), logins.map(u8::from)).unwrap();
        0
    }

    /// A wrong guess; 0 when it got an answer.
    fn guess(&self, i: usize) -> c_int {
        let (user, source) = (self.target(i), self.inside(i));
        if self.peer.bans(self, source) {
            return 0;
        }
        let mut pam = self.pam(&user, source, &format!("guess {i}"));
        if self.manner == Manner::Crowds {
            pam.meanwhile(|| sleep(AT_PROMPT));
        }
        let answer = pam.authenticate();
        assert!([PERM_DENIED, AUTH_ERR, MAXTRIES].contains(&answer), "answer {answer}");
        self.peer.log_failure(self, &user, source);
        0
    }

    /// Whether the right password lets `user` in.
    fn login(&self, user: &str, source: Ipv6Addr) -> bool {
        if self.peer.bans(self, source) {
            return false;
        }
        let admitted = at_once(1, |_| self.enter(user, source)) == [SUCCESS];
        if admitted {
            self.peer.log_success(self, user, source);
        }
        admitted
    }

    /// What follows is never done in the process that forks: there libpam and its modules are to
    /// be found as sshd finds them.
    fn enter(&self, user: &str, source: Ipv6Addr) -> c_int {
        let mut pam = self.pam(user, source, RIGHT);
        match pam.authenticate() {
            SUCCESS => pam.account(),
            code => code,
        }
    }

    /// sshd waits after a failure, but only in that connection.
    fn pam(&self, user: &str, source: Ipv6Addr, password: &str) -> Pam {
        let pam = Pam::start(&self.dir, "sshd", user.as_bytes(), Some(password.as_bytes()));
        pam.rhost(source.to_string().as_bytes()).without_delay()
    }

    fn target(&self, i: usize) -> String {
        if self.scenario.spray { victim(i) } else { USER.to_owned() }
    }

    /// Each cell has a /16 of its own.
    fn network(&self) -> u128 {
        u128::from(0x2a10 + self.number) << 112
    }

    /// The attacker's prefix is the lower half of the one above it.
    fn prefix(&self) -> u128 {
        self.network() | 2 << 80 | 2 << 64 | 2
    }

    /// Address number `i` of the attacker's, all over his prefix.
    fn inside(&self, i: usize) -> Ipv6Addr {
        let host = u128::MAX.checked_shr(self.scenario.bits).unwrap_or(0);
        Ipv6Addr::from_bits(self.prefix() & !host | mixed(i as u64) & host)
    }

    fn next_door(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.prefix() ^ 1 << (128 - self.scenario.bits))
    }

    /// A network far away; also where the peers are tried before the attack.
    pub fn elsewhere(&self, i: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2c10 + self.number, i, 0, 0, 0, 0, 0, 1)
    }
}

/// 128 bits that have nothing to do with those of the next `i` (SplitMix64).
fn mixed(i: u64) -> u128 {
    let half = |i: u64| u128::from(common::mixed(i.wrapping_add(1).wrapping_mul(common::STEP)));
    half(2 * i) << 64 | half(2 * i + 1)
}

/// What the cells have left, and what `pam_unix` has said.
pub fn results<'a>(lab: &Lab, cells: &'a [Cell]) -> Vec<Outcome<'a>> {
    let log = lab.log_with(&["pam_unix(sshd:auth): authentication failure;"]);
    let outcome = |cell: &'a Cell| {
        let source = format!(" rhost={:x}:", cell.network() >> 112);
        let reached = log.iter().filter(|line| line.contains(&source)).count();
        let logins = fs::read(cell.dir.join("logins")).unwrap();
        let [neighbour, insider, stranger, owner_known, owner_elsewhere] =
            [0, 1, 2, 3, 4].map(|i| logins[i] == 1);
        let logins = Logins { neighbour, stranger, insider, owner_elsewhere, owner_known };
        Outcome { cell, reached, logins }
    };
    cells.iter().map(outcome).collect()
}
