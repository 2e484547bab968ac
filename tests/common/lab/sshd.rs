//! The real sshd, and the real ssh with a source address of our choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::client::{Daemon, Outcome, server_for};
use super::{Lab, path, run};

const PORT: u16 = 2222;

/// How a password gets to sshd.
pub const PASSWORD: &str = "password";
pub const INTERACTIVE: &str = "keyboard-interactive";

/// What a client that dies at the prompt leaves behind.
const HANGS_UP: &str = "hangs up at the prompt";

pub struct Sshd<'a> {
    lab: &'a Lab,
    _daemon: Daemon,
}

impl<'a> Sshd<'a> {
    /// Starts sshd with the service `sshd` as the test wrote it.
    pub fn start(lab: &'a Lab, more_settings: &str) -> Sshd<'a> {
        let key = file(lab, "hostkey");
        new_key(&key);
        let config = format!(
            "Port {PORT}\n\
             ListenAddress ::\n\
             ListenAddress 0.0.0.0\n\
             HostKey {}\n\
             PidFile none\n\
             UsePAM yes\n\
             {more_settings}\n\
             UseDNS no\n\
             PasswordAuthentication yes\n\
             KbdInteractiveAuthentication yes\n\
             MaxStartups 100\n\
             StrictModes no\n\
             PrintMotd no\n\
             LogLevel VERBOSE\n",
            key.display()
        );
        fs::write(file(lab, "sshd.conf"), config).unwrap();
        // A client that is asked for a password runs this: it answers, or it hangs up.
        let askpass = format!(
            "#!/bin/sh\n[ \"$ANSWER\" ] || {{ echo '{HANGS_UP}' >&2; kill -9 $PPID; }}\necho \"$ANSWER\"\n"
        );
        fs::write(file(lab, "askpass"), askpass).unwrap();
        run("chmod", &["0755", path(&file(lab, "askpass"))]);
        let mut command = Command::new(super::SSHD);
        command.args(["-D", "-f"]).arg(file(lab, "sshd.conf"));
        Sshd { lab, _daemon: Daemon::start(&mut command, PORT) }
    }

    /// One connection with one try of `password`.
    pub fn login(&self, source: &str, user: &str, method: &str, password: &str) -> Outcome {
        assert!(!password.is_empty(), "the lab hangs up in place of an empty password");
        self.connect(source, user, password, &password_by(method))
    }

    /// One connection whose client dies when it is asked for the password.
    #[track_caller]
    pub fn hang_up(&self, source: &str, user: &str) {
        let outcome = self.connect(source, user, "", &password_by(INTERACTIVE));
        assert!(outcome.said.contains(HANGS_UP), "no prompt came: {}", outcome.said);
    }

    /// A public-key login.
    pub fn key_login(&self, source: &str, user: &str) -> Outcome {
        let key = file(self.lab, "userkey");
        if !key.exists() {
            new_key(&key);
            let known = self.lab.dir().join("home/.ssh/authorized_keys");
            fs::copy(key.with_extension("pub"), &known).unwrap();
            run("chmod", &["0644", path(&known)]);
        }
        let identity = format!("IdentityFile={}", key.display());
        self.connect(source, user, "none", &["PreferredAuthentications=publickey", &identity])
    }

    /// A wrong password first and then the user's key, on one connection.
    pub fn guess_then_key(&self, source: &str, user: &str) -> Outcome {
        let key = file(self.lab, "userkey");
        let identity = format!("IdentityFile={}", key.display());
        let methods = "PreferredAuthentications=password,publickey";
        self.connect(source, user, "wrong", &[methods, &identity])
    }

    fn connect(&self, source: &str, user: &str, answer: &str, options: &[&str]) -> Outcome {
        let port = PORT.to_string();
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "40", "ssh", "-F", "none", "-b", source, "-p", &port])
            .args(["-o", "NumberOfPasswordPrompts=1", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=INFO"]);
        for option in options {
            command.args(["-o", option]);
        }
        let run = command
            .arg(format!("{user}@{}", server_for(source)))
            .arg("echo in")
            .env("DISPLAY", "none")
            .env("SSH_ASKPASS", file(self.lab, "askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("ANSWER", answer)
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .output()
            .expect("the ssh command");
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        Outcome { admitted: run.status.success() && run.stdout == b"in\n", said }
    }
}

fn password_by(method: &str) -> [&str; 2] {
    match method {
        PASSWORD => ["PubkeyAuthentication=no", "PreferredAuthentications=password"],
        INTERACTIVE => ["PubkeyAuthentication=no", "PreferredAuthentications=keyboard-interactive"],
        other => panic!("no password goes by {other}"),
    }
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.dir().join(name)
}

fn new_key(file: &Path) {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path(file)]);
}
