//! Builds `sealpod-pkcs11`, the one program that is linked dynamically: it loads libraries that vendors of PKCS #11
//! tokens supply, which a static program can't do on a system with another C library than it was built with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

const NAME: &str = "sealpod-pkcs11";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it in a target directory of its own, so that its flags rebuild nothing else, and puts it beside `sealpod`.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let own = target.join("dynamic");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--release", "--quiet", "--package", NAME, "--target", TARGET]);
    // Takes the place of the flags in .cargo/config.toml, which link statically.
    cargo.env("RUSTFLAGS", "-Ctarget-feature=-crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.arg("--target-dir").arg(&own);
    run::captured(&mut cargo)?;
    let beside = target.join(TARGET).join("release");
    fs::create_dir_all(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
    let (built, program) = (own.join(TARGET).join("release").join(NAME), beside.join(NAME));
    let staged = program.with_extension("part");
    fs::copy(&built, &staged).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&staged, &program).with_context(|| format!("cannot publish {}", program.display()))?;
    Ok(program)
}
