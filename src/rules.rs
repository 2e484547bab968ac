//! Rules: which sources are let through, refused or counted, whatever their failures; and grants,
//! which let a source in for a while although it is refused.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::country::Country;
use crate::login::Login;
use crate::source::{Source, prefix_of};

/// What happens to a source. Ordered by precedence: of two rules of equal length the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Counted against its prefixes: what happens without any rule.
    Count,
    /// Neither counted nor denied.
    Exempt,
    /// Denied, always.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Count => "count",
            Action::Exempt => "exempt",
            Action::Deny => "deny",
        })
    }
}

/// The rules of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<(IpNet, Action)>);

impl Rules {
    /// The addresses of this host itself: webmail, health checks and local proxies.
    pub fn loopback() -> Rules {
        Rules(vec![
            (prefix_of(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 8), Action::Exempt),
            (prefix_of(Ipv6Addr::LOCALHOST, 128), Action::Exempt),
        ])
    }

    /// Adds a rule.
    pub fn add(&mut self, prefix: IpNet, action: Action) {
        self.0.push((prefix, action));
    }

    /// The prefixes that have a rule, in the order in which they were added.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(|(prefix, _)| *prefix)
    }

    /// The rule that decides about `source`: the longest that covers it, at equal length deny
    /// before exempt before count.
    pub fn matching(&self, source: &Source) -> Option<(IpNet, Action)> {
        let covering = self.0.iter().filter(|(prefix, action)| covers(prefix, *action, source));
        covering.max_by_key(|(prefix, action)| (prefix.prefix_len(), *action)).copied()
    }
}

/// Whether a rule is about `source`. A client without an address could be anywhere: only a rule
/// that denies everybody covers it.
fn covers(prefix: &IpNet, action: Action, source: &Source) -> bool {
    match source.address() {
        Some(address) => prefix.contains(&address),
        None => prefix.prefix_len() == 0 && action == Action::Deny,
    }
}

/// What a row of the store's rules is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rule as in the settings.
    Rule(Action),
    /// Lets in although the source is denied or over quota.
    Grant,
}

impl Kind {
    /// All of them, for whoever reads one by its name.
    pub const ALL: [Kind; 4] = [
        Kind::Rule(Action::Exempt),
        Kind::Rule(Action::Deny),
        Kind::Rule(Action::Count),
        Kind::Grant,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Rule(action) => action.fmt(f),
            Kind::Grant => f.write_str("grant"),
        }
    }
}

/// Which row of the store's rules: there is one of each kind for each prefix and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleId {
    /// Whom it is about.
    pub prefix: IpNet,
    /// What it does.
    pub kind: Kind,
    /// The only user that a grant is for, as bytes; empty for everybody.
    pub user: Vec<u8>,
}

/// A rule that was made at run time and is kept in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRule {
    /// Which.
    pub id: RuleId,
    /// When it ends, Unix milliseconds; never if it does not say.
    pub until: Option<i64>,
    /// How many successful logins it has left; any number if it does not say.
    pub uses: Option<u32>,
    /// Attempts that a grant let in and that did not turn out right.
    pub tries: u32,
    /// What people wrote beside it.
    pub note: String,
}

impl StoredRule {
    /// Whether it still holds at `now`.
    pub fn is_live(&self, now: i64) -> bool {
        let in_time = self.until.is_none_or(|until| now < until);
        let bears = MAX_TRIES.saturating_add(self.uses.unwrap_or(1).saturating_sub(1));
        in_time && self.uses != Some(0) && (self.id.kind != Kind::Grant || self.tries < bears)
    }

    /// What a rule does that is no grant.
    pub fn action(&self) -> Option<Action> {
        match self.id.kind {
            Kind::Rule(action) => Some(action),
            Kind::Grant => None,
        }
    }

    /// With what another grant for the same adds: two people behind one address may both have asked
    /// for one. Of rules the new one takes the place of the old.
    pub fn joined(&self, old: &StoredRule) -> StoredRule {
        let mut joined = self.clone();
        if self.id.kind == Kind::Grant {
            joined.until = self.until.zip(old.until).map(|(new, old)| new.max(old));
            joined.uses = self.uses.zip(old.uses).map(|(new, old)| new.saturating_add(old));
            joined.tries = old.tries;
        }
        joined
    }

    fn grants(&self, login: &Login) -> bool {
        self.id.kind == Kind::Grant
            && login.source.address().is_some_and(|address| self.id.prefix.contains(&address))
            && (self.id.user.is_empty() || self.id.user == login.user)
    }
}

/// How many wrong passwords a grant bears, beside one open attempt for each further use: as many
/// as a known place. Who solved one captcha must not guess on for its whole time.
const MAX_TRIES: u32 = 10;

/// What the rules say of one login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruled {
    /// The rule that decides; `None` if no prefix rule covers the source.
    pub by: Option<(IpNet, Action)>,
    /// That rule, if it bears only so many logins.
    pub limited: Option<RuleId>,
    /// A grant that would let the source in.
    pub grant: Option<RuleId>,
    /// Where no prefix rule covers the source: its country, if that one is denied.
    pub country: Option<Country>,
}

/// Finds the rule that decides about `login`: the longest; at equal length one of the `stored`
/// before one of the settings, then deny before exempt before count.
pub fn decide(login: &Login, rules: &Rules, stored: &[StoredRule], now: i64) -> Ruled {
    let live = || stored.iter().filter(|rule| rule.is_live(now));
    let kept = live()
        .filter_map(|rule| Some((rule.id.prefix, rule.action()?, rule)))
        .filter(|(prefix, action, _)| covers(prefix, *action, &login.source))
        .max_by_key(|(prefix, action, _)| (prefix.prefix_len(), *action));
    let grant = live()
        .filter(|rule| rule.grants(login))
        .max_by_key(|rule| (rule.id.prefix.prefix_len(), !rule.id.user.is_empty()));
    let set = rules.matching(&login.source);
    let wins =
        |prefix: &IpNet| set.is_none_or(|(other, _)| prefix.prefix_len() >= other.prefix_len());
    let (by, limited) = match kept.filter(|(prefix, _, _)| wins(prefix)) {
        Some((prefix, action, rule)) => {
            (Some((prefix, action)), rule.uses.map(|_| rule.id.clone()))
        }
        None => (set, None),
    };
    Ruled { by, limited, grant: grant.map(|rule| rule.id.clone()), country: None }
}
