//! The outcome as Markdown, and as a picture.

use std::process::Command;

use crate::attack::{Logins, Manner, Outcome, SCENARIOS, Scenario};
use crate::peers::{PEERS, Peer};
use crate::report::svg::{Chart, Group, Panel};
use crate::report::table;

type Admitted = fn(&Logins) -> bool;

/// Who logs in after the attack, with the right password.
const PEOPLE: [(&str, Admitted); 5] = [
    ("somebody in the next prefix of that length", |logins| logins.neighbour),
    ("somebody in the attacked prefix, new there", |logins| logins.stranger),
    ("somebody in the attacked prefix, known there", |logins| logins.insider),
    ("the owner, from where he is known", |logins| logins.owner_known),
    ("the owner, from somewhere new", |logins| logins.owner_elsewhere),
];

const PACKAGES: [&str; 4] = ["libpam-abl", "libpam-modules", "fail2ban", "sshguard"];

/// The tables, and what to know about them.
pub fn report(outcomes: &[Outcome]) -> String {
    format!(
        "### Guesses that reach the password check, of 300\n\n\
         One after another, five a second / fifty at the same moment, and then a pause.\n\n\
         {}\n\
         ### Who gets in afterwards with the right password\n\n\
         {}\n\
         Measured with {}.\n",
        reached(outcomes),
        logins(outcomes),
        versions()
    )
}

pub fn chart(outcomes: &[Outcome]) -> Chart {
    let panel = |(title, manner): (&str, Manner)| {
        let group = |scenario: &Scenario| Group {
            label: scenario.name.to_owned(),
            bars: PEERS
                .map(|peer| Some(find(outcomes, scenario, peer, manner).reached as f64))
                .into(),
            limit: None,
        };
        Panel { title: title.to_owned(), groups: SCENARIOS.iter().map(group).collect() }
    };
    let panels = [
        ("One after another, five a second", Manner::Serial),
        ("Fifty at the same moment, and then a pause", Manner::Crowds),
    ];
    Chart {
        title: "Of 300 wrong guesses, how many reach the password check".to_owned(),
        axis: "guesses that reach the password check (fewer is better)".to_owned(),
        ratios: false,
        series: PEERS.map(|peer| peer.to_string()).into(),
        panels: panels.map(panel).into(),
    }
}

fn reached(outcomes: &[Outcome]) -> String {
    let head =
        ["the attacker has".to_owned()].into_iter().chain(PEERS.map(|peer| peer.to_string()));
    let row = |scenario: &Scenario| {
        let cell = |peer| {
            let [serial, crowds] = [Manner::Serial, Manner::Crowds]
                .map(|manner| find(outcomes, scenario, peer, manner).reached);
            format!("{serial} / {crowds}")
        };
        [scenario.name.to_owned()].into_iter().chain(PEERS.map(cell)).collect()
    };
    let rows: Vec<Vec<String>> =
        [head.collect()].into_iter().chain(SCENARIOS.iter().map(row)).collect();
    table(1, &rows)
}

fn logins(outcomes: &[Outcome]) -> String {
    let head = ["the attacker had", "who"].map(str::to_owned);
    let head = head.into_iter().chain(PEERS.map(|peer| peer.to_string()));
    let mut rows: Vec<Vec<String>> = vec![head.collect()];
    for scenario in &SCENARIOS {
        for (who, admitted) in PEOPLE {
            let cell = |peer| {
                let said = [Manner::Serial, Manner::Crowds].map(|manner| {
                    let outcome = find(outcomes, scenario, peer, manner);
                    if admitted(&outcome.logins) { "in" } else { "**out**" }
                });
                // Nearly always they agree.
                if said[0] == said[1] { said[0].to_owned() } else { said.join(" / ") }
            };
            let row = [scenario.name, who].map(str::to_owned);
            rows.push(row.into_iter().chain(PEERS.map(cell)).collect());
        }
    }
    table(7, &rows)
}

fn find<'a>(
    outcomes: &'a [Outcome],
    scenario: &Scenario,
    peer: Peer,
    manner: Manner,
) -> &'a Outcome<'a> {
    let mut found = outcomes.iter().filter(|outcome| {
        let cell = outcome.cell;
        cell.scenario.name == scenario.name && cell.peer == peer && cell.manner == manner
    });
    found.next().expect("every peer meets every attack")
}

/// Of the peers' packages.
fn versions() -> String {
    let version = |package: &&str| {
        let mut command = Command::new("dpkg-query");
        command.args(["--show", "--showformat=${Version}", package]);
        let shown = command.output().map(|run| String::from_utf8_lossy(&run.stdout).into_owned());
        format!("{package} {}", shown.unwrap_or_default())
    };
    PACKAGES.iter().map(version).collect::<Vec<_>>().join(", ")
}
