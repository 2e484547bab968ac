//! Text for man(7): just what the pages need.

use std::fmt::Write as _;

/// A page as it grows.
pub struct Roff(String);

impl Roff {
    /// Begins a page. It has no date: the same source must give the same page. And no hyphenation,
    /// which would break names of settings and options.
    pub fn new(name: &str, section: u8) -> Roff {
        let version = env!("CARGO_PKG_VERSION");
        let title = name.to_uppercase();
        Roff(format!(
            ".TH {title} {section} \"\" \"prefixquota {version}\" \"System Administration\"\n\
             .nh\n.ad l\n"
        ))
    }

    /// The page so far.
    pub fn finish(self) -> String {
        self.0
    }

    /// `.SH`.
    pub fn section(&mut self, heading: &str) {
        self.line(&format!(".SH {heading}"));
    }

    /// `.SS`, with markup in the heading.
    pub fn subsection(&mut self, heading: &str) {
        // On a line of its own, so that blanks and quotes need no care.
        self.line(".SS");
        self.text(heading);
    }

    /// Paragraphs, separated by empty lines. What stands in backticks is bold.
    pub fn paragraphs(&mut self, text: &str) {
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            self.line(".PP");
            self.text(paragraph);
        }
    }

    /// A term and what is said about it, both with markup.
    pub fn item(&mut self, term: &str, text: &str) {
        self.line(".TP");
        self.text(term);
        for (index, paragraph) in text.split("\n\n").enumerate() {
            if index > 0 {
                self.line(".IP");
            }
            self.text(paragraph);
        }
    }

    /// Lines that are shown as they are.
    pub fn verbatim(&mut self, text: &str) {
        self.line(".PP\n.RS 4\n.nf");
        for line in text.lines() {
            self.line(&format!("\\&{}", escaped(line)));
        }
        self.line(".fi\n.RE");
    }

    /// Text in the small form of Markdown: paragraphs, and lines indented by four blanks, which
    /// are shown as they are.
    pub fn markdown(&mut self, text: &str) {
        for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
            let lines = || block.lines().filter(|line| !line.is_empty());
            if lines().all(|line| line.starts_with("    ")) {
                let shown: Vec<&str> = lines().map(|l| l.get(4..).unwrap_or_default()).collect();
                self.verbatim(&shown.join("\n"));
            } else {
                self.paragraphs(block);
            }
        }
    }

    /// One paragraph, term or heading on one line.
    fn text(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let parts: Vec<String> = words.join(" ").split('`').map(escaped).collect();
        let mut line = String::from("\\&");
        for (index, part) in parts.iter().enumerate() {
            let _ = match index % 2 {
                0 => write!(line, "{part}"),
                _ => write!(line, "\\fB{part}\\fR"),
            };
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

/// Text that troff prints as it is: a plain hyphen, which can be copied into a shell, and ASCII
/// signs that it would otherwise turn into typographical ones.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        let _ = match sign {
            '\\' => write!(out, "\\e"),
            '-' => write!(out, "\\-"),
            '\'' => write!(out, "\\(aq"),
            '`' => write!(out, "\\(ga"),
            '^' => write!(out, "\\(ha"),
            '~' => write!(out, "\\(ti"),
            _ if sign.is_ascii() => write!(out, "{sign}"),
            _ => write!(out, "\\[u{:04X}]", u32::from(sign)),
        };
    }
    out
}
