//! The hooks that libpam calls.
//!
//! * `auth`: source, rules, a quick look, the password, then test and charge in one transaction.
//! * `account`, reached only after a right password or a key: refunds what this handle charged,
//!   takes one use of the rule that let it in, and learns the place.
//! * `setcred`: takes that refund back where sshd says that it was a key, see
//!   [`Call::credentials`]. It always answers PAM_IGNORE.
//! * everything else: nothing.
//!
//! Whatever happens, an answer is given: errors and panics become what `on_error` says. Nothing is
//! kept in memory between hooks but the plain numbers of one charge, in the handle itself: sshd
//! forks between hooks, leaves by `_exit`, and Apache calls from many threads.

mod call;
mod words;

use std::cell::Cell;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::pam::constants::{PAM_DELETE_CRED, PamFlag, PamResultCode};
use ::pam::module::{PamHandle, PamHooks};
use once_cell::race::OnceBool;

use crate::store::StoreError;
use crate::sys::{PamExt, without_file_size_signal};
use call::Call;

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
            // A payload may panic when it is dropped, and so may the payload of that.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            dropped.unwrap_or_else(std::mem::forget);
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

    #[test]
    #[cfg_attr(miri, ignore = "the payload of the second panic is lost on purpose")]
    fn a_panic_that_panics_again_becomes_a_sentence() {
        silence_panics();
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let bomb = guarded::<()>(|| std::panic::panic_any(Bomb));
        assert_eq!(bomb, Err("internal error: unknown".to_owned()));
    }
}
