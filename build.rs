//! Link flags of the module, and what tells one build of it from another.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");
    let mut sources = DefaultHasher::new();
    read(Path::new("src"), &mut sources)?;
    println!("cargo:rustc-env=PREFIXQUOTA_SOURCES={:016x}", sources.finish());
    // Linux-PAM unloads a module at pam_end, but the Rust standard library registers destructors
    // that run when a thread exits: in a threaded caller they would jump into unmapped memory
    // (rust-lang/rust#91979). `nodelete` keeps the module mapped; it also makes the next login of
    // a long-lived caller cheaper.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Loading libgcc_s.so, which only serves unwinding, takes a fifth of a login's time here. A
    // linker script of that name takes the same code from the static library instead.
    let is = |key, value| env::var(key).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let directory = env::var("OUT_DIR").map_err(io::Error::other)?;
        fs::write(Path::new(&directory).join("libgcc_s.so"), "INPUT(-lgcc_eh)\n")?;
        println!("cargo:rustc-cdylib-link-arg=-L{directory}");
    }
    Ok(())
}

/// Every file below `directory`, in the order of their names.
fn read(directory: &Path, hash: &mut impl Hasher) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    files.iter().map(fs::DirEntry::path).try_for_each(|path| {
        if path.is_dir() {
            return read(&path, hash);
        }
        fs::read(&path).map(|text| text.hash(hash))
    })
}
