//! prefixquota: password guessing stopped by address prefix.
//!
//! # The model
//!
//! An attacker may own one address or a whole /32. A limit on one fixed length is always wrong:
//! too narrow, and he hops; too wide, and his neighbours suffer. So every failed attempt counts
//! against **every prefix that covers its source**, and each length has its own quota
//! ([`quota::Curve`]), which grows slowly as the prefix gets wider.
//!
//! * An attempt is **charged before** the password is checked, in one transaction with the test
//!   ([`guard::Guard::admit`]), so that parallel guesses cannot race past a quota. A right
//!   password takes back exactly that charge ([`guard::Guard::succeed`]) and nothing else.
//! * It is admitted when every covering prefix has room for one failure more
//!   ([`decide::judge`]). An attempt that is refused is not counted and writes nothing, so one
//!   address can never keep its neighbours out.
//! * Counts decay with one half-life for all lengths ([`decay`]): a prefix always has exactly the
//!   sum of its halves. The store keeps one row for each failing address ([`store`]); all lengths
//!   come from one range scan ([`tally::Tally`]).
//! * Attempts that are still open (charged a moment ago, and perhaps right) never deny another:
//!   it waits for them ([`decide::Verdict::Wait`]).
//! * A success teaches the place that the user came from. There he is held against a **count of
//!   his own** ([`login::Known`]), which strangers cannot fill: else an attack that fills the /32
//!   of a provider would lock out its customers.
//! * [`rules`] and grants decide before the counts; [`country`] after every rule about a prefix.
//!   The same wrong password again is let through uncharged ([`repeat`]).
//!
//! # The parts
//!
//! Pure, no I/O and no clock: [`source`], [`login`], [`quota`], [`decay`], [`count`], [`tally`],
//! [`rules`], [`repeat`], [`decide`], [`config`] (which reads one file). Around it: [`store`]
//! (SQLite), [`country`] (a file that the command imports), [`guard`] (the one sequence that the
//! module and the command use), and the PAM hooks.
#![deny(unsafe_code)]
// libpam, as Miri plays it, has one function with any number of arguments.
#![cfg_attr(all(test, miri), feature(c_variadic))]

/// Name and version. `prefixquota doctor` finds it in the file of the module, where the messages of
/// the store keep it.
pub const VERSION: &str = concat!("prefixquota ", env!("CARGO_PKG_VERSION"));

pub mod config;
pub mod count;
pub mod country;
pub mod decay;
pub mod decide;
pub mod guard;
pub mod login;
mod pam;
pub mod quota;
pub mod repeat;
pub mod rules;
pub mod source;
pub mod store;
mod sys;
pub mod tally;
