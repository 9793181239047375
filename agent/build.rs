//! Linker flags that keep the program small.
//!
//! A static position-independent program relocates itself at start, and a tenth of the agent would be that
//! list. Packed (DT_RELR, glibc 2.36) it is a hundredth.
//!
//! Another eighth would be tables for unwinding the stack (`no-unwind-tables.ld`). A release build aborts on
//! a panic, whose place the agent's own hook has told by then (`log::panics_to`), so nothing ever unwinds.
//! What is lost: backtraces. Don't set RUST_BACKTRACE for a release build of the agent: the attempt to make
//! one ends the program before its message.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Other profiles unwind.
    if env::var_os("PROFILE").is_some_and(|profile| profile == "release") {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/no-unwind-tables.ld");
    }
}
