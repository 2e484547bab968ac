//! A private Dovecot (2.3), and clients with a source address of our choice.

use std::fs;
use std::process::Command;

use super::Lab;
use super::client::{Daemon, Dialogue, Outcome};

const IMAP: u16 = 10143;
const POP3: u16 = 10110;

pub struct Dovecot {
    _daemon: Daemon,
}

impl Dovecot {
    /// Starts Dovecot with the service `dovecot` as the test wrote it.
    pub fn start(lab: &Lab) -> Dovecot {
        let file = lab.dir().join("dovecot.conf");
        fs::write(&file, config(lab)).unwrap();
        let mut command = Command::new(super::DOVECOT);
        command.arg("-F").arg("-c").arg(&file);
        Dovecot { _daemon: Daemon::start(&mut command, IMAP) }
    }

    pub fn imap_login(&self, source: &str, user: &str, password: &str) -> Outcome {
        self.imap_tries(source, user, password, 1).remove(0)
    }

    /// One connection that tries the same password up to so many times, as a mail client does.
    pub fn imap_tries(
        &self,
        source: &str,
        user: &str,
        password: &str,
        times: usize,
    ) -> Vec<Outcome> {
        let mut server = Dialogue::open(source, IMAP);
        server.hear(&["* OK"]);
        let tries = (0..times).map(|_| {
            server.say(&format!("a LOGIN \"{user}\" \"{password}\""));
            let said = server.hear(&["a ", "* BYE"]);
            Outcome { admitted: said.starts_with("a OK"), said }
        });
        tries.collect()
    }

    pub fn pop3_login(&self, source: &str, user: &str, password: &str) -> Outcome {
        let mut server = Dialogue::open(source, POP3);
        server.hear(&["+OK"]);
        server.say(&format!("USER {user}"));
        server.hear(&["+OK", "-ERR"]);
        server.say(&format!("PASS {password}"));
        let said = server.hear(&["+OK", "-ERR"]);
        Outcome { admitted: said.starts_with("+OK"), said }
    }
}

/// Dovecot's own brakes (the failure delay, anvil's penalty) are off: they would hide ours.
fn config(lab: &Lab) -> String {
    let template = "
base_dir = $DIR/base
state_dir = $DIR/base-state
instance_name = lab
protocols = imap pop3
listen = ::, *
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
mail_location = maildir:$DIR/mail/%u
mail_max_userip_connections = 50
first_valid_uid = 1000
mail_privileged_group =
service imap-login {
  inet_listener imap {
    port = $IMAP
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = $POP3
  }
  inet_listener pop3s {
    port = 0
  }
}
service stats {
  unix_listener stats-reader {
    mode = 0600
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
userdb {
  driver = passwd
}
passdb {
  driver = pam
  args = dovecot
}
";
    template
        .replace("$DIR", &lab.dir().display().to_string())
        .replace("$IMAP", &IMAP.to_string())
        .replace("$POP3", &POP3.to_string())
}
