//! Assembles the ultravisor call on Power, where it is the one thing that Rust can't say.

use std::env;

fn main() {
    let target = |name: &str| env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=src/tee/pef/ultracall.S");
    if target("CARGO_CFG_TARGET_ARCH") == "powerpc64" && target("CARGO_CFG_TARGET_ENDIAN") == "little" {
        cc::Build::new().file("src/tee/pef/ultracall.S").compile("sealpod_ultracall");
    }
}
