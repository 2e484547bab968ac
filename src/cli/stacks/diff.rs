//! A change as a unified diff.

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Keep,
    Remove,
    Add,
}

impl Change {
    fn sign(self) -> char {
        match self {
            Change::Keep => ' ',
            Change::Remove => '-',
            Change::Add => '+',
        }
    }
}

/// How many lines are shown around a change.
const CONTEXT: usize = 3;

/// The diff of a file called `name`; empty if nothing changes.
pub fn unified(name: &str, lines: &[(Change, Vec<u8>)]) -> String {
    let near = |index: usize| {
        let around = lines.iter().skip(index.saturating_sub(CONTEXT));
        around.take(index.min(CONTEXT) + 1 + CONTEXT).any(|(change, _)| *change != Change::Keep)
    };
    let mut text = String::new();
    let (mut old, mut new) = (1, 1);
    let mut hunk: Vec<String> = Vec::new();
    let (mut start, mut counts) = ((1, 1), (0, 0));
    let mut flush = |hunk: &mut Vec<String>, start: (usize, usize), counts: (usize, usize)| {
        if !hunk.is_empty() {
            let (old, new) = (range(start.0, counts.0), range(start.1, counts.1));
            text += &format!("@@ -{old} +{new} @@\n{}", hunk.concat());
            hunk.clear();
        }
    };
    for (index, (change, line)) in lines.iter().enumerate() {
        let (in_old, in_new) =
            (usize::from(*change != Change::Add), usize::from(*change != Change::Remove));
        if near(index) {
            if hunk.is_empty() {
                (start, counts) = ((old, new), (0, 0));
            }
            counts = (counts.0 + in_old, counts.1 + in_new);
            hunk.push(shown(change.sign(), line));
        } else {
            flush(&mut hunk, start, counts);
        }
        (old, new) = (old + in_old, new + in_new);
    }
    flush(&mut hunk, start, counts);
    match text.is_empty() {
        true => text,
        false => format!("--- {name}\n+++ {name}\n{text}"),
    }
}

fn shown(sign: char, line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.strip_suffix('\n') {
        Some(text) => format!("{sign}{text}\n"),
        None => format!("{sign}{text}\n\\ No newline at end of file\n"),
    }
}

/// `1,4`; `0,0` stands before the first line.
fn range(start: usize, count: usize) -> String {
    match count {
        0 => format!("{},0", start - 1),
        1 => start.to_string(),
        _ => format!("{start},{count}"),
    }
}
