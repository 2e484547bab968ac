//! Putting a file in the place of another: whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{fgetxattr, flistxattr, fsetxattr};

/// Writes `new` in place of `old`, which the file at `path` must still hold, with its owner, rights,
/// security label and other attributes. With `backup` it is kept beside it under that ending first.
pub fn replace(path: &Path, old: &[u8], new: &[u8], backup: Option<&str>) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = File::open(parent)?;
    // Others of our kind wait here.
    directory.lock()?;
    let file = File::open(path)?;
    if fs::read(path)? != old {
        return Err(io::Error::other(
            "was changed by somebody else at this moment; please try again",
        ));
    }
    if let Some(suffix) = backup {
        put(&beside(path, suffix), old, &file)?;
    }
    put(path, new, &file)?;
    directory.sync_all()
}

/// Writes a file that looks like the open one, under a name of its own until it is complete.
fn put(path: &Path, bytes: &[u8], like: &File) -> io::Result<()> {
    let new = beside(path, ".prefixquota-new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        let found = like.metadata()?;
        fchown(&file, Some(found.uid()), Some(found.gid()))?;
        file.set_permissions(Permissions::from_mode(found.mode() & 0o7777))?;
        copy_attributes(like, &file);
        file.sync_all()?;
        fs::rename(&new, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Extended attributes: SELinux labels, ACLs. Where they cannot be set, the file system or the
/// policy decides what the new file has.
fn copy_attributes(from: &File, to: &File) {
    let mut names = vec![0; 1 << 16];
    let length = flistxattr(from, &mut names[..]).unwrap_or(0);
    let names = names.get(..length).unwrap_or_default();
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        if let Ok(length) = fgetxattr(from, name, &mut value[..]) {
            let value = value.get(..length).unwrap_or_default();
            let _ = fsetxattr(to, name, value, rustix::fs::XattrFlags::empty());
        }
    }
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
