//! What the module says: one line for the administrator, one for the client.

use crate::decide::Refusal;
use crate::source::Source;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The log line of a denial, with the command that lifts it.
pub fn denial(service: &str, source: &Source, refusal: &Refusal, enforcing: bool) -> String {
    let verb = if enforcing { "denied" } else { "would deny" };
    let start = format!("{verb}: service={service} source={source}");
    match refusal {
        Refusal::Rule(prefix) => format!("{start} rule=\"deny {prefix}\""),
        Refusal::Full(full) => format!(
            "{start} prefix={} failures={:.1} quota={} retry_after={}s; to lift it: \
             prefixquota forgive {}",
            full.prefix,
            full.count,
            full.quota,
            seconds(full.wait),
            full.prefix
        ),
    }
}

/// What the client is told.
pub fn message(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Rule(_) => "Logins from your network are not allowed.".to_owned(),
        Refusal::Full(full) => format!(
            "Too many failed attempts from your network. Try again in {}.",
            rounded(seconds(full.wait))
        ),
    }
}

/// Milliseconds as whole seconds, rounded up: who waits that long is let in.
fn seconds(milliseconds: i64) -> i64 {
    milliseconds.saturating_add(999) / 1_000
}

/// A time as people say it, rounded up to one unit.
fn rounded(seconds: i64) -> String {
    let (unit, length) = match seconds {
        ..=90 => ("second", 1),
        91..=5_400 => ("minute", MINUTE),
        5_401..=172_800 => ("hour", HOUR),
        _ => ("day", DAY),
    };
    let number = seconds.saturating_add(length - 1) / length;
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn times_are_rounded_up_to_what_people_say() {
        let cases = [
            (1, "1 second"),
            (90, "90 seconds"),
            (91, "2 minutes"),
            (2_520, "42 minutes"),
            (5_401, "2 hours"),
            (172_801, "3 days"),
        ];
        for (seconds, words) in cases {
            assert_eq!(rounded(seconds), words);
        }
    }
}
