//! Time stamps, and the years that they leave out.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::time::{Stamp, Years, Zone, stamp};
use super::{END, history};
use proptest::prelude::*;

fn utc(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// The times of the attempts of a log.
fn times(stamps: &[&str]) -> Vec<i64> {
    let line = |stamp: &&str| {
        format!("{stamp} web sshd[1]: Failed password for root from 192.0.2.7 port 4 ssh2\n")
    };
    let log: String = stamps.iter().map(line).collect();
    history(&[&log]).attempts.iter().map(|attempt| attempt.at).collect()
}

#[test]
fn all_forms_are_the_same_time() {
    let expected = utc("2026-11-20T09:00:00Z");
    for text in [
        "2026-11-20T09:00:00Z",
        "2026-11-20T10:00:00+01:00",
        "2026-11-20T04:30:00-0430",
        "2026-11-20 09:00:00",
        "2026-11-20T09:00:00,000",
        "Nov 20 09:00:00",
        "Fri Nov 20 09:00:00 2026",
    ] {
        assert_eq!(times(&[text]), [expected], "{text}");
    }
    assert_eq!(times(&["2026-11-20T09:00:00.123999Z"]), [expected + 123]);
    assert_eq!(times(&["2026-11-20T09:00:00.5Z"]), [expected + 500]);
    for none in ["Nov 32 10:00:00", "Nov 20 24:00:00", "Foo 20 10:00:00", "2026-13-01T10:00:00Z"] {
        assert!(stamp(none.as_bytes()).is_none(), "{none}");
    }
}

#[test]
fn a_line_without_a_time_has_that_of_the_line_before() {
    let log = "Failed password for root from 192.0.2.7 port 4 ssh2\n\
               2026-11-20T09:00:00Z web sshd[1]: Failed password for root from 192.0.2.7 port 4 ssh2\n\
               Failed password for root from 192.0.2.7 port 4 ssh2\n";
    let at = utc("2026-11-20T09:00:00Z");
    let mut times: Vec<i64> = history(&[log]).attempts.iter().map(|attempt| attempt.at).collect();
    times.sort_unstable();
    assert_eq!(times, [at, at, END]);
}

#[test]
fn the_year_turns_with_the_log_and_ends_not_in_the_future() {
    assert_eq!(
        times(&["Dec 31 23:59:59", "Jan  1 00:00:00", "Nov 22 10:00:00"]),
        [utc("2025-12-31T23:59:59Z"), utc("2026-01-01T00:00:00Z"), utc("2026-11-22T10:00:00Z")]
    );
    // All logs end on 23 November 2026.
    assert_eq!(times(&["Dec 10 10:00:00"]), [utc("2025-12-10T10:00:00Z")]);
    assert_eq!(
        times(&["Jun 10 10:00:00", "Feb 10 10:00:00"]),
        [utc("2025-06-10T10:00:00Z"), utc("2026-02-10T10:00:00Z")]
    );
    assert_eq!(
        times(&["Mar 1 10:00:00", "Dec 1 10:00:00", "Mar 1 10:00:00", "Dec 1 10:00:00"]),
        ["2024-03-01", "2024-12-01", "2025-03-01", "2025-12-01"]
            .map(|d| utc(&format!("{d}T10:00:00Z")))
    );
}

#[test]
fn disorder_does_not_turn_the_year() {
    // Written late.
    assert_eq!(
        times(&["Dec 31 23:59:58", "Jan  1 00:00:00", "Dec 31 23:59:59", "Jan  1 00:00:01"]),
        [
            utc("2025-12-31T23:59:58Z"),
            utc("2025-12-31T23:59:59Z"),
            utc("2026-01-01T00:00:00Z"),
            utc("2026-01-01T00:00:01Z")
        ]
    );
    // Two weeks, the newer first.
    assert_eq!(
        times(&["Nov 15 10:00:00", "Nov 21 10:00:00", "Nov  8 10:00:00", "Nov 14 10:00:00"]),
        ["08", "14", "15", "21"].map(|day| utc(&format!("2026-11-{day}T10:00:00Z")))
    );
}

#[test]
fn a_leap_day_is_in_a_leap_year() {
    assert_eq!(
        times(&["Feb 28 10:00:00", "Feb 29 10:00:00", "Mar  1 10:00:00"]),
        ["2024-02-28", "2024-02-29", "2024-03-01"].map(|day| utc(&format!("{day}T10:00:00Z")))
    );
    assert_eq!(
        times(&["Dec 31 10:00:00", "Feb 29 10:00:00"]),
        ["2023-12-31", "2024-02-29"].map(|day| utc(&format!("{day}T10:00:00Z")))
    );
}

#[test]
fn logs_are_put_in_the_order_of_their_times() {
    let line = |stamp: &str| {
        format!("{stamp} web sshd[1]: Failed password for root from 192.0.2.7 port 4 ssh2\n")
    };
    let (new, old) = (line("Nov 21 10:00:00"), line("2026-11-20T10:00:00+01:00"));
    let history = history(&[&new, &old]);
    let times: Vec<i64> = history.attempts.iter().map(|attempt| attempt.at).collect();
    assert_eq!(times, [utc("2026-11-20T09:00:00Z"), utc("2026-11-21T10:00:00Z")]);
}

#[test]
fn the_clock_on_the_wall_may_jump() {
    let mut zone = Zone::of(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
    let local = |text: &str| utc(&format!("{text}Z"));
    assert_eq!(zone.utc(local("2026-03-29T01:59:59")), utc("2026-03-29T00:59:59Z"));
    assert_eq!(zone.utc(local("2026-03-29T03:00:00")), utc("2026-03-29T01:00:00Z"));
    assert_eq!(zone.utc(local("2026-10-25T01:59:59")), utc("2026-10-24T23:59:59Z"));
    assert_eq!(zone.utc(local("2026-10-25T02:30:00")), utc("2026-10-25T00:30:00Z"));
    assert_eq!(zone.utc(local("2026-10-25T03:00:00")), utc("2026-10-25T02:00:00Z"));
    assert_eq!(zone.local(utc("2026-10-25T02:00:00Z")), local("2026-10-25T03:00:00"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn every_time_of_four_centuries_is_read(seconds in 0..12_622_780_800_i64) {
        let time = Timestamp::from_second(seconds).unwrap();
        let expected = Stamp::Utc(seconds * 1_000);
        let text = time.to_string();
        prop_assert_eq!(stamp(text.as_bytes()), Some((expected, &b""[..])));
    }

    #[test]
    fn a_log_without_years_gets_its_own(
        start in 0..500_000_000_i64, steps in prop::collection::vec(0..300_i64, 1..60),
    ) {
        // Up to 300 days apart, and it ends within a year of its end.
        let mut years = Years::default();
        let mut at = start;
        let mut seen = Vec::new();
        for days in steps {
            at += days * 86_400;
            let time = Timestamp::from_second(at).unwrap().to_zoned(TimeZone::UTC);
            let text = time.strftime("%b %e %H:%M:%S").to_string();
            let Some((Stamp::Yearless(stamp), _)) = stamp(text.as_bytes()) else {
                panic!("{text}");
            };
            seen.push((at, stamp, years.next(stamp)));
        }
        let first = years.first(at * 1_000);
        for (at, stamp, year) in seen {
            prop_assert_eq!(Years::local(stamp, first + year), at * 1_000);
        }
    }

    #[test]
    fn any_bytes_are_a_time_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = stamp(&bytes);
    }
}
