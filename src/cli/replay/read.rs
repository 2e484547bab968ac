//! Reads logs line by line: files, standard input, and what gzip has made of them.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, stderr, stdin};
use std::path::Path;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use flate2::bufread::MultiGzDecoder;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use memchr::memchr;

/// What is read at once, in bytes; a line that is longer is passed over.
const BUFFER: usize = 1 << 18;
/// A file whose time is from before (2000-01-01) does not know when it was written, Unix
/// milliseconds.
const OLDEST: i64 = 946_684_800_000;

/// A log to read.
pub struct Log {
    from: Box<dyn Read>,
    /// When it was written at the latest, Unix milliseconds, if that is known.
    pub written: Option<i64>,
    /// How many bytes were read of it, before they were unpacked.
    pub read: Rc<Cell<u64>>,
}

/// A reader that counts.
struct Counted<R>(R, Rc<Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.0.read(buffer)?;
        self.1.set(self.1.get() + bytes as u64);
        Ok(bytes)
    }
}

impl Log {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is a directory.
    pub fn open(path: &Path) -> std::io::Result<Log> {
        if path == Path::new("-") {
            return Log::of(stdin().lock(), None);
        }
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let written = about.modified().ok().and_then(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_millis()).ok().filter(|&time| time > OLDEST)
        });
        Log::of(file, written.filter(|_| about.is_file()))
    }

    fn of(from: impl Read + 'static, written: Option<i64>) -> std::io::Result<Log> {
        let read = Rc::new(Cell::new(0));
        let mut from = BufReader::with_capacity(BUFFER, Counted(from, Rc::clone(&read)));
        let is_packed = from.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let from: Box<dyn Read> =
            if is_packed { Box::new(MultiGzDecoder::new(from)) } else { Box::new(from) };
        Ok(Log { from, written, read })
    }

    /// Hands over each line without its end; `None` for one that is too long.
    ///
    /// # Errors
    ///
    /// It cannot be read, or what gzip has made is damaged.
    pub fn lines(mut self, mut line: impl FnMut(Option<&[u8]>)) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        // Bytes of a line that has not ended yet, and whether its start was thrown away.
        let (mut held, mut is_cut) = (0, false);
        loop {
            let room = buffer.get_mut(held..).unwrap_or_default();
            let bytes = match self.from.read(room) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let filled = held + bytes;
            let mut rest = buffer.get(..filled).unwrap_or_default();
            while let Some(end) = memchr(b'\n', rest) {
                let (one, after) = rest.split_at_checked(end).unwrap_or_default();
                line((!is_cut).then_some(one));
                is_cut = false;
                rest = after.get(1..).unwrap_or_default();
            }
            if bytes == 0 {
                if !rest.is_empty() || is_cut {
                    line((!is_cut).then_some(rest));
                }
                return Ok(());
            }
            held = rest.len();
            if held == buffer.len() {
                (held, is_cut) = (0, true);
            }
            buffer.copy_within(filled - held..filled, 0);
        }
    }
}

/// How far it is, for whoever watches a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    before: u64,
}

impl Progress {
    /// Over so many bytes, if that is known. Nothing is shown unless standard error is a terminal.
    pub fn new(bytes: Option<u64>) -> Progress {
        let target = match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let (bar, look) = match bytes {
            Some(bytes) => (
                ProgressBar::with_draw_target(Some(bytes), target),
                "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left",
            ),
            None => (ProgressBar::with_draw_target(None, target), "{spinner} {bytes}, {msg}"),
        };
        bar.set_style(ProgressStyle::with_template(look).unwrap_or(ProgressStyle::default_bar()));
        Progress { bar, started: Instant::now(), before: 0 }
    }

    /// Shows that so many bytes of this log, and lines of all, are done.
    pub fn at(&self, bytes: u64, lines: u64) {
        let rate = lines as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{} lines, {}/s", HumanCount(lines), HumanCount(rate as u64)));
        self.bar.set_position(self.before + bytes);
    }

    /// A log is done.
    pub fn next(&mut self, bytes: u64) {
        self.before += bytes;
    }

    /// Takes it off the terminal.
    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// How many bytes all files have, if all are files.
pub fn size<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Option<u64> {
    paths
        .into_iter()
        .map(|path| std::fs::metadata(path).ok().filter(|about| about.is_file()))
        .map(|about| about.map(|about| about.len()))
        .sum()
}
