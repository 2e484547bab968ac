//! What the module says: one line for the administrator, one for the client.

use crate::decay::seconds;
use crate::decide::{Refusal, Standing};
use crate::login::Login;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The log line of a denial, with the command that lifts it. The user is only named where he is
/// known to be one: people mistake this field for the password.
pub fn denial(service: &str, login: &Login, refusal: &Refusal, enforcing: bool) -> String {
    let verb = if enforcing { "denied" } else { "would deny" };
    let start = format!("{verb}: service={service} source={}", login.source);
    match refusal {
        Refusal::Rule(prefix) => format!("{start} rule=\"deny {prefix}\""),
        Refusal::Country(country) => format!("{start} country={country}"),
        Refusal::UsedUp(prefix) => format!("{start} rule={prefix} has no use left"),
        Refusal::Full(full) => {
            let prefix = full.prefix;
            format!(
                "{start} prefix={prefix} {}; to lift it: prefixquota forgive {prefix}",
                counts(full)
            )
        }
        Refusal::Known(full) => format!(
            "{start} known_place={} {}; to lift it: prefixquota forgive --user {}",
            full.prefix,
            counts(full),
            quoted(&login.user)
        ),
        Refusal::Elsewhere(full) => format!(
            "{start} strangers' {}; to lift it: prefixquota forgive --user {}",
            counts(full),
            quoted(&login.user)
        ),
    }
}

/// A name as one argument of a shell.
pub fn quoted(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    if !name.starts_with('-') && name.chars().all(is_plain) {
        return name.into_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

fn counts(full: &Standing) -> String {
    let (count, quota, wait) = (full.count, full.quota, seconds(full.wait));
    format!("failures={count:.1} quota={quota} retry_after={wait}s")
}

/// What the client is told: the same for all counts, or strangers could ask who is known where.
pub fn message(refusal: &Refusal) -> String {
    match refusal.wait() {
        Some(wait) => format!(
            "Too many failed attempts from your network. Try again in {}.",
            rounded(seconds(wait))
        ),
        None => "Logins from your network are not allowed.".to_owned(),
    }
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
