//! What a benchmark prints is Markdown. With PREFIXQUOTA_WRITE_DOCS set it also stands in
//! `docs/benchmark.md`, with its pictures beside.

pub mod svg;

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown table whose first row is its head. All columns but the first `left` hold numbers.
pub fn table(left: usize, rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let rule = |i| if i < left { "---" } else { "---:" }.to_owned();
    let rule: Vec<String> = (0..head.len()).map(rule).collect();
    let rows = rows.iter().map(|row| line(row));
    [line(head), line(&rule)].into_iter().chain(rows).collect()
}

/// Prints one part of the report, and writes it between its marks in the document.
pub fn part(name: &str, text: &str) {
    println!("{text}");
    if !writes_docs() {
        return;
    }
    let file = docs().join("benchmark.md");
    let old = fs::read_to_string(&file).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (head, rest) = old.split_once(&begin).expect("where the part begins");
    let (_, tail) = rest.split_once(&end).expect("where it ends");
    fs::write(file, format!("{head}{begin}{text}{end}{tail}")).unwrap();
}

/// Writes a picture, if pictures are to be written.
pub fn picture(name: &str, chart: &svg::Chart) {
    if writes_docs() {
        fs::write(docs().join(name), chart.draw()).unwrap();
    }
}

fn writes_docs() -> bool {
    std::env::var_os("PREFIXQUOTA_WRITE_DOCS").is_some()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}
