//! A copy of the store in one file, made while logins go on.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;

use super::{APPLICATION_ID, Store, StoreError, connect, file, from_sqlite};

/// What a backup has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Bytes.
    pub size: u64,
    /// Whether an older backup was there.
    pub replaced: bool,
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// The target is something that must not be overwritten: why.
    Target(PathBuf, &'static str),
    /// Reading the store or writing the copy.
    Store(StoreError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Target(path, what) => write!(f, "{}: {what}", path.display()),
            BackupError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> BackupError {
        BackupError::Store(error)
    }
}

impl Store {
    /// Copies all that is in the store now into the file `to`, whole or not at all: mode 0600,
    /// without a log beside it. An earlier backup is replaced, anything else is not.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; what was at `to` is as it was.
    pub fn back_up(&self, to: &Path, lock_wait: Duration) -> Result<Backup, BackupError> {
        let replaced = examine_target(to)?;
        let new = file::new_name(to);
        let io = |error| StoreError::Io(to.to_owned(), error);
        let copied = file::create(&new).map_err(io).and_then(|()| {
            self.copy_into(&new, lock_wait).map_err(|error| from_sqlite(to, error))?;
            File::open(&new).and_then(|file| file.sync_all()).map_err(io)?;
            fs::rename(&new, to).map_err(io)?;
            let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(io)?;
            directory.sync_all().map_err(io)?;
            fs::metadata(to).map_err(io)
        });
        file::remove(&new);
        Ok(Backup { size: copied?.len(), replaced })
    }

    fn copy_into(&self, new: &Path, lock_wait: Duration) -> rusqlite::Result<()> {
        let (mut copy, _) = connect(new, lock_wait)?;
        copy.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        let backup = rusqlite::backup::Backup::new(&self.conn, &mut copy)?;
        // All in one step: that is one state of the store, and in WAL mode it keeps nobody out.
        backup.step(-1)?;
        drop(backup);
        copy.close().map_err(|(_, error)| error)
    }
}

/// Whether an earlier backup stands at `to`. A store in use has its log beside it.
fn examine_target(to: &Path) -> Result<bool, BackupError> {
    let refuse = |what| Err(BackupError::Target(to.to_owned(), what));
    let found = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::Io(to.to_owned(), error).into()),
        Ok(found) => found,
    };
    if !found.is_file() {
        return refuse("not a regular file; expected a new name or an earlier backup");
    }
    if file::COMPANIONS.iter().any(|s| file::beside(to, s).exists()) {
        return refuse("a store in use; expected a new name or an earlier backup");
    }
    match is_ours(to) {
        Ok(true) => Ok(true),
        Ok(false) => refuse("exists and is no backup of prefixquota; expected another name"),
        Err(error) => Err(StoreError::Io(to.to_owned(), error).into()),
    }
}

fn is_ours(path: &Path) -> io::Result<bool> {
    Ok(file::header(path)?.is_some_and(|header| i64::from(header.application) == APPLICATION_ID))
}
