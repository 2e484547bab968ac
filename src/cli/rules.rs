//! `rule` and `grant`: what is let in or denied, made at run time and kept in the store.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use ipnet::IpNet;
use pam_prefixquota::config::parse_rule;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::login::Tier;
use pam_prefixquota::rules::{Action, Kind, RuleId, StoredRule};
use pam_prefixquota::source::{Family, Source, parse_host};
use pam_prefixquota::store::Write;
use serde_json::{Value, json};

use super::args::{Grant, RuleAdd};
use super::{Context, Report, shown_name, shown_wait, table};

/// `rule add PREFIX ACTION`.
pub fn add(context: &Context, rule: &RuleAdd) -> Result<Report, String> {
    let kind = Kind::from(rule.action);
    if kind == Kind::Rule(Action::Deny) && rule.uses.is_some() {
        return Err("--uses counts successful logins, and deny has none: expected exempt or count"
            .to_owned());
    }
    let prefix = rule_prefix(context, &rule.prefix)?;
    let now = SystemClock.now();
    let new = StoredRule {
        id: RuleId { prefix, kind, user: Vec::new() },
        until: rule.lasts.map(|lasts| now.saturating_add(lasts)),
        uses: rule.uses,
        tries: 0,
        note: rule.note.clone(),
    };
    let put = |write: &Write<'_>| {
        write.put_rule(&new, now)?;
        write.reader().all_rules()
    };
    let beside = context.store()?.transact(put).map_err(|error| error.to_string())?;
    let beside = beside.iter().filter(|rule| rule.id.prefix == prefix && rule.is_live(now));
    let stronger = beside.filter_map(StoredRule::action).max();
    let mut text = format!("{prefix}: {kind}{}.", terms(&new, now));
    if let Some(stronger) = stronger.filter(|stronger| Kind::Rule(*stronger) != kind) {
        text += &format!(" It has no effect beside {stronger} for the same prefix, which wins.");
    }
    Ok(Report::new(text, shown(&new, now)))
}

/// `rule remove PREFIX`.
pub fn remove(context: &Context, prefix: &str) -> Result<Report, String> {
    let prefix = rule_prefix(context, prefix)?;
    let mut removed = Vec::new();
    if let Some(mut store) = context.existing_store()? {
        let remove = |write: &Write<'_>| {
            for rule in write.reader().all_rules()?.iter().filter(|rule| rule.id.prefix == prefix) {
                if write.remove_rule(&rule.id)? {
                    removed.push(rule.id.kind.to_string());
                }
            }
            Ok(())
        };
        store.transact(remove).map_err(|error| error.to_string())?;
    }
    let text = if removed.is_empty() {
        format!("No rule for {prefix}.")
    } else {
        format!("{prefix}: removed {}.", removed.join(", "))
    };
    Ok(Report::new(text, json!({"prefix": prefix.to_string(), "removed": removed})))
}

/// `rule list`.
pub fn list(context: &Context) -> Result<Report, String> {
    let now = SystemClock.now();
    let mut rules = match context.existing_store()? {
        Some(store) => store.reader().all_rules().map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    rules.retain(|rule| rule.is_live(now));
    let rows = rules.iter().map(|rule| {
        [
            rule.id.prefix.to_string(),
            rule.id.kind.to_string(),
            rule.until.map_or("never".to_owned(), |until| shown_wait(until.saturating_sub(now))),
            rule.uses.map_or("any".to_owned(), |uses| uses.to_string()),
            shown_name(&rule.id.user),
            shown_name(rule.note.as_bytes()),
        ]
    });
    let text = if rules.is_empty() {
        "No rules are kept in the store; `prefixquota config` shows those of the settings."
            .to_owned()
    } else {
        table(&["prefix", "action", "ends in", "uses", "user", "note"], rows)
    };
    let json: Value = rules.iter().map(|rule| shown(rule, now)).collect();
    Ok(Report::new(text, json))
}

/// `grant ADDRESS`.
pub fn grant(context: &Context, grant: &Grant) -> Result<Report, String> {
    let prefix = granted_prefix(context, &grant.address)?;
    let user = grant.user.as_ref().map(|user| user.as_bytes().to_vec()).unwrap_or_default();
    let id = RuleId { prefix, kind: Kind::Grant, user };
    let now = SystemClock.now();
    if grant.toggle && take_back(context, &id, now)? {
        let json = json!({"prefix": prefix.to_string(), "granted": false});
        return Ok(Report::new(format!("{prefix}: took the grant back."), json));
    }
    let until = Some(now.saturating_add(grant.lasts));
    let new = StoredRule { id, until, uses: Some(grant.uses), tries: 0, note: String::new() };
    let put = context.store()?.transact(|write| write.put_rule(&new, now));
    let new = put.map_err(|error| error.to_string())?;
    let mut json = shown(&new, now);
    if let Some(object) = json.as_object_mut() {
        object.insert("granted".to_owned(), true.into());
    }
    Ok(Report::new(format!("{prefix}: granted{}.", terms(&new, now)), json))
}

/// The prefix that a grant for an address opens. This argument may come from a web page: it is an
/// address and nothing else, without a port, a zone or a length.
fn granted_prefix(context: &Context, address: &str) -> Result<IpNet, String> {
    let address: IpAddr = address.parse().map_err(|_| {
        let found: String = address.chars().take(80).collect();
        format!("\"{found}\" is not an address: expected for example 2001:db8::1 or 192.0.2.7")
    })?;
    let source = Source::of(address, &context.settings().nat64);
    Ok(match source.family() {
        Family::V6 => source.prefix(Tier::Near.length(Family::V6)),
        Family::V4 => source.prefix(Family::V4.bits()),
    })
}

fn take_back(context: &Context, id: &RuleId, now: i64) -> Result<bool, String> {
    let Some(mut store) = context.existing_store()? else { return Ok(false) };
    let take_back = |write: &Write<'_>| match write.reader().rule(id)? {
        Some(rule) if rule.is_live(now) => write.remove_rule(id),
        _ => Ok(false),
    };
    store.transact(take_back).map_err(|error| error.to_string())
}

/// A prefix for a rule; an address in any form stands for what it counts as.
fn rule_prefix(context: &Context, text: &str) -> Result<IpNet, String> {
    match parse_host(text.as_bytes()) {
        Some(_) => context.prefix(text),
        None => parse_rule(text),
    }
}

/// How long, how often and for whom, as the end of a sentence.
fn terms(rule: &StoredRule, now: i64) -> String {
    let mut terms = String::new();
    if let Some(until) = rule.until {
        terms += &format!(" for {}", shown_wait(until.saturating_sub(now)));
    }
    match rule.uses {
        Some(1) => terms += ", one login",
        Some(uses) => terms += &format!(", {uses} logins"),
        None => {}
    }
    if !rule.id.user.is_empty() {
        terms += &format!(" of {}", shown_name(&rule.id.user));
    }
    terms
}

fn shown(rule: &StoredRule, now: i64) -> Value {
    json!({
        "prefix": rule.id.prefix.to_string(),
        "action": rule.id.kind.to_string(),
        "user": (!rule.id.user.is_empty()).then(|| shown_name(&rule.id.user)),
        "ends_in_s": rule.until.map(|until| super::seconds(until.saturating_sub(now))),
        "uses": rule.uses,
        "note": rule.note,
    })
}
