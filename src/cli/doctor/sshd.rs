//! The settings of sshd, as `sshd -T` tells them.

use std::collections::HashMap;

use super::{Finding, settings_of};

const ABOUT: &str = "sshd";
/// sshd's own default.
const MAX_TRIES: u32 = 6;

pub fn examine() -> Vec<Finding> {
    let text = match settings_of(ABOUT, "sshd", "sshd", &["-T"]) {
        Ok(text) => text,
        Err(finding) => return vec![finding],
    };
    let settings: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut found = judge(&settings);
    if found.is_empty() {
        found.push(Finding::ok(ABOUT, "its settings suit the module"));
    }
    found
}

fn judge(settings: &HashMap<&str, &str>) -> Vec<Finding> {
    let is = |name: &str, value: &str| settings.get(name) == Some(&value);
    let mut found = Vec::new();
    if !is("usepam", "yes") {
        let mend = "Set UsePAM yes in sshd_config, and reload sshd.";
        found.push(Finding::wrong(ABOUT, "UsePAM no: the module is never asked", mend));
    }
    if is("usedns", "yes") {
        let mend = "Set UseDNS no in sshd_config: then no name that its owner chose is involved.";
        found.push(Finding::note(ABOUT, "UseDNS yes: clients may have names", mend));
    }
    let passwords = is("passwordauthentication", "yes");
    let interactive = is("kbdinteractiveauthentication", "yes");
    if !passwords && !interactive {
        let mend = "Nothing to mend: keys alone are safer than any limit.";
        found.push(Finding::note(ABOUT, "takes no passwords, so there is nothing to count", mend));
    } else if !interactive {
        let mend = "Set KbdInteractiveAuthentication yes, and denied users are told how long.";
        let what = "KbdInteractiveAuthentication no: who is denied is not told why";
        found.push(Finding::note(ABOUT, what, mend));
    }
    let tries = settings.get("maxauthtries").and_then(|tries| tries.parse().ok());
    if tries.is_some_and(|tries: u32| tries > MAX_TRIES) {
        let what = format!("MaxAuthTries {}", tries.unwrap_or_default());
        found.push(Finding::note(ABOUT, what, format!("Set MaxAuthTries {MAX_TRIES} or fewer.")));
    }
    match settings.get("persourcepenalties") {
        None => {
            let mend = "Upgrade OpenSSH when you can: from 9.8 on it refuses scanners cheaply.";
            found.push(Finding::note(ABOUT, "knows no PerSourcePenalties", mend));
        }
        Some(value) if value.split_whitespace().next() == Some("no") => {
            let mend = "Set PerSourcePenalties yes: it sees scans and keys, which PAM does not.";
            found.push(Finding::note(ABOUT, "PerSourcePenalties no", mend));
        }
        Some(_) => {}
    }
    found
}
