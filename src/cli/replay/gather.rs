//! Collects what the lines of all logs tell of attempts, in little memory.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use pam_prefixquota::source::{Source, locate, parse_host};

use super::line::{Line, MOST_TIMES, repeats_last};
use super::parse::parse;
use super::patterns::{Means, Program, Sign};
use super::time::{Stamp, Yearless, Years, Zone};

/// Of an attempt without an address, as at a console.
pub const NOWHERE: u32 = u32::MAX;
/// Of an attempt whose user is not told.
pub const NOBODY: u32 = 0;
/// One process answers one client no longer than this, in milliseconds.
const CONVERSATION: i64 = 10 * 60 * 1_000;
/// PAM services behind which mail is read and sent: Dovecot may ask under the name of each.
const MAIL: [&[u8]; 10] = [
    b"dovecot",
    b"imap",
    b"imaps",
    b"pop3",
    b"pop3s",
    b"smtp",
    b"submission",
    b"sieve",
    b"managesieve",
    b"auth",
];

/// Services whose lines may be about the same attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// sshd.
    Ssh,
    /// Dovecot, and Postfix, whose passwords it may check.
    Mail,
    /// vsftpd.
    Vsftpd,
    /// ProFTPD.
    Proftpd,
    /// A service of which there are lines of pam_unix alone.
    Other(u16),
}

/// A connection, as far as a log tells: machine and process. None if the process is 0.
pub type Connection = (u32, u32);

/// What one line tells. Names and addresses are kept once, in [`Gathered`].
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Unix milliseconds.
    pub at: i64,
    /// Who wrote it.
    pub connection: Connection,
    /// Which source, or [`NOWHERE`].
    pub source: u32,
    /// Which user, or [`NOBODY`].
    pub user: u32,
    /// How many attempts.
    pub times: u32,
    /// What it means.
    pub sign: Sign,
    /// Of which services.
    pub family: Family,
    /// Whether a host name stands there in place of an address.
    pub is_named: bool,
}

/// All that was told.
#[derive(Default)]
pub struct Gathered {
    /// How many lines were read.
    pub lines: u64,
    /// What they tell, in the order in which they were read.
    pub sightings: Vec<Sighting>,
    /// The sources, by number. Hosts of which only the names are told have a number each.
    pub sources: Vec<Source>,
    /// The users, by number.
    pub users: Vec<Vec<u8>>,
}

/// Reads lines, one log after the other.
pub struct Gatherer {
    nat64: Vec<Ipv6Net>,
    zone: Zone,
    told: Gathered,
    /// The numbers of what was seen already: sources by how they were written and by their keys.
    hosts: HashMap<Vec<u8>, u32>,
    keys: HashMap<Ipv6Addr, u32>,
    users: HashMap<Vec<u8>, u32>,
    nodes: HashMap<Vec<u8>, u32>,
    services: HashMap<Vec<u8>, u32>,
    /// Who sends mail over a connection now.
    senders: HashMap<Connection, (u32, u32)>,
    log: Log,
}

/// The log that is being read.
#[derive(Default)]
struct Log {
    /// When it ends at the latest, Unix milliseconds.
    end: i64,
    years: Years,
    /// The last stamp, with the year of the log in which it is.
    now: Option<(Stamp, i32)>,
    /// Sightings whose year is not known yet.
    yearless: Vec<(usize, Yearless, i32)>,
    /// Those of sshd that name a host, by process: another line of it may have the address.
    named: HashMap<Connection, Vec<(usize, i64)>>,
    /// What the line before told.
    last: Option<usize>,
}

impl Gatherer {
    /// With nothing read yet.
    pub fn new(nat64: &[Ipv6Net], zone: Zone) -> Gatherer {
        let told = Gathered { users: vec![Vec::new()], ..Gathered::default() };
        Gatherer {
            nat64: nat64.to_vec(),
            zone,
            told,
            hosts: HashMap::new(),
            keys: HashMap::new(),
            users: HashMap::from([(Vec::new(), NOBODY)]),
            nodes: HashMap::from([(Vec::new(), 0)]),
            services: HashMap::new(),
            senders: HashMap::new(),
            log: Log::default(),
        }
    }

    /// Begins a log whose last line is not younger than `end`, Unix milliseconds.
    pub fn begin(&mut self, end: i64) {
        self.log = Log { end, ..Log::default() };
        self.senders.clear();
    }

    /// How many lines were read.
    pub fn lines(&self) -> u64 {
        self.told.lines
    }

    /// Counts a line that is none, or too long to be one.
    pub fn skip(&mut self) {
        self.told.lines += 1;
        self.log.last = None;
    }

    /// Reads the next line.
    pub fn line(&mut self, line: &Line<'_>) {
        self.told.lines += 1;
        self.log.last = self.sighting(line).or_else(|| self.again(line));
    }

    /// Ends a log: now the years of its stamps can be told.
    pub fn end(&mut self) {
        let log = std::mem::take(&mut self.log);
        let first = log.years.first(self.zone.local(log.end));
        for (index, stamp, year) in log.yearless {
            let at = self.zone.utc(Years::local(stamp, first + year));
            self.told.sightings.get_mut(index).into_iter().for_each(|sighting| sighting.at = at);
        }
    }

    /// All that was told by all logs.
    pub fn finish(self) -> Gathered {
        self.told
    }

    /// Keeps what a line tells; where it is kept.
    fn sighting(&mut self, line: &Line<'_>) -> Option<usize> {
        let found = parse(line)?;
        let sign = found.pattern.sign;
        if sign == Sign::Nothing && self.log.named.is_empty() {
            return None;
        }
        let family = self.family(found.pattern.by, line.service);
        let host = found.fields.host.unwrap_or_default();
        let source = self.source(host, line.service);
        let is_named = parse_host(host).is_none();
        let connection = (number(&mut self.nodes, line.node), line.pid);
        let (stamp, year) = self.log.time(line.stamp);
        if family == Family::Ssh && !is_named {
            self.address(connection, source, rough(stamp, year));
        }
        let user = self.user(found.fields.user.unwrap_or_default());
        let number = found.fields.number.unwrap_or(1).saturating_mul(line.times);
        let times = match sign {
            Sign::Failed(_) => number.min(MOST_TIMES),
            Sign::Accepted(Means::PerMessage) => self.sender(connection, (source, user)),
            Sign::Accepted(_) => line.times,
            Sign::Closed => {
                self.senders.remove(&connection);
                0
            }
            Sign::Nothing => 0,
        };
        if times == 0 {
            return None;
        }
        if is_named && family == Family::Ssh && line.pid != 0 {
            let waiting = self.log.named.entry(connection).or_default();
            waiting.push((self.told.sightings.len(), rough(stamp, year)));
        }
        Some(self.keep(Sighting { at: 0, connection, source, user, times, sign, family, is_named }))
    }

    /// Each message of a connection tells of its one login: 1 for the first of them.
    fn sender(&mut self, connection: Connection, sender: (u32, u32)) -> u32 {
        let is_told = connection.1 != 0 && self.senders.insert(connection, sender) == Some(sender);
        u32::from(!is_told)
    }

    /// What stands for more of the line before it.
    fn again(&mut self, line: &Line<'_>) -> Option<usize> {
        let before = *self.told.sightings.get(self.log.last?)?;
        let times = before.times.saturating_mul(repeats_last(line)?).min(MOST_TIMES);
        self.log.time(line.stamp);
        Some(self.keep(Sighting { times, ..before }))
    }

    /// Keeps a sighting, with the time of the line that is being read.
    fn keep(&mut self, sighting: Sighting) -> usize {
        let index = self.told.sightings.len();
        let at = match self.log.now {
            Some((Stamp::Utc(at), _)) => at,
            Some((Stamp::Local(local), _)) => self.zone.utc(local),
            Some((Stamp::Yearless(stamp), year)) => {
                self.log.yearless.push((index, stamp, year));
                0
            }
            None => self.log.end,
        };
        self.told.sightings.push(Sighting { at, ..sighting });
        index
    }

    /// Gives those that name a host the address that another line of their process has.
    fn address(&mut self, connection: Connection, source: u32, now: i64) {
        if self.log.named.is_empty() {
            return;
        }
        for (index, at) in self.log.named.remove(&connection).unwrap_or_default() {
            if let Some(sighting) = self.told.sightings.get_mut(index)
                && now.saturating_sub(at).abs() <= CONVERSATION
            {
                (sighting.source, sighting.is_named) = (source, false);
            }
        }
    }

    fn source(&mut self, host: &[u8], service: &[u8]) -> u32 {
        if let Some(&source) = self.hosts.get(host) {
            return source;
        }
        let Some(source) = locate(Some(host), None, service, &self.nat64) else { return NOWHERE };
        let next = self.told.sources.len() as u32;
        // Names that count as one are hosts of their own all the same.
        let index = match source.address() {
            Some(_) => {
                let index = *self.keys.entry(source.key()).or_insert(next);
                self.hosts.insert(host.to_vec(), index);
                index
            }
            None => *self.hosts.entry([host, b" ", service].concat()).or_insert(next),
        };
        if index == next {
            self.told.sources.push(source);
        }
        index
    }

    fn user(&mut self, user: &[u8]) -> u32 {
        let index = number(&mut self.users, user);
        if self.told.users.len() as u32 == index {
            self.told.users.push(user.to_vec());
        }
        index
    }

    fn family(&mut self, by: Program, service: &[u8]) -> Family {
        match by {
            Program::Sshd => Family::Ssh,
            Program::Dovecot | Program::Postfix => Family::Mail,
            Program::Vsftpd => Family::Vsftpd,
            Program::Proftpd => Family::Proftpd,
            Program::PamUnix | Program::Any => match service {
                b"sshd" | b"sshd-session" | b"sshd-auth" => Family::Ssh,
                b"vsftpd" => Family::Vsftpd,
                b"proftpd" => Family::Proftpd,
                _ if MAIL.contains(&service) => Family::Mail,
                _ => {
                    let index = number(&mut self.services, service);
                    Family::Other(u16::try_from(index).unwrap_or(u16::MAX))
                }
            },
        }
    }
}

impl Log {
    /// The time of the next line; of one that does not say, that of the line before.
    fn time(&mut self, stamp: Option<Stamp>) -> (Stamp, i32) {
        let now = match (stamp, self.now) {
            (Some(Stamp::Yearless(stamp)), _) => (Stamp::Yearless(stamp), self.years.next(stamp)),
            (Some(stamp), _) => (stamp, 0),
            (None, Some(now)) => now,
            (None, None) => (Stamp::Utc(self.end), 0),
        };
        self.now = Some(now);
        now
    }
}

/// A time that is good enough to tell how far two lines of one log are apart, in milliseconds.
fn rough(stamp: Stamp, year: i32) -> i64 {
    match stamp {
        Stamp::Utc(at) | Stamp::Local(at) => at,
        Stamp::Yearless(stamp) => Years::local(stamp, 2_000 + year),
    }
}

/// The number of a name, which may be new.
fn number(names: &mut HashMap<Vec<u8>, u32>, name: &[u8]) -> u32 {
    if let Some(&known) = names.get(name) {
        return known;
    }
    let next = names.len() as u32;
    names.insert(name.to_vec(), next);
    next
}
