//! The command, run as a person or a program runs it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use common::Run;
use pam_prefixquota::config::SETTINGS;
use serde_json::Value;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let lab = Lab { dir: common::private_dir() };
        fs::write(lab.path("settings"), format!("database = {}\nsettle = 0s\n", lab.path("q.db")))
            .unwrap();
        lab
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = common::command();
        // The two that edit stacks read no settings.
        if !matches!(arguments.first(), Some(&("enable" | "disable"))) {
            command.arg("--config").arg(self.path("settings"));
        }
        Run::of(command.args(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--format", "json"]].concat()).json()
    }

    fn record(&self, address: &str, times: usize) {
        for _ in 0..times {
            assert_eq!(self.run(&["record", address]).status, 0);
        }
    }
}

#[test]
fn check_says_admitted_or_denied_and_why() {
    let lab = Lab::new();
    let before = lab.run(&["check", "2001:db8::1"]);
    assert_eq!(before.status, 0);
    assert!(before.out.starts_with("2001:db8::1 is admitted"), "{}", before.out);
    assert!(!Path::new(&lab.path("q.db")).exists(), "who only looks makes no store");
    lab.record("2001:db8::1", 2);
    let denied = lab.run(&["check", "2001:db8::1"]);
    assert_eq!(denied.status, 1);
    let sentence = "2001:db8::1 is denied: 2001:db8::1/128 has 2.0 of 2 failures; room again in \
                    60m. To lift it: prefixquota forgive 2001:db8::1/128\n";
    assert!(denied.out.starts_with(sentence), "{}", denied.out);
    let json = lab.json(&["check", "2001:db8::1"]);
    assert_eq!(json["source"], "2001:db8::1");
    assert_eq!(json["admitted"], false);
    assert_eq!(json["prefix"], "2001:db8::1/128");
    assert_eq!(json["quota"], 2);
    assert!(json["count"].as_f64().unwrap() > 1.9);
    assert!((3_590..=3_600).contains(&json["retry_after_s"].as_i64().unwrap()));
    let json = lab.json(&["check", "::ffff:192.0.2.1"]);
    assert_eq!((&json["source"], &json["admitted"]), (&"192.0.2.1".into(), &true.into()));
    assert_eq!(json["retry_after_s"], 0);
    let all = lab.run(&["check", "2001:db8::2", "--all"]);
    assert_eq!(all.out.lines().count(), 3 + 97, "{}", all.out);
}

#[test]
fn check_names_the_rule_that_decides() {
    let lab = Lab::new();
    let mut settings = fs::read_to_string(lab.path("settings")).unwrap();
    settings.push_str("deny = 2001:db8::/32\nexempt = 2001:db8:1::/48\n");
    fs::write(lab.path("settings"), settings).unwrap();
    let denied = lab.run(&["check", "2001:db8::1"]);
    assert_eq!(denied.status, 1);
    assert!(denied.out.starts_with("2001:db8::1 is denied by the rule \"deny 2001:db8::/32\"."));
    assert_eq!(lab.json(&["check", "2001:db8::1"])["prefix"], "2001:db8::/32");
    let exempt = lab.run(&["check", "2001:db8:1::1"]);
    assert_eq!((exempt.status, exempt.out.contains("is exempt")), (0, true));
}

#[test]
fn record_counts_until_the_quota_and_forgive_takes_it_back() {
    let lab = Lab::new();
    lab.record("192.0.2.1", 10);
    let full = lab.run(&["record", "192.0.2.1"]);
    assert_eq!(full.status, 1);
    assert!(full.out.contains("192.0.2.1/32 has 10.0 of 10 failures"), "{}", full.out);
    assert_eq!(lab.json(&["record", "192.0.2.1"])["recorded"], false);
    let forgiven = lab.json(&["forgive", "192.0.2.0/24"]);
    assert_eq!((&forgiven["addresses"], &forgiven["prefix"]), (&1.into(), &"192.0.2.0/24".into()));
    assert!(lab.run(&["forgive", "192.0.2.1"]).out.starts_with("Nothing to forgive"));
    assert_eq!(lab.run(&["forgive", "--user", "bob"]).out, "Nothing to forgive of bob.\n");
    lab.run(&["forgive", "::/0"]);
    let status = lab.run(&["status"]).out;
    assert!(status.contains("0 with 0.0 failures"), "{status}");
    assert_eq!(lab.json(&["record", "192.0.2.1"])["recorded"], true);
    assert!(lab.run(&["record", "127.0.0.1"]).out.contains("exempt"));
}

#[test]
fn top_lists_the_nearest_to_full_and_no_mere_repetition() {
    let lab = Lab::new();
    lab.record("2001:db8::1", 2);
    lab.record("2001:db8:0:1::1", 1);
    lab.record("198.51.100.7", 3);
    let top = lab.json(&["top"]);
    let prefixes: Vec<&str> =
        top.as_array().unwrap().iter().map(|row| row["prefix"].as_str().unwrap()).collect();
    let expected = ["2001:db8::1/128", "2001:db8:0:1::1/128", "198.51.100.7/32", "2001:db8::/63"];
    assert_eq!(prefixes, expected);
    assert_eq!((&top[0]["full"], &top[0]["quota"]), (&true.into(), &2.into()));
    assert_eq!(lab.json(&["top", "-n", "1"]).as_array().unwrap().len(), 1);
    let text = lab.run(&["top"]).out;
    assert!(text.starts_with("prefix               failures  quota  next try\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    assert_eq!(Lab::new().run(&["top"]).out, "No failures are counted now.\n");
}

#[test]
fn a_terminal_shows_how_full_prefixes_are() {
    let lab = Lab::new();
    lab.record("2001:db8::1", 2);
    lab.record("192.0.2.1", 5);
    let on_terminal = |arguments: &str, environment: &[(&str, &str)]| {
        let command = format!(
            "'{}' --config '{}' {arguments}",
            common::command().get_program().to_str().unwrap(),
            lab.path("settings")
        );
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
        script.env_remove("LC_ALL").env_remove("LC_CTYPE").env("LANG", "C.UTF-8");
        let run = script.envs(environment.iter().copied()).output().expect("script (util-linux)");
        String::from_utf8(run.stdout).unwrap().replace('\r', "")
    };
    let (full, half) = ("█".repeat(20), "█".repeat(10) + &"░".repeat(10));
    for arguments in ["top", "check 192.0.2.1"] {
        let shown = on_terminal(arguments, &[]);
        let line = shown.lines().find(|line| line.starts_with("192.0.2.1/32 ")).unwrap();
        assert!(line.contains(&half), "{shown}");
    }
    let shown = on_terminal("top", &[]);
    let at = |line: &str| line.chars().position(|c| c == '█');
    let bars: Vec<_> = shown.lines().skip(1).filter_map(at).collect();
    assert!(bars.len() > 1 && bars.iter().all(|bar| *bar == bars[0]), "aligned: {shown}");
    assert!(shown.contains(&full) && shown.contains("\u{1b}[31m"), "{shown}");
    let plain = on_terminal("top", &[("NO_COLOR", "1")]);
    assert!(plain.contains(&full) && !plain.contains('\u{1b}'), "{plain}");
    let ascii = on_terminal("top", &[("LANG", "C")]);
    assert!(ascii.contains(&"#".repeat(20)) && ascii.is_ascii(), "{ascii}");
    let piped = lab.run(&["top"]).out;
    assert!(!piped.contains('█') && !piped.contains('#'), "{piped}");
}

#[test]
fn list_and_status_show_what_is_there() {
    let lab = Lab::new();
    let empty = lab.run(&["status"]);
    assert!(empty.out.contains("not there yet"), "{}", empty.out);
    assert_eq!(lab.json(&["status"])["exists"], false);
    lab.record("2001:db8::1", 2);
    lab.record("192.0.2.1", 1);
    let sources = |json: &Value| -> Vec<String> {
        let rows = json.as_array().unwrap();
        rows.iter().map(|row| row["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sources(&lab.json(&["list"])), ["2001:db8::1", "192.0.2.1"]);
    assert_eq!(sources(&lab.json(&["list", "192.0.2.0/24"])), ["192.0.2.1"]);
    assert_eq!(sources(&lab.json(&["list", "::/0"])), ["2001:db8::1"]);
    let status = lab.json(&["status"]);
    assert_eq!((&status["addresses"], &status["full_prefixes"]), (&2.into(), &1.into()));
    assert_eq!(status["database"], lab.path("q.db"));
}

#[test]
fn policy_is_the_curve() {
    let lab = Lab::new();
    let policy = lab.json(&["policy"]);
    let rows = policy.as_array().unwrap();
    assert_eq!(rows.len(), 97 + 17);
    for (family, length, quota) in
        [(6, 128, 2), (6, 64, 66), (6, 32, 626), (4, 32, 10), (4, 16, 314)]
    {
        let row = serde_json::json!({"family": family, "length": length, "quota": quota});
        assert!(rows.contains(&row), "{row}");
    }
    let text = lab.run(&["policy"]).out;
    let of_64 = text.lines().find(|line| line.starts_with("IPv6 /64 ")).unwrap();
    assert_eq!(of_64.split_whitespace().skip(2).collect::<Vec<_>>(), ["66", "80s", "1090"]);
    // Of its two counts the slow one gives way last.
    fs::write(lab.path("settings"), "strict = yes\nmultiply = 2001:470::/32 10\n").unwrap();
    let text = lab.run(&["policy"]).out;
    let of_32 = text.lines().find(|line| line.starts_with("IPv6 /32 ")).unwrap();
    assert_eq!(of_32.split_whitespace().skip(2).collect::<Vec<_>>(), ["626", "50s", "1735"]);
    assert!(text.ends_with("Inside 2001:470::/32: 10 times the quota.\n"), "{text}");
}

#[test]
fn the_table_of_the_readme_is_the_policy() {
    let policy = Lab::new().run(&["policy"]).out;
    let of = |family: u8, length: u8| -> Vec<String> {
        let start = format!("IPv{family} /{length} ");
        let line = policy.lines().find(|line| line.starts_with(&start)).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        vec![fields[2].to_owned(), fields.last().unwrap().to_string()]
    };
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let rows = [
        ("one IPv6 address (/128)", 6, 128),
        ("a /64", 6, 64),
        ("a /56", 6, 56),
        ("a /48", 6, 48),
        ("a /32", 6, 32),
        ("one IPv4 address (/32)", 4, 32),
        ("an IPv4 /24", 4, 24),
        ("an IPv4 /16", 4, 16),
    ];
    for (name, family, length) in rows {
        let row = readme.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        let numbers: Vec<&str> =
            row.split('|').skip(2).filter_map(|cell| cell.split_whitespace().next()).collect();
        assert_eq!(numbers, of(family, length), "{row}");
    }
}

#[test]
fn without_enforcing_check_says_what_would_be() {
    let lab = Lab::new();
    lab.record("2001:db8::1", 2);
    let settings = fs::read_to_string(lab.path("settings")).unwrap() + "enforcing = no\n";
    fs::write(lab.path("settings"), settings).unwrap();
    let check = lab.run(&["check", "2001:db8::1"]);
    assert_eq!(check.status, 0);
    let start = "2001:db8::1 is admitted (enforcing = no), but would be denied: 2001:db8::1/128";
    assert!(check.out.starts_with(start), "{}", check.out);
    assert_eq!(lab.json(&["check", "2001:db8::1"])["admitted"], true);
}

#[test]
fn a_missing_directory_is_said_and_mended() {
    let lab = Lab::new();
    fs::write(lab.path("settings"), format!("database = {}\n", lab.path("none/q.db"))).unwrap();
    for command in [&["status"][..], &["check", "2001:db8::1"], &["record", "2001:db8::1"]] {
        let run = lab.run(command);
        let expected = format!("until `install -d -m 0700 {}`", lab.path("none"));
        assert!(run.status == 2 && run.err.contains(&expected), "{}", run.err);
    }
}

#[test]
fn every_form_of_an_address_can_be_forgiven() {
    let lab = Lab::new();
    for address in ["64:ff9b::192.0.2.77", "::ffff:192.0.2.77", "[2001:db8::1]", "fe80::1%eth0"] {
        lab.record(address, 1);
        assert_eq!(lab.json(&["list", address]).as_array().unwrap().len(), 1, "{address}");
        assert_eq!(lab.json(&["forgive", address])["addresses"], 1, "{address}");
    }
}

#[test]
fn config_shows_every_setting_and_its_origin() {
    let lab = Lab::new();
    let config = lab.json(&["config"]);
    let rows = config.as_array().unwrap();
    assert_eq!(rows.len(), SETTINGS.len());
    let find = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(find("settle")["value"], "0s");
    assert_eq!(find("settle")["from"], format!("{}, line 2", lab.path("settings")));
    assert_eq!(find("half_life")["from"], "default");
    let other = lab.json(&["config", "--database", "/tmp/other.db"]);
    assert_eq!(other[0]["value"], "/tmp/other.db");
    assert_eq!(other[0]["from"], "argument");
}

#[test]
fn wrong_usage_and_wrong_settings_are_one_sentence_and_status_2() {
    let lab = Lab::new();
    for (arguments, expected) in [
        (&["check", "not-an-address"][..], "\"not-an-address\" is not an address: expected"),
        (&["record", "2001:db8::/32"], "\"2001:db8::/32\" is not an address"),
        (&["forgive", "2001:db8::1/32"], "expected 2001:db8::/32"),
        (&["list", "x/y"], "\"x/y\" is not an address or a prefix"),
        (&["enable", "../sshd"], "is not the name of a service"),
        (&["enable", "common-auth"], "is no service of its own"),
        (&["enable", "sshd", "--database", "/x.db"], "do not reach the module"),
        (&["top", "-n", "0"], "0 is not in 1.."),
        (&["check", "a\nb"], "\"a?b\" is not an address"),
        (&["bogus"], "unrecognized subcommand 'bogus'; see prefixquota --help"),
        (
            &["check"],
            "required arguments were not provided: <ADDRESS>; see prefixquota check --help",
        ),
        (&["export", "--as", "xml"], "[possible values: json, "),
        (&["grant", "2001:db8::1", "--for", "0s"], "from 1s"),
    ] {
        let run = lab.run(arguments);
        assert_eq!(run.status, 2, "{arguments:?}");
        assert!(run.err.contains(expected), "{arguments:?}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
        assert_eq!(run.out, "");
    }
    fs::remove_file(lab.path("settings")).unwrap();
    assert!(lab.run(&["status"]).err.contains("cannot be read"));
    fs::write(lab.path("settings"), "half_life = never\n").unwrap();
    let run = lab.run(&["status"]);
    assert_eq!(run.status, 2);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(run.err.contains("line 1: half_life = never: expected a number with"), "{}", run.err);
}

#[test]
fn a_store_that_cannot_be_used_is_an_error() {
    let lab = Lab::new();
    fs::write(lab.path("q.db"), "noise").unwrap();
    for command in [&["status"][..], &["check", "2001:db8::1"], &["record", "2001:db8::1"]] {
        let run = lab.run(command);
        assert_eq!(run.status, 2);
        assert!(run.err.starts_with(&format!("prefixquota: {}", lab.path("q.db"))), "{}", run.err);
    }
}

const DEBIAN: &str = "# PAM configuration for the Secure Shell service\n\n\
    # Standard Un*x authentication.\n@include common-auth\naccount    required     pam_nologin.so\n\
    @include common-account\n";

#[test]
fn enable_and_disable_are_each_others_inverse() {
    let lab = Lab::new();
    let fedora =
        "#%PAM-1.0\nauth       substack     password-auth\naccount    include      password-auth\n";
    for stack in [DEBIAN, fedora] {
        let file = lab.path("sshd");
        fs::write(&file, stack).unwrap();
        let dir = lab.path("");
        let run = |arguments: &[&str]| lab.run(&[arguments, &["--pam-dir", &dir]].concat());
        let dry = run(&["enable", "sshd", "--dry-run"]);
        assert!(dry.out.contains("\n+auth     [success=ok ignore=ignore module_unknown=ignore"));
        assert_eq!(fs::read_to_string(&file).unwrap(), stack, "a rehearsal changes nothing");
        assert_eq!(run(&["enable", "sshd"]).status, 0);
        let enabled = fs::read_to_string(&file).unwrap();
        let kinds: Vec<&str> = enabled
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.split_whitespace().next().unwrap())
            .collect();
        assert_eq!(kinds[..2], ["auth", "account"], "before every include");
        assert_eq!(enabled.lines().next(), stack.lines().next(), "the header stays first");
        assert_eq!(fs::read_to_string(lab.path("sshd.prefixquota-backup")).unwrap(), stack);
        assert!(run(&["enable", "sshd"]).out.contains("enabled already"));
        assert_eq!(fs::read_to_string(&file).unwrap(), enabled);
        assert_eq!(run(&["disable", "sshd"]).status, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), stack);
        assert_eq!(fs::read_to_string(lab.path("sshd.prefixquota-backup")).unwrap(), stack);
        assert!(run(&["disable", "sshd"]).out.contains("is not enabled"));
    }
    let half = "auth required pam_prefixquota.so\n";
    fs::write(lab.path("half"), half).unwrap();
    let run = lab.run(&["enable", "half", "--pam-dir", &lab.path("")]);
    assert_eq!((run.status, run.err.contains("only one of the module's two lines")), (2, true));
    let missing = lab.run(&["enable", "missing", "--pam-dir", &lab.path("")]);
    assert_eq!(missing.status, 2);
}

#[test]
fn help_names_every_subcommand() {
    let help = Lab::new().run(&["--help"]).out;
    for name in [
        "status", "check", "top", "list", "policy", "record", "forgive", "country", "config",
        "enable", "disable", "doctor", "backup", "prune", "repair",
    ] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
}
