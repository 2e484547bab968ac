//! Manual pages and completions, made from the definitions: a subcommand, an option or a setting
//! that is added appears in them by itself.

mod command;
mod roff;

use clap::CommandFactory;
use clap_complete::shells;
use pam_prefixquota::config::{DEFAULT_FILE, SETTINGS};
use serde_json::json;

use super::Report;
use super::args::{Args, Page, Shell};
use roff::Roff;

/// Written by hand: what the module does is not in any definition.
const MODULE_PAGE: &str = include_str!("../man/pam_prefixquota.8");

/// Worked examples: paragraphs that say what for, and command lines behind four blanks and `# `.
/// `tests/readme.rs` runs them as they are written.
const EXAMPLES: &str = include_str!("../man/examples.md");

/// `man [PAGE]`.
pub fn man(page: Page) -> Report {
    let text = match page {
        Page::Command => command::page(Args::command(), EXAMPLES),
        Page::Settings => settings(),
        Page::Module => MODULE_PAGE.replace("@VERSION@", env!("CARGO_PKG_VERSION")),
    };
    Report::new(text.clone(), json!({ "page": text }))
}

/// `completions SHELL`.
pub fn completions(shell: Shell) -> Report {
    let mut command = Args::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
    }
    let script = String::from_utf8_lossy(&script).into_owned();
    Report::new(script.clone(), json!({ "script": script }))
}

/// `prefixquota.conf(5)`.
fn settings() -> String {
    let mut page = Roff::new("prefixquota.conf", 5);
    page.section("NAME");
    page.paragraphs("prefixquota.conf - settings of pam_prefixquota and prefixquota");
    page.section("SYNOPSIS");
    page.paragraphs(&format!("`{DEFAULT_FILE}`"));
    page.section("DESCRIPTION");
    page.paragraphs(
        "The PAM module `pam_prefixquota`(8) and the command `prefixquota`(8) read this file, each \
         time they run: a change works from the next login on. It may be missing; every setting \
         has a default.\n\n\
         Each line is `key = value`. A bare key means `yes`. Empty lines mean nothing, and neither \
         does what follows a `#`. If a setting stands twice, the later line wins, except for \
         lists, which add up.",
    );
    page.section("PRECEDENCE");
    page.paragraphs(
        "From the weakest to the strongest: the defaults, this file, and the arguments of the \
         module's line in `/etc/pam.d` (each setting as `key=value`, without blanks) or the option \
         `--database` of the command. The module's argument `config=FILE` and the command's option \
         `--config` name another file, which must exist.\n\n\
         The command does not see the arguments of a PAM line. Services that share a store should \
         have the same half-life and the same quotas.",
    );
    page.section("WRONG LINES");
    page.paragraphs(
        "An unknown key or a value out of its range is reported with file, line, what was found \
         and what is expected. The module logs it, skips that line and keeps the rest, so that a \
         slip locks nobody out; the command refuses to go on, with exit status 2. `prefixquota \
         config` shows what is in force and where each value comes from.",
    );
    page.section("SETTINGS");
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let expects = setting.expects();
        let text = format!("{}\n\nTakes {expects}. Default: {default}.", setting.help);
        page.item(&format!("`{}`", setting.name), &text);
    }
    page.section("EXAMPLES");
    page.markdown(
        "A site that wants only known networks to log in; the longest prefix that covers an \
         address decides:\n\n    \
             deny   = ::/0 0.0.0.0/0\n    \
             exempt = 2001:db8:77::/48\n    \
             count  = 192.0.2.0/24\n\n\
         A first week in which everything is counted and logged, and nothing is denied:\n\n    \
             enforcing = no\n\n\
         More patience with people who mistype on IPv6:\n\n    \
             ipv6_base = 5",
    );
    page.section("SEE ALSO");
    page.paragraphs("`prefixquota`(8), `pam_prefixquota`(8), `pam.d`(5)");
    page.finish()
}
