//! Rules: which sources are let through, refused or counted, whatever their failures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// before exempt before count.
    pub fn matching(&self, source: &Source) -> Option<(IpNet, Action)> {
        let address: IpAddr = source.address()?;
        self.0
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, action)| (prefix.prefix_len(), *action))
            .copied()
    }
}
