//! Countries: in which one a source is, and whether the settings deny that one.
//!
//! # Why a second SQLite file
//!
//! The data comes as a MaxMind DB file. The command reads that and writes its ranges into a B-tree,
//! of which the module reads one path, four pages. Measured with 380 000 networks of IPv4 and
//! 300 000 of IPv6 (a file of 15.6 MB), everything in the page cache: one look-up with open and
//! close (median), and what it adds to a process as fresh as a login's (least of 500):
//!
//! | in the module | one look-up | fresh process |
//! | --- | --- | --- |
//! | this file: open, one seek, close | 0.06 ms | + 0.2 ms |
//! | the MaxMind DB, read into memory | 2.7 ms | + 12 ms |
//! | the MaxMind DB, mapped | 0.03 ms | + 0.07 ms |
//!
//! * **Reading** costs more than the whole attempt beside it (1.7 ms), and 15 MB in every login.
//! * **Mapping** is fastest, but whoever truncates the file, as a careless update by `cp` does, kills
//!   the process that has it mapped with SIGBUS (tried: it does). That process is sshd, before the
//!   login, or a Dovecot that serves everybody. A tenth of a millisecond is not worth that.
//! * **The parser** of a foreign format would run as root before every login, on a file that was
//!   downloaded. It runs in the command instead, once, where an error is a sentence on a terminal.
//!   (On the way a file of 855 bytes was found that keeps the crate `maxminddb` busy for ever.)
//!
//! The import of that file takes 1.2 s and 23 MB of memory. Of its 680 000 networks 591 000 ranges
//! are left, since neighbours of one country are merged; they need 28 MB.

#[cfg(feature = "cli")]
pub mod import;
#[cfg(feature = "cli")]
pub mod mmdb;

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::source::Source;
use crate::store::sound::{self, Schema, Work};
use crate::store::{StoreError, file, from_sqlite};

/// `PRAGMA application_id` of a country database: "PfxC".
const APPLICATION_ID: u32 = 0x5066_7843;
/// Its `PRAGMA user_version`.
const VERSION: u32 = 1;
const SCRIPT: &str = include_str!("country/schema.sql");
const SCHEMA: Schema = Schema { tables: &["range", "meta"], scripts: &[SCRIPT], added: "" };

const FOREIGN: &str = "not a country database of prefixquota; move it away";

/// The codes of ISO 3166-1 alpha-2, and XK, under which the data has Kosovo. A code that is none,
/// such as UK, would match nobody: in country_allow it would lock out everybody.
const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL \
    BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE \
    DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ \
    GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM \
    KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ \
    MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN \
    PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY \
    SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF \
    WS XK YE YT ZA ZM ZW";

/// A country, by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Country {
    /// The data does not say which, or there is no address to look up.
    Unknown,
    /// Two upper-case letters.
    Known([u8; 2]),
}

impl Country {
    /// Reads a code of ISO 3166-1, or `unknown`, in letters of any case.
    ///
    /// # Errors
    ///
    /// One sentence that says what was found and what is expected.
    pub fn parse(text: &str) -> Result<Country, String> {
        let upper = text.to_ascii_uppercase();
        if upper == "UNKNOWN" {
            return Ok(Country::Unknown);
        }
        let listed = CODES.split(' ').any(|code| code == upper);
        Country::from_code(&upper).filter(|_| listed).ok_or_else(|| {
            format!(
                "{text:?} is not a country: expected a code of ISO 3166-1, such as DE, or unknown"
            )
        })
    }

    /// The country that the data means by `code`; `None` if that is no country. ZZ stands for an
    /// unknown one.
    fn from_code(code: &str) -> Option<Country> {
        let letters = <[u8; 2]>::try_from(code.as_bytes()).ok()?;
        let is_code = letters.iter().all(u8::is_ascii_uppercase) && letters != *b"ZZ";
        is_code.then_some(Country::Known(letters))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Country::Unknown => f.write_str("unknown"),
            Country::Known(letters) => {
                letters.into_iter().try_for_each(|letter| write!(f, "{}", char::from(letter)))
            }
        }
    }
}

/// Whether the lists of the settings deny a source in `country`: one that `deny` has, and, if
/// `allow` is not empty, one that `allow` has not.
pub fn is_denied(country: Country, allow: &[Country], deny: &[Country]) -> bool {
    deny.contains(&country) || !(allow.is_empty() || allow.contains(&country))
}

/// The country of `source` by the data at `path`, which is opened only if the answer is in it: a
/// login from the local network must not depend on a file that says nothing about it.
///
/// # Errors
///
/// As [`Countries::open`] and [`Countries::of`].
pub fn country_of(path: &Path, source: &Source) -> Result<Option<Country>, StoreError> {
    match without_data(source) {
        Some(country) => Ok(country),
        None => Countries::open(path)?.of(source),
    }
}

/// What is known of `source` without any data, if it is.
fn without_data(source: &Source) -> Option<Option<Country>> {
    if source.is_local() {
        return Some(None);
    }
    source.address().is_none().then_some(Some(Country::Unknown))
}

/// The data of one import, open.
pub struct Countries {
    conn: Connection,
    path: PathBuf,
}

/// Where the data comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What the imported file calls itself.
    pub database_type: String,
    /// When its publisher made it, as `2026-11-20T04:00:00Z`.
    pub built: String,
    /// How many ranges of addresses it has, with neighbours of one country as one.
    pub ranges: u32,
    /// How many countries they are in.
    pub countries: u32,
}

impl Countries {
    /// Opens the data at `path`. Waits for nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Country`] if there is none, or not in this version; otherwise as for a store.
    pub fn open(path: &Path) -> Result<Countries, StoreError> {
        let unfit = |what| StoreError::Country(path.to_owned(), what);
        if file::examine(path)?.is_none() {
            return Err(unfit(
                "there is no country data yet; make it: prefixquota country import FILE",
            ));
        }
        match version(path)? {
            Some(VERSION) => {}
            Some(_) => {
                return Err(unfit(
                    "of another version of prefixquota; make it anew: prefixquota country import FILE",
                ));
            }
            None => return Err(unfit(FOREIGN)),
        }
        let open = || {
            let conn = connect(path)?;
            let foreign = SCHEMA.foreign(&conn)?;
            Ok((conn, foreign))
        };
        match open().map_err(|error| failed(path, error))? {
            (conn, None) => Ok(Countries { conn, path: path.to_owned() }),
            (_, Some(_)) => Err(damaged(path)),
        }
    }

    /// The country of `source`. `None` for one that is in no country by its nature, and that rules
    /// for countries do not touch: this host, its links and private networks.
    ///
    /// # Errors
    ///
    /// [`StoreError::Country`], [`StoreError::Sqlite`]: the file is damaged.
    pub fn of(&self, source: &Source) -> Result<Option<Country>, StoreError> {
        if let Some(country) = without_data(source) {
            return Ok(country);
        }
        let key = source.key().octets();
        let sql = "SELECT last, country FROM range WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
        let found = self.conn.query_row(sql, [key], |row| Ok(range(row))).optional();
        match found.map_err(|error| failed(&self.path, error))? {
            Some(Some((last, country))) if key <= last => Ok(Some(country)),
            Some(Some(_)) | None => Ok(Some(Country::Unknown)),
            Some(None) => Err(damaged(&self.path)),
        }
    }

    /// Where the data comes from.
    ///
    /// # Errors
    ///
    /// As for [`Countries::of`].
    pub fn about(&self) -> Result<About, StoreError> {
        let about = self.conn.query_row(
            "SELECT max(value) FILTER (WHERE key = 'database_type'),
                    max(value) FILTER (WHERE key = 'built'),
                    max(value) FILTER (WHERE key = 'ranges'),
                    max(value) FILTER (WHERE key = 'countries') FROM meta",
            [],
            |row| {
                Ok(About {
                    database_type: row.get(0)?,
                    built: row.get(1)?,
                    ranges: row.get(2)?,
                    countries: row.get(3)?,
                })
            },
        );
        about.map_err(|error| failed(&self.path, error))
    }
}

fn damaged(path: &Path) -> StoreError {
    let what = "damaged; make it anew: prefixquota country import FILE";
    StoreError::Country(path.to_owned(), what)
}

fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    match from_sqlite(path, error) {
        // It is mended in another way than a store.
        StoreError::Damaged(..) => damaged(path),
        error => error,
    }
}

/// The version of the country database at `path`; `None` if the file is anything else.
fn version(path: &Path) -> Result<Option<u32>, StoreError> {
    let header = file::header(path).map_err(|error| StoreError::Io(path.to_owned(), error))?;
    Ok(header.filter(|header| header.application == APPLICATION_ID).map(|header| header.version))
}

/// The file is replaced and never written to, so it is read without locks: nobody can keep a login
/// waiting with one.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | sound::FLAGS;
    let mut conn = Connection::open_with_flags_and_vfs(path, flags, "unix-none")?;
    sound::confine(&mut conn, path, Work::LOGIN)?;
    Ok(conn)
}

/// The end of a range and its country; `None` if the row makes no sense.
fn range(row: &Row<'_>) -> Option<([u8; 16], Country)> {
    let last = row.get_ref(0).ok()?.as_blob().ok()?;
    let country = Country::from_code(row.get_ref(1).ok()?.as_str().ok()?)?;
    Some((last.try_into().ok()?, country))
}
