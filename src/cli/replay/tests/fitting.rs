//! The smallest curve, and the picture.

use pam_prefixquota::config::Settings;

use super::super::summary::Summary;
use super::super::{fit, plot};
use super::{accepted, failed, history};

fn fitted(log: &str, share: f64) -> serde_json::Value {
    fit::json(&fit::fit(&history(&[log]), &Settings::default(), share).unwrap())
}

#[test]
fn the_curve_is_as_small_as_the_right_logins_allow() {
    // A user who mistypes seven times before the right one, on another day each.
    let day = |user: &str, address: &str, mistakes: u32, hour: u32| -> String {
        let start = hour * 3_600;
        (0..mistakes).map(|i| failed(start + i, user, address)).collect::<String>()
            + &accepted(start + 60, "password", user, address)
    };
    let log = day("ann", "2001:db8::7", 7, 0) + &day("bob", "2001:db8:1::7", 1, 2);
    let v6 = &fitted(&log, 0.0)[0];
    assert_eq!(
        (&v6["family"], &v6["accepted"], &v6["may_refuse"]),
        (&6.into(), &2.into(), &0.into())
    );
    assert_eq!((&v6["base"], &v6["growth"]), (&8.into(), &0.into()));
    assert_eq!((&v6["accepted_denied_now"], &v6["accepted_denied"]), (&1.into(), &0.into()));
    let half = &fitted(&log, 0.5)[0];
    assert_eq!((&half["base"], &half["may_refuse"]), (&2.into(), &1.into()));
    assert!(fitted(&log, 0.0)[1]["base"].is_null(), "nobody came over IPv4");
    let text = fit::text(&fit::fit(&history(&[&log]), &Settings::default(), 0.0).unwrap(), 0.0);
    assert!(text.contains("\nipv6_base = 8\nipv6_growth = 0\n"), "{text}");
    assert!(text.contains("# IPv4: no right login"), "{text}");
}

#[test]
fn growth_is_taken_where_it_is_smaller_than_a_base() {
    // The neighbours of a user fail all over the /48: only the wide prefixes need more.
    let neighbours: String =
        (0..400).map(|i| failed(i / 8, "root", &format!("2001:db8:0:{i:x}::1"))).collect();
    let log = neighbours + &accepted(50, "password", "ann", "2001:db8:0:ffff::1");
    let v6 = &fitted(&log, 0.0)[0];
    let (base, growth) = (v6["base"].as_u64().unwrap(), v6["growth"].as_u64().unwrap());
    assert!(growth > 0 && base == 2, "{v6}");
    assert_eq!(v6["accepted_denied"], 0);
}

#[test]
fn the_picture_shows_what_was_counted() {
    let attack: String = (0..50).map(|i| failed(i * 10, "root", "2001:db8::7")).collect();
    let log = attack + &accepted(300, "password", "ann", "2001:db8::7");
    let history = history(&[&log]);
    let summary = Summary::of(&history, &Settings::default()).unwrap();
    let svg = plot::draw(&summary);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    assert!(svg.matches("fill=\"#c0504d\"").count() > 20, "denials");
    assert_eq!(svg.matches("<circle").count(), 1, "the right login that was denied");
    assert!(svg.contains(">attempts</text>") && svg.contains(">time ("), "axes have names");
    let total: u64 = summary.parts.iter().map(|part| part.attempts).sum();
    let denied: u64 = summary.parts.iter().map(|part| part.denied).sum();
    assert_eq!((total, denied), (51, summary.json()["denied"].as_u64().unwrap()));
    let empty = Summary::of(&super::history(&[""]), &Settings::default()).unwrap();
    assert!(plot::draw(&empty).ends_with("</svg>\n"));
}
