//! What is done with hostile bytes: one plain function for each way in, which may not panic, hang or
//! break a promise, whatever it is given. Run by `cargo fuzz` and, without it, by `tests/fuzz.rs`.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing)]

// The parser of logs is the command's own.
#[path = "../src/cli/replay"]
mod replay {
    pub mod gather;
    pub mod line;
    pub mod once;
    pub mod parse;
    pub mod patterns;
    pub mod template;
    pub mod time;
}

use std::cell::Cell;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use pam_prefixquota::config::{Config, SETTINGS, Settings, parse_duration, parse_rule};
use pam_prefixquota::country::{Countries, country_of, mmdb};
use pam_prefixquota::decide::{Verdict, standings};
use pam_prefixquota::guard::{Admission, Clock, Guard, Pass};
use pam_prefixquota::login::Login;
use pam_prefixquota::repeat::{Guess, Remembered};
use pam_prefixquota::rules::{Kind, RuleId, StoredRule};
use pam_prefixquota::source::{Source, key_range, locate, parse_host, parse_prefix};
use pam_prefixquota::store::{Store, StoreError};
use replay::gather::{Gatherer, NOWHERE};
use replay::line::{Entry, Line};
use replay::once;
use replay::time::Zone;
use rusqlite::Connection;

/// A target: its name, what it does with an input, and how many changed inputs `tests/fuzz.rs` tries
/// of itself (those that open files are slower).
pub type Target = (&'static str, fn(&[u8]), usize);

pub const TARGETS: [Target; 12] = [
    ("rhost", rhost, 4_000),
    ("user", user, 200),
    ("settings", settings, 800),
    ("arguments", arguments, 1_500),
    ("log", log, 20_000),
    ("mmdb", mmdb, 20_000),
    ("store", store, 1_500),
    ("store_bits", store_bits, 400),
    ("country", country, 3_000),
    ("country_bits", country_bits, 800),
    ("remembered", remembered, 50_000),
    ("prefix", prefix, 100_000),
];

const NOW: i64 = 1_800_000_000_000;
const USER: &[u8] = b"alice";

/// `PAM_RHOST`, `SSH_CONNECTION` and the service, with a NUL between them: libpam's are C strings.
pub fn rhost(input: &[u8]) {
    let mut parts = input.split(|&byte| byte == 0);
    let rhost = parts.next();
    let (connection, service) = (parts.next(), parts.next().unwrap_or(b"sshd"));
    let nat64 = ["2001:db8:64::/96".parse().unwrap(), "2001:db8:6400::/40".parse().unwrap()];
    for nat64 in [&nat64[..], &[]] {
        let Some(source) = locate(rhost, connection, service, nat64) else { continue };
        is_sound(&source);
        let Some(address) = source.address() else { continue };
        // However it was written, the address that came out is found again.
        assert_eq!(parse_host(source.to_string().as_bytes()), Some(address));
        if nat64.is_empty() {
            assert_eq!(Source::of(address, nat64), source);
        }
    }
}

fn is_sound(source: &Source) {
    let bits = source.family().bits();
    assert!(*source.lengths().end() <= bits);
    for length in 0..=bits {
        let prefix = source.prefix(length);
        let (first, last) = key_range(&prefix);
        assert!(first <= source.key() && source.key() <= last, "{source} {prefix}");
        assert_eq!(parse_prefix(&prefix.to_string()), Ok(prefix));
    }
    assert_eq!(source.shared_bits(source.key()), Some(bits));
}

/// A user name, through everything that a store keeps of one.
pub fn user(input: &[u8]) {
    let dir = Dir::new();
    fs::write(dir.store(), empty_store()).unwrap();
    let (settings, clock) = (dir.settings(), Stopped::at(NOW));
    let rules = settings.rules();
    let guard = Guard::new(&settings, &rules, &clock);
    let mut store = dir.open().unwrap();
    let login = Login { source: source("192.0.2.7"), user: input.to_vec() };
    // A wrong password, and a right one.
    let _ = guard.record(&mut store, &login).unwrap();
    let guess = Guess { password: b"guess", began: NOW };
    let Admission::Passed(pass) = guard.admit(&mut store, &login, Some(guess)).unwrap() else {
        panic!("refused too early");
    };
    guard.succeed(&mut store, &login, &pass).unwrap().unwrap();
    let known: Vec<_> = store.reader().all_known().unwrap();
    let kept = known.iter().filter(|known| known.place.is_some());
    assert_eq!(kept.count(), if login.places().is_some() { 2 } else { 0 });
    assert!(known.iter().all(|known| known.user == input));
    // A failure at the known place, and a stranger's.
    let _ = guard.record(&mut store, &login).unwrap();
    let other = Login { source: source("2001:db8::1"), ..login.clone() };
    let _ = guard.record(&mut store, &other).unwrap();
    grant_to(&mut store, &login);
    assert!(matches!(guard.look(&mut store, &login).unwrap().verdict, Verdict::Admit(..)));
    let write = store.begin().unwrap();
    write.forgive_known(|user, _| user == input).unwrap();
    write.forget_known(|known| known.user == input).unwrap();
    write.commit().unwrap();
    assert!(store.reader().all_known().unwrap().is_empty());
}

/// A grant for one user, found again for him alone.
fn grant_to(store: &mut Store, login: &Login) {
    let prefix = login.source.prefix(login.source.family().bits());
    let id = RuleId { prefix, kind: Kind::Grant, user: login.user.clone() };
    let note = String::from_utf8_lossy(&login.user).into_owned();
    let rule = StoredRule { id, until: None, uses: Some(1), tries: 0, note };
    let write = store.begin().unwrap();
    write.put_rule(&rule, NOW).unwrap();
    write.commit().unwrap();
    assert_eq!(store.reader().all_rules().unwrap(), std::slice::from_ref(&rule));
    assert_eq!(store.reader().rules(&login.source).unwrap(), std::slice::from_ref(&rule));
    let write = store.begin().unwrap();
    assert!(write.take_use(&rule.id).unwrap() && !write.take_use(&rule.id).unwrap());
    write.commit().unwrap();
}

/// A settings file. Whatever stands in it, what comes out can be shown, read again and judged by.
pub fn settings(input: &[u8]) {
    let dir = Dir::new();
    let file = dir.path().join("settings");
    fs::write(&file, input).unwrap();
    make_use_of(&Config::load(Some(&file), &[]));
}

/// The arguments of a module line, with a NUL after each.
pub fn arguments(input: &[u8]) {
    let arguments: Vec<&[u8]> = input
        .split(|&byte| byte == 0)
        // That is another way in, and would open whatever is named.
        .filter(|argument| !argument.starts_with(b"config="))
        .collect();
    make_use_of(&Config::load(Some(Path::new("/nonexistent")), &arguments));
}

fn make_use_of(config: &Config) {
    let settings = &config.settings;
    for problem in &config.problems {
        assert!(!problem.to_string().is_empty());
    }
    for setting in SETTINGS {
        let shown = setting.show(settings);
        let mut again = Settings::default();
        setting.set(&mut again, &shown).unwrap();
        assert_eq!(setting.show(&again), shown, "{}", setting.name);
    }
    let rules = settings.rules();
    let clock = Stopped::at(NOW);
    for address in ["192.0.2.7", "2001:db8::1", "::1"] {
        let login = Login::of_stranger(Source::of(address.parse().unwrap(), &settings.nat64));
        let judged = Guard::new(settings, &rules, &clock).look_at_settings(&login);
        let quotas = settings.quotas(login.source.family());
        for standing in standings(&login.source, &judged.strangers, &quotas, settings.pace()) {
            assert!(standing.quota >= 2 && standing.wait == 0, "{standing:?}");
        }
    }
}

/// Lines of a log, also as journalctl gives them. No line tells of more attempts than it says.
pub fn log(input: &[u8]) {
    let mut gatherer = Gatherer::new(&[], Zone::of(jiff::tz::TimeZone::UTC));
    for is_journal in [false, true] {
        gatherer.begin(NOW);
        for line in input.split(|&byte| byte == b'\n') {
            match Entry::that_matters(line) {
                Some(entry) if is_journal => gatherer.line(&entry.line()),
                None if is_journal => gatherer.skip(),
                _ => gatherer.line(&Line::of(line)),
            }
        }
        gatherer.end();
    }
    let told = gatherer.finish();
    let there = |number: u32, length| number == NOWHERE || (number as usize) < length;
    let said: u64 = told.sightings.iter().map(|sighting| u64::from(sighting.times)).sum();
    let attempts = once::attempts(told.sightings);
    assert!(attempts.is_sorted_by_key(|attempt| attempt.at));
    for attempt in &attempts {
        assert!(there(attempt.source, told.sources.len()) && there(attempt.user, told.users.len()));
        assert!(attempt.times > 0);
    }
    assert!(attempts.iter().map(|attempt| u64::from(attempt.times)).sum::<u64>() <= said);
}

/// A MaxMind DB file. Ranges come in order and do not overlap, and no more than the file can have.
pub fn mmdb(input: &[u8]) {
    let Ok(file) = mmdb::Mmdb::new(input) else { return };
    assert!(file.built() <= 253_402_300_799 && file.database_type().chars().count() <= 83);
    let (mut last, mut ranges) = (None, 0);
    let _ = file.each_range(|range| {
        assert!(range.first <= range.last && last < Some(range.first), "{range:?} after {last:?}");
        (last, ranges) = (Some(range.last), ranges + 1);
        assert!(ranges <= input.len(), "more ranges than bytes");
        Ok::<(), String>(())
    });
}

/// A whole file in place of the store, as root would open one that was planted.
pub fn store(input: &[u8]) {
    if input.is_empty() {
        return; // no store at all
    }
    let dir = Dir::new();
    plant(&dir.store(), input);
    let _ = use_store(&dir);
}

/// A store that is right but for some bytes: places and values, four bytes for each.
pub fn store_bits(input: &[u8]) {
    let dir = Dir::new();
    plant(&dir.store(), &spoilt(full_store(), input));
    let _ = use_store(&dir);
}

/// All that the module and the command do with a store.
fn use_store(dir: &Dir) -> Result<(), StoreError> {
    let settings = Settings { strict: true, ..dir.settings() };
    let (rules, clock) = (settings.rules(), Stopped::at(NOW));
    let guard = Guard::new(&settings, &rules, &clock);
    let mut store = dir.open()?;
    for address in ["192.0.2.7", "2001:db8:0:7::1"] {
        let login = Login { source: source(address), user: USER.to_vec() };
        let _ = guard.look(&mut store, &login);
        let guess = Guess { password: b"guess", began: NOW };
        match guard.admit(&mut store, &login, Some(guess)) {
            Ok(Admission::Passed(pass)) => drop(guard.succeed(&mut store, &login, &pass)),
            Ok(Admission::Refused(refusal)) => assert!(refusal.wait().is_none_or(|ms| ms >= 0)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let _ = guard.record(&mut store, &login);
        let _ = guard.succeed(&mut store, &login, &Pass::default());
        let _ = guard.is_exempt(&store, &login);
    }
    let reader = store.reader();
    let _ = (reader.entries(None), reader.all_rules(), reader.all_known());
    let write = store.begin()?;
    let _ = write.mend_clock(NOW);
    let _ = write.forgive(&"::/0".parse().unwrap());
    let _ = write.forget_known(|_| true);
    write.commit()
}

/// A whole file in place of the country database.
pub fn country(input: &[u8]) {
    let dir = Dir::new();
    plant(&dir.countries(), input);
    use_countries(&dir);
}

/// A country database that is right but for some bytes.
pub fn country_bits(input: &[u8]) {
    let dir = Dir::new();
    plant(&dir.countries(), &spoilt(full_countries(), input));
    use_countries(&dir);
}

fn use_countries(dir: &Dir) {
    for address in ["192.0.2.7", "198.51.100.9", "2001:db8:0:7::1", "ffff::1"] {
        let _ = country_of(&dir.countries(), &source(address)).map_err(|error| error.to_string());
    }
    let _ = Countries::open(&dir.countries()).and_then(|countries| countries.about());
}

/// The wrong passwords of one slot.
pub fn remembered(input: &[u8]) {
    let tags = Remembered::from_bytes(input);
    let bytes = tags.to_bytes();
    assert!(input.starts_with(&bytes) && tags.is_empty() == bytes.is_empty());
    assert_eq!(Remembered::from_bytes(&bytes), tags);
    let (tag, _) = bytes.split_first_chunk().unwrap_or((&[7, 7], &[]));
    let tag = u16::from_be_bytes(*tag);
    for now in [0, NOW, i64::MIN, i64::MAX] {
        let more = tags.clone().with(tag, now);
        assert!(more.to_bytes().len() <= 80);
        assert!(more.has(tag, now, now, 1));
        assert!(!more.without(tag).has(tag, now, now, i64::MAX));
        let _ = tags.has(tag, now, NOW, i64::MAX);
    }
}

/// Addresses, prefixes and durations as people type them.
pub fn prefix(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for parsed in [parse_prefix(&text), parse_rule(&text)] {
        match parsed {
            Ok(prefix) => {
                assert_eq!(parse_prefix(&prefix.to_string()), Ok(prefix));
                // (Those of ::/80 and wider are of both families: keys of IPv4 lie inside.)
                let (first, last) = key_range(&prefix);
                assert!(first <= last);
            }
            Err(error) => assert!(!error.is_empty()),
        }
    }
    if let Some(time) = parse_duration(&text) {
        assert!(time >= 0);
    }
}

/// A clock that moves only when it is slept on.
struct Stopped(Cell<i64>);

impl Stopped {
    fn at(now: i64) -> Stopped {
        Stopped(Cell::new(now))
    }
}

impl Clock for Stopped {
    fn now(&self) -> i64 {
        self.0.get()
    }

    fn sleep(&self, time: Duration) {
        self.0.set(self.0.get() + i64::try_from(time.as_millis()).unwrap());
    }
}

/// A directory for one input, with the names of what may be in it.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::Builder::new().prefix("pqf").tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("q.db")
    }

    fn countries(&self) -> PathBuf {
        self.path().join("country.db")
    }

    fn settings(&self) -> Settings {
        Settings { database: self.store(), ..Settings::default() }
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.store(), Duration::from_secs(1))
    }
}

fn plant(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn source(address: &str) -> Source {
    Source::of(address.parse::<IpAddr>().unwrap(), &[])
}

/// `whole` with a byte changed for each four of `changes`: three say where, one how.
fn spoilt(whole: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for change in changes.chunks_exact(4) {
        let at = u32::from_be_bytes([0, change[0], change[1], change[2]]) as usize;
        let length = bytes.len();
        bytes[at % length] ^= change[3];
    }
    bytes
}

/// A store that was just made, as bytes.
fn empty_store() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = Dir::new();
        dir.open().unwrap();
        fs::read(dir.store()).unwrap()
    })
}

/// A store with some of everything, in pages so small that its trees have branches.
fn full_store() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = Dir::new();
        let (settings, clock) = (dir.settings(), Stopped::at(NOW - 1_000));
        let rules = settings.rules();
        let guard = Guard::new(&settings, &rules, &clock);
        let mut store = dir.open().unwrap();
        for number in 0..60_u8 {
            let source = source(&format!("2001:db8:{number}:7::1"));
            let user = if number % 3 == 0 { USER.to_vec() } else { vec![b'u', number] };
            let login = Login { source, user };
            let password = [number; 9];
            let guess = Guess { password: &password, began: clock.now() };
            if let Admission::Passed(pass) = guard.admit(&mut store, &login, Some(guess)).unwrap()
                && number % 4 == 0
            {
                guard.succeed(&mut store, &login, &pass).unwrap().unwrap();
            }
            if number % 8 == 0 {
                grant_and_keep(&mut store, &login);
            }
        }
        drop(store);
        in_small_pages(&dir.store(), "WAL")
    })
}

fn grant_and_keep(store: &mut Store, login: &Login) {
    let prefix = login.source.prefix(64);
    let id = RuleId { prefix, kind: Kind::Grant, user: login.user.clone() };
    let rule = StoredRule { id, until: Some(NOW + 1), uses: None, tries: 1, note: "n".to_owned() };
    let write = store.begin().unwrap();
    write.put_rule(&rule, NOW).unwrap();
    write.commit().unwrap();
}

/// A country database with a few hundred ranges.
fn full_countries() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = Dir::new();
        let conn = Connection::open(dir.countries()).unwrap();
        conn.execute_batch("PRAGMA application_id = 0x50667843; PRAGMA user_version = 1").unwrap();
        conn.execute_batch(include_str!("../src/country/schema.sql")).unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 200)
             INSERT INTO range SELECT unhex(printf('00000000000000000000ffffc0%02x0000', n)),
                 unhex(printf('00000000000000000000ffffc0%02xffff', n)), 'DE' FROM n;
             INSERT INTO meta VALUES ('database_type', 'Test'), ('built', '2026-01-01T00:00:00Z'),
                 ('ranges', 201), ('countries', 1)",
        )
        .unwrap();
        drop(conn);
        in_small_pages(&dir.countries(), "DELETE")
    })
}

fn in_small_pages(path: &Path, journal: &str) -> Vec<u8> {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    conn.execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
    conn.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |_| Ok(())).unwrap();
    drop(conn);
    fs::read(path).unwrap()
}
