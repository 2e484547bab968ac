//! Rules: which sources are let through, refused or counted, whatever their failures.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

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

/// A list of rules; the longest that covers a source decides.
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

    /// The rule that decides about `source`: the longest that covers it, at equal length deny
    /// before exempt before count. A client without an address could be anywhere: only a rule that
    /// denies everybody covers it.
    pub fn matching(&self, source: &Source) -> Option<(IpNet, Action)> {
        let covers = |(prefix, action): &&(IpNet, Action)| match source.address() {
            Some(address) => prefix.contains(&address),
            None => prefix.prefix_len() == 0 && *action == Action::Deny,
        };
        self.0
            .iter()
            .filter(covers)
            .max_by_key(|(prefix, action)| (prefix.prefix_len(), *action))
            .copied()
    }
}
