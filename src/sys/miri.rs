//! This file's unsafe code, and that of `pam-bindings`, under Miri: `make miri`.
//!
//! Miri runs no C code, so libpam is played by the functions below. They keep to its contract and
//! no more: strings stay where they are until they are replaced, data is cleaned up when other data
//! takes its name and when the transaction ends. What is left at the end, Miri reports as a leak.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use ::pam::constants::PamResultCode;
use ::pam::items::{RHost, User};
use ::pam::module::PamHandle;

use super::{Attempt, Done, PAM_AUTHTOK, PamExt, hooks};
use crate::guard::Pass;
use crate::rules::{Kind, RuleId};

const SUCCESS: c_int = PamResultCode::PAM_SUCCESS as c_int;
const NO_MODULE_DATA: c_int = PamResultCode::PAM_NO_MODULE_DATA as c_int;
const IGNORE: c_int = PamResultCode::PAM_IGNORE as c_int;
const MAXTRIES: c_int = PamResultCode::PAM_MAXTRIES as c_int;
const ABORT: c_int = PamResultCode::PAM_ABORT as c_int;
const CONV_ERR: c_int = PamResultCode::PAM_CONV_ERR as c_int;
const PAM_USER: c_int = 2;
const PAM_RHOST: c_int = 4;

type Cleanup = extern "C" fn(*mut PamHandle, *mut c_void, c_int);

/// The transaction of this thread.
#[derive(Default)]
struct Transaction {
    items: BTreeMap<c_int, CString>,
    env: BTreeMap<CString, CString>,
    data: BTreeMap<CString, (*mut c_void, Cleanup)>,
    /// What the user will type; nobody is there if it is empty.
    types: Option<CString>,
    log: Vec<CString>,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
}

fn with<T>(work: impl FnOnce(&mut Transaction) -> T) -> T {
    TRANSACTION.with_borrow_mut(work)
}

/// Where nothing is: only libpam looks behind a handle.
fn handle() -> *mut PamHandle {
    ptr::NonNull::dangling().as_ptr()
}

fn begin(items: &[(c_int, &CStr)], types: Option<&CStr>) -> &'static mut PamHandle {
    end();
    with(|transaction| {
        transaction.items = items.iter().map(|&(item, text)| (item, text.to_owned())).collect();
        transaction.types = types.map(CStr::to_owned);
    });
    // SAFETY: a handle has no bytes.
    unsafe { &mut *handle() }
}

fn end() {
    let ended = with(std::mem::take);
    for (data, cleanup) in ended.data.into_values() {
        cleanup(handle(), data, SUCCESS);
    }
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

fn owned(text: *const c_char) -> CString {
    // SAFETY: the module gives C strings.
    unsafe { CStr::from_ptr(text) }.to_owned()
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_item(_: *const PamHandle, item: c_int, to: &mut *const c_void) -> c_int {
    *to = with(|transaction| pointer(transaction.items.get(&item)).cast());
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_authtok(
    _: *mut PamHandle,
    item: c_int,
    to: &mut *const c_char,
    _prompt: *const c_char,
) -> c_int {
    with(|transaction| {
        if let Some(typed) = transaction.types.take() {
            transaction.items.insert(item, typed);
        }
        *to = pointer(transaction.items.get(&item));
    });
    if to.is_null() { CONV_ERR } else { SUCCESS }
}

#[unsafe(no_mangle)]
extern "C" fn pam_getenv(_: *mut PamHandle, name: *const c_char) -> *const c_char {
    with(|transaction| pointer(transaction.env.get(&owned(name))))
}

#[unsafe(no_mangle)]
extern "C" fn pam_set_data(
    handle: *mut PamHandle,
    name: *const c_char,
    data: *mut c_void,
    cleanup: Cleanup,
) -> c_int {
    let old = with(|transaction| transaction.data.insert(owned(name), (data, cleanup)));
    if let Some((data, cleanup)) = old {
        cleanup(handle, data, SUCCESS);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_data(
    _: *const PamHandle,
    name: *const c_char,
    to: &mut *const c_void,
) -> c_int {
    let found = with(|transaction| transaction.data.get(&owned(name)).map(|&(data, _)| data));
    *to = found.unwrap_or(ptr::null_mut());
    if to.is_null() { NO_MODULE_DATA } else { SUCCESS }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pam_syslog(
    _: *const PamHandle,
    _priority: c_int,
    format: *const c_char,
    mut arguments: ...
) {
    assert_eq!(owned(format).as_c_str(), c"%s");
    // SAFETY: the format asks for one C string.
    let line = owned(unsafe { arguments.next_arg::<*const c_char>() });
    with(|transaction| transaction.log.push(line));
}

/// Sets of signals, of which only the first 64 are looked at, and the mask of this thread.
mod signals {
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::ptr;

    use libc::{sigset_t, timespec};

    thread_local! {
        pub static HELD_BACK: Cell<u64> = const { Cell::new(0) };
        pub static PENDING: Cell<u64> = const { Cell::new(0) };
    }

    pub fn bit(signal: c_int) -> u64 {
        1 << (signal - 1)
    }

    /// # Safety
    ///
    /// A set that was initialised.
    unsafe fn get(set: *const sigset_t) -> u64 {
        // SAFETY: as promised; a set is longer than 64 bits, and aligned as they are.
        unsafe { *set.cast() }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn sigemptyset(set: *mut sigset_t) -> c_int {
        // SAFETY: the caller's set.
        unsafe { set.cast::<u64>().write(0) };
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn sigaddset(set: *mut sigset_t, signal: c_int) -> c_int {
        // SAFETY: the caller's set.
        unsafe { *set.cast::<u64>() |= bit(signal) };
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn sigismember(set: *const sigset_t, signal: c_int) -> c_int {
        // SAFETY: the caller's set.
        c_int::from(unsafe { get(set) } & bit(signal) != 0)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn pthread_sigmask(
        how: c_int,
        set: *const sigset_t,
        before: *mut sigset_t,
    ) -> c_int {
        let old = HELD_BACK.get();
        // SAFETY: the caller's sets; what is null is not wanted.
        unsafe {
            let set = get(set);
            HELD_BACK.set(if how == libc::SIG_BLOCK { old | set } else { set });
            if !before.is_null() {
                before.cast::<u64>().write(old);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn sigtimedwait(
        set: *const sigset_t,
        info: *mut libc::siginfo_t,
        time: *const timespec,
    ) -> c_int {
        assert!(ptr::eq(info, ptr::null()));
        // SAFETY: the caller's set and time.
        let (set, time) = unsafe { (get(set), time.read()) };
        assert_eq!((time.tv_sec, time.tv_nsec), (0, 0), "nobody waits");
        let taken = PENDING.get() & set;
        PENDING.set(PENDING.get() & !taken);
        if taken == 0 { -1 } else { libc::SIGXFSZ }
    }
}

fn attempt(user: &[u8]) -> Attempt {
    let prefix = "2001:db8::/64".parse().unwrap();
    let spends = Some(RuleId { prefix, kind: Kind::Grant, user: user.to_vec() });
    Attempt {
        pass: Some(Pass { spends, ..Pass::default() }).into(),
        done: None.into(),
        refused: None.into(),
        user: user.to_vec(),
        prompted: true,
    }
}

#[test]
fn an_attempt_is_kept_taken_replaced_and_cleaned_up() {
    let pam = begin(&[], None);
    assert!(pam.kept("one").is_none());
    pam.keep("one", attempt(b"alice")).unwrap();
    pam.keep("two", attempt(b"bob")).unwrap();
    let (kept, again) = (pam.kept("one").unwrap(), pam.kept("one").unwrap());
    assert!(kept.is_open() && again.is_open() && !kept.is_done());
    assert!(kept.pass.take().unwrap().spends.is_some());
    again.done.set(Some(Done { ticket: None, credentials: 0 }));
    assert!(!again.is_open() && kept.is_done() && kept.user == b"alice");
    pam.keep("one", attempt(b"carol")).unwrap();
    assert_eq!(pam.kept("one").unwrap().user, b"carol");
    assert!(pam.kept("two").unwrap().is_open());
    assert!(pam.keep("a\0b", attempt(b"dave")).is_err(), "no name, and nothing is kept");
    end();
}

#[test]
fn strings_are_copied_or_borrowed_as_long_as_they_are_there() {
    let pam = begin(&[(PAM_RHOST, c"2001:db8::1"), (PAM_USER, c"\xff%n")], Some(c"secret"));
    assert!(!pam.has_authtok());
    assert_eq!(pam.authtok().unwrap().as_slice(), b"secret");
    assert!(pam.has_authtok());
    let user = pam.get_item::<User>().unwrap().unwrap();
    let rhost = pam.get_item::<RHost>().unwrap().unwrap();
    assert_eq!((user.0, rhost.0), (c"\xff%n", c"2001:db8::1"));
    with(|transaction| transaction.env.insert(c"SSH_CONNECTION".into(), c"::1 1 ::2 22".into()));
    let value = pam.env(c"SSH_CONNECTION").unwrap();
    with(|transaction| transaction.env.clear());
    assert_eq!((value.as_slice(), pam.env(c"SSH_CONNECTION")), (&b"::1 1 ::2 22"[..], None));
    with(|transaction| transaction.items.remove(&PAM_AUTHTOK));
    assert_eq!(pam.authtok().err(), Some(PamResultCode::PAM_CONV_ERR));
    pam.log(3, "a\nb %s\0");
    with(|transaction| assert_eq!(transaction.log, [c"a?b %s?".to_owned()]));
    end();
}

/// As far as hooks come without SQLite: rules of the settings, and a store that is not there.
#[test]
fn hooks_answer_whatever_they_are_given() {
    let run = |rhost: &CStr, arguments: &[&CStr]| {
        begin(&[(PAM_RHOST, rhost), (PAM_USER, c"alice")], Some(c"secret"));
        // Miri's user is not root.
        let pointers: Vec<_> =
            [c"nonroot=yes"].iter().chain(arguments).map(|text| text.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap();
        // SAFETY: a handle, and so many C strings.
        let answers = unsafe {
            [
                hooks::pam_sm_authenticate(handle(), 0, count, pointers.as_ptr()),
                hooks::pam_sm_acct_mgmt(handle(), 0, count, pointers.as_ptr()),
                hooks::pam_sm_setcred(handle(), 2, count, pointers.as_ptr()),
            ]
        };
        let answers = answers.map(|answer| answer as c_int);
        let lines = with(|transaction| transaction.log.len());
        end();
        (answers, lines)
    };
    let nowhere = c"database=/nonexistent/q.db";
    assert_eq!(run(c"", &[]), ([IGNORE; 3], 0));
    assert_eq!(run(c"192.0.2.1", &[nowhere]).0, [IGNORE; 3]);
    let denied = run(c"192.0.2.1", &[nowhere, c"deny=192.0.2.0/24", c"bogus", c"\xff=\xff"]);
    assert_eq!(denied.0, [MAXTRIES, IGNORE, IGNORE]);
    assert!(denied.1 >= 3, "both wrong arguments and the denial are logged");
    let failed = run(c"host.example", &[nowhere, c"on_error=deny", c"enforce"]);
    assert_eq!(failed.0, [MAXTRIES, MAXTRIES, IGNORE]);
    // SAFETY: what must be found out is that nothing is read.
    let wrong = unsafe {
        [
            hooks::pam_sm_authenticate(ptr::null_mut(), 0, 0, ptr::null()),
            hooks::pam_sm_authenticate(handle(), 0, -1, ptr::null()),
            hooks::pam_sm_authenticate(handle(), 0, 1, ptr::null()),
        ]
    };
    assert_eq!(wrong.map(|answer| answer as c_int), [ABORT; 3]);
}

#[test]
fn a_signal_is_held_back_and_taken_unless_the_caller_does_so() {
    use signals::{HELD_BACK, PENDING, bit};
    let ours = bit(libc::SIGXFSZ);
    for (before, left) in [(0, 0), (bit(libc::SIGINT), 0), (ours, ours)] {
        HELD_BACK.set(before);
        let held_back = super::without_file_size_signal(|| {
            PENDING.set(ours);
            HELD_BACK.get()
        });
        assert_eq!(held_back, before | ours);
        assert_eq!((HELD_BACK.get(), PENDING.replace(0)), (before, left));
    }
}
