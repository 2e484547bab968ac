//! What settings take, and how that is read and shown.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv6Net};

use super::{Rate, Settings};
use crate::country::Country;
use crate::quota::Multiple;
use crate::repeat::Repeat;
use crate::source::{is_folded, parse_prefix};

pub(super) const SECOND: i64 = 1_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// The units of a duration, longest first, in milliseconds.
const UNITS: [(char, i64); 4] = [('d', DAY), ('h', HOUR), ('m', MINUTE), ('s', SECOND)];

/// What a setting takes, with the field that holds it.
pub(super) enum Kind {
    Path(fn(&mut Settings) -> &mut PathBuf),
    Duration(RangeInclusive<i64>, fn(&mut Settings) -> &mut i64),
    Number(RangeInclusive<u32>, fn(&mut Settings) -> &mut u32),
    Length(RangeInclusive<u8>, fn(&mut Settings) -> &mut u8),
    /// Two words for false and true.
    Choice([&'static str; 2], fn(&mut Settings) -> &mut bool),
    Prefixes(fn(&mut Settings) -> &mut Vec<IpNet>),
    Translators(fn(&mut Settings) -> &mut Vec<Ipv6Net>),
    Multiples(fn(&mut Settings) -> &mut Vec<Multiple>),
    /// `N per DURATION`, or `no`.
    Rate(fn(&mut Settings) -> &mut Option<Rate>),
    /// 0 for none at all, or a quota.
    KnownQuota(fn(&mut Settings) -> &mut u32),
    Repeat(fn(&mut Settings) -> &mut Repeat),
    Countries(fn(&mut Settings) -> &mut Vec<Country>),
}

pub(super) const SWITCH: [&str; 2] = ["no", "yes"];

const MULTIPLES: RangeInclusive<u32> = 1..=1_000;
/// With a quota of 1 a count that only decays would never let the next try in.
const QUOTAS: RangeInclusive<u32> = 2..=1_000_000;
const RATE_TIMES: RangeInclusive<i64> = MINUTE..=36_500 * DAY;

impl Kind {
    /// Sets it from text. Lists grow; everything else is replaced.
    ///
    /// # Errors
    ///
    /// What is expected, as the end of a sentence.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let expected = || format!("expected {}", self.expects());
        match self {
            Kind::Path(field) => {
                let path = Path::new(text);
                *field(settings) =
                    path.is_absolute().then(|| path.to_owned()).ok_or_else(expected)?;
            }
            Kind::Duration(range, field) => {
                *field(settings) = in_range(parse_duration(text), range).ok_or_else(expected)?;
            }
            Kind::Number(range, field) => {
                *field(settings) = in_range(parse_number(text), range).ok_or_else(expected)?;
            }
            Kind::Length(range, field) => {
                *field(settings) = in_range(parse_number(text), range).ok_or_else(expected)?;
            }
            Kind::Choice(words, field) => {
                let word = words.iter().position(|word| *word == text).ok_or_else(expected)?;
                *field(settings) = word == 1;
            }
            Kind::Prefixes(field) => {
                let prefixes: Vec<IpNet> = words(text).map(parse_rule).collect::<Result<_, _>>()?;
                field(settings).extend(prefixes);
            }
            Kind::Translators(field) => {
                let prefixes: Vec<Ipv6Net> =
                    words(text).map(parse_translator).collect::<Result<_, _>>()?;
                field(settings).extend(prefixes);
            }
            Kind::Multiples(field) => {
                field(settings).extend(parse_multiples(text).ok_or_else(expected)?);
            }
            Kind::KnownQuota(field) => {
                let quota = parse_number(text).filter(|n| *n == 0 || QUOTAS.contains(n));
                *field(settings) = quota.ok_or_else(expected)?;
            }
            Kind::Repeat(field) => {
                let named = Repeat::ALL.into_iter().find(|repeat| repeat.name() == text);
                *field(settings) = named.ok_or_else(expected)?;
            }
            Kind::Rate(field) => *field(settings) = parse_rate(text).ok_or_else(expected)?,
            Kind::Countries(field) => {
                let countries: Vec<Country> =
                    words(text).map(Country::parse).collect::<Result<_, _>>()?;
                field(settings).extend(countries);
            }
        }
        Ok(())
    }

    /// Its value, as one would write it.
    pub fn show(&self, settings: &Settings) -> String {
        // One accessor serves both ways; reading goes through a copy.
        let settings = &mut settings.clone();
        match self {
            Kind::Path(field) => field(settings).display().to_string(),
            Kind::Duration(_, field) => show_duration(*field(settings)),
            Kind::Number(_, field) => field(settings).to_string(),
            Kind::Length(_, field) => field(settings).to_string(),
            Kind::Choice([no, yes], field) => (if *field(settings) { yes } else { no }).to_string(),
            Kind::Prefixes(field) => join(field(settings)),
            Kind::Translators(field) => join(field(settings)),
            Kind::Multiples(field) => {
                let each = field(settings).iter().map(|m| format!("{} {}", m.prefix, m.times));
                each.collect::<Vec<_>>().join(" ")
            }
            Kind::Rate(field) => field(settings).map_or("no".to_owned(), |rate| {
                format!("{} per {}", rate.quota, show_duration(rate.half_life))
            }),
            Kind::Countries(field) => join(field(settings)),
            Kind::KnownQuota(field) => field(settings).to_string(),
            Kind::Repeat(field) => field(settings).name().to_owned(),
        }
    }

    /// What it takes, as the end of a sentence.
    pub fn expects(&self) -> String {
        match self {
            Kind::Path(_) => "an absolute path".to_owned(),
            Kind::Duration(range, _) => format!(
                "a number with s, m, h or d, from {} to {}",
                show_duration(*range.start()),
                show_duration(*range.end())
            ),
            Kind::Number(range, _) => format!("a number from {} to {}", range.start(), range.end()),
            Kind::Length(range, _) => format!("a length from {} to {}", range.start(), range.end()),
            Kind::Choice([no, yes], _) => format!("{no} or {yes}"),
            Kind::Prefixes(_) => "addresses and prefixes".to_owned(),
            Kind::Translators(_) => "IPv6 prefixes of length 32, 40, 48, 56, 64 or 96".to_owned(),
            Kind::Multiples(_) => format!(
                "a prefix and a number from {} to {}, as 192.0.2.0/24 10",
                MULTIPLES.start(),
                MULTIPLES.end()
            ),
            Kind::Rate(_) => format!(
                "no, or a number from {} to {} per a time from {} to {}, as 30 per 24h",
                QUOTAS.start(),
                QUOTAS.end(),
                show_duration(*RATE_TIMES.start()),
                show_duration(*RATE_TIMES.end())
            ),
            Kind::KnownQuota(_) => {
                format!("0, or a number from {} to {}", QUOTAS.start(), QUOTAS.end())
            }
            Kind::Repeat(_) => "no, known or yes".to_owned(),
            Kind::Countries(_) => "codes of ISO 3166-1, such as DE, or unknown".to_owned(),
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', ',']).filter(|word| !word.is_empty())
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

fn in_range<T: PartialOrd>(value: Option<T>, range: &RangeInclusive<T>) -> Option<T> {
    value.filter(|value| range.contains(value))
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Milliseconds of `90s`, `5m`, `1h`, `60d`; `None` for anything else.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (last, _) = text.char_indices().next_back()?;
    let (number, unit) = text.split_at(last);
    let (_, length) = UNITS.iter().find(|(name, _)| unit.starts_with(*name))?;
    parse_number::<i64>(number)?.checked_mul(*length)
}

/// The largest unit that leaves no rest.
fn show_duration(milliseconds: i64) -> String {
    let fits = |length: i64| milliseconds != 0 && milliseconds % length == 0;
    let (unit, length) = UNITS.into_iter().find(|(_, n)| fits(*n)).unwrap_or(('s', SECOND));
    format!("{}{unit}", milliseconds / length)
}

/// Reads the prefix of a rule: one that a source can be in.
///
/// # Errors
///
/// One sentence that says what was found and what is expected.
pub fn parse_rule(text: &str) -> Result<IpNet, String> {
    let prefix = parse_prefix(text)?;
    if is_folded(&prefix) {
        return Err(format!(
            "addresses inside {prefix} count as the IPv4 address in them: expected that one"
        ));
    }
    Ok(prefix)
}

fn parse_translator(text: &str) -> Result<Ipv6Net, String> {
    match parse_prefix(text)? {
        IpNet::V6(net) if matches!(net.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) => Ok(net),
        net => {
            Err(format!("{net} cannot be a NAT64 prefix: expected length 32, 40, 48, 56, 64 or 96"))
        }
    }
}

/// `PREFIX N`, any number of times.
fn parse_multiples(text: &str) -> Option<Vec<Multiple>> {
    let words: Vec<&str> = words(text).collect();
    let pairs = words.chunks(2).map(|pair| {
        let [prefix, times] = pair else { return None };
        let prefix = parse_rule(prefix).ok()?;
        Some(Multiple { prefix, times: in_range(parse_number(times), &MULTIPLES)? })
    });
    pairs.collect()
}

/// `no`, or `N per DURATION`.
fn parse_rate(text: &str) -> Option<Option<Rate>> {
    if text == "no" {
        return Some(None);
    }
    let (quota, time) = text.split_once(" per ")?;
    let quota = in_range(parse_number(quota.trim()), &QUOTAS)?;
    let half_life = in_range(parse_duration(time.trim()), &RATE_TIMES)?;
    Some(Some(Rate { quota, half_life }))
}
