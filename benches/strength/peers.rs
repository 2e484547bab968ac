//! The peers as Debian ships them: their PAM stacks, and the daemons that read logs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ipnet::IpNet;

use crate::attack::Cell;
use crate::common::lab::{Lab, await_until};
use crate::common::module;
use crate::common::pam::write_stack;

#[derive(Clone, Copy, PartialEq)]
pub enum Peer {
    Prefixquota,
    Abl,
    Faillock,
    Fail2ban,
    Sshguard,
}

pub const PEERS: [Peer; 5] =
    [Peer::Prefixquota, Peer::Abl, Peer::Faillock, Peer::Fail2ban, Peer::Sshguard];

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Prefixquota => "prefixquota",
            Peer::Abl => "pam_abl",
            Peer::Faillock => "pam_faillock",
            Peer::Fail2ban => "fail2ban",
            Peer::Sshguard => "sshguard",
        })
    }
}

impl Peer {
    /// Writes what a cell needs before anything is started.
    pub fn prepare(self, cell: &Cell) {
        let dir = &cell.dir;
        let here = dir.display();
        let (before, after) = match self {
            Peer::Prefixquota => {
                let control = "[success=ok ignore=ignore module_unknown=ignore default=die]";
                let line = format!("{control} {} database={here}/db", module().display());
                (format!("auth {line}\n"), format!("account {line}\n"))
            }
            Peer::Abl => {
                let settings = fs::read_to_string("/etc/security/pam_abl.conf").unwrap();
                let settings = settings.replace("/var/lib/abl", &here.to_string());
                fs::write(dir.join("abl.conf"), settings).unwrap();
                (format!("auth requisite pam_abl.so config={here}/abl.conf\n"), String::new())
            }
            Peer::Faillock => (
                format!("auth requisite pam_faillock.so preauth dir={here}\n"),
                format!(
                    "auth [default=die] pam_faillock.so authfail dir={here}\n\
                     account required pam_faillock.so dir={here}\n"
                ),
            ),
            Peer::Fail2ban | Peer::Sshguard => {
                File::create(dir.join("log")).unwrap();
                (String::new(), String::new())
            }
        };
        // `requisite` above: what is denied is then not checked either, and so not counted.
        let check = if self == Peer::Faillock { "sufficient" } else { "required" };
        let check = format!("auth {check} pam_unix.so nodelay\n");
        write_stack(dir, "sshd", &format!("{before}{check}{after}account required pam_unix.so\n"));
        write_stack(dir, "other", "auth required pam_deny.so\n");
    }

    fn reads_logs(self) -> bool {
        matches!(self, Peer::Fail2ban | Peer::Sshguard)
    }

    /// Whether the firewall would drop packets from `source` now.
    pub fn bans(self, cell: &Cell, source: Ipv6Addr) -> bool {
        if !self.reads_logs() {
            return false;
        }
        // Lines "ban PREFIX" and "unban PREFIX", the last of which counts.
        let bans = fs::read_to_string(cell.dir.join("bans")).unwrap_or_default();
        let last = bans.lines().rev().find_map(|line| {
            let (verb, prefix) = line.split_once(' ')?;
            prefix.parse::<IpNet>().ok()?.contains(&std::net::IpAddr::V6(source)).then_some(verb)
        });
        last == Some("ban")
    }

    /// What sshd logs about a wrong password.
    pub fn log_failure(self, cell: &Cell, user: &str, source: Ipv6Addr) {
        let about = format!("{user} {source} port 50022");
        self.log(
            cell,
            &[
                format!(
                    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh \
                     ruser= rhost={source}  user={user}"
                ),
                format!("Failed password for {user} from {source} port 50022 ssh2"),
                format!("Connection closed by authenticating user {about} [preauth]"),
            ],
        );
    }

    pub fn log_success(self, cell: &Cell, user: &str, source: Ipv6Addr) {
        let line = format!("Accepted password for {user} from {source} port 50022 ssh2");
        self.log(cell, &[line]);
    }

    fn log(self, cell: &Cell, lines: &[String]) {
        if !self.reads_logs() {
            return;
        }
        let head = format!("{} host sshd[{}]: ", timestamp(), std::process::id());
        let text: String = lines.iter().map(|line| format!("{head}{line}\n")).collect();
        // In one piece, as syslog daemons write.
        let log = OpenOptions::new().append(true).open(cell.dir.join("log"));
        log.unwrap().write_all(text.as_bytes()).unwrap();
    }
}

/// Now, as Debian's rsyslog writes it.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// Starts the daemons: one fail2ban with a jail for each of its cells, and an sshguard for each of
/// its own. Returns once each has banned somebody.
pub fn start(lab: &Lab, cells: &[Cell]) -> Vec<Child> {
    let of = |peer| cells.iter().filter(move |cell| cell.peer == peer);
    let mut daemons = vec![fail2ban(lab, &of(Peer::Fail2ban).collect::<Vec<_>>())];
    sshguard_settings(lab);
    daemons.extend(of(Peer::Sshguard).map(|cell| sshguard(&cell.dir)));
    for cell in cells.iter().filter(|cell| cell.peer.reads_logs()) {
        let canary = cell.elsewhere(0);
        await_until(&format!("{} to be at work", cell.peer), || {
            cell.peer.log_failure(cell, "root", canary);
            std::thread::sleep(std::time::Duration::from_millis(100));
            cell.peer.bans(cell, canary)
        });
    }
    daemons
}

/// Debian's settings and filter. Only its own jail, which wants a log that is not here, makes room
/// for those of the cells, and a ban is a line in a file.
fn fail2ban(lab: &Lab, cells: &[&Cell]) -> Child {
    lab.etc(
        "fail2ban/action.d/note.conf",
        "[Definition]\n\
         actionban = echo ban <ip>/128 >>\"<file>\"\n\
         actionunban = echo unban <ip>/128 >>\"<file>\"\n",
    );
    let mut jails = "[sshd]\nenabled = false\n".to_owned();
    for cell in cells {
        let (name, dir) = (cell.name(), cell.dir.display());
        jails += &format!(
            "[{name}]\nenabled = true\nfilter = sshd[mode=%(mode)s]\nlogpath = {dir}/log\n\
             action = note[file={dir}/bans]\n"
        );
    }
    lab.etc("fail2ban/jail.local", &jails);
    let database = lab.dir().join("fail2ban.sqlite3");
    lab.etc("fail2ban/fail2ban.local", &format!("[Definition]\ndbfile = {}\n", database.display()));
    fs::create_dir("/run/fail2ban").unwrap();
    quiet(Command::new("fail2ban-server").arg("-f"))
}

/// Debian's settings; only the log is a file in place of the journal, and the backend one that
/// writes bans into a file. sshguard's settings are a shell script: `$CELL` is where they lie.
fn sshguard_settings(lab: &Lab) {
    let mut settings = fs::read_to_string("/etc/sshguard/sshguard.conf").unwrap();
    settings += "\nunset LOGREADER\nFILES=\"$CELL/log\"\nBACKEND=\"$CELL/backend\"\n";
    lab.etc("sshguard/sshguard.conf", &settings);
}

fn sshguard(dir: &Path) -> Child {
    let backend = dir.join("backend");
    let script = "#!/bin/sh\n\
                  while read -r verb address _ bits; do\n\
                  \x20   case $verb in\n\
                  \x20       block) echo \"ban $address/$bits\" ;;\n\
                  \x20       release) echo \"unban $address/$bits\" ;;\n\
                  \x20   esac >>\"$CELL/bans\"\n\
                  done\n";
    fs::write(&backend, script).unwrap();
    fs::set_permissions(&backend, PermissionsExt::from_mode(0o755)).unwrap();
    quiet(Command::new("sshguard").env("CELL", dir))
}

/// The end of the lab's process namespace ends it.
fn quiet(command: &mut Command) -> Child {
    let nowhere = [Stdio::null(), Stdio::null(), Stdio::null()];
    let [stdin, stdout, stderr] = nowhere;
    // A group of its own: when sshguard ends it signals all of it.
    command.process_group(0);
    command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap_or_else(|error| {
        panic!("{}: {error}", command.get_program().display());
    })
}
