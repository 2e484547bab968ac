//! Manual pages and completions: nothing that can be set or called is missing, and they render.
//!
//! What there is comes from `--help`, which is made apart from the pages.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use pam_prefixquota::config::SETTINGS;

const PAGES: [&str; 3] = ["prefixquota.8", "prefixquota.conf.5", "pam_prefixquota.8"];
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What the command prints, which must succeed.
fn printed(arguments: &[&str]) -> String {
    let run = common::command().args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && error.is_empty(), "{arguments:?}: {error}");
    String::from_utf8(run.stdout).unwrap()
}

/// A page as it reads, without troff's spellings.
fn plain(page: &str) -> String {
    let text = printed(&["man", page]);
    let text = text.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "");
    text.replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "")
}

/// A subcommand as `--help` tells of it; the command itself has no words.
#[derive(Debug)]
struct Help {
    words: Vec<String>,
    options: BTreeSet<String>,
}

/// The subcommands below `words`, and theirs.
fn walk(words: &[&str], found: &mut Vec<Help>) {
    let help = printed(&[words, &["--help"]].concat());
    let mut heading = "";
    let mut options = BTreeSet::new();
    for line in help.lines() {
        if !line.starts_with(' ') {
            heading = line;
            continue;
        }
        let Some(first) = line.split_whitespace().next() else { continue };
        if line.starts_with("  ") && !line.starts_with("   ") && heading == "Commands:" {
            if first != "help" {
                walk(&[words, &[first]].concat(), found);
            }
        } else if first.starts_with('-') && first != "-" && line.find('-') <= Some(6) {
            let spelt = line.split_whitespace().take(2).find(|word| word.starts_with("--"));
            options.insert(spelt.expect("every option has a long form").to_owned());
        }
    }
    let words = words.iter().map(|&word| word.to_owned()).collect();
    found.push(Help { words, options });
}

fn everything() -> Vec<Help> {
    let mut found = Vec::new();
    walk(&[], &mut found);
    let has = |words: &[&str], option: &str| {
        found.iter().any(|help| help.words == words && help.options.contains(option))
    };
    assert!(has(&[], "--config") && has(&["check"], "--all") && has(&["man"], "--format"));
    found
}

#[test]
fn the_page_of_the_command_has_every_subcommand_and_option() {
    let page = plain("prefixquota.8");
    let common = everything().pop().expect("the command itself").options;
    for option in &common {
        let terms = [format!("\n{option}"), format!(", {option}")];
        assert!(terms.iter().any(|term| page.contains(term)), "{option}:\n{page}");
    }
    for help in everything().iter().filter(|help| !help.words.is_empty()) {
        let heading = format!(".SS\n{}", help.words.join(" "));
        let ends = |rest: &&str| rest.starts_with(['\n', ' ']);
        let section = page.split(&heading).skip(1).find(ends);
        let section = section.unwrap_or_else(|| panic!("{:?} is missing:\n{page}", help.words));
        let section = section.split("\n.S").next().unwrap();
        for option in help.options.difference(&common) {
            let terms = [format!("\n{option}"), format!(", {option}")];
            assert!(
                terms.iter().any(|term| section.contains(term)),
                "{:?} {option}:\n{section}",
                help.words
            );
        }
    }
}

#[test]
fn the_page_of_the_settings_has_every_setting() {
    let page = plain("prefixquota.conf.5");
    let mut rest = page.as_str();
    for setting in SETTINGS {
        let item = format!(".TP\n{}\n{}\n", setting.name, setting.help.replace('`', ""));
        let at = rest.find(&item).unwrap_or_else(|| panic!("{} is missing:\n{rest}", setting.name));
        rest = &rest[at..];
        let takes = format!("Takes {}. Default: ", setting.expects());
        let text = rest.split(".TP").nth(1).unwrap();
        assert!(text.contains(&takes) && text.contains(setting.default), "{text}");
    }
}

#[test]
fn the_page_of_the_module_has_its_two_lines_and_answers() {
    let page = plain("pam_prefixquota.8");
    let stack = include_str!("../pam.d-examples/sshd-debian");
    let lines: Vec<&str> =
        stack.lines().filter(|line| line.ends_with("  pam_prefixquota.so")).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!(page.matches(line).count(), 2, "in SYNOPSIS and EXAMPLES: {line}");
    }
    for word in ["PAM_IGNORE", "PAM_MAXTRIES", "PAM_CONV_ERR", "config=", "enforce", "prompt=no"] {
        assert!(page.contains(&format!(".TP\n{word}")) || page.contains(&format!(".B {word}\n")));
    }
    assert!(page.contains(concat!("prefixquota ", env!("CARGO_PKG_VERSION"))), "{page}");
}

#[test]
fn the_pages_render_without_a_warning() {
    let mut checked = 0;
    let formatters: [&[&str]; 2] =
        [&["groff", "-man", "-Tutf8", "-ww"], &["mandoc", "-T", "lint", "-W", "warning"]];
    for formatter in formatters {
        let there = Command::new("sh").args(["-c", "command -v \"$0\"", formatter[0]]).output();
        if !there.unwrap().status.success() {
            continue;
        }
        let dir = common::private_dir();
        for page in PAGES {
            let file = dir.path().join(page);
            let text = printed(&["man", page]);
            assert!(text.is_ascii(), "{page}: not every formatter reads anything else");
            std::fs::write(&file, text).unwrap();
            let run = Command::new(formatter[0]).args(&formatter[1..]).arg(&file).output().unwrap();
            let error = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success() && error.is_empty(), "{formatter:?} {page}: {error}");
            checked += 1;
        }
    }
    if checked == 0 {
        assert!(std::env::var_os("CI").is_none(), "must run in CI, and needs groff or mandoc");
        eprintln!("the_pages_render_without_a_warning: skipped, needs groff or mandoc");
    }
}

#[test]
fn the_completions_name_every_subcommand_and_option() {
    let everything = everything();
    for shell in SHELLS {
        let script = printed(&["completions", shell]);
        for help in &everything {
            for word in &help.words {
                assert!(script.contains(word.as_str()), "{shell}: {word}");
            }
            for option in &help.options {
                // fish has them without the dashes: `-l all`.
                let name = if shell == "fish" { option.trim_start_matches('-') } else { option };
                assert!(script.contains(name), "{shell}: {option}");
            }
        }
        let there = Command::new("sh").args(["-c", "command -v \"$0\"", shell]).output().unwrap();
        if there.status.success() {
            let dir = common::private_dir();
            let file = dir.path().join(shell);
            std::fs::write(&file, script).unwrap();
            let run = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            let error = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success() && error.is_empty(), "{shell}: {error}");
        }
    }
}

#[test]
fn pages_and_completions_are_there_for_programs_too() {
    for arguments in [&["man", "prefixquota.conf.5"][..], &["completions", "bash"]] {
        let json = printed(&[arguments, &["--format", "json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let text = json.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        assert_eq!(text, printed(arguments));
    }
    assert_eq!(printed(&["man"]), printed(&["man", "prefixquota.8"]));
}
