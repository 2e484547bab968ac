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

/// Whether the peers are there: programs, and modules of PAM.
pub fn has(bench: &str, peers: &[&str]) -> bool {
    let dirs = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let places: Vec<PathBuf> =
        ["/usr/bin", "/usr/sbin", "/usr/lib/security", "/usr/lib64/security"]
            .map(PathBuf::from)
            .into_iter()
            .chain(dirs.map(|dir| dir.path().join("security")))
            .collect();
    let is_missing = |peer: &&&str| !places.iter().any(|place| place.join(peer).exists());
    let missing: Vec<&str> = peers.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        println!("{bench}: skipped, needs {}; `make bench-deps` installs it", missing.join(", "));
    }
    missing.is_empty()
}

fn writes_docs() -> bool {
    std::env::var_os("PREFIXQUOTA_WRITE_DOCS").is_some()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}
