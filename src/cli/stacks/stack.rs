//! A PAM stack as libpam reads it, and where its modules are.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A missing module is passed over, so that removing the package locks nobody out; anything but
/// PAM_IGNORE ends the stack.
pub const CONTROL: &str = "[success=ok ignore=ignore module_unknown=ignore default=die]";
pub const MODULE: &str = "pam_prefixquota.so";
/// Ends the name of the file that keeps a stack as it was without the module.
pub const BACKUP: &str = ".prefixquota-backup";

/// Modules that ask for a second secret behind the password.
const SECOND_FACTORS: [&str; 7] = [
    "pam_google_authenticator.so",
    "pam_oath.so",
    "pam_otpw.so",
    "pam_yubico.so",
    "pam_duo.so",
    "pam_privacyidea.so",
    "pam_linotp.so",
];

/// A stack is a page of text; more than this is something else. In bytes.
const MAX_FILE: u64 = 1 << 20;
/// How deep files may include each other; libpam gives up at 16.
const MAX_DEPTH: u32 = 16;

/// One line that means something, with those that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, counted from 0, and how many lines of the file it takes.
    pub at: usize,
    pub length: usize,
    /// `auth`, `account`, `password`, `session`; empty for `@include`, which is all of them.
    pub kind: String,
    /// `required`, `[success=1 default=ignore]` with single blanks, `include`, `@include` ...
    pub control: String,
    /// The module, or the file that is included.
    pub module: String,
    pub arguments: Vec<String>,
}

impl Line {
    /// Whether it names our module.
    pub fn is_ours(&self) -> bool {
        !self.is_include() && self.module.ends_with(MODULE)
    }

    pub fn is_include(&self) -> bool {
        ["include", "substack", "@include"].contains(&self.control.as_str())
    }

    /// Whether it takes part in `kind`.
    pub fn concerns(&self, kind: &str) -> bool {
        self.kind == kind || self.kind.is_empty()
    }

    /// Whether it may skip lines behind it: `success=1`.
    pub fn jumps(&self) -> bool {
        self.answers().any(|(_, action)| action.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Whether it may end the stack with a success.
    pub fn may_end(&self) -> bool {
        self.control == "sufficient" || self.answers().any(|(_, action)| action == "done")
    }

    fn answers(&self) -> impl Iterator<Item = (&str, &str)> {
        let inside = self.control.strip_prefix('[').and_then(|c| c.strip_suffix(']'));
        inside.unwrap_or_default().split_whitespace().filter_map(|word| word.split_once('='))
    }
}

/// A stack, byte by byte and line by line.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The lines of the file, each with its end.
    pub raw: Vec<Vec<u8>>,
    pub lines: Vec<Line>,
}

impl Stack {
    /// Reads a file that is one: no link, no device.
    pub fn read(path: &Path) -> Result<Stack, String> {
        let shown = path.display();
        let found = fs::symlink_metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!(
                "{shown}: no such stack; expected the name of a file in {}",
                path.parent().unwrap_or(path).display()
            ),
            _ => format!("{shown}: {error}"),
        })?;
        if found.is_symlink() {
            let target = fs::read_link(path).unwrap_or_default();
            return Err(format!(
                "{shown} is a symbolic link to {}; expected a file of its own: another program may \
                 write that one anew, or other services share it",
                target.display()
            ));
        }
        if !found.is_file() || found.len() > MAX_FILE {
            return Err(format!("{shown} is no PAM stack; expected a text file"));
        }
        let bytes = fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
        if bytes.contains(&0) {
            return Err(format!("{shown} is no PAM stack; expected a text file"));
        }
        Ok(Stack::parse(&bytes))
    }

    pub fn parse(bytes: &[u8]) -> Stack {
        let raw: Vec<Vec<u8>> =
            bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
        let mut lines = Vec::new();
        let (mut text, mut at) = (String::new(), 0);
        for (index, line) in raw.iter().enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.split_once('#').map_or(&*line, |(before, _)| before).trim_end();
            if text.is_empty() {
                at = index;
            }
            if let Some(part) = line.strip_suffix('\\') {
                text = text + part + " ";
                continue;
            }
            text += line;
            lines.extend(parse_line(&text, at, index + 1 - at));
            text.clear();
        }
        lines.extend(parse_line(&text, at, raw.len().saturating_sub(at)));
        Stack { raw, lines }
    }

    pub fn ours(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_ours())
    }

    /// Our line of `kind`.
    pub fn our(&self, kind: &str) -> Option<&Line> {
        self.ours().find(|line| line.kind == kind)
    }

    /// A line before ours of `kind` that keeps it from doing its work. Before the password is
    /// counted nothing may check it; and what may end the stack must not stand before the refund.
    pub fn obstacle(&self, kind: &str) -> Option<&Line> {
        let ours = self.our(kind)?;
        let mut before = self
            .lines
            .iter()
            .filter(|line| line.at < ours.at && line.concerns(kind) && !line.is_ours());
        before.find(|line| kind == "auth" || line.is_include() || line.jumps() || line.may_end())
    }

    /// Whether a line that is not ours decides about `kind`, here or in an included file of `dir`.
    pub fn has_other(&self, dir: &Path, kind: &str) -> bool {
        self.any(dir, kind, MAX_DEPTH, &|line| !line.is_ours())
    }

    /// A module that asks for a second factor, here or in an included file of `dir`. Guesses at that
    /// one come with the same password, which must not be taken for a wrong password again.
    pub fn second_factor(&self, dir: &Path) -> Option<&'static str> {
        let found = Cell::new(None);
        let note = |line: &Line| {
            let name = line.module.rsplit('/').next().unwrap_or_default();
            found.set(SECOND_FACTORS.into_iter().find(|factor| *factor == name));
            found.get().is_some()
        };
        self.any(dir, "auth", MAX_DEPTH, &note);
        found.get()
    }

    /// Whether any line of `kind` is such, here or in an included file. A file that cannot be read
    /// may hold anything.
    pub fn any(&self, dir: &Path, kind: &str, depth: u32, is_such: &dyn Fn(&Line) -> bool) -> bool {
        self.lines.iter().filter(|line| line.concerns(kind)).any(|line| {
            if !line.is_include() {
                return is_such(line);
            }
            let Some(deeper) = depth.checked_sub(1) else { return true };
            match fs::read(dir.join(&line.module)) {
                Ok(bytes) => Stack::parse(&bytes).any(dir, kind, deeper, is_such),
                Err(_) => true,
            }
        })
    }
}

/// `KIND CONTROL MODULE ARGUMENT...`, or `@include FILE`.
fn parse_line(text: &str, at: usize, length: usize) -> Option<Line> {
    let mut words = words(text).into_iter();
    let first = words.next()?;
    if first == "@include" {
        let module = words.next()?;
        let kind = String::new();
        return Some(Line { at, length, kind, control: first, module, arguments: Vec::new() });
    }
    let kind = first.trim_start_matches('-').to_lowercase();
    let (control, module) = (words.next()?, words.next()?);
    Some(Line { at, length, kind, control, module, arguments: words.collect() })
}

/// Words between blanks; what stands in brackets is one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for word in text.split_whitespace() {
        match words.last_mut().filter(|_| inside) {
            Some(last) => *last = format!("{last} {word}"),
            None => words.push(word.to_owned()),
        }
        inside = (inside || word.starts_with('[')) && !word.ends_with(']');
    }
    words
}

/// The stacks in `dir`, by name; no backups, and nothing that package managers leave.
pub fn services(dir: &Path) -> Vec<(String, Stack)> {
    let left =
        [BACKUP, ".prefixquota-new", "~", ".bak", ".orig", ".rpmnew", ".rpmsave", ".pam-old"];
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(String, Stack)> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let is_left = name.starts_with('.')
                || name.contains(".dpkg-")
                || left.iter().any(|end| name.ends_with(end));
            let bytes = fs::read(file.path()).ok().filter(|_| !is_left)?;
            Some((name, Stack::parse(&bytes)))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Whether this file is a part of many stacks, and no service of its own.
pub fn is_shared(name: &str) -> bool {
    ["system-auth", "password-auth", "other"].contains(&name) || name.starts_with("common-")
}

/// Where libpam looks for modules: every directory that has `pam_permit.so`.
pub fn module_directories() -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> =
        ["/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(PathBuf::from).to_vec();
    for lib in ["/usr/lib", "/lib"] {
        let inside = fs::read_dir(lib).into_iter().flatten().flatten();
        candidates.extend(inside.map(|entry| entry.path()));
    }
    let mut found: Vec<PathBuf> = candidates
        .into_iter()
        .map(|lib| lib.join("security"))
        .filter(|dir| dir.join("pam_permit.so").exists())
        // Where /lib is a link to /usr/lib, this is one directory.
        .filter_map(|dir| fs::canonicalize(dir).ok())
        .collect();
    found.sort();
    found.dedup();
    found
}
