//! Settings: every line that is right, every line that is not, and the one table behind both.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use pam_prefixquota::config::{Config, SETTINGS, Settings, example};
use proptest::prelude::*;

fn load(text: &[u8], arguments: &[&str]) -> Config {
    let dir = common::private_dir();
    let file = dir.path().join("settings");
    fs::write(&file, text).unwrap();
    let arguments: Vec<&[u8]> = arguments.iter().map(|a| a.as_bytes()).collect();
    Config::load(Some(&file), &arguments)
}

fn problems(config: &Config) -> Vec<String> {
    config.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_default_is_a_right_value_and_shown_as_written() {
    for setting in SETTINGS {
        let mut settings = Settings::default();
        // Lists grow, so an empty default must leave them as they are.
        setting.set(&mut settings, setting.default).unwrap();
        assert_eq!(settings, Settings::default(), "{}", setting.name);
        assert_eq!(setting.show(&settings), setting.default, "{}", setting.name);
        assert!(setting.help.ends_with('.') && !setting.expects().is_empty());
    }
    assert_eq!(Settings::default().half_life, 3_600_000);
    assert_eq!(Settings::default().lock_wait, 5_000);
}

#[test]
fn the_example_file_changes_nothing_and_names_every_setting() {
    let config = load(example().as_bytes(), &[]);
    assert!(config.problems.is_empty(), "{:?}", problems(&config));
    assert_eq!(config.settings, Settings::default());
    // With the comment signs of the settings taken away it still says the same.
    let bare: String = example()
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|l| l.starts_with(char::is_alphabetic)).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = load(bare.as_bytes(), &[]);
    assert_eq!(problems(&config), Vec::<String>::new());
    assert_eq!(config.settings, Settings::default());
    for setting in SETTINGS {
        assert!(bare.contains(&format!("\n{} =", setting.name)), "{}", setting.name);
    }
}

#[test]
fn the_example_file_in_the_repository_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pam.d-examples/prefixquota.conf");
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(kept, example(), "write it anew: prefixquota config --example > {}", path.display());
}

#[test]
fn a_file_and_arguments_that_win() {
    let text = b"# comment\n\n half_life=2h # two\nsilent\nexempt = 2001:db8::/32, 192.0.2.1\n\
        exempt = 198.51.100.0/24\nipv6_linear_to = 48\nipv6_widest = 40\n";
    let config = load(text, &["half_life=90s", "enforce", "use_first_pass", "no_warn", "debug"]);
    assert_eq!(problems(&config), Vec::<String>::new());
    let settings = config.settings;
    assert_eq!(settings.half_life, 90_000);
    assert!(settings.silent && settings.debug && config.enforce);
    assert_eq!(settings.exempt.len(), 3);
    assert_eq!((settings.ipv6.linear_to, settings.ipv6.widest), (48, 40));
    assert_eq!(Duration::from_millis(settings.settle.unsigned_abs()), Duration::from_secs(3));
}

#[test]
fn every_wrong_line_says_where_what_and_what_is_expected() {
    let cases = [
        ("half_live = 1h", "unknown setting \"half_live\""),
        ("half_life = 1", "half_life = 1: expected a number with s, m, h or d, from 1s to 36500d"),
        ("half_life = 0s", "expected a number with s, m, h or d"),
        ("half_life = 36501d", "from 1s to 36500d"),
        ("half_life = 99999999999999999999h", "from 1s to 36500d"),
        ("half_life = -1h", "from 1s to 36500d"),
        ("half_life =", "half_life = : expected"),
        ("half_life = 1h 2h", "expected a number"),
        ("half_life = 1\u{00b5}", "expected a number"),
        ("ipv6_base = 1", "ipv6_base = 1: expected a number from 2 to 1000000"),
        ("ipv4_base = 0", "expected a number from 2"),
        ("ipv6_base = two", "ipv6_base = two: expected a number"),
        ("ipv6_widest = 129", "expected a length from 0 to 128"),
        ("ipv4_widest = 33", "expected a length from 0 to 32"),
        ("ipv6_widest = 65", "ipv6_widest = 65: expected at most ipv6_linear_to, which is 64"),
        ("enforcing = maybe", "enforcing = maybe: expected no or yes"),
        ("on_error = panic", "on_error = panic: expected ignore or deny"),
        ("exempt = 2001:db8::/129", "\"2001:db8::/129\" is not an address or a prefix"),
        ("deny = 10.0.0.1/8", "has bits set beyond its length: expected 10.0.0.0/8"),
        ("nat64 = 2001:db8::/33", "cannot be a NAT64 prefix"),
        ("nat64 = 192.0.2.0/24", "cannot be a NAT64 prefix"),
        ("database = relative.db", "database = relative.db: expected an absolute path"),
        ("country_allow = DE UK", "\"UK\" is not a country: expected a code of ISO 3166-1"),
        ("country_deny = unknwon", "\"unknwon\" is not a country"),
        ("country_database = country.db", "expected an absolute path"),
        ("max_rows = 9", "expected a number from 10 "),
        ("lock_wait = 0s", "from 1s to 1m"),
        ("deny = 2002:c000:200::/40", "addresses inside 2002:c000:200::/40 count as the IPv4"),
        ("exempt = 64:ff9b::/96", "expected that one"),
        ("= 5", "unknown setting \"\""),
        ("\u{1b}[31m = 5", "unknown setting \"?[31m\""),
    ];
    for (line, expected) in cases {
        let text = format!("silent = yes\n{line}\ndebug = yes\n");
        let config = load(text.as_bytes(), &[]);
        let found = problems(&config);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(found[0].contains(expected) && found[0].contains("line 2"), "{}", found[0]);
        let kept = Settings { silent: true, debug: true, ..Settings::default() };
        assert_eq!(config.settings, kept, "{line}: the rest is kept");
    }
}

#[test]
fn files_that_are_no_settings() {
    let config = Config::load(Some(Path::new("/nonexistent/settings")), &[]);
    assert!(problems(&config)[0].starts_with("/nonexistent/settings: cannot be read"));
    let config = Config::load(None, &[b"config=/dev/zero"]);
    assert!(problems(&config)[0].contains("not a regular file"));
    let config = load(&vec![b'#'; 2 << 20], &[]);
    assert!(problems(&config)[0].contains("larger than 1 MiB"));
    let config = load(b"\xff\xfe\n", &[]);
    assert!(problems(&config)[0].contains("line 1: not UTF-8 text"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        text in prop::collection::vec(any::<u8>(), 0..400),
        argument in prop::collection::vec(1..=255_u8, 0..60),
    ) {
        let dir = common::private_dir();
        let file = dir.path().join("settings");
        fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), &[&argument]);
        for problem in &config.problems {
            prop_assert!(!problem.to_string().contains(char::is_control));
        }
        prop_assert!(config.settings.ipv6.base >= 2 && config.settings.ipv4.base >= 2);
    }

    #[test]
    fn what_is_shown_can_be_set(values in prop::collection::vec(any::<u32>(), SETTINGS.len())) {
        let mut settings = Settings::default();
        for (setting, value) in SETTINGS.iter().zip(values) {
            for text in [format!("{}", value % 70), format!("{}s", value % 5_000), format!("{}h", value % 900)] {
                let _ = setting.set(&mut settings, &text);
            }
            let mut again = Settings::default();
            setting.set(&mut again, &setting.show(&settings)).unwrap();
            prop_assert_eq!(setting.show(&again), setting.show(&settings));
        }
    }
}
