//! The table of settings: name, default, kind, range and help, each written here and nowhere else.

use std::fmt::Write as _;

use super::Settings;
use super::kind::{DAY, Kind, MINUTE, SECOND, SWITCH};

/// One setting.
pub struct Setting {
    /// The key in the file and in the module's arguments.
    pub name: &'static str,
    /// The default, as one would write it.
    pub default: &'static str,
    /// What it does, in sentences.
    pub help: &'static str,
    kind: Kind,
}

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "database",
        default: "/var/lib/prefixquota/prefixquota.db",
        help: "The store. Its directory must belong to root and be writable by nobody else.",
        kind: Kind::Path(|s| &mut s.database),
    },
    Setting {
        name: "half_life",
        default: "1h",
        help: "After this time half of every count is left. Longer means fewer guesses for an \
               attacker and longer waits for people who mistype.",
        kind: Kind::Duration(SECOND..=36_500 * DAY, |s| &mut s.half_life),
    },
    Setting {
        name: "ipv6_base",
        default: "2",
        help: "Failures that one IPv6 address may have before its next attempt is refused.",
        kind: Kind::Number(2..=1_000_000, |s| &mut s.ipv6.base),
    },
    Setting {
        name: "ipv6_linear_to",
        default: "64",
        help: "Down to this prefix length the quota grows by one for each bit.",
        kind: Kind::Length(0..=128, |s| &mut s.ipv6.linear_to),
    },
    Setting {
        name: "ipv6_growth",
        default: "1",
        help: "Beyond ipv6_linear_to the quota grows by 2, 3, 4 ... times this number for each bit.",
        kind: Kind::Number(0..=1_000, |s| &mut s.ipv6.growth),
    },
    Setting {
        name: "ipv6_widest",
        default: "32",
        help: "The widest prefix that is counted. At most ipv6_linear_to; below 29 whole providers \
               are counted together.",
        kind: Kind::Length(0..=128, |s| &mut s.ipv6.widest),
    },
    Setting {
        name: "ipv4_base",
        default: "10",
        help: "Failures that one IPv4 address may have before its next attempt is refused.",
        kind: Kind::Number(2..=1_000_000, |s| &mut s.ipv4.base),
    },
    Setting {
        name: "ipv4_linear_to",
        default: "32",
        help: "As ipv6_linear_to.",
        kind: Kind::Length(0..=32, |s| &mut s.ipv4.linear_to),
    },
    Setting {
        name: "ipv4_growth",
        default: "2",
        help: "As ipv6_growth.",
        kind: Kind::Number(0..=1_000, |s| &mut s.ipv4.growth),
    },
    Setting {
        name: "ipv4_widest",
        default: "16",
        help: "As ipv6_widest.",
        kind: Kind::Length(0..=32, |s| &mut s.ipv4.widest),
    },
    Setting {
        name: "exempt",
        default: "",
        help: "Addresses and prefixes that are neither counted nor denied, separated by blanks. \
               Several lines add up. Of all rules the longest that covers a source decides; at \
               equal length deny wins over exempt, and exempt over count.",
        kind: Kind::Prefixes(|s| &mut s.exempt),
    },
    Setting {
        name: "deny",
        default: "",
        help: "Addresses and prefixes that are always denied. With deny = ::/0 0.0.0.0/0 and \
               narrower exempt or count lines only approved networks may log in.",
        kind: Kind::Prefixes(|s| &mut s.deny),
    },
    Setting {
        name: "count",
        default: "",
        help: "Addresses and prefixes that are counted as usual, inside wider exempt or deny ones.",
        kind: Kind::Prefixes(|s| &mut s.count),
    },
    Setting {
        name: "country_allow",
        default: "",
        help: "Countries that may log in; a list that is not empty denies all others, and unknown \
               if it is not in it. Several lines add up. A prefix in exempt, deny or count decides \
               before any country; private and link-local addresses are in none.",
        kind: Kind::Countries(|s| &mut s.country_allow),
    },
    Setting {
        name: "country_deny",
        default: "",
        help: "Countries that are denied, even if country_allow has them.",
        kind: Kind::Countries(|s| &mut s.country_deny),
    },
    Setting {
        name: "country_database",
        default: "/var/lib/prefixquota/country.db",
        help: "Which address is in which country: made by prefixquota country import, in a \
               directory that must belong to root and be writable by nobody else.",
        kind: Kind::Path(|s| &mut s.country_database),
    },
    Setting {
        name: "loopback",
        default: "exempt",
        help: "Whether 127.0.0.0/8 and ::1 (webmail, local proxies) are exempt or counted.",
        kind: Kind::Choice(["exempt", "count"], |s| &mut s.count_loopback),
    },
    Setting {
        name: "nat64",
        default: "",
        help: "NAT64 prefixes of this site (RFC 6052, length 32, 40, 48, 56, 64 or 96): their \
               addresses count as the IPv4 address inside. 64:ff9b::/96 always does.",
        kind: Kind::Translators(|s| &mut s.nat64),
    },
    Setting {
        name: "multiply",
        default: "",
        help: "A prefix that many people share, as a tunnel broker's or a carrier's NAT, and a \
               number: every prefix inside it has so many times its quota, and those around it \
               have what that makes more. Several lines add up; of those that cover a prefix the \
               longest decides.",
        kind: Kind::Multiples(|s| &mut s.multiply),
    },
    Setting {
        name: "strict",
        default: "no",
        help: "With yes every prefix is counted twice: with a half-life of 30m, whatever half_life \
               says, and with one of 24h and 4 times the quota. That stops slow guessing as a \
               half-life of 6h would, and forgets an honest mistake in half an hour.",
        kind: Kind::Choice(SWITCH, |s| &mut s.strict),
    },
    Setting {
        name: "known_quota",
        default: "10",
        help: "Failures that a user may have at a known place (the /64, or IPv4 /24, of an earlier \
               login) before he is judged there as a stranger. Strangers do not fill this count. \
               With 0 all are strangers there.",
        kind: Kind::KnownQuota(|s| &mut s.known_quota),
    },
    Setting {
        name: "known_wide_quota",
        default: "3",
        help: "The same for another place in the /32 (IPv4 /16) of an earlier login. Beside it the \
               prefixes must have room as all users who are known so widely fill them.",
        kind: Kind::KnownQuota(|s| &mut s.known_wide_quota),
    },
    Setting {
        name: "known_half_life",
        default: "6h",
        help: "The half-life of these two counts.",
        kind: Kind::Duration(SECOND..=36_500 * DAY, |s| &mut s.known_half_life),
    },
    Setting {
        name: "known_for",
        default: "60d",
        help: "A place is forgotten when the user has not logged in from there for so long.",
        kind: Kind::Duration(0..=36_500 * DAY, |s| &mut s.known_for),
    },
    Setting {
        name: "repeat",
        default: "yes",
        help: "The same wrong password of the same user from the same /64 (IPv4 /24) is counted \
               only once in repeat_for, as long as there is room for it: a forgotten device with \
               an old password locks nobody out. With known only at places that the user is known \
               to come from; with no every attempt is counted. Where a second factor is asked for \
               behind the password, use no: guesses at that one come with the same password.",
        kind: Kind::Repeat(|s| &mut s.repeat),
    },
    Setting {
        name: "repeat_for",
        default: "1d",
        help: "How long a wrong password is remembered, as 16 bits of a keyed hash.",
        kind: Kind::Duration(SECOND..=36_500 * DAY, |s| &mut s.repeat_for),
    },
    Setting {
        name: "stranger_quota",
        default: "no",
        help: "Against botnets: how many failures all strangers together may have for one user \
               that has logged in before, as 30 per 24h. Half of them are forgotten in that time. \
               When they are used up that user gets in only from known places.",
        kind: Kind::Rate(|s| &mut s.stranger_quota),
    },
    Setting {
        name: "enforcing",
        default: "yes",
        help: "With no, attempts are counted and \"would deny\" is logged, but nothing is denied.",
        kind: Kind::Choice(SWITCH, |s| &mut s.enforcing),
    },
    Setting {
        name: "on_error",
        default: "ignore",
        help: "What to do when the store cannot be used: ignore lets the attempt go on uncounted, \
               deny refuses it. Either way the error is logged.",
        kind: Kind::Choice(["ignore", "deny"], |s| &mut s.deny_on_error),
    },
    Setting {
        name: "settle",
        default: "3s",
        help: "An attempt that is over quota only because of attempts younger than this waits for \
               them: they may turn out to be right. 0s denies at once.",
        kind: Kind::Duration(0..=MINUTE, |s| &mut s.settle),
    },
    Setting {
        name: "lock_wait",
        default: "5s",
        help: "How long to wait for other processes that write to the store.",
        kind: Kind::Duration(SECOND..=MINUTE, |s| &mut s.lock_wait),
    },
    Setting {
        name: "prompt",
        default: "yes",
        help: "Ask for the password before charging, so that a login given up at the prompt costs \
               nothing. With no, for stacks that have no password, the attempt itself is charged.",
        kind: Kind::Choice(SWITCH, |s| &mut s.prompt),
    },
    Setting {
        name: "silent",
        default: "no",
        help: "Say nothing to the client that is denied.",
        kind: Kind::Choice(SWITCH, |s| &mut s.silent),
    },
    Setting {
        name: "debug",
        default: "no",
        help: "Log what happens to every attempt.",
        kind: Kind::Choice(SWITCH, |s| &mut s.debug),
    },
    Setting {
        name: "nonroot",
        default: "no",
        help: "Work also for callers that are not root, which then need a store of their own. \
               Otherwise the module does nothing for them.",
        kind: Kind::Choice(SWITCH, |s| &mut s.nonroot),
    },
    Setting {
        name: "max_rows",
        default: "1000000",
        help: "How many failing addresses are kept. Beyond, those with the lightest counts go \
               first.",
        kind: Kind::Number(10..=100_000_000, |s| &mut s.max_rows),
    },
];

impl Setting {
    /// Gives `settings` a value.
    ///
    /// # Errors
    ///
    /// What was expected, as the end of a sentence.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        self.kind.set(settings, text)
    }

    /// Its value, as one would write it.
    pub fn show(&self, settings: &Settings) -> String {
        self.kind.show(settings)
    }

    /// What it takes, as the end of a sentence.
    pub fn expects(&self) -> String {
        self.kind.expects()
    }
}

/// The example file: every setting with its meaning, commented out, at its default.
pub fn example() -> String {
    let mut text = String::from(
        "# Settings of pam_prefixquota and of the command prefixquota.\n\
         #\n\
         # key = value; each key may also be an argument of the module line, as key=value, which\n\
         # wins over this file. What stands here commented out is the default.\n",
    );
    for setting in SETTINGS {
        text.push('\n');
        for line in wrap(setting.help, 96) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# ({})", setting.expects());
        let _ = writeln!(text, "{}", format!("#{} = {}", setting.name, setting.default).trim_end());
    }
    text
}

/// Breaks text into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
