//! Of guesses that all start before the first is answered, how many reach the password check.

use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;

use crate::candidate::our_line;
use crate::common::pam::{MAXTRIES, Pam, at_once, write_stack};
use crate::subdir;

const CROWDS: [usize; 2] = [50, 200];

/// For each crowd its size, and how many of it reach `pam_unix`.
pub fn reached(dir: &Path) -> [(usize, usize); 2] {
    let confdir = &subdir(dir, "races");
    CROWDS.map(|crowd| {
        let line = our_line(&subdir(dir, &format!("crowd{crowd}")).join("db"));
        write_stack(confdir, "race", &format!("{line}auth required pam_unix.so nodelay\n"));
        let answers = at_once(crowd, |i| {
            let password = format!("guess {i}");
            let mut pam = Pam::start(confdir, "race", b"root", Some(password.as_bytes()));
            pam = pam.rhost(b"2a00::1");
            pam.authenticate()
        });
        (crowd, answers.iter().filter(|&&answer| answer != MAXTRIES).count())
    })
}

/// Gives this process an `/etc/shadow` of its own, in which root and nobody have a yescrypt
/// password: then `pam_unix` takes its usual time, whatever the passwords of this machine are.
pub fn own_shadow(dir: &Path) {
    const SECRET: &str = "$y$j9T$abcdefghijklmnopqrstu.\
                          $1I1lG3rDlhsuy8leGmcPnvDlLK2Q.SkO4HTCtINZ1G5:20000:0:99999:7:::\n";
    let shadow = dir.join("shadow");
    fs::write(&shadow, format!("root:{SECRET}nobody:{SECRET}")).unwrap();
    let shadow = CString::new(shadow.to_str().unwrap()).unwrap();
    let mount = |source: &CStr, target: &CStr, flags| {
        let (source, target, none) = (source.as_ptr(), target.as_ptr(), std::ptr::null());
        // SAFETY: two C strings; neither call that follows reads a type or data.
        let result = unsafe { libc::mount(source, target, none, flags, none.cast()) };
        assert_eq!(result, 0, "mount: {}", std::io::Error::last_os_error());
    };
    // SAFETY: the mounts become those of this process, which has one thread, and end with it.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "unshare");
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE);
    mount(&shadow, c"/etc/shadow", libc::MS_BIND);
}
