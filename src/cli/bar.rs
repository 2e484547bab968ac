//! How full prefixes are: a table, and on a terminal a bar for each.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use pam_prefixquota::decide::Standing;

use super::{shown_count, shown_wait, table};

/// How many characters a bar has.
const WIDTH: u8 = 20;

/// Prefixes with count, quota and time to wait; with bars if people look.
pub fn standings<'s>(standings: impl Iterator<Item = &'s Standing>) -> String {
    let bars = Bars::for_stdout();
    let mut header = vec!["prefix", "failures", "quota"];
    header.extend(bars.as_ref().map(|_| ""));
    header.push("next try");
    let rows = standings.map(|standing| {
        let mut row = vec![
            standing.prefix.to_string(),
            shown_count(standing.count),
            standing.quota.to_string(),
        ];
        row.extend(bars.as_ref().map(|bars| bars.of(standing)));
        // Colour in the last column alone: the table takes it for text, and it has a width.
        let style = style(standing);
        row.push(format!("{style}{}{style:#}", shown_wait(standing.wait)));
        row
    });
    table(&header, rows)
}

fn style(standing: &Standing) -> Style {
    match standing.wait {
        1.. => Style::new().fg_color(Some(AnsiColor::Red.into())),
        _ => Style::new(),
    }
}

/// What bars are made of.
struct Bars {
    full: char,
    empty: char,
}

impl Bars {
    /// None in a pipe: programs read columns.
    fn for_stdout() -> Option<Bars> {
        is_unicode_terminal().map(|is_unicode| match is_unicode {
            true => Bars { full: '█', empty: '░' },
            false => Bars { full: '#', empty: '.' },
        })
    }

    /// A bar is full where there is no room for one attempt more, and only there.
    fn of(&self, standing: &Standing) -> String {
        let filled = match standing.wait {
            1.. => WIDTH,
            _ => {
                (standing.share() * f64::from(WIDTH)).round().clamp(0.0, f64::from(WIDTH - 1)) as u8
            }
        };
        (0..WIDTH).map(|at| if at < filled { self.full } else { self.empty }).collect()
    }
}

/// Whether the terminal shows more than ASCII; `None` if standard output is no terminal.
pub fn is_unicode_terminal() -> Option<bool> {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_lowercase();
    let is_unicode = locale.contains("utf-8") || locale.contains("utf8");
    std::io::stdout().is_terminal().then_some(is_unicode)
}
