//! `enable` and `disable`: the module's two lines in a PAM stack.
//!
//! # Why an enabled stack refuses nobody it let in before
//!
//! Our lines answer PAM_IGNORE, as if they were not there, or they deny. They stand before all
//! others, so that no line of this file jumps over them. What is left to go wrong is looked for and
//! refused: a stack that has no other line of a kind (libpam then took those of `other`, and ours
//! alone let nobody in), and a stack into which another one jumps.

mod diff;
mod replace;
pub mod stack;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Report;
use diff::{Change, unified};
use replace::{beside, replace};
use stack::{BACKUP, CONTROL, Line, MODULE, Stack, is_shared, module_directories, services};

const NOTE: &str = "# Stop password guessing by address prefix (see: prefixquota --help)";
const KINDS: [&str; 2] = ["auth", "account"];

/// The lines of a stack, and what becomes of each.
type Edit = Vec<(Change, Vec<u8>)>;

/// `enable SERVICE`.
pub fn enable(pam_dir: &Path, service: &str, dry_run: bool) -> Result<Report, String> {
    let path = stack_path(pam_dir, service)?;
    let stack = Stack::read(&path)?;
    match KINDS.map(|kind| stack.our(kind).is_some()) {
        [true, true] => {
            examine_place(&path, &stack)?;
            return finish(&path, keep(&stack), "is enabled already", None, dry_run);
        }
        [false, false] => {}
        _ => {
            return Err(format!(
                "{} has only one of the module's two lines; expected both or none: \
                 see `prefixquota disable {service}`",
                path.display()
            ));
        }
    }
    examine_others(pam_dir, service, &path, &stack)?;
    // At the top, but after the comments that the file begins with.
    let is_header =
        |line: &&Vec<u8>| line.starts_with(b"#") && !line.trim_ascii_end().ends_with(b"\\");
    let top = stack.raw.iter().take_while(is_header).count();
    let end =
        if stack.raw.first().is_some_and(|line| line.ends_with(b"\r\n")) { "\r\n" } else { "\n" };
    let argument = stack.second_factor(pam_dir).map_or("", |_| " repeat=no");
    let ours = KINDS.map(|kind| format!("{kind:<8} {CONTROL}  {MODULE}{argument}"));
    let added = std::iter::once(NOTE.to_owned()).chain(ours);
    let mut edit = keep(&stack);
    edit.splice(top..top, added.map(|line| (Change::Add, (line + end).into_bytes())));
    finish(&path, edit, "is enabled", Some(BACKUP), dry_run)
}

/// `disable SERVICE`.
pub fn disable(pam_dir: &Path, service: &str, dry_run: bool) -> Result<Report, String> {
    let path = stack_path(pam_dir, service)?;
    let stack = Stack::read(&path)?;
    for ours in stack.ours() {
        let over = |line: &&Line| line.at < ours.at && line.concerns(&ours.kind) && line.jumps();
        if let Some(line) = stack.lines.iter().find(over) {
            return Err(format!(
                "{}, line {}: this line jumps over others, and would jump over another one without \
                 the module's; expected that you edit both by hand",
                path.display(),
                line.at + 1
            ));
        }
    }
    if stack.ours().next().is_none() {
        return finish(&path, keep(&stack), "is not enabled", None, dry_run);
    }
    examine_including(pam_dir, service)?;
    let mut edit = keep(&stack);
    for (index, (change, line)) in edit.iter_mut().enumerate() {
        let inside = |ours: &Line| (ours.at..ours.at + ours.length).contains(&index);
        if stack.ours().any(inside) || line.trim_ascii_end() == NOTE.as_bytes() {
            *change = Change::Remove;
        }
    }
    finish(&path, edit, "is disabled", None, dry_run)
}

fn stack_path(pam_dir: &Path, service: &str) -> Result<PathBuf, String> {
    if service.is_empty() || service.starts_with('.') || service.contains('/') {
        return Err(format!(
            "\"{service}\" is not the name of a service: expected for example sshd"
        ));
    }
    if is_shared(service) || service.contains(BACKUP) {
        return Err(format!(
            "\"{service}\" is no service of its own, but shared by many or a backup: expected for \
             example sshd"
        ));
    }
    Ok(pam_dir.join(service))
}

/// Lines that are there must also be where they work.
fn examine_place(path: &Path, stack: &Stack) -> Result<(), String> {
    for kind in KINDS {
        if let Some(line) = stack.obstacle(kind) {
            return Err(format!(
                "{}, line {}: stands before the module's {kind} line, which must come first; move \
                 that one up, or `disable` and `enable` again",
                path.display(),
                line.at + 1
            ));
        }
    }
    Ok(())
}

/// Whether the stack, and those that include it, let in whom they let in before.
fn examine_others(pam_dir: &Path, service: &str, path: &Path, stack: &Stack) -> Result<(), String> {
    for kind in KINDS {
        if !stack.has_other(pam_dir, kind) {
            return Err(format!(
                "{} has no {kind} line of its own, and the module's alone would refuse everybody; \
                 expected one such as `{kind} required pam_unix.so`",
                path.display()
            ));
        }
    }
    examine_including(pam_dir, service)
}

/// Whether another stack jumps into this one, and would jump elsewhere when its lines change.
fn examine_including(pam_dir: &Path, service: &str) -> Result<(), String> {
    for (other, including) in services(pam_dir) {
        let includes = |line: &&Line| line.is_include() && line.module == service;
        for line in including.lines.iter().filter(includes) {
            let mut before = including.lines.iter().filter(|before| before.at < line.at);
            if before.any(|before| line.concerns(&before.kind) && before.jumps()) {
                return Err(format!(
                    "{}, line {}: {other} includes {service} behind a line that jumps, and with \
                     other lines in {service} it would jump elsewhere; expected a stack that nobody \
                     jumps into",
                    pam_dir.join(&other).display(),
                    line.at + 1
                ));
            }
        }
    }
    Ok(())
}

fn keep(stack: &Stack) -> Edit {
    stack.raw.iter().map(|line| (Change::Keep, line.clone())).collect()
}

/// Makes the change, unless it is only to be shown, and says what it is.
fn finish(
    path: &Path,
    edit: Edit,
    what: &str,
    backup: Option<&str>,
    dry_run: bool,
) -> Result<Report, String> {
    let with = |wanted: Change| {
        let lines = edit.iter().filter(move |(change, _)| *change == wanted);
        lines
            .map(|(_, line)| String::from_utf8_lossy(line).trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    let (added, removed) = (with(Change::Add), with(Change::Remove));
    let changes = !added.is_empty() || !removed.is_empty();
    let without = |left_out: Change| {
        let lines = edit.iter().filter(move |(change, _)| *change != left_out);
        lines.flat_map(|(_, line)| line.clone()).collect::<Vec<u8>>()
    };
    if changes && !dry_run {
        replace(path, &without(Change::Add), &without(Change::Remove), backup).map_err(
            |error| match error.kind() {
                ErrorKind::PermissionDenied => {
                    format!("{}: {error}; the stacks are root's, try sudo", path.display())
                }
                _ => format!("{}: {error}", path.display()),
            },
        )?;
    }
    let diff = unified(&path.display().to_string(), &edit);
    let mut text = match (changes, dry_run, backup) {
        (true, true, _) => format!("{} would change:\n{diff}", path.display()),
        (true, false, Some(suffix)) => format!(
            "{} {what}; as it was without the module it is kept in {}:\n{diff}",
            path.display(),
            beside(path, suffix).display()
        ),
        (true, false, None) => format!("{} {what}:\n{diff}", path.display()),
        (false, ..) => format!("{} {what}; nothing changed.\n", path.display()),
    };
    // Harmless, by `module_unknown=ignore`, and packages may come in any order.
    let missing = what.contains("is enabled") && !is_installed();
    if missing {
        text += &format!(
            "But {MODULE} is in none of PAM's module directories: until it is, logins go on \
             uncounted.\n"
        );
    }
    let json = json!({
        "file": path,
        "changed": changes && !dry_run,
        "added": added,
        "removed": removed,
        "diff": diff,
        "module_installed": is_installed(),
    });
    Ok(Report::new(text, json))
}

fn is_installed() -> bool {
    module_directories().iter().any(|directory| directory.join(MODULE).exists())
}
