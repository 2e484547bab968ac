//! Time stamps of log lines, of which the oldest kind says neither year nor zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const SECOND: i64 = 1_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;
/// A stamp may lie so far ahead of the end of its log: the clock of another machine or zone.
const AHEAD: i64 = DAY;
/// A log that goes back by more days than this begins a new year. Less is disorder: a clock that
/// was set back, or files that were put together in the wrong order.
const MONTH: i32 = 31;
const YEAR: i32 = 12 * MONTH;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// When a line was written, as far as it says. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Since 1970 in UTC.
    Utc(i64),
    /// Since 1970 by the clock on the wall.
    Local(i64),
    /// A day of some year, by the clock on the wall (RFC 3164).
    Yearless(Yearless),
}

/// A stamp without a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yearless {
    /// 1 to 12.
    month: u8,
    /// 1 to 31.
    day: u8,
    /// Since midnight.
    time: i64,
}

impl Yearless {
    /// The days of the year before it, if all months had as many as the longest.
    fn days(self) -> i32 {
        i32::from(self.month) * MONTH + i32::from(self.day)
    }

    /// Since 1970 by the clock on the wall.
    fn in_year(self, year: i32) -> i64 {
        days_since_1970(year, self.month, self.day) * DAY + self.time
    }

    fn is_leap_day(self) -> bool {
        (self.month, self.day) == (2, 29)
    }
}

/// Reads the stamp at the start of `text`, and what follows it.
///
/// `Dec 10 06:55:46`, `Sun Dec 10 06:55:46 2023`, and the forms of RFC 3339 and ISO 8601, with
/// `T` or a blank, with or without a fraction and an offset.
pub fn stamp(text: &[u8]) -> Option<(Stamp, &[u8])> {
    match text.first()? {
        b'0'..=b'9' => iso(text),
        b'A'..=b'Z' => syslog(text),
        _ => None,
    }
}

fn iso(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (year, text) = number(text, 4, 0..=9_999)?;
    let (month, text) = number(text.strip_prefix(b"-")?, 2, 1..=12)?;
    let (day, text) = number(text.strip_prefix(b"-")?, 2, 1..=31)?;
    let text = text.strip_prefix(b"T").or_else(|| text.strip_prefix(b" "))?;
    let (time, text) = time_of_day(text)?;
    let days = days_since_1970(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    let local = days * DAY + time;
    Some(match offset(text) {
        Some((offset, rest)) => (Stamp::Utc(local - offset), rest),
        None => (Stamp::Local(local), text),
    })
}

fn syslog(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let has_weekday = WEEKDAYS.iter().any(|day| text.starts_with(*day));
    let text = if has_weekday { text.get(3..)?.strip_prefix(b" ")? } else { text };
    let name = text.first_chunk::<3>()?;
    let month = u8::try_from(MONTHS.iter().position(|month| *month == name)? + 1).ok()?;
    let text = text.get(3..)?.strip_prefix(b" ")?;
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let digits = if text.get(1).is_some_and(u8::is_ascii_digit) { 2 } else { 1 };
    let (day, text) = number(text, digits, 1..=31)?;
    let (time, text) = time_of_day(text.strip_prefix(b" ")?)?;
    let day = u8::try_from(day).ok()?;
    if !has_weekday {
        return Some((Stamp::Yearless(Yearless { month, day, time }), text));
    }
    let (year, text) = number(text.strip_prefix(b" ")?, 4, 1_970..=9_999)?;
    Some((Stamp::Local(days_since_1970(year, month, day) * DAY + time), text))
}

/// Milliseconds since midnight; digits beyond are passed over.
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, text) = number(text, 2, 0..=23)?;
    let (minutes, text) = number(text.strip_prefix(b":")?, 2, 0..=59)?;
    let (seconds, text) = number(text.strip_prefix(b":")?, 2, 0..=60)?;
    let time = i64::from((hours * 60 + minutes) * 60 + seconds) * SECOND;
    let Some(fraction) = text.strip_prefix(b".").or_else(|| text.strip_prefix(b",")) else {
        return Some((time, text));
    };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = |unit: i64, digit: &u8| unit * 10 + i64::from(digit.wrapping_sub(b'0'));
    let shown = digits.min(3);
    let first = fraction.iter().take(shown).fold(0, value);
    let unit = [1_000, 100, 10, 1].get(shown).copied().unwrap_or(1);
    Some((time + if shown == 0 { 0 } else { first * unit }, fraction.get(digits..)?))
}

/// Milliseconds east of UTC.
fn offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, text) = match text.split_first()? {
        (b'Z', rest) => return Some((0, rest)),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, text) = number(text, 2, 0..=23)?;
    let (minutes, text) = number(text.strip_prefix(b":").unwrap_or(text), 2, 0..=59)?;
    Some((sign * i64::from(hours * 60 + minutes) * 60 * SECOND, text))
}

fn number(
    text: &[u8],
    digits: usize,
    range: std::ops::RangeInclusive<i32>,
) -> Option<(i32, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let number = digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i32::from(byte - b'0'))
    })?;
    range.contains(&number).then_some((number, rest))
}

/// By the calendar of today, for all years. (Years begin in March, so that leap days come last.)
fn days_since_1970(year: i32, month: u8, day: u8) -> i64 {
    let month = i64::from(month);
    let year = i64::from(year) - i64::from(month <= 2);
    let days = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + days - 719_468
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Finds the years of one log's stamps: time runs forwards, and ends not in the future.
#[derive(Default)]
pub struct Years {
    /// The latest stamp, and in which year of the log it is, from 0.
    last: Option<(i32, Yearless)>,
    /// The year of the log that has a 29 February.
    leap: Option<i32>,
}

impl Years {
    /// In which year of the log a stamp is that comes next.
    pub fn next(&mut self, stamp: Yearless) -> i32 {
        let Some((year, last)) = self.last else {
            self.last = Some((0, stamp));
            self.leap = stamp.is_leap_day().then_some(0);
            return 0;
        };
        let year = match stamp.days() - last.days() {
            // Written late, after the turn of the year.
            days if days > YEAR - MONTH => return year - 1,
            days if days < -MONTH => year + 1,
            _ => year,
        };
        if (year, stamp.days(), stamp.time) > (self.last_year(), last.days(), last.time) {
            self.last = Some((year, stamp));
        }
        if stamp.is_leap_day() {
            self.leap = Some(year);
        }
        year
    }

    fn last_year(&self) -> i32 {
        self.last.map_or(0, |(year, _)| year)
    }

    /// The first year of the log, whose last stamp is not after `end` by the clock on the wall.
    pub fn first(&self, end: i64) -> i32 {
        let Some((years, last)) = self.last else { return 1970 };
        let mut year = 1970;
        while last.in_year(year + years + 1) <= end.saturating_add(AHEAD) && year < 9_000 {
            year += 1;
        }
        // A leap day is at most eight years away.
        match self.leap {
            Some(leap) => (0..9).map(|back| year - back).find(|y| is_leap(y + leap)),
            None => None,
        }
        .unwrap_or(year)
    }

    /// Since 1970 by the clock on the wall.
    pub fn local(stamp: Yearless, year: i32) -> i64 {
        stamp.in_year(year)
    }
}

/// The clock on the wall of this machine (or of `TZ`).
pub struct Zone {
    zone: TimeZone,
    /// A quarter of an hour by the clock on the wall, and its offset from UTC.
    cached: (i64, i64),
}

impl Zone {
    /// That of the system.
    pub fn system() -> Zone {
        Zone::of(TimeZone::system())
    }

    /// A certain one.
    pub fn of(zone: TimeZone) -> Zone {
        Zone { zone, cached: (i64::MIN, 0) }
    }

    /// The time in UTC of a time by the clock on the wall. Of one that comes twice, the first.
    pub fn utc(&mut self, local: i64) -> i64 {
        const QUARTER: i64 = 15 * 60 * SECOND;
        let quarter = local.div_euclid(QUARTER);
        if self.cached.0 != quarter {
            self.cached = (quarter, self.offset(quarter * QUARTER).unwrap_or(0));
        }
        local - self.cached.1
    }

    fn offset(&self, local: i64) -> Option<i64> {
        let wall = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(local).ok()?);
        Some(local - self.zone.to_timestamp(wall).ok()?.as_millisecond())
    }

    /// The time by the clock on the wall of a time in UTC.
    pub fn local(&self, utc: i64) -> i64 {
        let offset = Timestamp::from_millisecond(utc).map(|time| self.zone.to_offset(time));
        utc + offset.map_or(0, |offset| i64::from(offset.seconds()) * SECOND)
    }
}
