//! Asking other programs, for no longer than a person would wait.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
/// More than any of them has to say. In bytes.
const MAX_OUTPUT: u64 = 8 << 20;
/// Where daemons and their tools are, whatever the caller's PATH says.
const PLACES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where a program is, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    PLACES.into_iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// What a program prints; in one sentence why there is no answer.
pub fn ask(name: &str, arguments: &[&str]) -> Result<String, String> {
    let program = find(name).ok_or_else(|| format!("{name} is not installed"))?;
    let shown = format!("{name} {}", arguments.join(" "));
    let shown = shown.trim_end();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PLACES.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{shown} did not end within {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    };
    // What it leaves behind may hold its pipes open.
    let text = |from: mpsc::Receiver<String>| from.recv_timeout(PATIENCE).unwrap_or_default();
    match (status.success(), text(out)) {
        (true, out) => Ok(out),
        (false, _) => {
            let said = text(err);
            let said = said.lines().next().unwrap_or("no reason given");
            Err(format!("{shown} fails: {}", said.trim_end_matches('.')))
        }
    }
}

/// Reads a pipe to its end, beside the one who waits for the program.
fn reader(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    from
}
