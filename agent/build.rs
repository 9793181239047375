//! One linker flag: a static position-independent program relocates itself at start, and a tenth of the
//! agent would be that list. Packed (DT_RELR, glibc 2.36) it is a hundredth.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
