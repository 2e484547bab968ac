//! Which pattern a line matches.

use std::sync::LazyLock;

use super::line::Line;
use super::patterns::{PATTERNS, Pattern, Program};
use super::template::{Fields, Template};

/// No message that matters is longer, in bytes.
const LONGEST: usize = 4_096;

/// What is known of a line.
#[derive(Clone, Copy)]
pub struct Found<'l> {
    /// What it means.
    pub pattern: &'static Pattern,
    /// What its tags stand for.
    pub fields: Fields<'l>,
}

/// The table, ready for use.
static TEMPLATES: LazyLock<Vec<(&Pattern, Template)>> = LazyLock::new(|| {
    PATTERNS.iter().map(|pattern| (pattern, Template::new(pattern.template))).collect()
});

/// Where the patterns of each program stand in the table, which has them together.
static RANGES: LazyLock<Vec<(Program, std::ops::Range<usize>)>> = LazyLock::new(|| {
    let mut ranges = Vec::new();
    let mut first = 0;
    for group in PATTERNS.chunk_by(|a, b| a.by == b.by) {
        let next = first + group.len();
        ranges.extend(group.first().map(|pattern| (pattern.by, first..next)));
        first = next;
    }
    ranges
});

/// Finds the first pattern that matches.
pub fn parse<'l>(line: &Line<'l>) -> Option<Found<'l>> {
    if line.message.len() > LONGEST {
        return None;
    }
    let Some(program) = line.program else { return first(0..PATTERNS.len(), line.message) };
    let of = |program| RANGES.iter().filter(move |(by, _)| *by == program);
    let mut ranges = of(program)
        .chain((program != Program::Any).then(|| of(Program::Any)).into_iter().flatten());
    ranges.find_map(|(_, range)| first(range.clone(), line.message))
}

fn first(range: std::ops::Range<usize>, message: &[u8]) -> Option<Found<'_>> {
    TEMPLATES
        .get(range)?
        .iter()
        .find_map(|(pattern, template)| Some(Found { pattern, fields: template.fields(message)? }))
}
