//! What each hook does.

use std::cell::Cell;
use std::ffi::CStr;
use std::time::Duration;

use ::pam::constants::{PAM_DISALLOW_NULL_AUTHTOK, PAM_ERROR_MSG, PAM_SILENT, PamFlag};
use ::pam::conv::Conv;
use ::pam::items::{RHost, Service, User};
use ::pam::module::PamHandle;

use super::{Outcome, words};
use crate::config::Config;
use crate::decide::{Refusal, Verdict};
use crate::guard::{Admission, Clock, Guard, Pass, SystemClock};
use crate::login::Login;
use crate::repeat::Guess;
use crate::rules::Rules;
use crate::source::{Source, locate};
use crate::store::{Store, StoreError};
use crate::sys::{Attempt, Done, PamExt, effective_user};

/// How many wrong lines of the settings are logged at each login.
const MAX_PROBLEMS: usize = 10;

/// One call of a hook.
pub struct Call<'h> {
    pam: &'h mut PamHandle,
    pub config: Config,
    rules: Rules,
    flags: PamFlag,
}

impl<'h> Call<'h> {
    pub fn new(pam: &'h mut PamHandle, args: &[&CStr], flags: PamFlag) -> Call<'h> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.to_bytes()).collect();
        let config = Config::load(None, &args);
        let rules = config.settings.rules();
        Call { pam, config, rules, flags }
    }

    /// Wrong settings are logged where a login begins, not by every hook.
    fn report_problems(&self) {
        for problem in self.config.problems.iter().take(MAX_PROBLEMS) {
            self.pam.log(libc::LOG_ERR, &format!("{problem}; skipped"));
        }
    }

    pub fn authenticate(&mut self) -> Result<Outcome, StoreError> {
        let began = SystemClock.now();
        self.report_problems();
        let Some(login) = self.login() else { return Ok(Outcome::Pass) };
        if self.is_charged() {
            return Ok(self.pass(&login, "charged already by another line of this stack"));
        }
        // An attempt before this one on the same handle failed, whatever becomes of this one.
        if let Some(attempt) = self.kept() {
            attempt.pass.take();
        }
        // Whether a store is broken, often shows only when it is read.
        let looked = self.open().and_then(|mut store| {
            let judgement = self.guard().look(&mut store, &login)?;
            Ok((store, judgement))
        });
        let (mut store, judgement) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.without_store(&login, error),
        };
        if let Some(problem) = judgement.problem {
            self.pam.log(libc::LOG_ERR, &format!("{problem}; no country is denied (on_error)"));
        }
        match judgement.verdict {
            Verdict::Deny(refusal) => return Ok(self.refuse(&login, &refusal)),
            Verdict::Exempt(None) => return Ok(self.pass(&login, "exempt")),
            _ => {}
        }
        let prompted = !self.pam.has_authtok();
        let mut password = None;
        if self.config.settings.prompt {
            match self.pam.authtok() {
                Ok(token) if token.is_empty() && self.is_sshd_without_password() => {
                    return Ok(self.pass(&login, "no password tried"));
                }
                Ok(token) => password = Some(token),
                Err(_) => return Ok(Outcome::NoPassword),
            }
            if !store.is_current() {
                store = self.open()?;
            }
        }
        let guess = password.as_ref().map(|password| Guess { password, began });
        let admission = self.guard().admit(&mut store, &login, guess)?;
        // The client may be slow to take its message: nothing stays open meanwhile.
        drop(store);
        Ok(match admission {
            Admission::Refused(refusal) => self.refuse(&login, &refusal),
            Admission::Passed(pass) => self.passed(&login, pass, prompted),
        })
    }

    /// Keeps in the handle what a success will have to settle.
    fn passed(&mut self, login: &Login, pass: Pass, prompted: bool) -> Outcome {
        let what = match (&pass.ticket, pass.exempt) {
            (Some(_), _) => "charged",
            (None, true) => "exempt",
            (None, false) => "a wrong password again, not charged",
        };
        let attempt = Attempt {
            pass: Cell::new(Some(pass)),
            done: Cell::new(None),
            refused: Cell::new(None),
            user: login.user.clone(),
            prompted,
        };
        let name = self.name();
        if self.pam.keep(&name, attempt).is_err() {
            self.pam.log(libc::LOG_ERR, "out of memory; this charge cannot be refunded");
        }
        self.pass(login, what)
    }

    /// The rules of the settings hold without the store.
    fn without_store(&mut self, login: &Login, error: StoreError) -> Result<Outcome, StoreError> {
        match self.guard().look_at_settings(login).verdict {
            Verdict::Exempt(_) => Ok(self.pass(login, "exempt")),
            Verdict::Deny(refusal) => Ok(self.refuse(login, &refusal)),
            Verdict::Admit(..) | Verdict::Wait(_) => Err(error),
        }
    }

    pub fn account(&mut self) -> Result<Outcome, StoreError> {
        let passed = self.kept().and_then(|attempt| Some((attempt.pass.take()?, &attempt.user)));
        if let Some((pass, user)) = passed {
            let user = user.clone();
            return self.succeeded(pass, user);
        }
        if self.kept().is_some_and(Attempt::is_done) {
            return Ok(Outcome::Pass);
        }
        let refused = self.kept().and_then(|attempt| attempt.refused.get());
        let Some(login) = self.login() else { return Ok(Outcome::Pass) };
        if let Some(refusal) = refused {
            return Ok(self.refuse(&login, &refusal));
        }
        self.report_problems();
        // A key, or an attempt that was not charged.
        match self.open().and_then(|mut store| self.came_by_key(&mut store, &login)) {
            Ok(Ok(())) => Ok(self.pass(&login, "in")),
            Ok(Err(refusal)) => Ok(self.refuse(&login, &refusal)),
            Err(error) if self.config.enforce => Err(error),
            Err(error) => {
                self.pam.log(libc::LOG_ERR, &format!("{error}; this login teaches nothing"));
                Ok(Outcome::Pass)
            }
        }
    }

    /// After a right password: refunds what it was charged, and learns.
    fn succeeded(&mut self, pass: Pass, user: Vec<u8>) -> Result<Outcome, StoreError> {
        let Some(source) = self.source() else { return Ok(Outcome::Pass) };
        let login = Login { source, user };
        let settled =
            self.open().and_then(|mut store| self.guard().succeed(&mut store, &login, &pass));
        match settled {
            Ok(Ok(())) => {
                if let Some(attempt) = self.kept() {
                    attempt.done.set(Some(Done { ticket: pass.ticket, credentials: 0 }));
                }
                Ok(self.pass(&login, "a right password"))
            }
            Ok(Err(refusal)) => {
                if let Some(attempt) = self.kept() {
                    attempt.refused.set(Some(refusal));
                }
                Ok(self.refuse(&login, &refusal))
            }
            // Whether a use was left is not known: as if the store had failed in `auth`.
            Err(error) if pass.spends.is_some() => Err(error),
            // The attempt was admitted; that it cannot be refunded is no reason to refuse it now.
            Err(error) => {
                self.pam.log(libc::LOG_ERR, &format!("{error}; this charge stands"));
                Ok(Outcome::Pass)
            }
        }
    }

    /// With `enforce` denies what would be denied to a password; teaches the place.
    fn came_by_key(
        &self,
        store: &mut Store,
        login: &Login,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let guard = self.guard();
        if !self.config.enforce {
            // Where nobody is denied, nothing was let in by a rule.
            let exempt = guard.is_exempt(store, login)?;
            return guard.succeed(store, login, &Pass { exempt, ..Pass::default() });
        }
        let (spends, exempt) = match guard.look(store, login)?.verdict {
            Verdict::Deny(refusal) => return Ok(Err(refusal)),
            Verdict::Exempt(spends) => (spends, true),
            Verdict::Admit(_, spends) => (spends, false),
            Verdict::Wait(_) => (None, false),
        };
        guard.succeed(store, login, &Pass { ticket: None, spends, exempt })
    }

    /// sshd checks passwords and keys on one handle, so a key after a wrong password looks to
    /// `account` as a right password does, and was refunded: whoever has a key could guess the
    /// password for ever. Which method it was, sshd says in SSH_AUTH_INFO_0 of the PAM environment,
    /// complete from open_session on. It sets credentials before that, and once more after, as root,
    /// in the process that becomes the user.
    ///
    /// Root's sessions do that anew for each channel, each in a copy of this handle, so root is left
    /// out: who has root's key has no use for the password.
    pub fn credentials(&mut self) -> Result<Outcome, StoreError> {
        let Some(attempt) = self.kept() else { return Ok(Outcome::Pass) };
        let Some(mut done) = attempt.done.take() else { return Ok(Outcome::Pass) };
        let user = attempt.user.clone();
        let is_first = done.credentials == 0;
        done.credentials = done.credentials.saturating_add(1);
        let by_key = !is_first && self.user() != b"root" && self.is_ssh_login_without_password();
        match (done.ticket.take_if(|_| by_key), self.source()) {
            (Some(ticket), Some(source)) => {
                let login = Login { source, user };
                self.guard().take_back(&mut self.open()?, &login, &ticket)?;
                self.debug("a key, not the password: charged again");
            }
            _ => {
                if let Some(attempt) = self.kept() {
                    attempt.done.set(Some(done));
                }
            }
        }
        Ok(Outcome::Pass)
    }

    fn is_ssh_login_without_password(&mut self) -> bool {
        let methods = self.pam.env(c"SSH_AUTH_INFO_0").unwrap_or_default();
        let by_password = |line: &[u8]| {
            line.starts_with(b"password") || line.starts_with(b"keyboard-interactive")
        };
        !methods.is_empty() && !methods.split(|&byte| byte == b'\n').any(by_password)
    }

    fn user(&self) -> Vec<u8> {
        let user = self.pam.get_item::<User>().ok().flatten();
        user.map_or(Vec::new(), |name| name.0.to_bytes().to_vec())
    }

    /// This login; `None` if there is nothing for this module to do.
    fn login(&mut self) -> Option<Login> {
        let source = self.source()?;
        Some(Login { source, user: self.user() })
    }

    fn source(&mut self) -> Option<Source> {
        if effective_user() != 0 && !self.config.settings.nonroot {
            self.debug("the caller is not root; nothing done (nonroot = no)");
            return None;
        }
        let service = self.service();
        let ssh_connection = self.pam.env(c"SSH_CONNECTION");
        let rhost = self.pam.get_item::<RHost>().ok().flatten();
        let rhost = rhost.map(|host| host.0.to_bytes());
        let nat64 = &self.config.settings.nat64;
        let source = locate(rhost, ssh_connection.as_deref(), &service, nat64);
        if source.is_none() {
            self.debug("no remote address; nothing done");
        }
        source
    }

    fn service(&self) -> Vec<u8> {
        let service = self.pam.get_item::<Service>().ok().flatten();
        service.map_or(Vec::new(), |name| name.0.to_bytes().to_vec())
    }

    fn guard(&self) -> Guard<'_> {
        Guard::new(&self.config.settings, &self.rules, &SystemClock)
    }

    fn open(&self) -> Result<Store, StoreError> {
        let settings = &self.config.settings;
        Store::open(&settings.database, Duration::from_millis(settings.lock_wait.unsigned_abs()))
    }

    /// Two lines of one stack with the same store must not charge one attempt twice. libpam drops
    /// the password when an attempt begins; so if one is there, and the line that charged was
    /// itself the first to ask, that was in this same attempt.
    fn is_charged(&self) -> bool {
        self.kept()
            .is_some_and(|attempt| attempt.is_open() && attempt.prompted && self.pam.has_authtok())
    }

    fn kept(&self) -> Option<&Attempt> {
        self.pam.kept(&self.name())
    }

    /// Of what is kept in the handle: lines with different stores have nothing to do with each
    /// other.
    fn name(&self) -> String {
        self.config.settings.database.display().to_string()
    }

    /// sshd with PermitEmptyPasswords tries an empty password on every connection, also for those
    /// who are about to show a key.
    fn is_sshd_without_password(&mut self) -> bool {
        self.flags & PAM_DISALLOW_NULL_AUTHTOK == 0 && self.pam.env(c"SSH_CONNECTION").is_some()
    }

    /// Tells the log and the client, and denies if that is what the settings say.
    fn refuse(&mut self, login: &Login, refusal: &Refusal) -> Outcome {
        let service = String::from_utf8_lossy(&self.service()).into_owned();
        let enforcing = self.config.settings.enforcing;
        self.pam.log(libc::LOG_NOTICE, &words::denial(&service, login, refusal, enforcing));
        if !enforcing {
            return Outcome::Pass;
        }
        if !self.config.settings.silent
            && self.flags & PAM_SILENT == 0
            && let Ok(Some(conversation)) = self.pam.get_item::<Conv<'_>>()
        {
            // Whether the client could be told changes nothing.
            let _ = conversation.send(PAM_ERROR_MSG, &words::message(refusal));
        }
        Outcome::Deny
    }

    fn pass(&self, login: &Login, why: &str) -> Outcome {
        self.debug(&format!("{}: {why}", login.source));
        Outcome::Pass
    }

    fn debug(&self, line: &str) {
        if self.config.settings.debug {
            self.pam.log(libc::LOG_DEBUG, line);
        }
    }
}
