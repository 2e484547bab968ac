//! What libpam and libc have and no safe crate gives: the only file with unsafe code.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use ::pam::constants::PamResultCode;
use ::pam::items::AuthTok;
use ::pam::module::PamHandle;
use zeroize::Zeroizing;

use crate::decide::Refusal;
use crate::guard::Pass;
use crate::store::Ticket;

#[cfg(all(test, miri))]
mod miri;

/// The six hooks that libpam looks for, each guarded against panics and null pointers.
#[allow(missing_docs, reason = "the names and the contract are libpam's")]
mod hooks {
    use crate::pam::Module;
    ::pam::pam_hooks!(Module);
}

const PAM_AUTHTOK: c_int = 6;

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_get_authtok(
        pamh: *mut PamHandle,
        item: c_int,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_syslog(pamh: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

/// What this module knows of one transaction, kept in its handle from `auth` on.
pub struct Attempt {
    /// What the last attempt has cost; taken by the first success.
    pub pass: Cell<Option<Pass>>,
    /// After a success.
    pub done: Cell<Option<Done>>,
    /// After a success that was refused, since the rule had no use left.
    pub refused: Cell<Option<Refusal>>,
    /// The user as he was when the attempt was judged: modules behind may give another name.
    pub user: Vec<u8>,
    /// Whether this module was the first of its stack to ask for the password.
    pub prompted: bool,
}

impl Attempt {
    /// Whether it may still turn out right.
    pub fn is_open(&self) -> bool {
        is_set(&self.pass)
    }

    /// Whether a success was settled already.
    pub fn is_done(&self) -> bool {
        is_set(&self.done)
    }
}

fn is_set<T>(cell: &Cell<Option<T>>) -> bool {
    let value = cell.take();
    let is_set = value.is_some();
    cell.set(value);
    is_set
}

/// A success.
pub struct Done {
    /// The charge that was taken back.
    pub ticket: Option<Ticket>,
    /// How many times credentials were set since.
    pub credentials: u32,
}

/// The calls that `pam-bindings` leaves out.
pub trait PamExt {
    /// The password, asked for unless a module before has done so.
    ///
    /// # Errors
    ///
    /// The conversation gave none.
    fn authtok(&mut self) -> Result<Zeroizing<Vec<u8>>, PamResultCode>;

    /// Whether a module has asked for the password already.
    fn has_authtok(&self) -> bool;

    /// A variable of the PAM environment.
    fn env(&mut self, name: &CStr) -> Option<Vec<u8>>;

    /// Writes a line to syslog, with the name of the module and the service before it. Control
    /// characters become `?`.
    fn log(&self, priority: c_int, line: &str);

    /// Keeps an attempt under `name` until the transaction ends or another takes its place.
    ///
    /// # Errors
    ///
    /// Out of memory.
    fn keep(&mut self, name: &str, attempt: Attempt) -> Result<(), PamResultCode>;

    /// The attempt kept under `name`.
    fn kept(&self, name: &str) -> Option<&Attempt>;
}

impl PamExt for PamHandle {
    fn authtok(&mut self) -> Result<Zeroizing<Vec<u8>>, PamResultCode> {
        let mut token = std::ptr::null();
        // SAFETY: `self` is the live handle that libpam gave us, `token` is a valid place for the
        // result, and a null prompt means the default one.
        let code = unsafe { pam_get_authtok(self, PAM_AUTHTOK, &raw mut token, std::ptr::null()) };
        match PamResultCode::try_from(code) {
            Ok(PamResultCode::PAM_SUCCESS) if !token.is_null() => {
                // SAFETY: on success `token` is a C string that libpam owns; it is copied before
                // any other call.
                Ok(Zeroizing::new(unsafe { CStr::from_ptr(token) }.to_bytes().to_vec()))
            }
            Ok(PamResultCode::PAM_SUCCESS) | Err(_) => Err(PamResultCode::PAM_AUTHTOK_ERR),
            Ok(code) => Err(code),
        }
    }

    fn has_authtok(&self) -> bool {
        matches!(self.get_item::<AuthTok>(), Ok(Some(_)))
    }

    fn env(&mut self, name: &CStr) -> Option<Vec<u8>> {
        // SAFETY: live handle, valid C string.
        let value = unsafe { pam_getenv(self, name.as_ptr()) };
        // SAFETY: non-null means a C string that libpam owns; it is copied at once.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
    }

    fn log(&self, priority: c_int, line: &str) {
        let line: Vec<u8> =
            line.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }).collect();
        let Ok(line) = CString::new(line) else { return };
        // SAFETY: live handle; the constant format takes exactly one C string.
        unsafe { pam_syslog(self, priority, c"%s".as_ptr(), line.as_ptr()) };
    }

    fn keep(&mut self, name: &str, attempt: Attempt) -> Result<(), PamResultCode> {
        self.set_data(&data_name(name), Box::new(attempt))
    }

    fn kept(&self, name: &str) -> Option<&Attempt> {
        // SAFETY: names made by `data_name` are only ever given to `keep` of this very version,
        // so that what is stored there is an `Attempt`.
        unsafe { self.get_data(&data_name(name)) }.ok()
    }
}

/// Names of module data are shared by all modules of a transaction, and after an upgrade two
/// versions of this one may be in the same process: what they were built from keeps their types
/// apart.
fn data_name(name: &str) -> String {
    format!("pam_prefixquota-{}:{name}", env!("PREFIXQUOTA_SOURCES"))
}

/// Runs `work` with SIGXFSZ held back: where the file size is limited (RLIMIT_FSIZE), writing to the
/// store must fail, not kill the caller.
pub fn without_file_size_signal<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are initialised by libc before they are read, and live on this stack; the
    // calls change only the mask of this thread, which is restored below. `work` does not unwind.
    unsafe {
        let mut signal = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigemptyset(&raw mut signal);
        libc::sigaddset(&raw mut signal, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, &raw mut before);
        let done = work();
        // One that came meanwhile is taken, unless the caller had held it back himself.
        if libc::sigismember(&raw const before, libc::SIGXFSZ) == 0 {
            let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const signal, std::ptr::null_mut(), &raw const no_time);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        done
    }
}

/// Processor time that this thread has used so far.
pub fn processor_time() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is a valid place for the result. The call fails for unknown clocks only, and
    // then leaves it as it is.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    // How long these numbers are depends on the machine.
    let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(used.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds.into())
}

/// The user as whom this process acts; 0 is root.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid(2) has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}
