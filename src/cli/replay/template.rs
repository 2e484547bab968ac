//! Templates: text with tags, which a whole message must match from its start to its end.
//!
//! | tag | stands for |
//! | --- | --- |
//! | `<host>` | an address or a host name: one or more of the characters that those have |
//! | `<user>` | a user's name, which may hold anything, also what looks like the rest of the line |
//! | `<n>` | a number |
//! | `<word>` | a word without blanks, brackets and punctuation |
//! | `<any>` | anything or nothing, as little as possible |
//! | `<most>` | anything or nothing, as much as possible |
//!
//! A name is chosen by whoever tries to log in. So `<user>` is as long as it can be: of a message
//! about `x from 192.0.2.1` from elsewhere, the last "from" is the server's own.

use memchr::memmem;

/// How many ways to split one message are tried at most: a name may be made to offer many.
const TRIES: u32 = 2_000;

/// A template, taken apart.
pub struct Template {
    parts: Vec<Part>,
    /// Of one that begins with a tag: a text without which nothing matches.
    needle: Option<memmem::Finder<'static>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Text(&'static [u8]),
    Host,
    User,
    Number,
    Word,
    Any,
    Most,
}

/// What the tags of a template stood for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'m> {
    /// `<host>`.
    pub host: Option<&'m [u8]>,
    /// `<user>`.
    pub user: Option<&'m [u8]>,
    /// `<n>`; a number too large to read is the largest.
    pub number: Option<u32>,
}

const TAGS: [(&str, Part); 6] = [
    ("<host>", Part::Host),
    ("<user>", Part::User),
    ("<n>", Part::Number),
    ("<word>", Part::Word),
    ("<any>", Part::Any),
    ("<most>", Part::Most),
];

impl Template {
    /// Takes a template apart.
    pub fn new(mut text: &'static str) -> Template {
        let mut parts = Vec::new();
        loop {
            let next = TAGS.iter().filter_map(|(tag, part)| Some((text.find(tag)?, tag, *part)));
            let Some((at, tag, part)) = next.min_by_key(|(at, ..)| *at) else { break };
            let (before, rest) = text.split_at(at);
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes()));
            }
            parts.push(part);
            text = rest.get(tag.len()..).unwrap_or_default();
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.as_bytes()));
        }
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(*text),
            _ => None,
        });
        let needle = match parts.first() {
            Some(Part::Text(_)) | None => None,
            _ => texts.max_by_key(|text| text.len()).map(memmem::Finder::new),
        };
        Template { parts, needle }
    }

    /// What the tags stand for, if all of `message` matches.
    pub fn fields<'m>(&self, message: &'m [u8]) -> Option<Fields<'m>> {
        // Most messages end here.
        let may = match (self.parts.first(), &self.needle) {
            (Some(Part::Text(start)), _) => message.starts_with(start),
            (_, Some(needle)) => needle.find(message).is_some(),
            _ => true,
        };
        if !may {
            return None;
        }
        let mut fields = Fields::default();
        let mut tries = TRIES;
        matches(&self.parts, message, &mut fields, &mut tries).then_some(fields)
    }
}

fn matches<'m>(
    parts: &[Part],
    message: &'m [u8],
    fields: &mut Fields<'m>,
    tries: &mut u32,
) -> bool {
    let Some((part, parts)) = parts.split_first() else { return message.is_empty() };
    let run = |is: fn(&u8) -> bool| {
        let length = message.iter().take_while(|byte| is(byte)).count();
        message.split_at_checked(length).filter(|(run, _)| !run.is_empty())
    };
    let rest = match part {
        Part::Text(text) => message.strip_prefix(*text),
        Part::Word => run(is_of_word).map(|(_, rest)| rest),
        Part::Host => run(is_of_host).map(|(host, rest)| {
            fields.host = Some(host);
            rest
        }),
        Part::Number => run(u8::is_ascii_digit).map(|(digits, rest)| {
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            fields.number = Some(digits.parse().unwrap_or(u32::MAX));
            rest
        }),
        Part::User | Part::Any | Part::Most => {
            return spans(*part, parts, message, fields, tries);
        }
    };
    rest.is_some_and(|rest| matches(parts, rest, fields, tries))
}

/// A tag that may hold anything: tries every place where what follows it may begin.
fn spans<'m>(
    tag: Part,
    parts: &[Part],
    message: &'m [u8],
    fields: &mut Fields<'m>,
    tries: &mut u32,
) -> bool {
    let mut ends = |at: usize| {
        let Some((span, rest)) = message.split_at_checked(at) else { return false };
        *tries = tries.saturating_sub(1);
        let found = *tries > 0 && matches(parts, rest, fields, tries);
        if found && tag == Part::User {
            fields.user = Some(span);
        }
        found
    };
    match (tag, parts.first()) {
        (Part::Any, Some(Part::Text(text))) => memmem::find_iter(message, text).any(&mut ends),
        (_, Some(Part::Text(text))) => memmem::rfind_iter(message, text).any(&mut ends),
        // At the end of a template.
        _ => ends(message.len()),
    }
}

fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./@".contains(byte)
}

/// Addresses with a zone, and names.
fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:%_-".contains(byte)
}
