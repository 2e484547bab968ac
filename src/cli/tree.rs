//! The prefixes that are worth showing, out of all that cover some failing address.

use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::{Standing, standing};
use pam_prefixquota::source::{Family, prefix_of};
use pam_prefixquota::store::Entry;

/// Every prefix that holds something its halves do not: the failing addresses themselves, and each
/// prefix in which two branches meet. A wider one with the same addresses only has more room.
///
/// `entries` must be in the order of their keys.
pub fn standings(entries: &[Entry], settings: &Settings, now: i64) -> Vec<Standing> {
    let mut found = Vec::new();
    for group in entries.chunk_by(|a, b| kind(a) == kind(b)) {
        branch(group, settings, now, &mut found);
    }
    found
}

/// Entries of different families, or with different lengths that count, never meet.
fn kind(entry: &Entry) -> (Family, (u8, u8)) {
    (Family::of_key(entry.failures.key), entry.lengths)
}

/// Adds the longest prefix that covers all of `entries`, then goes into its two halves. Returns
/// what they hold: the count, and the slow one.
fn branch(
    entries: &[Entry],
    settings: &Settings,
    now: i64,
    found: &mut Vec<Standing>,
) -> (f64, f64) {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return (0.0, 0.0) };
    let key = first.failures.key;
    let (family, pace) = (Family::of_key(key), settings.pace());
    let shared = (key.to_bits() ^ last.failures.key.to_bits()).leading_zeros();
    let (count, slow) = if entries.len() == 1 {
        (first.failures.count.left(now, pace), first.failures.count.slow_left(now))
    } else {
        // The bit after the shared ones tells the halves apart.
        let bit = 1_u128 << 127_u32.saturating_sub(shared);
        let middle = entries.partition_point(|entry| entry.failures.key.to_bits() & bit == 0);
        let (low, high) = entries.split_at(middle);
        let (low, high) = (branch(low, settings, now, found), branch(high, settings, now, found));
        (low.0 + high.0, low.1 + high.1)
    };
    let quotas = settings.quotas(family);
    let own = u32::from(128 - family.bits());
    let length = u8::try_from(shared.saturating_sub(own)).unwrap_or(0).min(first.lengths.1);
    if length >= quotas.curve.widest.max(first.lengths.0) {
        let prefix = prefix_of(key, length);
        found.push(standing(prefix, count, slow, quotas.of(prefix), pace));
    }
    (count, slow)
}
