//! A PAM application for tests: libpam through `pam_start_confdir(3)`, so that no file under
//! `/etc/pam.d` and no privilege is needed.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

pub const SUCCESS: c_int = 0;
pub const PERM_DENIED: c_int = 6;
pub const AUTH_ERR: c_int = 7;
pub const MAXTRIES: c_int = 11;
pub const CONV_ERR: c_int = 19;

pub const ERROR_MSG: c_int = 3;
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
const RHOST: c_int = 4;
const FAIL_DELAY: c_int = 10;
const DATA_SILENT: c_int = 0x4000_0000;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse =
    extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conv {
    function: Converse,
    data: *mut c_void,
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conv: *const Conv,
        confdir: *const c_char,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_set_item(handle: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    fn pam_putenv(handle: *mut c_void, name_value: *const c_char) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_setcred(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
}

/// What the user at the other end of the conversation does, and what was said to him.
#[derive(Default)]
pub struct Talk {
    /// The answer to a prompt; `None` hangs up.
    pub password: Option<Vec<u8>>,
    /// How many prompts came.
    pub prompts: usize,
    /// Messages that are no prompts: style and text.
    pub messages: Vec<(c_int, String)>,
    /// What happens while he types.
    pub meanwhile: Option<Box<dyn FnMut()>>,
}

/// Writes the stack of `service` into `confdir`. `LINES` name the module by its full path.
pub fn write_stack(confdir: &Path, service: &str, lines: &str) {
    std::fs::write(confdir.join(service), lines).expect("a writable directory");
}

/// The lines that `prefixquota enable` writes, with `arguments` for the module and a password
/// check behind them that always says `verdict` (`pam_debug`: `success`, `perm_denied`, ...).
pub fn stack(arguments: &str, verdict: &str) -> String {
    stack_of(&super::module(), arguments, arguments, verdict)
}

pub fn stack_of(module: &Path, auth: &str, account: &str, verdict: &str) -> String {
    let control = "[success=ok ignore=ignore module_unknown=ignore default=die]";
    let module = module.display();
    format!(
        "auth {control} {module} {auth}\n\
         auth required pam_debug.so auth={verdict}\n\
         account {control} {module} {account}\n\
         account required pam_debug.so acct=success\n\
         session required pam_permit.so\n"
    )
}

/// A folder with one store and two services that use it, `wrong` and `right`, which play the password
/// check. Every line has `arguments`.
pub fn lab(arguments: &str) -> tempfile::TempDir {
    let dir = super::private_dir();
    let arguments = format!("database={} {arguments}", dir.path().join("q.db").display());
    write_stack(dir.path(), "wrong", &stack(&arguments, "perm_denied"));
    write_stack(dir.path(), "right", &stack(&arguments, "success"));
    dir
}

/// All failures in the store of a [`lab`], undecayed: tests take no time to speak of.
pub fn failures(lab: &Path) -> f64 {
    let conn = rusqlite::Connection::open(lab.join("q.db")).unwrap();
    conn.query_row("SELECT coalesce(sum(level), 0.0) FROM failure", [], |row| row.get(0)).unwrap()
}

/// A wrong password that nobody has tried yet: the same one again would not be counted. With the
/// 16 bits by which it is remembered one in 8192 passes for another that was tried at its place, so
/// whoever counts more than a few sets `repeat = no`.
pub fn guess() -> Vec<u8> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    format!("guess {}", TRIED.fetch_add(1, Ordering::Relaxed)).into_bytes()
}

/// One PAM transaction, ended when dropped.
pub struct Pam {
    handle: *mut c_void,
    talk: Box<Talk>,
    last: c_int,
}

impl Pam {
    /// `pam_start` for `user`, who answers each prompt with `password` (`None` hangs up).
    pub fn start(confdir: &Path, service: &str, user: &[u8], password: Option<&[u8]>) -> Pam {
        let mut talk = Box::new(Talk { password: password.map(<[u8]>::to_vec), ..Talk::default() });
        let conv = Conv { function: converse, data: ptr::from_mut(talk.as_mut()).cast() };
        let service = CString::new(service).unwrap();
        let user = CString::new(user).unwrap();
        let confdir = CString::new(confdir.to_str().unwrap()).unwrap();
        let mut handle = ptr::null_mut();
        // SAFETY: four C strings and a conversation that libpam copies; `talk` outlives the handle.
        let code = unsafe {
            pam_start_confdir(
                service.as_ptr(),
                user.as_ptr(),
                &raw const conv,
                confdir.as_ptr(),
                &raw mut handle,
            )
        };
        assert_eq!(code, SUCCESS, "pam_start_confdir");
        Pam { handle, talk, last: SUCCESS }
    }

    /// Sets PAM_RHOST.
    pub fn rhost(self, rhost: &[u8]) -> Pam {
        let rhost = CString::new(rhost).unwrap();
        // SAFETY: live handle; libpam copies the string.
        let code = unsafe { pam_set_item(self.handle, RHOST, rhost.as_ptr().cast()) };
        assert_eq!(code, SUCCESS, "pam_set_item");
        self
    }

    /// A wrong password is answered at once, whatever delay its modules ask for.
    pub fn without_delay(self) -> Pam {
        extern "C" fn no_delay(_: c_int, _: c_uint, _: *mut c_void) {}
        let no_delay: extern "C" fn(c_int, c_uint, *mut c_void) = no_delay;
        // SAFETY: live handle; libpam keeps the address of the function, which is always there.
        let code = unsafe { pam_set_item(self.handle, FAIL_DELAY, no_delay as *const c_void) };
        assert_eq!(code, SUCCESS, "pam_set_item");
        self
    }

    /// Sets a variable of the PAM environment, as `NAME=value`.
    pub fn env(self, name_value: &str) -> Pam {
        let name_value = CString::new(name_value).unwrap();
        // SAFETY: live handle; libpam copies the string.
        let code = unsafe { pam_putenv(self.handle, name_value.as_ptr()) };
        assert_eq!(code, SUCCESS, "pam_putenv");
        self
    }

    pub fn password(&mut self, password: Option<&[u8]>) {
        self.talk.password = password.map(<[u8]>::to_vec);
    }

    /// What happens while the user is at the prompt.
    pub fn meanwhile(&mut self, work: impl FnMut() + 'static) {
        self.talk.meanwhile = Some(Box::new(work));
    }

    pub fn authenticate(&mut self) -> c_int {
        self.authenticate_with(0)
    }

    pub fn authenticate_with(&mut self, flags: c_int) -> c_int {
        // SAFETY: live handle.
        self.last = unsafe { pam_authenticate(self.handle, flags) };
        self.last
    }

    pub fn account(&mut self) -> c_int {
        // SAFETY: live handle.
        self.last = unsafe { pam_acct_mgmt(self.handle, 0) };
        self.last
    }

    pub fn setcred(&mut self, flags: c_int) -> c_int {
        // SAFETY: live handle.
        self.last = unsafe { pam_setcred(self.handle, flags) };
        self.last
    }

    pub fn session(&mut self) -> (c_int, c_int) {
        // SAFETY: live handle.
        unsafe { (pam_open_session(self.handle, 0), pam_close_session(self.handle, 0)) }
    }

    pub fn talk(&self) -> &Talk {
        &self.talk
    }

    /// Ends the transaction with a status of the caller's choice.
    pub fn end(mut self, status: c_int) {
        self.last = status;
    }

    /// Forgets the transaction without `pam_end`, as a child of sshd that leaves by `_exit` does.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pam {
    fn drop(&mut self) {
        // SAFETY: live handle, not used again.
        unsafe { pam_end(self.handle, self.last | DATA_SILENT) };
    }
}

extern "C" fn converse(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: libpam passes `count` messages and the data that `start` gave; it frees the answers.
    unsafe {
        let talk = &mut *data.cast::<Talk>();
        let count = usize::try_from(count).unwrap();
        let answers = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        for i in 0..count {
            let message = &**messages.add(i);
            if matches!(message.style, PROMPT_ECHO_OFF | PROMPT_ECHO_ON) {
                talk.prompts += 1;
                if let Some(work) = &mut talk.meanwhile {
                    work();
                }
                let Some(password) = &talk.password else {
                    libc::free(answers.cast());
                    return CONV_ERR;
                };
                let password = CString::new(password.as_slice()).unwrap();
                (*answers.add(i)).text = libc::strdup(password.as_ptr());
            } else {
                let text = CStr::from_ptr(message.text).to_string_lossy().into_owned();
                talk.messages.push((message.style, text));
            }
        }
        *responses = answers;
    }
    SUCCESS
}

/// Runs `work` in `count` processes at once and gives their exit codes, in the order in which they
/// were started. Every process waits until all exist. (A pipe would not do as the gate: children
/// that other tests fork meanwhile would inherit its writing end and hold it open.) No other thread
/// may be inside SQLite or libpam at that moment: its locks would stay locked in the children.
pub fn at_once(count: usize, work: impl Fn(usize) -> c_int) -> Vec<c_int> {
    let gate = shared_flag();
    let children: Vec<libc::pid_t> = (0..count)
        .map(|i| {
            // SAFETY: the child only runs `work` and leaves by _exit.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork");
            if pid == 0 {
                while !gate.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                let code = work(i);
                // SAFETY: as sshd's children leave.
                unsafe { libc::_exit(code) };
            }
            pid
        })
        .collect();
    gate.store(true, Ordering::Release);
    children.into_iter().map(wait).collect()
}

/// A flag that parent and children share; one page for each call, kept until the test ends.
pub fn shared_flag() -> &'static AtomicBool {
    // SAFETY: an anonymous mapping of its own, zeroed (= false), never unmapped.
    unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            1,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<AtomicBool>()
    }
}

fn wait(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "a child died: status {status:#x}");
    libc::WEXITSTATUS(status)
}

/// Flags of `pam_authenticate(3)`.
pub const DISALLOW_NULL_AUTHTOK: c_uint = 1;
