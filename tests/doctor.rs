//! `doctor` and `status` on a machine of their own, sound and with each fault planted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stderr)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::lab::{self, DOVECOT, Lab, SSHD};
use serde_json::Value;

const STORE: &str = "/var/lib/prefixquota/prefixquota.db";
const CONTROL: &str = "[success=ok ignore=ignore module_unknown=ignore default=die]";
const DOVECOT_CONF: &str = "protocols = imap\nssl = no\nuserdb {\n  driver = passwd\n}\n\
                            passdb {\n  driver = pam\n}\n";
const SSHD_CONF: &str = "UsePAM yes\nKbdInteractiveAuthentication yes\n";

/// A machine on which nothing is wrong: sshd, Dovecot and vsftpd are protected.
fn make_sound(lab: &Lab) {
    for (service, distribution) in
        [("sshd", "debian-12"), ("dovecot", "debian-12"), ("vsftpd", "debian-12")]
    {
        let stacks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks");
        let stack = fs::read_to_string(format!("{stacks}/{distribution}/{service}")).unwrap();
        lab.etc(&format!("pam.d/{service}"), &stack);
        let run = common::command().args(["enable", service]).output().unwrap();
        assert!(run.status.success());
    }
    lab.etc("ssh/sshd_config", SSHD_CONF);
    lab.etc("dovecot/dovecot.conf", DOVECOT_CONF);
    lab.etc("vsftpd.conf", "pam_service_name=vsftpd\n");
    lab.etc("security/prefixquota.conf", "# nothing\n");
    for file in ["/etc/pam.d/proftpd", "/etc/proftpd.conf"] {
        let _ = fs::remove_file(file);
    }
    mode(Path::new("/etc/security/prefixquota.conf"), 0o644);
    mode(&module(), 0o644);
    for planted in ["/sys/fs", "/sys/kernel/security"] {
        let _ = Command::new("umount").arg(planted).output();
    }
    let _ = fs::remove_dir_all("/var/lib/prefixquota");
    lab::run("install", &["-d", "-m", "0700", "/var/lib/prefixquota"]);
    let run = common::command().args(["record", "2001:db8::1"]).output().unwrap();
    assert!(run.status.success());
}

fn module() -> PathBuf {
    let libs = fs::read_dir("/usr/lib").unwrap().map(|lib| lib.unwrap().path());
    let mut files = libs.map(|lib| lib.join("security/pam_prefixquota.so"));
    files.find(|file| file.exists()).expect("the lab has installed it")
}

fn mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

/// Exit status and findings.
fn doctor(arguments: &[&str]) -> (i32, Vec<Value>) {
    let run =
        common::command().args(["doctor", "--format", "json"]).args(arguments).output().unwrap();
    assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
    let findings: Value = serde_json::from_slice(&run.stdout).unwrap();
    (run.status.code().unwrap(), findings.as_array().unwrap().clone())
}

fn text<'v>(finding: &'v Value, field: &str) -> &'v str {
    finding[field].as_str().unwrap_or_default()
}

/// Changes a file by replacing a part of it.
fn change(file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// A fault, and the finding that must tell of it: level, about, and parts of what was found and of
/// how to mend it.
type Fault<'f> = (&'f str, &'f dyn Fn(&Lab), [&'f str; 4]);

fn check(lab: &Lab, faults: &[Fault<'_>]) {
    for (name, plant, [level, about, found, mend]) in faults {
        make_sound(lab);
        let before = doctor(&[]);
        assert_eq!(before.0, 0, "before {name}: {:#?}", before.1);
        plant(lab);
        let (status, findings) = doctor(&[]);
        let tells = |f: &&Value| text(f, "about") == *about && text(f, "found").contains(found);
        let finding = findings.iter().find(tells);
        let finding = finding.unwrap_or_else(|| panic!("{name}: not found in {findings:#?}"));
        assert_eq!(text(finding, "level"), *level, "{name}: {finding}");
        assert!(text(finding, "mend").contains(mend), "{name}: {finding}");
        let is_wrong = findings.iter().any(|finding| text(finding, "level") == "wrong");
        assert_eq!(status, i32::from(is_wrong), "{name}");
        for finding in &findings {
            let is_ok = text(finding, "level") == "ok";
            assert_eq!(finding["mend"].is_null(), is_ok, "each fault has its remedy: {finding}");
        }
    }
}

#[test]
fn a_sound_machine_and_faults_of_ours_are_told_apart() {
    let test = "a_sound_machine_and_faults_of_ours_are_told_apart";
    let Some(lab) = lab::enter(test, &[SSHD, DOVECOT]) else { return };
    lab.install();
    let sshd = "/etc/pam.d/sshd";
    let auth = format!("auth     {CONTROL}  pam_prefixquota.so\n");
    let account = format!("account  {CONTROL}  pam_prefixquota.so\n");
    let file = module();
    let old = || {
        let mut bytes = fs::read(&file).unwrap();
        let name = pam_prefixquota::VERSION.as_bytes();
        let places: Vec<usize> =
            (0..bytes.len() - name.len()).filter(|&at| bytes[at..].starts_with(name)).collect();
        for at in places {
            bytes[at..at + name.len()].copy_from_slice(b"prefixquota 0.0.9");
        }
        bytes
    };
    let whole = fs::read(&file).unwrap();
    check(
        &lab,
        &[
            (
                "others may write to the module",
                &|_| mode(&file, 0o666),
                ["wrong", "module", "may be written by others", "chmod 0644"],
            ),
            (
                "an older module",
                &|_| fs::write(&file, old()).unwrap(),
                ["wrong", "module", "is prefixquota 0.0.9, and this command", "same build"],
            ),
        ],
    );
    fs::write(&file, &whole).unwrap();
    check(
        &lab,
        &[
            (
                "no auth line",
                &|_| change(sshd, &auth, ""),
                [
                    "wrong",
                    "sshd",
                    "no auth line of the module: nothing is counted",
                    "prefixquota enable sshd",
                ],
            ),
            (
                "no account line",
                &|_| change(sshd, &account, ""),
                ["wrong", "sshd", "no account line", "prefixquota enable sshd"],
            ),
            (
                "behind an include",
                &|_| {
                    change(sshd, &auth, "");
                    change(
                        sshd,
                        "@include common-account",
                        &format!("@include common-account\n{auth}"),
                    );
                },
                ["wrong", "sshd", "stands before the module's auth line", "to the top"],
            ),
            (
                "another control field",
                &|_| change(sshd, &auth, "auth required pam_prefixquota.so\n"),
                ["wrong", "sshd", "the control field is required", "Expected: [success=ok"],
            ),
            (
                "two stores",
                &|_| {
                    change(
                        sshd,
                        &account,
                        &account.replace(".so", ".so database=/var/lib/prefixquota/b.db"),
                    )
                },
                ["wrong", "sshd", "the two lines use different stores", "Give both the same"],
            ),
            (
                "a wrong argument",
                &|_| change(sshd, "pam_prefixquota.so", "pam_prefixquota.so half_life=never"),
                ["wrong", "sshd", "half_life = never", "prefixquota.conf(5)"],
            ),
            (
                "a store of its own",
                &|_| {
                    change(
                        sshd,
                        "pam_prefixquota.so",
                        "pam_prefixquota.so database=/var/lib/prefixquota/b.db",
                    )
                },
                [
                    "note",
                    "sshd",
                    "has a store of its own",
                    "--database /var/lib/prefixquota/b.db doctor",
                ],
            ),
            (
                "a second factor behind the password",
                &|_| {
                    change(
                        sshd,
                        "@include common-auth",
                        "@include common-auth\nauth required pam_google_authenticator.so",
                    )
                },
                ["wrong", "sshd", "pam_google_authenticator.so asks for a second", "repeat=no"],
            ),
            (
                "watching",
                &|_| change(sshd, "pam_prefixquota.so", "pam_prefixquota.so enforcing=no"),
                ["note", "sshd", "enforcing=no", "take that argument out"],
            ),
            (
                "a shared file",
                &|_| change("/etc/pam.d/common-auth", "# here are", &format!("{auth}# here are")),
                ["note", "common-auth", "names the module, for sudo", "one by one"],
            ),
        ],
    );
    change("/etc/pam.d/common-auth", &auth, "");
    check(
        &lab,
        &[
            (
                "sshd not protected",
                &|_| {
                    common::command().args(["disable", "sshd"]).output().unwrap();
                },
                ["note", "sshd", "is installed and not protected", "prefixquota enable sshd"],
            ),
            (
                "nothing protected",
                &|_| {
                    for service in ["sshd", "dovecot", "vsftpd"] {
                        common::command().args(["disable", service]).output().unwrap();
                    }
                },
                ["wrong", "stacks", "no service is protected", "prefixquota enable sshd"],
            ),
            (
                "a wrong setting",
                &|lab| lab.etc("security/prefixquota.conf", "\nhalf_life = never\n"),
                [
                    "wrong",
                    "settings",
                    "prefixquota.conf, line 2: half_life = never: expected",
                    "correct or remove",
                ],
            ),
            (
                "others may write the settings",
                &|_| mode(Path::new("/etc/security/prefixquota.conf"), 0o666),
                ["wrong", "settings", "may be written by others", "chmod 0644"],
            ),
            (
                "not enforcing",
                &|lab| lab.etc("security/prefixquota.conf", "enforcing = no\n"),
                ["note", "settings", "enforcing = no", "enforcing = yes"],
            ),
        ],
    );
    // Last: the file goes.
    make_sound(&lab);
    fs::remove_file(&file).unwrap();
    let (status, findings) = doctor(&[]);
    let found = findings.iter().find(|f| text(f, "about") == "module").unwrap();
    assert_eq!((status, text(found, "level")), (1, "wrong"));
    assert!(text(found, "found").contains("pam_prefixquota.so is not in /usr/lib"), "{found}");
}

#[test]
fn faults_of_the_store_and_the_machine_are_found() {
    let test = "faults_of_the_store_and_the_machine_are_found";
    let Some(lab) = lab::enter(test, &[SSHD, DOVECOT]) else { return };
    lab.install();
    let (store, directory) = (Path::new(STORE), Path::new("/var/lib/prefixquota"));
    let sql = |sql: &str| rusqlite::Connection::open(STORE).unwrap().execute_batch(sql).unwrap();
    let mount = |directory: &str| lab::run("mount", &["-t", "tmpfs", "lab", directory]);
    check(
        &lab,
        &[
            (
                "no directory",
                &|_| fs::remove_dir_all(directory).unwrap(),
                ["wrong", "store", "No such file", "install -d -m 0700 /var/lib/prefixquota"],
            ),
            (
                "an open directory",
                &|_| mode(directory, 0o777),
                ["wrong", "store", "may be written by others", "chmod 0700 /var/lib/prefixquota"],
            ),
            (
                "a writable file",
                &|_| mode(store, 0o666),
                ["wrong", "store", "may be written by others", "chmod 0600"],
            ),
            (
                "a readable file",
                &|_| mode(store, 0o644),
                ["wrong", "store", "may be read by others", "chmod 0600"],
            ),
            (
                "somebody else's",
                &|_| std::os::unix::fs::chown(store, Some(2001), None).unwrap(),
                ["wrong", "store", "belongs to somebody else", "chown root:root"],
            ),
            (
                "noise",
                &|_| fs::write(store, "noise".repeat(3_000)).unwrap(),
                ["wrong", "store", "is broken: ", "prefixquota repair"],
            ),
            (
                "a missing trigger",
                &|_| sql("DROP TRIGGER failure_removed"),
                [
                    "wrong",
                    "store",
                    "schema: trigger failure_removed is missing",
                    "prefixquota repair",
                ],
            ),
            (
                "a newer store",
                &|_| sql("PRAGMA user_version = 99"),
                ["wrong", "store", "has version 99", "Install the newer"],
            ),
            (
                "a foreign file",
                &|_| {
                    fs::remove_dir_all(directory).unwrap();
                    lab::run("install", &["-d", "-m", "0700", "/var/lib/prefixquota"]);
                    sql("CREATE TABLE t (a)");
                    mode(store, 0o600);
                },
                ["wrong", "store", "not a store of prefixquota", "Move that file away"],
            ),
            (
                "from the future",
                &|_| sql("UPDATE failure SET at = at + 864000000"),
                ["note", "store", "failures from the future", "the clock is right"],
            ),
            (
                "a long log",
                &|_| fs::write(format!("{STORE}-wal"), vec![0; 5_000_000]).unwrap(),
                ["note", "store", "5000 kB", "prefixquota prune"],
            ),
            (
                "no store yet",
                &|_| {
                    for suffix in ["", "-wal", "-shm"] {
                        let _ = fs::remove_file(format!("{STORE}{suffix}"));
                    }
                },
                ["ok", "store", "not there yet", ""],
            ),
            (
                "no countries",
                &|lab| lab.etc("security/prefixquota.conf", "country_deny = DE\n"),
                ["wrong", "countries", "country.db", "prefixquota country import"],
            ),
            (
                "SELinux",
                &|_| {
                    mount("/sys/fs");
                    fs::create_dir("/sys/fs/selinux").unwrap();
                    fs::write("/sys/fs/selinux/enforce", "1").unwrap();
                },
                ["note", "selinux", "is enforcing", "ausearch"],
            ),
            (
                "AppArmor",
                &|_| {
                    mount("/sys/kernel/security");
                    fs::create_dir("/sys/kernel/security/apparmor").unwrap();
                    let profiles = "lsb_release (enforce)\n/usr/sbin/sshd (enforce)\n";
                    fs::write("/sys/kernel/security/apparmor/profiles", profiles).unwrap();
                },
                ["wrong", "apparmor", "the profile /usr/sbin/sshd", "systemctl reload apparmor"],
            ),
        ],
    );
    // What AppArmor's documents tell to write is seen.
    lab::run("install", &["-d", "/etc/apparmor.d/abstractions/authentication.d"]);
    lab.etc(
        "apparmor.d/abstractions/authentication.d/prefixquota",
        "/var/lib/prefixquota/** rwk,\n",
    );
    let (status, findings) = doctor(&[]);
    assert_eq!(status, 0, "{findings:#?}");
}

#[test]
fn settings_of_the_servers_are_examined() {
    let test = "settings_of_the_servers_are_examined";
    let Some(lab) = lab::enter(test, &[SSHD, DOVECOT]) else { return };
    lab.install();
    let sshd = |settings: &'static str| move |lab: &Lab| lab.etc("ssh/sshd_config", settings);
    let dovecot = |more: &'static str| {
        move |lab: &Lab| {
            lab.etc("dovecot/dovecot.conf", &format!("{DOVECOT_CONF}{more}"));
        }
    };
    let second = "passdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n";
    let cached =
        DOVECOT_CONF.replace("driver = pam", "driver = pam\n  args = cache_key=%u%s dovecot");
    let by_address =
        DOVECOT_CONF.replace("driver = pam", "driver = pam\n  args = cache_key=%u%s%r dovecot");
    check(
        &lab,
        &[
            ("UsePAM no", &sshd("UsePAM no\n"), ["wrong", "sshd", "UsePAM no", "Set UsePAM yes"]),
            (
                "UseDNS yes",
                &sshd("UsePAM yes\nUseDNS yes\n"),
                ["note", "sshd", "UseDNS yes", "UseDNS no"],
            ),
            (
                "keys only",
                &sshd("UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"),
                ["note", "sshd", "takes no passwords", "keys alone"],
            ),
            (
                "no dialogue",
                &sshd("UsePAM yes\nKbdInteractiveAuthentication no\n"),
                [
                    "note",
                    "sshd",
                    "KbdInteractiveAuthentication no",
                    "KbdInteractiveAuthentication yes",
                ],
            ),
            (
                "many tries",
                &sshd("UsePAM yes\nMaxAuthTries 50\n"),
                ["note", "sshd", "MaxAuthTries 50", "MaxAuthTries 6"],
            ),
            (
                "sshd does not start",
                &sshd("Nonsense yes\n"),
                ["note", "sshd", "sshd -T fails: ", "Run it yourself"],
            ),
            (
                "dovecot does not start",
                &dovecot("nonsense = yes\n"),
                ["note", "dovecot", "doveconf -P fails: ", "Run it yourself"],
            ),
            (
                "a second passdb",
                &dovecot(second),
                ["wrong", "dovecot", "result_failure = continue", "return-fail"],
            ),
            (
                "a passdb before",
                &|lab| lab.etc("dovecot/dovecot.conf", &format!("{second}{DOVECOT_CONF}")),
                ["note", "dovecot", "another passdb is asked before", "pam passdb first"],
            ),
            (
                "no pam",
                &|lab| {
                    lab.etc(
                        "dovecot/dovecot.conf",
                        &DOVECOT_CONF.replace("driver = pam", "driver = passwd-file\n  args = /u"),
                    )
                },
                ["note", "dovecot", "no passdb uses PAM", "checked elsewhere"],
            ),
            (
                "another service",
                &|lab| {
                    lab.etc(
                        "dovecot/dovecot.conf",
                        &DOVECOT_CONF.replace("driver = pam", "driver = pam\n  args = %s"),
                    )
                },
                ["wrong", "dovecot", "the PAM service imap", "prefixquota enable imap"],
            ),
            (
                "a cache",
                &|lab| {
                    lab.etc("dovecot/dovecot.conf", &format!("auth_cache_size = 10 M\n{cached}"))
                },
                ["wrong", "dovecot", "auth_cache_size = 10 M", "auth_cache_size = 0"],
            ),
            (
                "trusted networks",
                &dovecot("login_trusted_networks = 192.0.2.7\n"),
                ["note", "dovecot", "login_trusted_networks = 192.0.2.7", "webmail"],
            ),
            (
                "all are trusted",
                &dovecot("login_trusted_networks = 0.0.0.0/0\n"),
                ["wrong", "dovecot", "anybody may claim any address", "Name only"],
            ),
            (
                "vsftpd looks names up",
                &|lab| lab.etc("vsftpd.conf", "reverse_lookup_enable=YES\n"),
                ["wrong", "vsftpd", "reverse_lookup_enable=YES", "reverse_lookup_enable=NO"],
            ),
            (
                "proftpd looks names up",
                &|lab| {
                    lab.etc("pam.d/proftpd", &fs::read_to_string("/etc/pam.d/vsftpd").unwrap());
                    lab.etc("proftpd.conf", "ServerName x\n");
                },
                ["wrong", "proftpd", "UseReverseDNS is on", "UseReverseDNS off"],
            ),
            (
                "proftpd does not",
                &|lab| {
                    lab.etc("pam.d/proftpd", &fs::read_to_string("/etc/pam.d/vsftpd").unwrap());
                    lab.etc("proftpd.conf", "UseReverseDNS off\n");
                },
                ["ok", "proftpd", "gives PAM addresses", ""],
            ),
        ],
    );
    // What is well is not complained of.
    for conf in [
        format!("auth_cache_size = 10 M\n{DOVECOT_CONF}"),
        format!("auth_cache_size = 10 M\n{by_address}"),
        format!(
            "{}{second}",
            DOVECOT_CONF.replace("driver = pam", "driver = pam\n  result_failure = return-fail")
        ),
    ] {
        lab.etc("dovecot/dovecot.conf", &conf);
        let (_, findings) = doctor(&[]);
        let dovecot = findings.iter().filter(|f| text(f, "about") == "dovecot");
        assert!(dovecot.into_iter().all(|f| text(f, "level") == "ok"), "{conf}: {findings:#?}");
    }
    // A newer sshd, played by a script; and one that hangs.
    lab::run("mount", &["-t", "tmpfs", "lab", "/usr/local/sbin"]);
    let plays = |script: &str| {
        fs::write("/usr/local/sbin/sshd", format!("#!/bin/sh\n{script}\n")).unwrap();
        mode(Path::new("/usr/local/sbin/sshd"), 0o755);
    };
    make_sound(&lab);
    let settings = "usepam yes\\nkbdinteractiveauthentication yes\\nmaxauthtries 6";
    for (penalties, expected) in
        [("crash:90 authfail:5", None), ("no", Some("PerSourcePenalties no"))]
    {
        plays(&format!("printf '{settings}\\npersourcepenalties {penalties}\\n'"));
        let (status, findings) = doctor(&[]);
        let sshd = |f: &&Value| text(f, "about") == "sshd" && text(f, "level") == "note";
        let found = findings.iter().find(sshd).map(|f| text(f, "found"));
        assert_eq!((status, found), (0, expected));
    }
    // Dovecot 2.4, which caches PAM without being asked to.
    lab::run("mount", &["-t", "tmpfs", "lab", "/usr/local/bin"]);
    let cached = "dovecot_config_version = 2.4.0\nauth_cache_size = 10M\n";
    let local = "passdb local {\n  driver = pam\n  passdb_pam_service_name = imap\n}\n";
    let first = "passdb pam {\n  result_failure = continue\n}\npassdb passwd-file {\n}\n";
    for (conf, expected) in [
        (cached.to_owned() + "passdb pam {\n}\n", Some("auth_cache_size = 10M")),
        (first.to_owned(), Some("result_failure = continue")),
        (local.to_owned(), Some("the PAM service imap of its passdb is not protected")),
        ("auth_cache_size = 0\npassdb pam {\n  service_name = dovecot\n}\n".to_owned(), None),
    ] {
        let script = format!("#!/bin/sh\ncat <<'END'\n{conf}END\n");
        fs::write("/usr/local/bin/doveconf", script).unwrap();
        mode(Path::new("/usr/local/bin/doveconf"), 0o755);
        let (status, findings) = doctor(&[]);
        let wrong = findings.iter().find(|f| text(f, "level") == "wrong");
        let found = wrong.map(|finding| text(finding, "found"));
        assert_eq!(status, i32::from(expected.is_some()), "{conf}: {findings:#?}");
        assert!(expected.is_none_or(|expected| found.unwrap().starts_with(expected)), "{found:?}");
    }
    plays("sleep 1000 & sleep 1000");
    let (_, findings) = doctor(&[]);
    let hangs = |f: &Value| text(f, "found").starts_with("sshd -T did not end within");
    assert!(findings.iter().any(hangs), "{findings:#?}");
}

#[test]
fn status_tells_the_findings_in_short() {
    let Some(lab) = lab::enter("status_tells_the_findings_in_short", &[SSHD, DOVECOT]) else {
        return;
    };
    lab.install();
    make_sound(&lab);
    let status = || {
        let run = |format: &[&str]| {
            let run = common::command().arg("status").args(format).output().unwrap();
            assert!(run.status.success());
            String::from_utf8(run.stdout).unwrap()
        };
        let json: Value = serde_json::from_str(&run(&["--format", "json"])).unwrap();
        (run(&[]), json)
    };
    let (shown, json) = status();
    let words: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(words.contains(&vec!["protected", "dovecot,", "sshd,", "vsftpd"]), "{shown}");
    assert!(words.contains(&vec!["known", "places", "0"]), "{shown}");
    assert!(shown.contains("nothing is wrong, notes: 1"), "{shown}");
    assert_eq!(json["protected"], serde_json::json!(["dovecot", "sshd", "vsftpd"]));
    assert_eq!(
        (&json["wrong"], &json["rules"], &json["addresses"]),
        (&0.into(), &0.into(), &1.into())
    );
    lab.etc("ssh/sshd_config", "UsePAM no\n");
    let rule = common::command().args(["rule", "add", "2001:db8::/48", "exempt"]).output().unwrap();
    assert!(rule.status.success());
    let (shown, json) = status();
    assert!(shown.contains("wrong: 1, notes: "), "{shown}");
    assert!(
        shown.contains("\n  sshd: UsePAM no: the module is never asked. Set UsePAM yes"),
        "{shown}"
    );
    assert_eq!((&json["wrong"], &json["rules"]), (&1.into(), &1.into()));
}
