//! The settings of Dovecot, as `doveconf` tells them, in the spellings of 2.3 and 2.4.

use std::collections::HashMap;

use super::program::find;
use super::{Finding, settings_of};

const ABOUT: &str = "dovecot";

/// Settings of one block; the whole configuration is one without a name.
#[derive(Default)]
struct Block {
    /// `passdb pam` is a block `passdb` with the label `pam`.
    label: String,
    settings: HashMap<String, String>,
}

impl Block {
    /// In 2.4 a setting may be written with the name of its block before it.
    fn get(&self, name: &str) -> Option<&str> {
        let long = format!("_{name}");
        let found = self.settings.get(name).or_else(|| {
            self.settings.iter().find(|(key, _)| key.ends_with(&long)).map(|(_, value)| value)
        });
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is_pam(&self) -> bool {
        self.get("driver").unwrap_or(&self.label) == "pam"
    }
}

pub fn examine(services: &[String]) -> Vec<Finding> {
    if find("doveconf").is_none() {
        return Vec::new();
    }
    // It takes what stands behind `cache_key=` for a secret and hides it, unless asked.
    let text = match settings_of(ABOUT, "Dovecot", "doveconf", &["-P"]) {
        Ok(text) => text,
        Err(finding) => return vec![finding],
    };
    let (main, passdbs) = parse(&text);
    let mut found = passwords(&passdbs, services);
    found.extend(cache(&main, &passdbs));
    found.extend(trusted(&main));
    if found.is_empty() {
        found.push(Finding::ok(ABOUT, "its settings suit the module"));
    }
    found
}

/// The settings outside of all blocks, and the password databases in their order.
fn parse(text: &str) -> (Block, Vec<Block>) {
    let (mut main, mut passdbs) = (Block::default(), Vec::new());
    let mut depth = 0_usize;
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(head) = line.strip_suffix('{') {
            let mut words = head.split_whitespace();
            if depth == 0 && words.next() == Some("passdb") {
                inside = true;
                let label = words.next().unwrap_or_default().to_owned();
                passdbs.push(Block { label, ..Block::default() });
            }
            depth += 1;
        } else if line == "}" {
            depth = depth.saturating_sub(1);
            inside &= depth > 0;
        } else if let Some((key, value)) = line.split_once('=') {
            let block = match (depth, passdbs.last_mut().filter(|_| inside)) {
                (0, _) => &mut main,
                (1, Some(passdb)) => passdb,
                _ => continue,
            };
            block.settings.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    (main, passdbs)
}

fn passwords(passdbs: &[Block], services: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(first) = passdbs.iter().position(Block::is_pam) else {
        let mend = "Nothing to mend: its passwords are checked elsewhere, where the module is not.";
        return vec![Finding::note(ABOUT, "no passdb uses PAM, so nothing is counted", mend)];
    };
    for passdb in passdbs.iter().filter(|passdb| passdb.is_pam()) {
        let service = service(passdb);
        let is_there = |name: &str| services.iter().any(|other| other == name);
        let open: Vec<&str> = match service {
            "%s" | "%{service}" => ["imap", "pop3"].into_iter().filter(|n| !is_there(n)).collect(),
            name => [name].into_iter().filter(|n| !is_there(n)).collect(),
        };
        for name in open {
            let what = format!("the PAM service {name} of its passdb is not protected");
            found.push(Finding::wrong(ABOUT, what, format!("Run: prefixquota enable {name}")));
        }
    }
    if first > 0 {
        let mend = "Put the pam passdb first, or know that those passwords are not counted.";
        found.push(Finding::note(ABOUT, "another passdb is asked before the pam one", mend));
    }
    let followed = passdbs.iter().rev().skip(1).filter(|passdb| passdb.is_pam());
    for passdb in followed {
        let result = passdb.get("result_failure").unwrap_or("continue");
        if !result.starts_with("return") {
            let what = format!(
                "result_failure = {result}: whom the module denies, the next passdb lets in"
            );
            let mend = "Set result_failure = return-fail in the pam passdb.";
            found.push(Finding::wrong(ABOUT, what, mend));
        }
    }
    found
}

/// 2.3: the last word of `args` that is no option.
fn service(passdb: &Block) -> &str {
    let args = passdb.get("args").unwrap_or_default().split_whitespace();
    let named = args.rev().find(|word| !word.contains('=') && *word != "*");
    named.or(passdb.get("service_name")).unwrap_or("dovecot")
}

fn cache(main: &Block, passdbs: &[Block]) -> Option<Finding> {
    let size = main.get("auth_cache_size").unwrap_or("0");
    let number: String = size.chars().take_while(char::is_ascii_digit).collect();
    if number.bytes().all(|b| b == b'0') {
        return None;
    }
    let is_new = main.get("dovecot_config_version").is_some();
    // In 2.3 the pam passdb is cached only by a key of its own.
    let uncovered = passdbs.iter().filter(|passdb| passdb.is_pam()).any(|passdb| {
        let args = passdb.get("args").unwrap_or_default();
        let key = args.split_whitespace().find_map(|word| word.strip_prefix("cache_key="));
        match key.or(passdb.get("cache_key")) {
            Some(key) => {
                !["%r", "%{rip}", "%{remote_ip}"].iter().any(|address| key.contains(address))
            }
            None => is_new,
        }
    });
    uncovered.then(|| {
        let mend = "Set auth_cache_size = 0, or in 2.3 a key with the address: cache_key=%u%s%r.";
        let what =
            format!("auth_cache_size = {size}: what the cache answers, the module never sees");
        Finding::wrong(ABOUT, what, mend)
    })
}

fn trusted(main: &Block) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in ["login_trusted_networks", "haproxy_trusted_networks"] {
        let Some(networks) = main.get(name) else { continue };
        let mut each = networks.split([' ', ',']).filter(|network| !network.is_empty());
        if each.any(|network| network.ends_with("/0")) {
            let mend = "Name only the hosts of your webmail and proxies.";
            let what = format!("{name} = {networks}: anybody may claim any address");
            found.push(Finding::wrong(ABOUT, what, mend));
        } else {
            let mend = "See that these are your webmail and proxies alone, and that they pass on \
                        the address of the client.";
            found.push(Finding::note(ABOUT, format!("{name} = {networks}"), mend));
        }
    }
    found
}
