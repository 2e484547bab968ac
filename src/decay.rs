//! Half-life arithmetic: what is left of a count, and how long until there is room again.
//!
//! One half-life for all lengths makes decay linear, so that a prefix always has exactly the sum
//! of its halves. Times are Unix milliseconds; a half-life is in milliseconds too.
//!
//! Powers and logarithms come from the crate `libm`: those of the standard library would load
//! libm.so into every login, which takes longer than all the counting.

/// Counts are doubles that decay: a full quota may come out an ulp above itself. Half of a
/// millionth of a failure decides nothing that a person could notice.
pub const TOLERANCE: f64 = 1e-6;

/// A count below this is forgotten. It lets a prefix be guessed at 0.1 % faster at most, and
/// bounds its rows by `quota * (1 + ln 1024)`.
pub const FADED: f64 = 1.0 / 1024.0;

/// After so many half-lives less than one is left of a million failures, more than any prefix has.
pub const SPENT: i64 = 20;

/// What is left at `now` of a `level` as of `at`. Time that seems to run backwards changes
/// nothing: a count never grows by itself.
pub fn remaining(level: f64, at: i64, now: i64, half_life: i64) -> f64 {
    let age = now.saturating_sub(at).max(0);
    level * libm::exp2(-(age as f64) / half_life as f64)
}

/// Whether a prefix with this count has room for one attempt more. Not `count < quota`: two
/// failures decay to 1.999 at once, and a third try would slip in.
pub fn has_room(count: f64, quota: u32) -> bool {
    count + 1.0 <= f64::from(quota) + TOLERANCE
}

/// Milliseconds until a prefix with this count has room again; 0 if it has room now. Exact as long
/// as nothing else is charged.
pub fn wait(count: f64, quota: u32, half_life: i64) -> i64 {
    if has_room(count, quota) {
        return 0;
    }
    let room = f64::from(quota.saturating_sub(1).max(1));
    // `as` saturates, which is what a wait beyond the calendar should do.
    (half_life as f64 * libm::log2(count / room)).ceil().max(1.0) as i64
}

/// Milliseconds as whole seconds, rounded up: who waits that long is let in.
pub fn seconds(milliseconds: i64) -> i64 {
    milliseconds.saturating_add(999) / 1_000
}
