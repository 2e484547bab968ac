//! One line of a log, taken apart: when, by whom, and what it says.
//!
//! Only what stands in front of a message is trusted to say who wrote it: a message may repeat a
//! name that was made to look like the message of another program.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::{memchr, memmem};
use serde::Deserialize;

use super::patterns::Program;
use super::time::{self, Stamp};

/// How many words may stand in front of the name of a program.
const WORDS: usize = 3;
/// More than this no line repeats.
pub const MOST_TIMES: u32 = 100_000;
/// What a message may begin with, and no program is called.
const LEVELS: [&[u8]; 7] = [b"error", b"fatal", b"warning", b"notice", b"info", b"debug", b"err"];

/// Without any of these no entry of a journal matters: who wrote it, or what pam_unix says.
const MARKS: [&str; 6] =
    ["\"sshd", "\"dovecot\"", "\"postfix", "\"vsftpd\"", "\"proftpd\"", "authentication failure"];

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// When.
    pub stamp: Option<Stamp>,
    /// Which machine; empty if the line does not say.
    pub node: &'l [u8],
    /// Who; `None` if the line does not say, and then it may be any.
    pub program: Option<Program>,
    /// The PAM service, or what the program calls itself.
    pub service: &'l [u8],
    /// The process; 0 if the line does not say.
    pub pid: u32,
    /// What it says.
    pub message: &'l [u8],
    /// For how many lines it stands.
    pub times: u32,
}

/// What stands in front of a message.
struct Header<'l> {
    node: &'l [u8],
    name: &'l [u8],
    pid: u32,
    /// The line from the name on.
    whole: &'l [u8],
    message: &'l [u8],
}

impl<'l> Line<'l> {
    /// Takes a line of a text log apart.
    pub fn of(line: &'l [u8]) -> Line<'l> {
        let rest = without_priority(line.trim_ascii());
        let (stamp, rest) = match time::stamp(rest) {
            Some((stamp, rest)) => (Some(stamp), without_facility(rest.trim_ascii_start())),
            None => (None, rest),
        };
        let found = match stamp {
            Some(_) => header(rest, WORDS).or_else(|| rfc5424(rest)),
            None => header(rest, 1),
        };
        let Some(Header { node, name, pid, whole, message }) = found else {
            return Line { stamp, ..Line::by(None, b"", rest) };
        };
        let line = Line::by(Some(name), name, message);
        // Of Dovecot, which process it is stands in the name or behind it.
        let message = if line.program == Some(Program::Dovecot) { whole } else { line.message };
        Line { stamp, node, pid, message, ..line }
    }

    /// A message by a program that is called `name`, if that is known.
    fn by(name: Option<&[u8]>, service: &'l [u8], message: &'l [u8]) -> Line<'l> {
        let (times, message) = repeated(message);
        let program = name.map(program);
        let line = Line { stamp: None, node: b"", program, service, pid: 0, message, times };
        let of_pam =
            |service, message| Line { program: Some(Program::PamUnix), service, message, ..line };
        if let Some(service) = service.strip_suffix(b"(pam_unix)") {
            return of_pam(service, message);
        }
        match message.first() {
            Some(b'p') => match pam_unix(message) {
                Some((service, message)) => of_pam(service, message),
                None => line,
            },
            Some(b'P') => match message.strip_prefix(b"PAM ") {
                Some(more) if more.first().is_some_and(u8::is_ascii_digit) => of_pam(service, more),
                _ => line,
            },
            Some(b'(') => match message.strip_prefix(b"(pam_unix) ") {
                Some(message) => of_pam(service, message),
                None => line,
            },
            Some(b'[') => match vsftpd(message) {
                Some(message) if program.is_none_or(|program| program == Program::Vsftpd) => {
                    Line { program: Some(Program::Vsftpd), message, ..line }
                }
                _ => line,
            },
            _ => line,
        }
    }
}

/// Which program of the table is called so.
fn program(name: &[u8]) -> Program {
    let base = name.split(|&byte| byte == b'(').next().unwrap_or_default();
    match base {
        b"sshd" | b"sshd-session" | b"sshd-auth" => Program::Sshd,
        b"dovecot" | b"dovecot-auth" | b"auth" | b"auth-worker" => Program::Dovecot,
        b"vsftpd" => Program::Vsftpd,
        b"proftpd" => Program::Proftpd,
        _ if base.starts_with(b"postfix") => Program::Postfix,
        _ if base.ends_with(b"-login") => Program::Dovecot,
        _ => Program::Any,
    }
}

/// Takes off `<35>`, and the version behind it.
fn without_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else { return line };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.get(digits..).and_then(|rest| rest.strip_prefix(b">")) {
        Some(rest) if digits > 0 => rest.strip_prefix(b"1 ").unwrap_or(rest),
        _ => line,
    }
}

/// Finds the name of the program among the first words: `web sshd[812]: Failed ...`.
fn header(mut text: &[u8], words: usize) -> Option<Header<'_>> {
    let mut node: &[u8] = b"";
    for _ in 0..words {
        text = text.trim_ascii_start();
        let (word, rest) = text.split_at_checked(memchr(b' ', text).unwrap_or(text.len()))?;
        if let Some((name, pid)) = name(word) {
            let message = rest.trim_ascii_start();
            return Some(Header { node, name, pid, whole: text, message });
        } else if word.iter().all(|byte| byte.is_ascii_alphanumeric() || b".:_<>-".contains(byte)) {
            node = if node.is_empty() { word } else { node };
            text = rest;
        } else {
            return None;
        }
    }
    None
}

/// Takes off `auth.info: `, as some write it behind the time, and the time that may follow again.
fn without_facility(text: &[u8]) -> &[u8] {
    let rest = text.strip_prefix(b"auth.").or_else(|| text.strip_prefix(b"authpriv."));
    let Some((level, rest)) = rest.and_then(|rest| rest.split_at_checked(memchr(b':', rest)?))
    else {
        return text;
    };
    if !LEVELS.contains(&level) {
        return text;
    }
    let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
    time::stamp(rest).map_or(rest, |(_, rest)| rest.trim_ascii_start())
}

/// `sshd[812]:`, `sshd:` or `sshd[812]`.
fn name(word: &[u8]) -> Option<(&[u8], u32)> {
    let (named, ends) = match word.strip_suffix(b":") {
        Some(named) => (named, true),
        None => (word, false),
    };
    let (name, pid) = match named.strip_suffix(b"]") {
        Some(inside) => {
            let (name, pid) = inside.split_at_checked(memchr(b'[', inside)?)?;
            (name, std::str::from_utf8(pid.get(1..)?).ok()?.parse().ok()?)
        }
        None if ends => (named, 0),
        None => return None,
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./@()-".contains(byte);
    let is_name = name.first()?.is_ascii_alphanumeric()
        && name.iter().all(is_plain)
        && !LEVELS.contains(&name);
    is_name.then_some((name, pid))
}

/// `web sshd 812 - - Failed ...`, as RFC 5424 has it.
fn rfc5424(text: &[u8]) -> Option<Header<'_>> {
    let mut words = text.splitn(5, |&byte| byte == b' ');
    let (node, name, pid) = (words.next()?, words.next()?, words.next()?);
    let (_id, rest) = (words.next()?, words.next()?);
    let pid = match pid {
        b"-" => 0,
        pid => std::str::from_utf8(pid).ok()?.parse().ok()?,
    };
    let message = match rest.strip_prefix(b"- ") {
        Some(message) => message,
        None if rest.starts_with(b"[") => {
            rest.get(memmem::find(rest, b"] ")?..)?.strip_prefix(b"] ")?
        }
        None => return None,
    };
    let message = message.strip_prefix("\u{feff}".as_bytes()).unwrap_or(message);
    Some(Header { node, name, pid, whole: message, message })
}

/// `message repeated 5 times: [ Failed ...]`.
fn repeated(message: &[u8]) -> (u32, &[u8]) {
    let inside = || {
        let (times, rest) = leading_number(message.strip_prefix(b"message repeated ")?)?;
        let inside = rest.strip_prefix(b" times: [")?.trim_ascii();
        Some((times, inside.strip_suffix(b"]").unwrap_or(inside).trim_ascii()))
    };
    inside().unwrap_or((1, message))
}

/// For how many more of the line before it a line stands: `last message repeated 5 times`.
pub fn repeats_last(line: &Line<'_>) -> Option<u32> {
    if line.program.is_some() {
        return None;
    }
    let at = memmem::find(line.message, b"last message repeated ")?;
    let (times, rest) =
        leading_number(line.message.get(at..)?.strip_prefix(b"last message repeated ")?)?;
    (rest == b" times").then_some(times)
}

fn leading_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number.min(MOST_TIMES), rest))
}

/// `pam_unix(sshd:auth): authentication failure; ...`: the service and what follows.
fn pam_unix(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = message.strip_prefix(b"pam_unix(")?;
    let (service, rest) = rest.split_at_checked(memchr(b':', rest)?)?;
    Some((service, rest.strip_prefix(b":auth): ")?))
}

/// `[pid 812] [ann] FAIL LOGIN: ...` without the process.
fn vsftpd(message: &[u8]) -> Option<&[u8]> {
    let (_, rest) = leading_number(message.strip_prefix(b"[pid ")?)?;
    rest.strip_prefix(b"] ")
}

/// A line of `journalctl -o json`, as far as it matters.
#[derive(Deserialize)]
pub struct Entry<'j> {
    #[serde(borrow, rename = "MESSAGE")]
    message: Option<Message<'j>>,
    #[serde(borrow, rename = "SYSLOG_IDENTIFIER")]
    name: Option<Cow<'j, str>>,
    #[serde(borrow, rename = "_HOSTNAME")]
    node: Option<Cow<'j, str>>,
    #[serde(borrow, rename = "_PID")]
    pid: Option<Cow<'j, str>>,
    #[serde(borrow, rename = "SYSLOG_PID")]
    syslog_pid: Option<Cow<'j, str>>,
    #[serde(borrow, rename = "__REALTIME_TIMESTAMP")]
    microseconds: Option<Cow<'j, str>>,
}

/// Text, or bytes where it is not UTF-8.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message<'j> {
    Text(#[serde(borrow)] Cow<'j, str>),
    Bytes(Vec<u8>),
}

impl Entry<'_> {
    /// Reads one; `None` for one that no pattern can match, or that is none.
    pub fn that_matters(line: &[u8]) -> Option<Entry<'_>> {
        static FINDERS: LazyLock<Vec<memmem::Finder<'static>>> =
            LazyLock::new(|| MARKS.iter().map(memmem::Finder::new).collect());
        let has_mark = FINDERS.iter().any(|mark| mark.find(line).is_some());
        if has_mark { Entry::parse(line) } else { None }
    }

    /// Reads one; `None` if it is none.
    pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
        serde_json::from_slice(line).ok()
    }

    /// The line that it stands for.
    pub fn line(&self) -> Line<'_> {
        let message = match &self.message {
            Some(Message::Text(text)) => text.as_bytes(),
            Some(Message::Bytes(bytes)) => bytes,
            None => b"",
        };
        let name = self.name.as_deref().unwrap_or_default().as_bytes();
        let microseconds = self.microseconds.as_deref().and_then(|text| text.parse::<i64>().ok());
        let pid = self.syslog_pid.as_deref().or(self.pid.as_deref());
        Line {
            stamp: microseconds.map(|time| Stamp::Utc(time / 1_000)),
            node: self.node.as_deref().unwrap_or_default().as_bytes(),
            pid: pid.and_then(|pid| pid.parse().ok()).unwrap_or(0),
            ..Line::by(Some(name), name, message.trim_ascii())
        }
    }
}
