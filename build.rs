//! Link flags of the module.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
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
