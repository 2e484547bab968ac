//! The stacks that name the module, and those that do not.

use std::path::Path;

use pam_prefixquota::config::{Config, Place, Settings};
use pam_prefixquota::repeat::Repeat;

use super::Finding;
use super::program::find;
use crate::cli::stacks::stack::{CONTROL, Line, Stack, is_shared, services};

/// Services that let guesses in from the network and give PAM their addresses.
const KNOWN: [&str; 4] = ["sshd", "dovecot", "vsftpd", "proftpd"];

pub struct Stacks {
    pub findings: Vec<Finding>,
    /// Those that name the module.
    pub services: Vec<String>,
}

pub fn examine(pam_dir: &Path, settings: &Settings) -> Stacks {
    let (mut findings, mut protected, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (name, stack) in services(pam_dir) {
        if stack.ours().next().is_some() {
            findings.extend(examine_stack(pam_dir, &name, &stack, settings));
            protected.push(name);
        } else if KNOWN.contains(&name.as_str()) && find(&name).is_some() {
            open.push(name);
        }
    }
    open.sort_by_key(|name| KNOWN.iter().position(|known| known == name));
    if protected.is_empty() {
        let name = open.first().map_or("sshd", String::as_str);
        let mend = format!("Run: prefixquota enable {name}");
        findings.push(Finding::wrong("stacks", "no service is protected", mend));
    }
    for name in open.iter().skip(usize::from(protected.is_empty())) {
        let mend = format!("If its passwords come through PAM: prefixquota enable {name}");
        findings.push(Finding::note(name, "is installed and not protected", mend));
    }
    Stacks { findings, services: protected }
}

fn examine_stack(pam_dir: &Path, name: &str, stack: &Stack, settings: &Settings) -> Vec<Finding> {
    let file = pam_dir.join(name).display().to_string();
    let again = format!("Run: prefixquota disable {name}; prefixquota enable {name}");
    let mut found = Vec::new();
    if is_shared(name) {
        let mend = "Take the lines out there, and enable the services one by one.";
        let what = format!("{file} names the module, for sudo, su and screen locks as well");
        found.push(Finding::note(name, what, mend));
    }
    for kind in ["auth", "account"] {
        let missing = match kind {
            "auth" => "nothing is counted",
            _ => "right passwords count as failures",
        };
        let Some(line) = stack.our(kind) else {
            let what = format!("{file} has no {kind} line of the module: {missing}");
            found.push(Finding::wrong(name, what, &*again));
            continue;
        };
        let at = format!("{file}, line {}", line.at + 1);
        if let Some(other) = stack.obstacle(kind) {
            let what = format!(
                "{file}, line {}: stands before the module's {kind} line (line {})",
                other.at + 1,
                line.at + 1
            );
            let mend = "Move the module's lines to the top, before every include.";
            found.push(Finding::wrong(name, what, mend));
        }
        if line.control != CONTROL {
            let what = format!("{at}: the control field is {}", line.control);
            found.push(Finding::wrong(name, what, format!("Expected: {CONTROL}")));
        }
        found.extend(examine_arguments(name, &at, line, settings));
    }
    if let (Some(factor), Some(auth)) = (stack.second_factor(pam_dir), stack.our("auth"))
        && settings_of(auth).settings.repeat != Repeat::No
    {
        let what = format!("{file}: {factor} asks for a second factor, and repeat is not no");
        let mend = "Add repeat=no to the module's auth line: guesses at the second factor come \
                    with the same password, and would not be counted.";
        found.push(Finding::wrong(name, what, mend));
    }
    if let (Some(auth), Some(account)) = (stack.our("auth"), stack.our("account")) {
        let store = |line: &Line| settings_of(line).settings.database;
        if store(auth) != store(account) {
            let what = format!("{file}: the two lines use different stores");
            let mend = "Give both the same database= and config=, or nothing is refunded.";
            found.push(Finding::wrong(name, what, mend));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(name, format!("both lines are in {file}")));
    }
    found
}

fn settings_of(line: &Line) -> Config {
    let arguments: Vec<&[u8]> = line.arguments.iter().map(|argument| argument.as_bytes()).collect();
    Config::load(None, &arguments)
}

fn examine_arguments(name: &str, at: &str, line: &Line, settings: &Settings) -> Vec<Finding> {
    let config = settings_of(line);
    let names_file = line.arguments.iter().any(|argument| argument.starts_with("config="));
    // What is wrong in the usual file is said once.
    let is_here = |place: &Place| *place == Place::Argument || names_file;
    let mut found: Vec<Finding> = config
        .problems
        .iter()
        .filter(|problem| is_here(&problem.place))
        .map(|problem| {
            let mend = "The module skips that; correct or remove it, see prefixquota.conf(5).";
            Finding::wrong(name, format!("{at}: {problem}"), mend)
        })
        .collect();
    if line.kind == "auth" && config.settings.database != settings.database {
        let store = config.settings.database.display();
        let mend = format!("To look at it: prefixquota --database {store} doctor");
        found.push(Finding::note(name, format!("{at}: has a store of its own, {store}"), mend));
    }
    if line.kind == "auth" && !config.settings.enforcing && settings.enforcing {
        let mend = "When you have watched for long enough, take that argument out.";
        found.push(Finding::note(name, format!("{at}: enforcing=no, nothing is denied"), mend));
    }
    found
}
