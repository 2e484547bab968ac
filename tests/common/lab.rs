//! A throwaway machine for end-to-end tests: network, mount and process namespaces of its own,
//! where thousands of addresses are local, `/etc`, `/dev`, `/run` and `/var/log` are private, and
//! every line that a program sends to syslog can be read. Nothing outside changes; when the test
//! ends, the kernel takes every mount and every process away.
//!
//! A test begins with `let Some(lab) = lab::enter("its_name", &[SSHD]) else { return };`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing)]

pub mod bulk;
pub mod client;
pub mod dovecot;
pub mod sshd;
mod syslog;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use syslog::Syslog;

/// Programs that a test cannot do without.
pub const SSHD: &str = "/usr/sbin/sshd";
pub const DOVECOT: &str = "/usr/sbin/dovecot";
pub const SUDO: &str = "/usr/bin/sudo";

/// The users of the lab; both have the password `right`.
pub const USER: &str = "labuser";
pub const MATE: &str = "mate";
pub const RIGHT: &str = "right";
const HASH_OF_RIGHT: &str = "$6$prefixquota$h1O5Lgp1BIReY2y22NMzjJc.ENDlPe24VOnZOHhiX0BlwH1BSYXuOIxZLXIpWXxTsUT6E1IgQHeQIjE7i7ku4/";

/// Names the lab's directory to the test process inside the namespaces.
pub const INSIDE: &str = "PREFIXQUOTA_LAB";

/// The source addresses of the lab. `2001:db9::/32` is the other provider.
const LOCAL: [&str; 3] = ["2001:db8::/32", "2001:db9::/32", "198.18.0.0/15"];

/// Runs the test that calls this once more inside new namespaces, and gives the lab there.
/// Outside it gives `None` once that run has passed, or when it is not possible here.
pub fn enter(test: &str, servers: &[&str]) -> Option<Lab> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return Some(Lab::build(PathBuf::from(dir)));
    }
    if super::root_or_skip(test) && servers.iter().all(|server| installed_or_skip(test, server)) {
        run_inside(test);
    }
    None
}

fn installed_or_skip(test: &str, server: &str) -> bool {
    let installed = Path::new(server).exists();
    if !installed {
        assert!(std::env::var_os("CI").is_none(), "{test} must run in CI, and needs {server}");
        eprintln!("{test}: skipped, needs {server}");
    }
    installed
}

fn run_inside(test: &str) {
    let dir = super::private_dir();
    let run = inside(dir.path(), "300").args(["--exact", test, "--nocapture"]).output();
    let run = run.expect("timeout (coreutils)");
    let stdout = String::from_utf8_lossy(&run.stdout);
    print!("{stdout}{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{test} failed in its namespaces ({}), see above", run.status);
    // A misspelt name would run no test, and pass.
    assert!(stdout.contains("1 passed"), "no test has the name {test}");
}

/// This program once more, in network, mount and process namespaces of its own with the lab in `dir`,
/// for so many seconds at most.
pub fn inside(dir: &Path, seconds: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", seconds, "unshare"])
        .args(["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .env(INSIDE, dir)
        .stdin(Stdio::null());
    command
}

/// The machine, from inside.
pub struct Lab {
    dir: PathBuf,
    syslog: Syslog,
}

impl Lab {
    fn build(dir: PathBuf) -> Lab {
        network();
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "lab", path(&dir)]);
        for name in ["dev", "run", "run/sshd", "log", "mail", "state", "home", "home/.ssh"] {
            fs::create_dir(dir.join(name)).expect("a fresh tmpfs");
        }
        let at = |name: &str| path(&dir.join(name)).to_owned();
        run("chmod", &["0700", &at("state"), &at("home"), &at("home/.ssh")]);
        run("chmod", &["1777", &at("mail")]);
        run("chown", &["-R", "2001:2001", &at("home")]);
        run("cp", &["-a", "/etc", &at("etc")]);
        let nodes = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
        run("cp", &[&["-a"], &nodes[..], &[&at("dev")]].concat());
        for (private, public) in
            [("etc", "/etc"), ("dev", "/dev"), ("run", "/run"), ("log", "/var/log")]
        {
            run("mount", &["--bind", &at(private), public]);
        }
        let lab = Lab { dir, syslog: Syslog::listen("/dev/log") };
        lab.users();
        lab.etc("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n");
        lab.hosts("");
        // The machine's own settings are not under test.
        let _ = fs::remove_file("/etc/security/prefixquota.conf");
        lab
    }

    fn users(&self) {
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        let mut group = fs::read_to_string("/etc/group").unwrap();
        let mut shadow = fs::read_to_string("/etc/shadow").unwrap();
        for (user, id) in [(USER, 2001), (MATE, 2002)] {
            let home = self.dir.join("home");
            passwd += &format!("{user}:x:{id}:{id}::{}:/bin/sh\n", home.display());
            group += &format!("{user}:x:{id}:\n");
            shadow += &format!("{user}:{HASH_OF_RIGHT}:19000:0:99999:7:::\n");
        }
        self.etc("passwd", &passwd);
        self.etc("group", &group);
        self.etc("shadow", &shadow);
    }

    /// Writes a file of the lab's own `/etc`.
    pub fn etc(&self, name: &str, text: &str) {
        fs::write(Path::new("/etc").join(name), text).unwrap();
    }

    /// The names that the resolver knows beside `localhost`.
    pub fn hosts(&self, lines: &str) {
        self.etc("hosts", &format!("127.0.0.1 localhost\n::1 localhost\n{lines}"));
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The arguments of the module that every service of a test shares.
    pub fn arguments(&self) -> String {
        format!("database={}", self.database().display())
    }

    /// The lines that the README shows, in front of a plain `pam_unix` stack without its delay.
    pub fn guard_unix(&self, service: &str, more_arguments: &str) {
        self.guard(service, more_arguments, "auth required pam_unix.so nodelay");
    }

    /// The same with a password check that takes a moment, as a directory server's does.
    pub fn guard_slow_unix(&self, service: &str) {
        let check = "auth optional pam_exec.so quiet /bin/sleep 0.1\n\
                     auth required pam_unix.so nodelay";
        self.guard(service, "", check);
    }

    fn guard(&self, service: &str, more_arguments: &str, check: &str) {
        let control = "[success=ok ignore=ignore module_unknown=ignore default=die]";
        let module = super::module();
        let module = module.display();
        let arguments = format!("{} {more_arguments}", self.arguments());
        let stack = format!(
            "auth {control} {module} {arguments}\n\
             {check}\n\
             account {control} {module} {arguments}\n\
             account required pam_unix.so\n\
             session required pam_permit.so\n"
        );
        self.etc(&format!("pam.d/{service}"), &stack);
    }

    fn database(&self) -> PathBuf {
        self.dir.join("state/prefixquota.db")
    }

    /// The files of the store that others than root may read or change.
    pub fn exposed_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.join("state")).unwrap().map(|file| file.unwrap().path());
        let mode = |file: &PathBuf| fs::metadata(file).unwrap().permissions().mode();
        files.filter(|file| mode(file) & 0o077 != 0).collect()
    }

    /// Puts the module where libpam finds it by its plain name, and gives its store, where it is by
    /// default, a directory.
    pub fn install(&self) {
        let security = fs::canonicalize("/lib").unwrap();
        let mut places =
            fs::read_dir(&security).unwrap().map(|lib| lib.unwrap().path().join("security"));
        let system = places.find(|dir| dir.join("pam_unix.so").exists()).expect("libpam-modules");
        let ours = self.dir.join("security");
        run("cp", &["-a", path(&system), path(&ours)]);
        fs::copy(super::module(), ours.join("pam_prefixquota.so")).unwrap();
        run("chmod", &["0644", path(&ours.join("pam_prefixquota.so"))]);
        run("mount", &["--bind", path(&ours), path(&system)]);
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "lab", "/var/lib"]);
        run("install", &["-d", "-m", "0700", "/var/lib/prefixquota"]);
    }

    /// What Debian's own `sqlite3` command prints about the store, as an administrator asks it.
    pub fn sqlite3(&self, sql: &str) -> String {
        let run = Command::new("sqlite3")
            .args(["-bail", "-cmd", ".timeout 5000"])
            .arg(self.database())
            .arg(sql)
            .output()
            .expect("the sqlite3 command");
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && error.is_empty(), "sqlite3 on `{sql}`: {error}");
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    }

    /// The count of `prefix` now, to one decimal (counts decay while a test runs).
    pub fn count(&self, prefix: &str) -> f64 {
        let sql = format!(
            "SELECT round(coalesce(max(failures), 0), 1) FROM prefix_count WHERE prefix = '{prefix}'"
        );
        let count = self.sqlite3(&sql);
        count.parse().unwrap_or_else(|_| panic!("no number from `{sql}`: {count}"))
    }

    /// What the command prints about the store, and whether it ended with status 0 (and not with
    /// the 1 of "denied").
    pub fn prefixquota(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = super::command();
        let run = command.arg("--database").arg(self.database()).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&run.stderr);
        let done = matches!(run.status.code(), Some(0 | 1)) && error.is_empty();
        assert!(done, "prefixquota {arguments:?} ended with {}: {error}", run.status);
        (run.status.success(), String::from_utf8(run.stdout).unwrap())
    }

    /// Every line in syslog so far that has all of `words`.
    pub fn log_with(&self, words: &[&str]) -> Vec<String> {
        let mut lines = self.syslog.lines();
        lines.retain(|line| words.iter().all(|word| line.contains(word)));
        lines
    }

    /// How many passwords from `rhost` the password check behind the module has found wrong.
    pub fn wrong_passwords(&self, service: &str, rhost: &str) -> usize {
        let check = format!("pam_unix({service}:auth): authentication failure");
        self.log_with(&[&check, &format!("rhost={rhost} ")]).len()
    }

    /// Polls until syslog has a line with all of `words`.
    pub fn await_log(&self, words: &[&str]) {
        await_until(&format!("a log line with {words:?}"), || !self.log_with(words).is_empty());
    }
}

impl Drop for Lab {
    /// What a person needs to see when a test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- syslog of the lab\n{}", self.syslog.lines().join("\n"));
            let rows = Command::new("sqlite3")
                .arg(self.database())
                .arg("SELECT source, round(level, 3), at FROM failure LIMIT 50")
                .output();
            let rows = rows.map(|run| String::from_utf8_lossy(&run.stdout).into_owned());
            eprintln!(
                "--- first rows of the store: source, level, at\n{}",
                rows.unwrap_or_default()
            );
        }
    }
}

/// Makes whole prefixes of addresses ours, on loopback alone.
fn network() {
    run("ip", &["link", "set", "lo", "up"]);
    for family in ["ipv6", "ipv4"] {
        fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1").expect("own network");
    }
    for prefix in LOCAL {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        run("ip", &[family, "route", "add", "local", prefix, "dev", "lo"]);
    }
}

/// Runs a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let run = Command::new(program).args(arguments).output();
    let run = run.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{program} {}: {error}", arguments.join(" "));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary directory with a plain name")
}

/// A wrong password that nobody has tried yet: the same one again would not be counted.
pub fn wrong() -> String {
    String::from_utf8(super::pam::guess()).expect("text").replace(' ', "-")
}

/// Polls `reached` for up to ten seconds.
pub fn await_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "waited ten seconds in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
