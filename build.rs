//! Link flags of the module.

fn main() {
    // Linux-PAM unloads a module at pam_end, but the Rust standard library registers destructors
    // that run when a thread exits: in a threaded caller they would jump into unmapped memory
    // (rust-lang/rust#91979). `nodelete` keeps the module mapped; it also makes the next login of
    // a long-lived caller cheaper.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
