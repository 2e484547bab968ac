//! The hooks that libpam calls.
//!
//! * `auth`: source, rules, a quick look, the password, then test and charge in one transaction.
//! * `account`, reached only after a right password or a key: refunds what this handle charged.
//! * `setcred`: takes that refund back where sshd says that it was a key, see
//!   [`Call::credentials`]. It always answers PAM_IGNORE.
//! * everything else: nothing.
//!
//! Whatever happens, an answer is given: errors and panics become what `on_error` says. Nothing is
//! kept in memory between hooks but the plain numbers of one charge, in the handle itself: sshd
//! forks between hooks, leaves by `_exit`, and Apache calls from many threads.

mod words;

use std::cell::Cell;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ::pam::constants::{
    PAM_DELETE_CRED, PAM_DISALLOW_NULL_AUTHTOK, PAM_ERROR_MSG, PAM_SILENT, PamFlag, PamResultCode,
};
use ::pam::conv::Conv;
use ::pam::items::{RHost, Service, User};
use ::pam::module::{PamHandle, PamHooks};
use once_cell::race::OnceBool;

use crate::config::Config;
use crate::decide::{Refusal, Verdict};
use crate::guard::{Admission, Guard, SystemClock};
use crate::rules::Rules;
use crate::source::{Source, locate};
use crate::store::{Store, StoreError};
use crate::sys::{Charge, PamExt, effective_user, without_file_size_signal};

/// How many wrong lines of the settings are logged at each login.
const MAX_PROBLEMS: usize = 10;

/// The module, as libpam knows it.
pub struct Module;

impl PamHooks for Module {
    fn sm_authenticate(pam: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        run(pam, &args, flags, |call| call.authenticate())
    }

    fn acct_mgmt(pam: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        run(pam, &args, flags, |call| call.account())
    }

    fn sm_setcred(pam: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        if flags & PAM_DELETE_CRED != 0 {
            return PamResultCode::PAM_IGNORE;
        }
        // Whatever is found out here, the user is in.
        run(pam, &args, flags, |call| call.credentials());
        PamResultCode::PAM_IGNORE
    }
}

/// How a hook ends.
enum Outcome {
    /// The rest of the stack decides. Never PAM_SUCCESS: at the top of a stack that would be a
    /// login without a password.
    Pass,
    /// PAM_MAXTRIES: sshd withdraws the password methods and keeps public keys; Dovecot does not
    /// take it for an unknown user, whom its cache would lock out everywhere.
    Deny,
    /// The conversation gave no password. The stack must end here: if it went on, a module behind
    /// us could ask again, and that guess would be free.
    NoPassword,
}

impl From<Outcome> for PamResultCode {
    fn from(outcome: Outcome) -> PamResultCode {
        match outcome {
            Outcome::Pass => PamResultCode::PAM_IGNORE,
            Outcome::Deny => PamResultCode::PAM_MAXTRIES,
            Outcome::NoPassword => PamResultCode::PAM_CONV_ERR,
        }
    }
}

/// Runs a hook so that whatever goes wrong in it becomes an answer.
fn run(
    pam: &mut PamHandle,
    args: &[&CStr],
    flags: PamFlag,
    hook: fn(&mut Call<'_>) -> Result<Outcome, StoreError>,
) -> PamResultCode {
    silence_panics();
    let deny_on_error = Cell::new(false);
    let outcome = without_file_size_signal(|| {
        guarded(|| {
            let mut call = Call::new(pam, args, flags);
            deny_on_error.set(call.config.settings.deny_on_error);
            hook(&mut call)
        })
    });
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let (answer, code) = if deny_on_error.get() {
                ("denied", PamResultCode::PAM_MAXTRIES)
            } else {
                ("not counted", PamResultCode::PAM_IGNORE)
            };
            pam.log(libc::LOG_ERR, &format!("{error}; this attempt is {answer} (on_error)"));
            code
        }
    }
}

/// Turns errors and panics into a sentence.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(payload) => {
            let what = payload.downcast_ref::<&str>().copied();
            let what = what.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let error = format!("internal error: {}", what.unwrap_or("unknown"));
            // A payload may panic when it is dropped.
            std::mem::forget(payload);
            Err(error)
        }
    }
}

/// A panic must not write to the caller's standard error, which may be the user's terminal. The
/// hook is set once for each process; `race` never blocks, so that a fork at the wrong moment
/// cannot leave a lock behind.
fn silence_panics() {
    static DONE: OnceBool = OnceBool::new();
    DONE.get_or_init(|| {
        std::panic::set_hook(Box::new(|_| {}));
        true
    });
}

/// One call of a hook.
struct Call<'h> {
    pam: &'h mut PamHandle,
    config: Config,
    rules: Rules,
    flags: PamFlag,
}

impl<'h> Call<'h> {
    fn new(pam: &'h mut PamHandle, args: &[&CStr], flags: PamFlag) -> Call<'h> {
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

    fn authenticate(&mut self) -> Result<Outcome, StoreError> {
        self.report_problems();
        let Some(source) = self.source() else { return Ok(Outcome::Pass) };
        if self.is_charged() {
            return Ok(self.pass(&source, "charged already by another line of this stack"));
        }
        // An attempt before this one on the same handle failed, whatever becomes of this one.
        if let Some(charge) = self.pam.charge(&self.charge_name()) {
            charge.ticket.set(None);
        }
        match self.guard().by_rule(&source) {
            Some(Verdict::Deny(refusal)) => return Ok(self.refuse(&source, &refusal)),
            Some(_) => return Ok(self.pass(&source, "exempt")),
            None => {}
        }
        let mut store = self.open()?;
        if let Verdict::Deny(refusal) = self.guard().look(&mut store, &source)? {
            return Ok(self.refuse(&source, &refusal));
        }
        let prompted = !self.pam.has_authtok();
        if self.config.settings.prompt {
            match self.pam.authtok() {
                Ok(token) if token.is_empty() && self.is_sshd_without_password() => {
                    return Ok(self.pass(&source, "no password tried"));
                }
                Ok(_) => {}
                Err(_) => return Ok(Outcome::NoPassword),
            }
            if !store.is_current() {
                store = self.open()?;
            }
        }
        let admission = self.guard().admit(&mut store, &source)?;
        // The client may be slow to take its message: nothing stays open meanwhile.
        drop(store);
        Ok(match admission {
            Admission::Refused(refusal) => self.refuse(&source, &refusal),
            Admission::Exempt => self.pass(&source, "exempt"),
            Admission::Charged(ticket) => {
                let charge =
                    Charge { ticket: Cell::new(Some(ticket)), refunded: Cell::new(None), prompted };
                if self.pam.keep_charge(&self.charge_name(), charge).is_err() {
                    self.pam.log(libc::LOG_ERR, "out of memory; this charge cannot be refunded");
                }
                self.pass(&source, "charged")
            }
        })
    }

    fn account(&mut self) -> Result<Outcome, StoreError> {
        let charge = self.pam.charge(&self.charge_name());
        if let Some(ticket) = charge.and_then(|charge| charge.ticket.take()) {
            // The attempt was admitted; that it cannot be refunded is no reason to refuse it now.
            match self.open().and_then(|mut store| self.guard().refund(&mut store, &ticket)) {
                Ok(()) => {
                    if let Some(charge) = charge {
                        charge.refunded.set(Some(0));
                    }
                    self.debug("refunded");
                }
                Err(error) => self.pam.log(libc::LOG_ERR, &format!("{error}; this charge stands")),
            }
            return Ok(Outcome::Pass);
        }
        self.report_problems();
        let Some(source) = self.source() else { return Ok(Outcome::Pass) };
        if !self.config.enforce {
            return Ok(Outcome::Pass);
        }
        let mut store = self.open()?;
        let verdict = self.guard().look(&mut store, &source)?;
        drop(store);
        Ok(match verdict {
            Verdict::Deny(refusal) => self.refuse(&source, &refusal),
            _ => self.pass(&source, "not over quota"),
        })
    }

    /// sshd checks passwords and keys on one handle, so a key after a wrong password looks to
    /// `account` as a right password does, and was refunded: whoever has a key could guess the
    /// password for ever. Which method it was, sshd says in SSH_AUTH_INFO_0 of the PAM environment,
    /// complete from open_session on. It sets credentials before that, and once more after, as root,
    /// in the process that becomes the user.
    ///
    /// Root's sessions do that anew for each channel, each in a copy of this handle, so root is left
    /// out: who has root's key has no use for the password.
    fn credentials(&mut self) -> Result<Outcome, StoreError> {
        let Some(charge) = self.pam.charge(&self.charge_name()) else { return Ok(Outcome::Pass) };
        let Some(times) = charge.refunded.get() else { return Ok(Outcome::Pass) };
        charge.refunded.set(Some(times.saturating_add(1)));
        if times == 0 || self.user() == b"root" || !self.is_ssh_login_without_password() {
            return Ok(Outcome::Pass);
        }
        if let Some(charge) = self.pam.charge(&self.charge_name()) {
            charge.refunded.set(None);
        }
        let Some(source) = self.source() else { return Ok(Outcome::Pass) };
        self.guard().take_back(&mut self.open()?, &source)?;
        Ok(self.pass(&source, "a key, not the password: charged again"))
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

    /// The source of this login; `None` if there is nothing for this module to do.
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
        let charge = self.pam.charge(&self.charge_name());
        charge.is_some_and(|charge| {
            let open = charge.ticket.take();
            charge.ticket.set(open);
            open.is_some() && charge.prompted && self.pam.has_authtok()
        })
    }

    fn charge_name(&self) -> String {
        self.config.settings.database.display().to_string()
    }

    /// sshd with PermitEmptyPasswords tries an empty password on every connection, also for those
    /// who are about to show a key.
    fn is_sshd_without_password(&mut self) -> bool {
        self.flags & PAM_DISALLOW_NULL_AUTHTOK == 0 && self.pam.env(c"SSH_CONNECTION").is_some()
    }

    /// Tells the log and the client, and denies if that is what the settings say.
    fn refuse(&mut self, source: &Source, refusal: &Refusal) -> Outcome {
        let service = String::from_utf8_lossy(&self.service()).into_owned();
        let enforcing = self.config.settings.enforcing;
        self.pam.log(libc::LOG_NOTICE, &words::denial(&service, source, refusal, enforcing));
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

    fn pass(&self, source: &Source, why: &str) -> Outcome {
        self.debug(&format!("{source}: {why}"));
        Outcome::Pass
    }

    fn debug(&self, line: &str) {
        if self.config.settings.debug {
            self.pam.log(libc::LOG_DEBUG, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_sentence() {
        silence_panics();
        let text = guarded::<()>(|| panic!("broken {}", 1));
        assert_eq!(text, Err("internal error: broken 1".to_owned()));
        let other = guarded::<()>(|| std::panic::panic_any(7));
        assert_eq!(other, Err("internal error: unknown".to_owned()));
    }
}
