//! `prefixquota(8)`, from the definition of the command line.

use clap::{Arg, Command};

use super::roff::Roff;

/// The page: all subcommands on one, each with a section of its own.
pub fn page(mut command: Command, examples: &str) -> String {
    // Hands the global options down, and adds --help and --version.
    command.build();
    let name = command.get_name().to_owned();
    let mut page = Roff::new(&name, 8);
    page.section("NAME");
    page.paragraphs(&format!("{name} - {}", lower(&about(&command))));
    page.section("SYNOPSIS");
    page.paragraphs(&format!("`{name}` [OPTION]... COMMAND [ARGUMENT]..."));
    page.section("DESCRIPTION");
    page.paragraphs(&sentence(&about(&command)));
    page.paragraphs(
        "What is counted, and when an attempt is denied, is described in `pam_prefixquota`(8). \
         Every answer is text for people or, with `--format json`, one JSON value for programs. An \
         error is one sentence on standard error. The store is root's, so most commands need root.",
    );
    page.section("COMMANDS");
    subcommands(&mut page, &command, "");
    page.section("OPTIONS");
    page.paragraphs("Before or after the command:");
    for option in command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()) {
        argument(&mut page, option);
    }
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        page.section("EXIT STATUS");
        page.paragraphs(text.strip_prefix("Exit status: ").unwrap_or(&text));
    }
    page.section("FILES");
    page.item("`/etc/security/prefixquota.conf`", "The settings, see `prefixquota.conf`(5).");
    page.item(
        "`/var/lib/prefixquota/prefixquota.db`",
        "The store, an SQLite database. The view `prefix_count` shows the count of every prefix; \
         rows of the table `failure` may be deleted by hand.",
    );
    page.section("EXAMPLES");
    page.markdown(examples);
    page.section("SEE ALSO");
    page.paragraphs("`pam_prefixquota`(8), `prefixquota.conf`(5), `sqlite3`(1)");
    page.finish()
}

/// A section for each subcommand below `command`, whose name is `path`.
fn subcommands(page: &mut Roff, command: &Command, path: &str) {
    for subcommand in command.get_subcommands().filter(|sub| is_shown(sub)) {
        let path = format!("{path} {}", subcommand.get_name());
        let own = || subcommand.get_arguments().filter(|arg| !is_common(arg) && !arg.is_hide_set());
        let usage: Vec<String> = own().map(usage).collect();
        page.subsection(&format!("`{}` {}", path.trim(), usage.join(" ")));
        page.paragraphs(&sentence(&about(subcommand)));
        for arg in own() {
            argument(page, arg);
        }
        subcommands(page, subcommand, &path);
    }
}

/// Not clap's own `help`.
fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// What every subcommand takes.
fn is_common(arg: &Arg) -> bool {
    arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version")
}

/// An argument as it stands in a line of usage: `ADDRESS`, `[--all]`, `[FILE]...`.
fn usage(arg: &Arg) -> String {
    let form = match spellings(arg).pop() {
        Some(option) => format!("{option}{}", value(arg)),
        None => names(arg),
    };
    let form = if arg.is_required_set() { form } else { format!("[{form}]") };
    let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    if many && arg.is_positional() { form + "..." } else { form }
}

/// An argument with what it means, what it takes and its default.
fn argument(page: &mut Roff, arg: &Arg) {
    let term = match arg.is_positional() {
        true => names(arg),
        false => format!("{}{}", spellings(arg).join(", "), value(arg)),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
    let mut text = sentence(&help.unwrap_or_default());
    if arg.get_action().takes_values() {
        let values: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), lower(&help.to_string())),
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        if !values.is_empty() {
            text.push_str(&format!(" One of {}.", values.join(", ")));
        }
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
        if !defaults.is_empty() {
            text.push_str(&format!(" Default: {}.", defaults.join(" ")));
        }
    }
    page.item(&term, &text);
}

/// `-n` and `--limit`; the longest comes last. None for what has no dash.
fn spellings(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(|short| format!("`-{short}`"));
    let long = arg.get_long().map(|long| format!("`--{long}`"));
    short.into_iter().chain(long).collect()
}

/// ` FILE` behind an option that takes a value.
fn value(arg: &Arg) -> String {
    if arg.get_action().takes_values() { format!(" {}", names(arg)) } else { String::new() }
}

fn names(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some(names) => names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>().join(" "),
        None => arg.get_id().as_str().to_uppercase(),
    }
}

fn about(command: &Command) -> String {
    let text = command.get_long_about().or_else(|| command.get_about());
    text.map(ToString::to_string).unwrap_or_default()
}

/// With a full stop, which clap takes off the comments that it reads.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ':', '?', '!']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

/// To go on with inside a sentence.
fn lower(text: &str) -> String {
    let mut signs = text.trim().trim_end_matches('.').chars();
    signs.next().map_or(String::new(), |first| first.to_lowercase().chain(signs).collect())
}
