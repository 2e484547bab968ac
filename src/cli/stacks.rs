//! `enable` and `disable`: the module's two lines in a PAM stack.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Report;

/// A missing module is passed over, so that removing the package locks nobody out; anything but
/// PAM_IGNORE ends the stack.
const CONTROL: &str = "[success=ok ignore=ignore module_unknown=ignore default=die]";
const MODULE: &str = "pam_prefixquota.so";
/// Ends the name of the file that keeps a stack as it was without the module.
const BACKUP: &str = ".prefixquota-backup";
const NOTE: &str = "# Stop password guessing by address prefix (see: prefixquota --help)";

/// `enable SERVICE`.
pub fn enable(pam_dir: &Path, service: &str, dry_run: bool) -> Result<Report, String> {
    let path = stack_path(pam_dir, service)?;
    let stack = read(&path)?;
    match (has(&stack, "auth"), has(&stack, "account")) {
        (true, true) => return Ok(report(&path, &[], &[], "is enabled already", dry_run)),
        (false, false) => {}
        _ => {
            return Err(format!(
                "{} has only one of the module's two lines; expected both or none: \
                 see `prefixquota disable {service}`",
                path.display()
            ));
        }
    }
    // Before every include, so that no `sufficient` line above ends the stack: at the top, but
    // after the comments that the file begins with.
    let top = stack.lines().take_while(|line| line.starts_with('#')).count();
    let added: Vec<String> = std::iter::once(NOTE.to_owned())
        .chain(["auth", "account"].map(|kind| format!("{kind:<8} {CONTROL}  {MODULE}")))
        .collect();
    let mut lines: Vec<&str> = stack.lines().collect();
    lines.splice(top..top, added.iter().map(String::as_str));
    if !dry_run {
        replace(&path, &lines)?;
    }
    Ok(report(&path, &added, &[], "is enabled", dry_run))
}

/// `disable SERVICE`.
pub fn disable(pam_dir: &Path, service: &str, dry_run: bool) -> Result<Report, String> {
    let path = stack_path(pam_dir, service)?;
    let stack = read(&path)?;
    let (removed, kept): (Vec<&str>, Vec<&str>) =
        stack.lines().partition(|line| *line == NOTE || is_ours(line));
    if removed.is_empty() {
        return Ok(report(&path, &[], &[], "is not enabled", dry_run));
    }
    if !dry_run {
        replace(&path, &kept)?;
    }
    let removed: Vec<String> = removed.into_iter().map(str::to_owned).collect();
    Ok(report(&path, &[], &removed, "is disabled", dry_run))
}

fn stack_path(pam_dir: &Path, service: &str) -> Result<PathBuf, String> {
    if service.is_empty() || service.starts_with('.') || service.contains('/') {
        return Err(format!(
            "\"{service}\" is not the name of a service: expected for example sshd"
        ));
    }
    let shared = ["system-auth", "password-auth", "other"].contains(&service);
    if shared || service.starts_with("common-") || service.contains(BACKUP) {
        return Err(format!(
            "\"{service}\" is no service of its own, but shared by many or a backup: expected for \
             example sshd"
        ));
    }
    Ok(pam_dir.join(service))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn is_ours(line: &str) -> bool {
    !line.trim_start().starts_with('#') && line.contains(MODULE)
}

fn has(stack: &str, kind: &str) -> bool {
    let first =
        |line: &str| line.split_whitespace().next().map(|w| w.trim_start_matches('-') == kind);
    stack.lines().any(|line| is_ours(line) && first(line) == Some(true))
}

/// Puts new lines in place of a stack: whole or not at all, with the old owner and mode. The stack
/// as it was without the module is kept beside it.
fn replace(path: &Path, lines: &[&str]) -> Result<(), String> {
    let write = || {
        // /etc/pam.d/sshd may be a link (authselect): the file itself is replaced.
        let path = fs::canonicalize(path)?;
        let old = fs::metadata(&path)?;
        if !fs::read_to_string(&path)?.lines().any(is_ours) {
            fs::copy(&path, beside(&path, BACKUP))?;
        }
        let new = beside(&path, ".prefixquota-new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all((lines.join("\n") + "\n").as_bytes())?;
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn report(path: &Path, added: &[String], removed: &[String], what: &str, dry_run: bool) -> Report {
    let changed = !added.is_empty() || !removed.is_empty();
    let mut text = match (changed, dry_run) {
        (true, true) => format!("{} would change:\n", path.display()),
        (true, false) => format!(
            "{} {what}; as it was without the module it is kept in {}:\n",
            path.display(),
            beside(path, BACKUP).display()
        ),
        (false, _) => format!("{} {what}; nothing changed.\n", path.display()),
    };
    for line in removed {
        text.push_str(&format!("-{line}\n"));
    }
    for line in added {
        text.push_str(&format!("+{line}\n"));
    }
    let json = json!({
        "file": path,
        "changed": changed && !dry_run,
        "added": added,
        "removed": removed,
    });
    Report::new(text, json)
}
