//! The other end of syslog(3).

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A socket that keeps every line that arrives.
pub struct Syslog {
    path: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
    asked: AtomicUsize,
}

impl Syslog {
    /// Listens at `path`. A thread reads at once: the queue of a socket is short, and a program
    /// that finds it full waits.
    pub fn listen(path: &'static str) -> Syslog {
        let socket = UnixDatagram::bind(path).expect("a private /dev");
        super::run("chmod", &["0666", path]);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length) = socket.recv(&mut buffer) {
                kept.lock().unwrap().push(text(&buffer[..length]));
            }
        });
        Syslog { path, lines, asked: AtomicUsize::new(0) }
    }

    /// Every line that was sent before this call. Datagrams arrive in order, so once the reader
    /// has our own, it has all that came before.
    pub fn lines(&self) -> Vec<String> {
        let mark = format!("lab-mark-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(mark.as_bytes(), self.path).unwrap();
        super::await_until("our own log line", || self.lines.lock().unwrap().contains(&mark));
        let mut lines = self.lines.lock().unwrap().clone();
        lines.retain(|line| !line.starts_with("lab-mark-"));
        lines
    }
}

/// The line without its `<priority>`.
fn text(datagram: &[u8]) -> String {
    let line = String::from_utf8_lossy(datagram);
    let line = line.split_once('>').map_or(&*line, |(_, rest)| rest);
    line.trim_end_matches(['\0', '\n']).to_owned()
}
