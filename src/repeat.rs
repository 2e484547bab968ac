//! The same wrong password again: a phone with a stale one must not lock out its office.
//!
//! A password that was charged and not refunded is remembered as a tag of 16 bits. Nothing is
//! learnt by trying it again, so that costs nothing.
//!
//! # Why 16 bits
//!
//! A thief of the store has the key as well, and may try whole dictionaries against a tag. Of a
//! million passwords fifteen match any tag by chance, of a billion fifteen thousand: he can rule
//! passwords out, but not confirm one. The tag is the same at every place, or two places would be
//! 32 bits. (Several wrong passwords that are alike, as mistypings of one, tell more about that one
//! than a single tag does.) The same holds for names, which people mistake for the password field:
//! name and place together only choose one of 65536 slots. A tag is that of a wrong password
//! anyway; a right one takes its own away, and all are overwritten in time. To an attacker a slot
//! full of tags is one free guess in 8192, which he cannot aim at.
//!
//! # What it gives away
//!
//! A login can fail behind a right password: at a second factor. Guesses at that one then come with
//! the same password, so such a stack needs `repeat = no`. And since sshd's junk is counted each
//! time, a stranger who repeats a password can tell a user whom sshd knows from one whom it does
//! not; `repeat = known` tells him nothing.

use hmac_sha256::HMAC;

use crate::decide::Lane;
use crate::login::{Login, Tier};

/// How many wrong passwords a slot remembers.
const REMEMBERED: usize = 8;
/// Bytes of one: the tag, and when it was charged.
const ENTRY: usize = 2 + 8;

/// What sshd checks in place of the password of a user whom it has refused already (`fake_password`
/// in auth.c), repeated to the length of what was typed.
const SSHD_JUNK: &[u8] = b"\x08\n\r\x7fINCORRECT";

/// Where a wrong password that comes again is let through without a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nowhere.
    No,
    /// At places that the user is known to come from.
    Known,
    /// Wherever there is room.
    Yes,
}

impl Repeat {
    /// All of them, for whoever reads one by its name.
    pub const ALL: [Repeat; 3] = [Repeat::No, Repeat::Known, Repeat::Yes];

    /// As it stands in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Repeat::No => "no",
            Repeat::Known => "known",
            Repeat::Yes => "yes",
        }
    }

    /// Whether it holds in this lane.
    pub fn holds(self, lane: Lane) -> bool {
        match self {
            Repeat::No => false,
            Repeat::Known => lane != Lane::Stranger,
            Repeat::Yes => true,
        }
    }
}

/// A password that was just given.
#[derive(Clone, Copy)]
pub struct Guess<'a> {
    /// The password.
    pub password: &'a [u8],
    /// When the attempt began, Unix milliseconds.
    pub began: i64,
}

/// How a password of one user at one place is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub slot: u16,
    /// As what.
    pub tag: u16,
}

impl Mark {
    /// The mark of `password` under the secret key of the store. `None` for the junk of sshd: it
    /// is the same whatever was typed, and trying names must not be free.
    pub fn of(secret: &[u8; 32], login: &Login, password: &[u8]) -> Option<Mark> {
        if is_junk(password) {
            return None;
        }
        let prefix = login.source.prefix(Tier::Near.length(login.source.family())).to_string();
        let hash = |what: &[u8], parts: &[&[u8]]| {
            let mut hash = HMAC::new(secret);
            hash.update(what);
            for part in parts {
                // With its length: no two lists of parts are the same text.
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            let [first, second, ..] = hash.finalize();
            u16::from_be_bytes([first, second])
        };
        let (place, user) = (prefix.as_bytes(), login.user.as_slice());
        Some(Mark { slot: hash(b"slot", &[place, user]), tag: hash(b"tag", &[user, password]) })
    }
}

fn is_junk(password: &[u8]) -> bool {
    !password.is_empty() && password.iter().eq(SSHD_JUNK.iter().cycle().take(password.len()))
}

/// The tags of one slot, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered(Vec<(u16, i64)>);

impl Remembered {
    /// Reads what [`Remembered::to_bytes`] wrote; what makes no sense is left out.
    pub fn from_bytes(bytes: &[u8]) -> Remembered {
        let entries = bytes.chunks_exact(ENTRY).take(REMEMBERED).filter_map(|entry| {
            let (tag, at) = entry.split_first_chunk()?;
            Some((u16::from_be_bytes(*tag), i64::from_be_bytes(at.try_into().ok()?)))
        });
        Remembered(entries.collect())
    }

    /// For the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|(tag, at)| tag.to_be_bytes().into_iter().chain(at.to_be_bytes()))
            .collect()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `tag` was charged less than `repeat_for` ago, before this attempt began: of guesses
    /// at the same moment none knows yet that the other is wrong.
    pub fn has(&self, tag: u16, began: i64, now: i64, repeat_for: i64) -> bool {
        self.0
            .iter()
            .any(|&(other, at)| other == tag && at <= began && now.saturating_sub(at) < repeat_for)
    }

    /// With one more, charged at `now`; the oldest of too many is forgotten.
    pub fn with(mut self, tag: u16, now: i64) -> Remembered {
        self = self.without(tag);
        self.0.insert(0, (tag, now));
        self.0.truncate(REMEMBERED);
        self
    }

    /// Without one.
    pub fn without(mut self, tag: u16) -> Remembered {
        self.0.retain(|&(other, _)| other != tag);
        self
    }
}
