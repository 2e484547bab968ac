//! Countries: codes and lists, the command, and the file that it makes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::country::{Lab, NETWORKS, known};
use common::mmdb::Mmdb;
use common::store::source;
use pam_prefixquota::config::Config;
use pam_prefixquota::country::{Countries, Country, country_of, is_denied};
use pam_prefixquota::source::Source;
use serde_json::Value as Json;

#[test]
fn codes_are_those_of_iso_3166() {
    for text in ["DE", "de", "De"] {
        assert_eq!(known(text).to_string(), "DE");
    }
    for text in ["unknown", "UNKNOWN", "Unknown"] {
        assert_eq!((known(text), known(text).to_string().as_str()), (Country::Unknown, "unknown"));
    }
    for text in ["", "D", "DEU", "D1", "ZZ", "UK", "EU", "dé", "\u{1b}[", "* "] {
        let error = Country::parse(text).unwrap_err();
        assert_eq!(
            error,
            format!(
                "{text:?} is not a country: expected a code of ISO 3166-1, such as DE, or unknown"
            )
        );
        assert!(!error.contains(char::is_control));
    }
    // As far as this machine knows them.
    let table = fs::read_to_string("/usr/share/zoneinfo/iso3166.tab").unwrap_or_default();
    for code in table.lines().filter(|line| !line.starts_with('#')) {
        known(code.split('\t').next().unwrap());
    }
}

#[test]
fn lists_deny_what_is_in_one_or_missing_from_the_other() {
    let [de, fr] = [known("DE"), known("FR")];
    let unknown = Country::Unknown;
    let cases: [(&[Country], &[Country], [bool; 3]); 7] = [
        (&[], &[], [false, false, false]),
        (&[de], &[], [false, true, true]),
        (&[de, unknown], &[], [false, true, false]),
        (&[], &[de], [true, false, false]),
        (&[], &[unknown], [false, false, true]),
        (&[de, fr], &[fr], [false, true, true]),
        (&[unknown], &[unknown], [true, true, true]),
    ];
    for (allow, deny, expected) in cases {
        assert_eq!([de, fr, unknown].map(|c| is_denied(c, allow, deny)), expected);
    }
}

#[test]
fn lists_of_the_settings_add_up() {
    let lab = Lab::new();
    let load = |text: &str| {
        fs::write(lab.path("settings"), text).unwrap();
        Config::load(Some(&lab.path("settings")), &[b"country_deny=us"])
    };
    let config = load("country_allow = de, fr\ncountry_allow = Unknown\ncountry_deny = CH\n");
    assert!(config.problems.is_empty(), "{:?}", config.problems);
    let expected = [known("DE"), known("FR"), Country::Unknown];
    assert_eq!(config.settings.country_allow, expected);
    assert_eq!(config.settings.country_deny, [known("CH"), known("US")]);
    let config = load("silent = yes\ncountry_allow = DE uk\n");
    let found = config.problems[0].to_string();
    let expected = "line 2: country_allow = DE uk: \"uk\" is not a country: expected a code of ISO";
    assert!(found.contains(expected), "{found}");
    assert!(config.settings.country_allow.is_empty() && config.settings.silent);
}

#[test]
fn addresses_that_are_in_no_country_need_no_data() {
    let none = Path::new("/nonexistent/country.db");
    let local = [
        "127.0.0.1",
        "127.255.0.1",
        "::1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "fe80::1",
        "fd00::1",
        "fc00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::192.168.1.1",
    ];
    for address in local {
        assert_eq!(country_of(none, &source(address)).unwrap(), None, "{address}");
    }
    let nameless = country_of(none, &Source::nameless("vsftpd")).unwrap();
    assert_eq!(nameless, Some(Country::Unknown));
    for address in ["100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::", "2002:a00:1::"]
    {
        let error = country_of(none, &source(address)).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent: No such file"), "{address}: {error}");
    }
}

#[test]
fn the_command_says_what_it_did() {
    let lab = Lab::new();
    let (status, out, error) = lab.run(&["country", "show", "192.0.2.1"]);
    let expected = "there is no country data yet; make it: prefixquota country import FILE";
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    let mut mmdb = Mmdb::of(6, 28, &NETWORKS);
    mmdb.database_type = "Te\u{1b}st".to_owned();
    let (status, out, error) = lab.import(&mmdb.write());
    assert_eq!((status, error.as_str()), (0, ""));
    let start = "Imported 7 ranges of 5 countries from Te?st (built 2026-09-21T14:13:20Z) into ";
    assert!(out.starts_with(start) && out.ends_with(" s.\n"), "{out}");
    let (_, out, _) = lab.run(&["country", "show", "2001:db8::1"]);
    assert_eq!(out, "2001:db8::1 is in DE (Te?st, built 2026-09-21T14:13:20Z).\n");
    let (_, out, _) = lab.run(&["country", "show", "192.0.3.1"]);
    assert!(out.starts_with("192.0.3.1 is in no country that is known (Te?st"), "{out}");
    let json = |arguments: &[&str]| -> Json {
        let (status, out, error) = lab.run(&[&["--format", "json"], arguments].concat());
        assert_eq!((status, error.as_str()), (0, ""));
        serde_json::from_str(&out).unwrap()
    };
    let country = |address| json(&["country", "show", address])["country"].clone();
    let found = ["192.0.2.1", "192.0.3.1", "127.0.0.1"].map(country);
    assert_eq!(found, ["DE".into(), "unknown".into(), Json::Null]);
    let again = json(&["country", "import", lab.path("in.mmdb").to_str().unwrap()]);
    assert_eq!((&again["ranges"], &again["countries"]), (&7.into(), &5.into()));
    assert_eq!(again["built"], "2026-09-21T14:13:20Z");
    assert_eq!(lab.run(&["country", "show", "2001:db8::/32"]).0, 2);
    assert_eq!(lab.run(&["country"]).0, 2);
}

#[test]
fn the_new_file_is_private_whole_and_alone() {
    let lab = Lab::new();
    fs::write(lab.path("in.mmdb"), Mmdb::of(6, 24, &NETWORKS).write()).unwrap();
    // Left by somebody who deleted a database by hand: it would be taken for one of the new file.
    fs::write(lab.path("country.db-journal"), "noise").unwrap();
    let made = Command::new("sh")
        .arg("-c")
        .arg("umask 0; exec \"$0\" --config \"$1\" country import \"$2\"")
        .arg(common::command().get_program())
        .args([lab.path("settings"), lab.path("in.mmdb")])
        .output();
    assert!(made.unwrap().status.success());
    assert_eq!(fs::metadata(lab.database()).unwrap().mode() & 0o7777, 0o600);
    let names = |entry: Result<fs::DirEntry, _>| entry.unwrap().file_name().into_string().unwrap();
    let mut left: Vec<String> = fs::read_dir(lab.dir.path()).unwrap().map(names).collect();
    left.sort();
    assert_eq!(left, ["country.db", "in.mmdb", "settings"]);
    assert_eq!(lab.sql("SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    // Who has the old file open keeps it.
    let before = Countries::open(&lab.database()).unwrap();
    assert_eq!(lab.import(&Mmdb::of(4, 24, &[("192.0.2.0/24", "US")]).write()).0, 0);
    assert_eq!(before.of(&source("192.0.2.1")).unwrap(), Some(known("DE")));
    assert_eq!(lab.of("192.0.2.1"), "US");
}

#[test]
fn nothing_else_is_replaced_or_trusted() {
    let good = Mmdb::of(4, 24, &[("192.0.2.0/24", "DE")]).write();
    let refused = |expected: &str, spoil: &dyn Fn(&Lab)| {
        let lab = Lab::new();
        spoil(&lab);
        let before = fs::read(lab.database()).ok();
        let (status, out, error) = lab.import(&good);
        assert_eq!((status, out.as_str()), (2, ""));
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        assert_eq!(fs::read(lab.database()).ok(), before);
        let error = country_of(&lab.database(), &source("192.0.2.1")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let mode = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let foreign = "not a country database of prefixquota; move it away";
    refused(foreign, &|lab| fs::write(lab.database(), "somebody's notes").unwrap());
    refused(foreign, &|lab| fs::write(lab.database(), [7; 5_000]).unwrap());
    refused(foreign, &|lab| {
        let (database, record) = (lab.database(), ["record", "192.0.2.1"]);
        let run = common::command().arg("--database").arg(database).args(record).output();
        assert!(run.unwrap().status.success());
    });
    refused("not a regular file", &|lab| fs::create_dir(lab.database()).unwrap());
    refused("symbolic link", &|lab| symlink("/dev/null", lab.database()).unwrap());
    refused("may be written by others", &|lab| mode(lab.path(""), 0o770));
    refused("may be written by others", &|lab| {
        assert_eq!(lab.import(&good).0, 0);
        mode(lab.database(), 0o620);
    });
    let lab = Lab::new();
    assert_eq!(lab.import(&good).0, 0);
    let conn = rusqlite::Connection::open(lab.database()).unwrap();
    conn.execute_batch("PRAGMA user_version = 2").unwrap();
    let error = Countries::open(&lab.database()).err().unwrap().to_string();
    assert!(error.contains("of another version of prefixquota; make it anew"), "{error}");
    assert_eq!(lab.import(&good).0, 0, "which an import mends");
    assert_eq!(lab.of("192.0.2.1"), "DE");
}
