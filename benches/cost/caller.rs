//! The PAM application: `caller.c` in a process of its own.

use std::ffi::c_int;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A user of every system: `pam_faillock` counts no user that does not exist.
const USER: &str = "nobody";

/// How attempts are made.
#[derive(Clone, Copy)]
pub struct Form {
    /// So many at the same time.
    pub processes: u32,
    /// So many by each of them in one go.
    pub attempts: u32,
    /// All in one process, in place of a fresh one for each.
    pub lived: bool,
}

impl Form {
    const fn new(lived: bool, processes: u32, attempts: u32) -> Form {
        Form { processes, attempts, lived }
    }

    /// How often a round has it: one at a time is short, and what the limits are about.
    pub fn goes(&self) -> usize {
        if self.processes == 1 { 3 } else { 1 }
    }

    /// A quarter of the attempts.
    pub fn fewer(&self) -> Form {
        Form { attempts: self.attempts.div_ceil(4), ..*self }
    }

    /// With those that are not measured.
    pub fn all_attempts(&self) -> u32 {
        self.processes * (self.attempts + u32::from(self.lived))
    }
}

/// With fresh processes first.
pub const FORMS: [Form; 6] = [
    Form::new(false, 1, 8),
    Form::new(false, 8, 8),
    Form::new(false, 32, 4),
    Form::new(true, 1, 8),
    Form::new(true, 8, 8),
    Form::new(true, 32, 4),
];

pub const ONE: Form = Form::new(false, 1, 1);

/// What one attempt took, in microseconds.
#[derive(Clone, Copy)]
pub struct Measured {
    /// By the clock: of one at a time the median, of many at once the time that all took together
    /// divided by their number.
    pub wall: f64,
    /// Of the processor.
    pub cpu: f64,
}

impl Measured {
    /// Of each by itself.
    pub fn median(all: Vec<Measured>) -> Option<Measured> {
        let middle = |of: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Measured { wall: middle(|m| m.wall)?, cpu: middle(|m| m.cpu)? })
    }
}

pub struct Caller {
    process: Child,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
    attempts: u32,
}

impl Caller {
    pub fn start(dir: &Path, confdir: &Path) -> Caller {
        let program = dir.join("caller");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/caller.c");
        let mut compiler = Command::new("cc");
        compiler.arg("-O2").arg(source).arg("-o").arg(&program).arg("-lpam");
        assert!(compiler.status().is_ok_and(|status| status.success()), "cc");
        let mut process = Command::new(program)
            .args([confdir.as_os_str(), USER.as_ref()])
            // Cargo's: the loader would look there first for each library of each module.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let results = BufReader::new(process.stdout.take().unwrap());
        Caller { process, orders, results, attempts: 0 }
    }

    /// Whole attempts, all of which got the same answer. `source` is an address, or `stranger`: a
    /// new one for each, in a /32 of its own, or `neighbour`: a new one for each in 2600::/19.
    pub fn attempts(&mut self, service: &str, source: &str, form: &Form) -> (c_int, Measured) {
        let Form { processes, attempts, lived } = form;
        let (lived, number) = (u8::from(*lived), self.attempts);
        writeln!(self.orders, "{service} {source} {processes} {attempts} {lived} {number}")
            .unwrap();
        self.attempts += form.all_attempts();
        let mut result = String::new();
        self.results.read_line(&mut result).unwrap();
        let numbers: Vec<f64> = result.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [answer, all, cpu, median] = numbers[..] else { panic!("the caller has ended") };
        let each = |nanoseconds: f64| nanoseconds / f64::from(processes * attempts) / 1000.0;
        let wall = if *processes == 1 { median / 1000.0 } else { each(all) };
        (answer as c_int, Measured { wall, cpu: each(cpu) })
    }

    pub fn end(mut self) {
        drop(self.orders);
        self.process.wait().unwrap();
    }
}
