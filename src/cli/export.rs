//! `export`: the counts for other programs. Nothing here touches a firewall; some formats are what
//! one reads.

use std::fmt::Write as _;

use ipnet::IpNet;
use pam_prefixquota::config::Settings;
use pam_prefixquota::decide::Standing;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::login::Login;
use pam_prefixquota::rules::{self, Action, Rules, StoredRule};
use pam_prefixquota::source::{Family, Source, key_range};
use pam_prefixquota::store::{Entry, UserPlace};
use serde_json::{Value, json};

use super::args::ExportForm;
use super::show::{entries, entry_json, standing_json};
use super::{Context, Report, json_count, seconds, tree};

/// The longest timeout that ipset takes, in seconds.
const LONGEST_TIMEOUT: i64 = 2_147_483;
/// As many elements as an ipset has room for unless told otherwise.
const IPSET_ROOM: usize = 65_536;

/// All that is exported, as of one moment.
struct State {
    now: i64,
    size: u64,
    entries: Vec<Entry>,
    standings: Vec<Standing>,
    known: Vec<UserPlace>,
    rules: Vec<StoredRule>,
}

/// `export`.
pub fn export(context: &Context, form: ExportForm) -> Result<Report, String> {
    let state = State::read(context)?;
    let (settings, rules) = (context.settings(), &context.rules);
    let text = match form {
        ExportForm::Json => {
            let json = state.json(settings);
            return Ok(Report::new(json.to_string(), json));
        }
        ExportForm::Csv => state.csv(),
        ExportForm::Prometheus => state.prometheus(settings),
        ExportForm::Nft => nft(&state.blocks(rules)),
        ExportForm::Ipset => ipset(&state.blocks(rules)),
        ExportForm::List => {
            state.blocks(rules).iter().map(|(prefix, _)| format!("{prefix}\n")).collect()
        }
    };
    let json = json!({ "text": text });
    Ok(Report::new(text, json))
}

impl State {
    fn read(context: &Context) -> Result<State, String> {
        let (settings, now) = (context.settings(), SystemClock.now());
        let entries = entries(context, None)?;
        let mut standings = tree::standings(&entries, settings, now);
        standings.sort_by_key(|standing| place(&standing.prefix));
        let (mut known, mut rules) = (Vec::new(), Vec::new());
        if let Some(store) = context.existing_store()? {
            known = store.reader().all_known().map_err(|error| error.to_string())?;
            rules = store.reader().all_rules().map_err(|error| error.to_string())?;
        }
        let recent = |known: &UserPlace| settings.remembers(known.seen, now);
        known.retain(|known| known.place.is_some() && recent(known));
        rules.retain(|rule| rule.is_live(now));
        let size = std::fs::metadata(&settings.database).map_or(0, |file| file.len());
        Ok(State { now, size, entries, standings, known, rules })
    }

    fn full(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter().filter(|standing| standing.wait > 0)
    }

    fn json(&self, settings: &Settings) -> Value {
        let addresses: Value =
            self.entries.iter().map(|entry| entry_json(entry, settings, self.now)).collect();
        json!({
            "unix_ms": self.now,
            "enforcing": settings.enforcing,
            "prefixes": self.standings.iter().map(standing_json).collect::<Value>(),
            "addresses": addresses,
            "known_places": self.known.len(),
            "rules": self.rules.len(),
            "store_bytes": self.size,
        })
    }

    fn csv(&self) -> String {
        let mut text = "prefix,failures,quota,full,retry_after_s\n".to_owned();
        for standing in &self.standings {
            let (prefix, count) = (standing.prefix, json_count(standing.count));
            let (quota, wait) = (standing.quota, seconds(standing.wait));
            let full = u8::from(standing.wait > 0);
            let _ = writeln!(text, "{prefix},{count},{quota},{full},{wait}");
        }
        text
    }

    /// For the textfile collector of the node exporter. Nothing by prefix: an attacker would choose
    /// how many series there are.
    fn prometheus(&self, settings: &Settings) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, help: &str, values: &[(&str, f64)]| {
            let _ = writeln!(text, "# HELP prefixquota_{name} {help}");
            let _ = writeln!(text, "# TYPE prefixquota_{name} gauge");
            for (labels, value) in values {
                let _ = writeln!(text, "prefixquota_{name}{labels} {value}");
            }
        };
        let by_family = |count: &dyn Fn(Family) -> f64| {
            let labels = |family| match family {
                Family::V6 => "{family=\"6\"}",
                Family::V4 => "{family=\"4\"}",
            };
            Family::ALL.map(|family| (labels(family), count(family)))
        };
        let of =
            |family: Family| move |entry: &&Entry| Family::of_key(entry.failures.key) == family;
        let addresses = |family| self.entries.iter().filter(of(family)).count() as f64;
        let failures = |family| {
            let left = |entry: &Entry| entry.failures.count.left(self.now, settings.pace());
            // Not `sum`, which makes -0 of nothing.
            let all = self.entries.iter().filter(of(family)).map(left).fold(0.0, |a, b| a + b);
            (all * 1e3).round() / 1e3
        };
        let full = |family| {
            let same = |full: &&Standing| family_of(&full.prefix) == family;
            self.full().filter(same).count() as f64
        };
        metric("full_prefixes", "Prefixes that are refused now.", &by_family(&full));
        metric("failing_addresses", "Addresses with failures.", &by_family(&addresses));
        metric("failures", "Failures, decayed to now.", &by_family(&failures));
        metric(
            "known_places",
            "Places from which users are known to log in.",
            &[("", self.known.len() as f64)],
        );
        metric("rules", "Rules and grants in the store.", &[("", self.rules.len() as f64)]);
        metric("store_size_bytes", "Size of the store.", &[("", self.size as f64)]);
        let enforcing = f64::from(u8::from(settings.enforcing));
        metric("enforcing", "1 if attempts are denied, 0 if only counted.", &[("", enforcing)]);
        text
    }

    /// What a firewall may be given: the full prefixes without those inside another, and without
    /// what a rule exempts; each with the seconds until it has room again.
    fn blocks(&self, rules: &Rules) -> Vec<(IpNet, i64)> {
        let mut blocks: Vec<&Standing> = Vec::new();
        // In their order a wider one comes before those inside.
        for full in self.full() {
            if blocks.last().is_none_or(|around| !around.prefix.contains(&full.prefix)) {
                blocks.push(full);
            }
        }
        let mut allowed = Vec::new();
        for block in blocks {
            let wait = seconds(block.wait).min(LONGEST_TIMEOUT);
            self.without_exempt(block.prefix, wait, rules, &mut allowed);
        }
        allowed
    }

    /// Halves `prefix` until each part is either exempt or not.
    fn without_exempt(
        &self,
        prefix: IpNet,
        wait: i64,
        rules: &Rules,
        found: &mut Vec<(IpNet, i64)>,
    ) {
        let inside = |rule: &IpNet| prefix.contains(rule) && *rule != prefix;
        let stored = self.rules.iter().map(|rule| rule.id.prefix);
        let has_rules = stored.chain(rules.prefixes()).any(|rule| inside(&rule));
        if has_rules && let Ok(halves) = prefix.subnets(prefix.prefix_len() + 1) {
            for half in halves {
                self.without_exempt(half, wait, rules, found);
            }
            return;
        }
        let login = Login::of_stranger(Source::of(prefix.network(), &[]));
        let decided = rules::decide(&login, rules, &self.rules, self.now).by;
        if decided.is_none_or(|(_, action)| action != Action::Exempt) {
            found.push((prefix, wait));
        }
    }
}

/// For `nft -f`: the whole table, with a set for each family, which nothing refers to by itself.
fn nft(blocks: &[(IpNet, i64)]) -> String {
    let mut text = "add table inet prefixquota\n".to_owned();
    for (set, family, kind) in
        [("full4", Family::V4, "ipv4_addr"), ("full6", Family::V6, "ipv6_addr")]
    {
        let flags = "flags interval, timeout";
        let _ = writeln!(text, "add set inet prefixquota {set} {{ type {kind}; {flags}; }}");
        let _ = writeln!(text, "flush set inet prefixquota {set}");
        let elements: Vec<String> = of_family(blocks, family)
            .map(|(prefix, wait)| format!("\t{prefix} timeout {wait}s"))
            .collect();
        if !elements.is_empty() {
            let elements = elements.join(",\n");
            let _ = writeln!(text, "add element inet prefixquota {set} {{\n{elements}\n}}");
        }
    }
    text
}

/// For `ipset restore`.
fn ipset(blocks: &[(IpNet, i64)]) -> String {
    let mut text = String::new();
    for (set, family, kind) in
        [("prefixquota4", Family::V4, "inet"), ("prefixquota6", Family::V6, "inet6")]
    {
        let elements: Vec<_> = of_family(blocks, family).flat_map(without_zero_length).collect();
        let room = IPSET_ROOM.max(elements.len());
        let options = format!("family {kind} timeout 0 maxelem {room}");
        let _ = writeln!(text, "create -exist {set} hash:net {options}");
        let _ = writeln!(text, "flush {set}");
        for (prefix, wait) in elements {
            let _ = writeln!(text, "add -exist {set} {prefix} timeout {wait}");
        }
    }
    text
}

/// An ipset takes all addresses only as two halves.
fn without_zero_length((prefix, wait): &(IpNet, i64)) -> Vec<(IpNet, i64)> {
    match prefix.subnets(1) {
        Ok(halves) if prefix.prefix_len() == 0 => halves.map(|half| (half, *wait)).collect(),
        _ => vec![(*prefix, *wait)],
    }
}

fn of_family(blocks: &[(IpNet, i64)], family: Family) -> impl Iterator<Item = &(IpNet, i64)> {
    blocks.iter().filter(move |(prefix, _)| family_of(prefix) == family)
}

fn family_of(prefix: &IpNet) -> Family {
    Family::of_key(key_range(prefix).0)
}

/// In the order of addresses, the wider of two first.
fn place(prefix: &IpNet) -> (u8, std::net::Ipv6Addr, u8) {
    let first = key_range(prefix).0;
    (Family::of_key(first).number(), first, prefix.prefix_len())
}
