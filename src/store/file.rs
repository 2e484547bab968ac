//! The file itself: whose it is, and how it comes into being.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use crate::sys::effective_user;

/// Mode bits that let somebody else write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// Looks whether the store at `path` can be trusted; `None` if there is none yet. Only looks at it: a
/// descriptor of the file that is closed again would drop the locks that SQLite holds.
pub fn examine(path: &Path) -> Result<Option<Identity>, StoreError> {
    examine_directory(path.parent().unwrap_or(Path::new("/")))?;
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Io(path.to_owned(), error)),
    };
    if is_empty(&file) {
        return Ok(None);
    }
    if !file.is_file() {
        let what = "not a regular file (a symbolic link is not followed)";
        return Err(StoreError::Unsafe(path.to_owned(), what));
    }
    examine_rights(path, &file, "may be written by others; expected mode 0600")?;
    Ok(Some(Identity { device: file.dev(), inode: file.ino() }))
}

fn examine_directory(directory: &Path) -> Result<(), StoreError> {
    let found = fs::symlink_metadata(directory)
        .map_err(|error| StoreError::Io(directory.to_owned(), error))?;
    if !found.is_dir() {
        let what = "not a directory (a symbolic link is not followed)";
        return Err(StoreError::Unsafe(directory.to_owned(), what));
    }
    examine_rights(directory, &found, "may be written by others; expected mode 0700")
}

/// Whether only root, or the user as whom this process acts, can write to what was found at `path`.
fn examine_rights(path: &Path, found: &Metadata, too_open: &'static str) -> Result<(), StoreError> {
    let owner = found.uid();
    if owner != 0 && owner != effective_user() {
        return Err(StoreError::Unsafe(path.to_owned(), "belongs to somebody else than root"));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(StoreError::Unsafe(path.to_owned(), too_open));
    }
    Ok(())
}

/// `sqlite3` makes an empty file of whatever it is asked to open. That is no store yet, and must not
/// keep one from being made.
fn is_empty(file: &Metadata) -> bool {
    file.is_file() && file.len() == 0
}

/// What SQLite keeps beside a store.
pub const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a new file beside `path`, lets `fill` fill it, and gives it its name only then, so that
/// nobody ever sees it half done. If another process was faster, its file stays.
pub fn publish(
    path: &Path,
    lock_wait: Duration,
    fill: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    build(path, lock_wait, fill, name)
}

/// The same, but the new file takes the place of one that is there, once all of it is on the disk.
#[cfg(feature = "cli")]
pub fn replace<E: From<StoreError>>(
    path: &Path,
    lock_wait: Duration,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    build(path, lock_wait, fill, |new, path| {
        File::open(new)?.sync_all()?;
        rename(new, path)
    })
}

fn build<E: From<StoreError>>(
    path: &Path,
    lock_wait: Duration,
    fill: impl FnOnce(&Path) -> Result<(), E>,
    name: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<(), E> {
    let new = new_name(path);
    let io = |error| E::from(StoreError::Io(path.to_owned(), error));
    let done = create(&new).map_err(io).and_then(|()| fill(&new)).and_then(|()| {
        let directory = lock_directory(path, lock_wait)?;
        let named = name(&new, path).map_err(io);
        drop(directory);
        named
    });
    // Named, superfluous or failed: the temporary name and all beside it go.
    remove(&new);
    done
}

/// Puts the file `new` in the place of the store at `path`, which goes to `aside` with its log and
/// is lost at no moment. In a directory that is locked.
#[cfg(feature = "cli")]
pub fn exchange(new: &Path, path: &Path, aside: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(path, aside)?;
    match fs::rename(beside(path, "-wal"), beside(aside, "-wal")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => rename(new, path)?,
    }
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Removes a file and whatever SQLite keeps beside it.
pub fn remove(path: &Path) {
    for suffix in COMPANIONS.iter().chain(&[""]) {
        let _ = fs::remove_file(beside(path, suffix));
    }
}

/// A name beside `path` that nobody else has. (Not the process number: two processes in different
/// namespaces may have the same.)
pub fn new_name(path: &Path) -> PathBuf {
    beside(path, &format!(".new-{:016x}", RandomState::new().hash_one(0)))
}

/// An empty file of mode 0600, whatever the umask.
pub fn create(path: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Gives a new store its name, in a directory that is locked, unless there is one already.
fn name(new: &Path, path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|file| !is_empty(&file)) {
        return Ok(());
    }
    rename(new, path)
}

/// A store that somebody deleted by hand left its log behind: SQLite would take it for the log of
/// the new one.
fn rename(new: &Path, path: &Path) -> io::Result<()> {
    for suffix in COMPANIONS {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(new, path)
}

/// Locks the directory of `path` against others that make a store; the lock goes with the file.
pub fn lock_directory(path: &Path, lock_wait: Duration) -> Result<File, StoreError> {
    let io = |error| StoreError::Io(path.to_owned(), error);
    let directory = File::open(path.parent().unwrap_or(Path::new("/"))).map_err(io)?;
    let started = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= lock_wait => {
                return Err(StoreError::Busy(path.to_owned()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What the header of an SQLite file says.
pub struct Header {
    /// `PRAGMA application_id`.
    pub application: u32,
    /// `PRAGMA user_version`.
    pub version: u32,
}

/// Reads the header of the file at `path` without SQLite, which says other things of each file that
/// is none; `None` if it has none.
pub fn header(path: &Path) -> io::Result<Option<Header>> {
    let mut bytes = [0; 72];
    match File::open(path)?.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = |at| bytes.get(at..at + 4).and_then(|n| n.try_into().ok()).map(u32::from_be_bytes);
    let numbers = number(68).zip(number(60)).filter(|_| bytes.starts_with(b"SQLite format 3\0"));
    Ok(numbers.map(|(application, version)| Header { application, version }))
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
