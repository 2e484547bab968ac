//! Attacks that would take sshd minutes, in moments.

use std::net::IpAddr;

use super::super::pam::{self, Pam, guess};
use super::Lab;

/// For the module of whoever meets the attack: nobody waits for open charges, and nothing decays.
pub const BULK: &str = "settle=0s half_life=36500d";

/// How many of `guesses` wrong passwords for `user`, each a new one and from an `address` of its
/// own, reach the password check: straight through libpam, into the store of the lab.
pub fn guesses_that_reach_the_check<A: Into<IpAddr>>(
    lab: &Lab,
    user: &str,
    guesses: u64,
    address: impl Fn(u64) -> A,
) -> usize {
    let stack = pam::stack(&format!("{} {BULK} repeat=no", lab.arguments()), "perm_denied");
    lab.etc("pam.d/bulk", &stack);
    let confdir = lab.dir().join("etc/pam.d");
    let verdicts = (0..guesses).map(|i| {
        let rhost = address(i).into().to_string();
        let mut pam = Pam::start(&confdir, "bulk", user.as_bytes(), Some(&guess()));
        pam = pam.rhost(rhost.as_bytes());
        let verdict = pam.authenticate();
        let expected = [pam::PERM_DENIED, pam::MAXTRIES];
        assert!(expected.contains(&verdict), "guess {i} from {rhost}: PAM code {verdict}");
        verdict
    });
    verdicts.filter(|verdict| *verdict == pam::PERM_DENIED).count()
}
