//! Checks or builds the agent for powerpc64le, the machines that have PEF, and boots its part that talks to
//! the ultravisor. rustup has the target's library only where it can reach its own servers, so Debian's
//! toolchain is unpacked into a directory of its own: no foreign architecture is added to this machine,
//! nothing is installed.

mod apt;
mod boot;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use apt::Apt;
pub(crate) use boot::boot;

const TARGET: &str = "powerpc64le-unknown-linux-gnu";
const LINKER: &str = "powerpc64le-linux-gnu-gcc-12";
/// What is to be done with the toolchain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Type-check the agent and everything below it.
    Check,
    /// Link the agent; the path of the program is printed.
    Build,
}

/// The toolchain can't be had on this machine, and why.
#[derive(Debug)]
pub(crate) struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the toolchain for {TARGET} can't be had here: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Checks or builds; the program's path, or the target's name.
pub(crate) fn run(root: &Path, goal: Goal) -> Result<String> {
    let (verb, done) = match goal {
        Goal::Check => ("check", None),
        Goal::Build => ("build", Some("sealpod-agent")),
    };
    let directory = cargo(root, &[verb, "--package", "sealpod-agent", "--bin", "sealpod-agent"])?;
    Ok(done.map_or_else(|| TARGET.to_owned(), |program| directory.join(program).display().to_string()))
}

/// Runs cargo for the target; the directory with what it built.
fn cargo(root: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let sysroot = toolchain()?;
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Beside the other compiler's output, not mixed with it.
    let directory = directory.join("ppc64le");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(arguments).args(["--target", TARGET, "--target-dir"]).arg(&directory);
    with_tools(&mut cargo, &sysroot);
    cargo
        .env("RUSTC", sysroot.join("usr/bin/rustc"))
        .env("CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env("CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CC_powerpc64le_unknown_linux_gnu", LINKER)
        .env("AR_powerpc64le_unknown_linux_gnu", "powerpc64le-linux-gnu-ar")
        .env("LIBSECCOMP_LINK_TYPE", "static")
        .env("LIBSECCOMP_LIB_PATH", sysroot.join("usr/lib/powerpc64le-linux-gnu"));
    let status = cargo.stdin(Stdio::null()).status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed for {TARGET} ({status})", arguments.join(" "));
    Ok(directory.join(TARGET).join("debug"))
}

/// Where everything that is fetched stays.
fn home() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("sealpod/ppc64le"))
}

/// Lets `command` find the unpacked programs and their libraries.
fn with_tools(command: &mut Command, sysroot: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{}:{path}", sysroot.join("usr/bin").display()))
        .env("LD_LIBRARY_PATH", sysroot.join("usr/lib/x86_64-linux-gnu"));
}

/// The unpacked toolchain, from the cache if it is there and works.
fn toolchain() -> Result<PathBuf> {
    let home = home()?;
    let sysroot = home.join("sysroot");
    if usable(&sysroot) {
        return Ok(sysroot);
    }
    eprintln!("fetching a toolchain for {TARGET} (once)");
    let apt = Apt::new(&home.join("apt"))?;
    apt.unpack(&apt.toolchain()?, &sysroot)?;
    ensure!(usable(&sysroot), "the toolchain in {} does not start", sysroot.display());
    Ok(sysroot)
}

fn usable(sysroot: &Path) -> bool {
    let works = |program: &str| {
        let mut command = Command::new(sysroot.join("usr/bin").join(program));
        with_tools(&mut command, sysroot);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    works("rustc") && works(LINKER) && sysroot.join("usr/lib/rustlib").join(TARGET).is_dir()
}

fn fresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}
