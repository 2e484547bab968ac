//! What is measured: services of a `pam.d`, where their attempts come from, and the answer.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::caller::{Caller, Form, Measured, ONE};
use crate::common::pam::{AUTH_ERR, MAXTRIES, SUCCESS, write_stack};
use crate::store::Store;
use crate::{Rng, common, subdir};

const STRANGER: &str = "stranger";
/// One of those of `ROWS_OF_A_19`.
const NEIGHBOUR: &str = "neighbour";
const EXHAUSTED: &str = "2a00::1";
const LOOPBACK: &str = "::1";
/// Longer than the default `settle`: younger charges are waited for before a denial.
const SETTLED: Duration = Duration::from_millis(3200);
/// What a /19 can have: its quota of 1146 bounds it to 9088.
const ROWS_OF_A_19: u32 = 10_000;

/// The password check of the attempts: every guess is wrong.
const DENY: &str = "auth required pam_deny.so\n";

pub const LEAST: &str = "open, lock, read, write, close a file; no PAM";
pub const PAM_DENY: &str = "pam_deny alone";
pub const CHARGED: &str = "charged";
pub const DENIED: &str = "denied by quota";
pub const CHARGED_MANY: &str = "charged, 1,000,000 rows";
pub const DENIED_MANY: &str = "denied by quota, 1,000,000 rows";
pub const FAILLOCK: &str = "pam_faillock";
pub const ABL: &str = "pam_abl";
pub const UNIX: &str = "pam_unix (yescrypt)";

pub struct Candidate {
    pub name: &'static str,
    service: &'static str,
    source: &'static str,
    answer: c_int,
    /// The store of ours that it uses, and whether its attempts are charged there.
    store: Option<(Rc<RefCell<Store>>, bool)>,
    /// Takes so long that fewer attempts will do.
    slow: bool,
    /// Of interest in a crowd.
    crowds: bool,
}

/// One go.
pub struct Sample {
    pub measured: Measured,
    pub charges: u32,
    pub missed: u32,
}

impl Candidate {
    fn new(name: &'static str, service: &'static str, answer: c_int) -> Candidate {
        Candidate {
            name,
            service,
            source: STRANGER,
            answer,
            store: None,
            slow: false,
            crowds: true,
        }
    }

    fn from(self, source: &'static str) -> Candidate {
        Candidate { source, ..self }
    }

    fn using(self, store: &Rc<RefCell<Store>>, charged: bool) -> Candidate {
        Candidate { store: Some((Rc::clone(store), charged)), ..self }
    }

    fn slow(self) -> Candidate {
        Candidate { slow: true, ..self }
    }

    fn alone(self) -> Candidate {
        Candidate { crowds: false, ..self }
    }

    pub fn takes(&self, form: &Form) -> bool {
        self.crowds || form.processes == 1
    }

    pub fn measure(&self, caller: &mut Caller, form: &Form) -> Sample {
        let form = &if self.slow { form.fewer() } else { *form };
        if let Some((store, _)) = &self.store {
            store.borrow_mut().restore();
            // The first one in a new store has some more to do; it is denied, and not counted.
            caller.attempts(self.service, EXHAUSTED, &ONE);
        }
        let (answer, measured) = caller.attempts(self.service, self.source, form);
        assert_eq!(answer, self.answer, "{}", self.name);
        let Some((store, charged)) = &self.store else {
            return Sample { measured, charges: 0, missed: 0 };
        };
        let charges = if *charged { form.all_attempts() } else { 0 };
        let rows = store.borrow_mut().new_rows();
        assert!(rows <= charges, "{}: {rows} rows of {charges} charges", self.name);
        Sample { measured, charges, missed: charges - rows }
    }
}

/// All that are measured, with their stacks and stores.
pub fn candidates(
    dir: &Path,
    confdir: &Path,
    caller: &mut Caller,
    rng: &mut Rng,
) -> Vec<Candidate> {
    let mut stack = |service: &str, more: &str| {
        let database = subdir(dir, service).join("db");
        let line = our_line(&database).replace('\n', &format!("{more}\n"));
        write_stack(confdir, service, &(line + DENY));
        for _ in 0..2 {
            caller.attempts(service, EXHAUSTED, &ONE);
        }
        database
    };
    let few = stack("few", "");
    let thousands = stack("thousands", "");
    let million = stack("million", "");
    let wide = stack("wide", " strict=yes ipv6_widest=19 ipv6_base=1000000");
    std::thread::sleep(SETTLED);
    let apart = (0x2400_0000, 0xff_ffff);
    let mut fill = |database, rows, at| Rc::new(RefCell::new(Store::fill(database, rows, at, rng)));
    let few = fill(few, 0, apart);
    let thousands = fill(thousands, 10_000, apart);
    let million = fill(million, 1_000_000, apart);
    // The attempts come from here, and each of them reads all of these.
    let wide = fill(wide, ROWS_OF_A_19, (0x2600_0000, 0x1fff));

    write_stack(confdir, "pam_deny", DENY);
    write_stack(confdir, "faillock", &faillock_stack(&subdir(dir, "faillock")));
    write_stack(confdir, "abl", &abl_stack(&subdir(dir, "abl")));
    write_stack(confdir, "unix", "auth required pam_unix.so nodelay\n");
    // Every system has it; without, libpam takes its time to complain.
    write_stack(confdir, "other", DENY);
    vec![
        Candidate::new(LEAST, "least", SUCCESS),
        Candidate::new(PAM_DENY, "pam_deny", AUTH_ERR),
        Candidate::new("exempt", "few", AUTH_ERR).from(LOOPBACK).using(&few, false),
        Candidate::new(CHARGED, "few", AUTH_ERR).using(&few, true),
        Candidate::new("charged, 10,000 rows", "thousands", AUTH_ERR).using(&thousands, true),
        Candidate::new(CHARGED_MANY, "million", AUTH_ERR).using(&million, true),
        Candidate::new(DENIED, "few", MAXTRIES).from(EXHAUSTED).using(&few, false),
        Candidate::new("denied by quota, 10,000 rows", "thousands", MAXTRIES)
            .from(EXHAUSTED)
            .using(&thousands, false),
        Candidate::new(DENIED_MANY, "million", MAXTRIES).from(EXHAUSTED).using(&million, false),
        Candidate::new("charged, `strict`, 10,000 rows in its /19", "wide", AUTH_ERR)
            .from(NEIGHBOUR)
            .using(&wide, true)
            .alone(),
        Candidate::new(FAILLOCK, "faillock", AUTH_ERR),
        Candidate::new(ABL, "abl", AUTH_ERR).slow(),
        Candidate::new(UNIX, "unix", AUTH_ERR).slow().alone(),
    ]
}

/// The line that `prefixquota enable` writes.
pub fn our_line(database: &Path) -> String {
    let control = "[success=ok ignore=ignore module_unknown=ignore default=die]";
    format!("auth {control} {} database={}\n", common::module().display(), database.display())
}

/// As in faillock(8), with a limit that is never met.
fn faillock_stack(dir: &Path) -> String {
    let arguments = format!("dir={} deny=10000 nodelay", dir.display());
    format!(
        "auth required pam_faillock.so preauth {arguments}\n\
         {DENY}\
         auth [default=die] pam_faillock.so authfail {arguments}\n"
    )
}

/// Debian's settings, but for the rules: one for hosts, and none that would lock the user out.
fn abl_stack(dir: &Path) -> String {
    let settings = dir.join("abl.conf");
    let home = dir.display();
    fs::write(
        &settings,
        format!(
            "db_home={home}\nlimits=1000-1200\n\
             host_db={home}/hosts.db\nhost_purge=1d\nhost_rule=*:10/1h,30/1d\n\
             user_db={home}/users.db\nuser_purge=1d\n"
        ),
    )
    .unwrap();
    format!("auth required pam_abl.so config={}\n{DENY}", settings.display())
}
