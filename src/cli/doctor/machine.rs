//! The clock, and what confines services.

use std::fs;
use std::path::Path;

use pam_prefixquota::config::Settings;
use pam_prefixquota::guard::{Clock, SystemClock};

use super::Finding;

/// 2025-01-01, before this program. In Unix milliseconds.
const CLOCK_IS_SET: i64 = 1_735_689_600_000;

const SELINUX: &str = "/sys/fs/selinux/enforce";
const APPARMOR: &str = "/sys/kernel/security/apparmor/profiles";
/// What the documents tell to write for confined services.
const ABSTRACTION: &str = "/etc/apparmor.d/abstractions/authentication.d/prefixquota";

pub fn examine(settings: &Settings, services: &[String]) -> Vec<Finding> {
    let mut found = vec![clock()];
    found.extend(selinux(settings));
    found.extend(apparmor(settings, services));
    found
}

fn clock() -> Finding {
    if SystemClock.now() < CLOCK_IS_SET {
        let mend = "Set the clock, and see that it is set at boot: counts cannot fade without it.";
        return Finding::wrong("clock", "stands before 2025", mend);
    }
    Finding::ok("clock", "is set")
}

/// Confined daemons may write only where the policy says so.
fn selinux(settings: &Settings) -> Option<Finding> {
    if fs::read_to_string(SELINUX).ok()?.trim() != "1" {
        return None;
    }
    let directory = settings.database.parent().unwrap_or(Path::new("/"));
    let mut label = [0; 256];
    let length = rustix::fs::getxattr(directory, "security.selinux", &mut label[..]).unwrap_or(0);
    let label = String::from_utf8_lossy(label.get(..length).unwrap_or_default()).into_owned();
    let label = if label.is_empty() { "no label" } else { label.trim_end_matches('\0') };
    let mend = "See whether attempts are counted; if not, `ausearch -m avc -ts recent` has what a \
                policy module must allow.";
    let what = format!("is enforcing, and {} has {label}", directory.display());
    Some(Finding::note("selinux", what, mend))
}

/// Profiles that are enforced for a protected service and do not know of the store.
fn apparmor(settings: &Settings, services: &[String]) -> Vec<Finding> {
    let Ok(profiles) = fs::read_to_string(APPARMOR) else { return Vec::new() };
    let directory = settings.database.parent().unwrap_or(Path::new("/")).display().to_string();
    let allowed = fs::read_to_string(ABSTRACTION).is_ok_and(|text| text.contains(&directory));
    let enforced = profiles.lines().filter_map(|line| line.strip_suffix(" (enforce)"));
    let confined: Vec<&str> = enforced
        .filter(|name| services.iter().any(|service| name.contains(service.as_str())))
        .collect();
    let (Some(first), false) = (confined.first(), allowed) else { return Vec::new() };
    let what = format!("the profile {first} does not let its service write to {directory}");
    let mend = format!(
        "Write `{directory}/ rw,` and `{directory}/** rwk,` into {ABSTRACTION}, then: systemctl \
         reload apparmor"
    );
    vec![Finding::wrong("apparmor", what, mend)]
}
