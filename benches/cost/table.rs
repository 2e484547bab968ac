//! What was measured as Markdown, and as a picture.

use crate::Costs;
use crate::caller::{FORMS, Measured};
use crate::candidate::{
    ABL, CHARGED, CHARGED_MANY, DENIED, DENIED_MANY, FAILLOCK, LEAST, PAM_DENY, UNIX,
};
use crate::report::svg::{Chart, Group, Panel};
use crate::report::table;

/// The places in `FORMS` of one process at a time.
const FRESH: usize = 0;
const LIVED: usize = 3;

/// The bars of the picture.
const DRAWN: [&str; 7] = [PAM_DENY, CHARGED, CHARGED_MANY, DENIED, DENIED_MANY, FAILLOCK, ABL];
/// With fresh processes, one at a time, against `pam_deny`.
const LIMITS: [(&str, f64); 2] = [(CHARGED, 4.0), (DENIED, 3.0)];

impl Costs {
    fn get(&self, name: &str, form: usize) -> Option<Measured> {
        let place = self.candidates.iter().position(|candidate| candidate.name == name)?;
        self.measured[place][form]
    }

    fn ratio(&self, name: &str, to: &str, form: usize) -> Option<f64> {
        Some(self.get(name, form)?.wall / self.get(to, form)?.wall)
    }
}

/// The time of every candidate, in every form.
pub fn costs(costs: &Costs) -> String {
    let mut rows = vec![vec!["an attempt".to_owned()]];
    for form in &FORMS {
        let kind = if form.lived { "long-lived" } else { "fresh" };
        let many =
            if form.processes == 1 { String::new() } else { format!(" x {}", form.processes) };
        rows[0].push(format!("{kind}{many}"));
    }
    for candidate in &costs.candidates {
        let mut row = vec![candidate.name.to_owned()];
        for form in 0..FORMS.len() {
            row.push(match costs.ratio(candidate.name, PAM_DENY, form) {
                Some(_) if candidate.name == PAM_DENY => {
                    let wall = costs.get(PAM_DENY, form).map_or(0.0, |measured| measured.wall);
                    format!("1 ({} µs)", digits(wall))
                }
                Some(ratio) => digits(ratio),
                None => "-".to_owned(),
            });
        }
        rows.push(row);
    }
    let (made, missed) = costs.charges;
    format!(
        "### Time of an attempt, where that of pam_deny alone is 1\n\n{}\n\
         Medians of {} rounds. {made} charges were made, and the store has {}.\n",
        table(1, &rows),
        costs.rounds,
        made - missed
    )
}

/// Processor time, against that of a password check.
pub fn cpu(costs: &Costs) -> String {
    let head = ["an attempt", "fresh, µs", "of a check", "long-lived, µs", "of a check"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for name in [PAM_DENY, CHARGED, DENIED, FAILLOCK, ABL, UNIX] {
        let mut row = vec![name.to_owned()];
        for form in [FRESH, LIVED] {
            let (Some(own), Some(check)) = (costs.get(name, form), costs.get(UNIX, form)) else {
                continue;
            };
            row.push(digits(own.cpu));
            row.push(format!("{} %", digits(100.0 * own.cpu / check.cpu)));
        }
        rows.push(row);
    }
    format!(
        "### Processor time of an attempt, beside the password check of pam_unix\n\n{}",
        table(1, &rows)
    )
}

/// The limits that we hold ourselves to, and how far the result is from the floor.
pub fn limits(costs: &Costs, races: &[(usize, usize)], kilobytes: u64) -> String {
    let ratio = |name, to| costs.ratio(name, to, FRESH).map_or_else(String::new, digits);
    let mut rows = vec![
        ["", "measured", "limit"].map(str::to_owned),
        ["charged / pam_deny".to_owned(), ratio(CHARGED, PAM_DENY), "at most 4".to_owned()],
        ["denied by quota / pam_deny".to_owned(), ratio(DENIED, PAM_DENY), "at most 3".to_owned()],
        [
            "charged, 1,000,000 rows / charged, empty store".to_owned(),
            ratio(CHARGED_MANY, CHARGED),
            "at most 1.2".to_owned(),
        ],
        ["pam_abl / charged".to_owned(), ratio(ABL, CHARGED), "at least 8".to_owned()],
    ];
    for (crowd, reached) in races {
        let what = format!("of {crowd} guesses at once, from one address, reach pam_unix");
        rows.push([what, reached.to_string(), "exactly 2".to_owned()]);
    }
    let size = "module file, stripped, kB".to_owned();
    rows.push([size, kilobytes.to_string(), "at most 1500".to_owned()]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.to_vec()).collect();
    format!(
        "### Limits\n\nFresh processes, one at a time.\n\n{}\n{}",
        table(1, &rows),
        floor(costs)
    )
}

/// What the module adds to an attempt, in times of what no module can do without.
fn floor(costs: &Costs) -> String {
    let wall = |name, form| costs.get(name, form).map_or(f64::NAN, |measured| measured.wall);
    let least = wall(LEAST, LIVED);
    let added = |name, form| {
        let added = wall(name, form) - wall(PAM_DENY, form);
        format!("{} µs ({} times)", digits(added), digits(added / least))
    };
    format!(
        "The floor of any module that keeps a book in a file (open, lock, read, write, close) is \
         {} µs. What the module adds to an attempt, loading it included, is for a charge {} in a \
         fresh process and {} in a long-lived one, for a denial {} and {}.\n",
        digits(least),
        added(CHARGED, FRESH),
        added(CHARGED, LIVED),
        added(DENIED, FRESH),
        added(DENIED, LIVED)
    )
}

pub fn chart(costs: &Costs) -> Chart {
    let panel = |(title, first): (&str, usize)| {
        let group = |&name: &&str| Group {
            label: name.to_owned(),
            bars: (first..first + 3).map(|form| costs.ratio(name, PAM_DENY, form)).collect(),
            limit: LIMITS.iter().find(|(of, _)| *of == name && first == FRESH).map(|limit| limit.1),
        };
        Panel { title: title.to_owned(), groups: DRAWN.iter().map(group).collect() }
    };
    let panels = [("A fresh process for each attempt", FRESH), ("Long-lived processes", LIVED)];
    Chart {
        title: "What an attempt costs".to_owned(),
        axis: "time of an attempt, where pam_deny alone is 1 (less is better; logarithmic)"
            .to_owned(),
        ratios: true,
        series: ["1 at a time", "8 at once", "32 at once"].map(str::to_owned).to_vec(),
        panels: panels.map(panel).into(),
    }
}

/// Two digits or more.
fn digits(value: f64) -> String {
    let places = if value.abs() < 1.0 { 2 } else { usize::from(value.abs() < 10.0) };
    format!("{value:.places$}")
}
