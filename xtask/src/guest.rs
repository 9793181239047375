//! Assembles `target/guest`: the kernel, the production and the test initrd, and the emulated firmware.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::kernel::{self, Flavour};
use crate::run;

/// Debian's and Ubuntu's CA bundle.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds what is missing and returns the bundle's directory.
pub(crate) fn assemble(root: &Path) -> Result<PathBuf> {
    let binaries = release_directory(root);
    let bundle = target_directory(root).join("guest");
    fs::create_dir_all(&bundle).with_context(|| format!("cannot make {}", bundle.display()))?;

    let source = std::env::var_os("KERNEL_SRC").map(PathBuf::from);
    let image = kernel::build(root, source.as_deref(), Flavour::SevTest)?;
    install(&image, &bundle.join("bzImage"))?;

    let agent = required(&binaries.join("sealpod-agent"))?;
    let init = required(&binaries.join("sealpod-emulated-sp"))?;
    let builder = required(&binaries.join("initrd"))?;
    for (name, inputs) in [
        ("production", vec![("agent", agent.as_path()), ("ca-certificates", Path::new(CA_BUNDLE))]),
        ("test", vec![("agent", &agent), ("ca-certificates", Path::new(CA_BUNDLE)), ("emulated-sp", &init)]),
    ] {
        let mut command = Command::new(&builder);
        command.arg("--manifest").arg(root.join("initrd").join(format!("{name}.toml")));
        for (key, path) in inputs {
            command.arg("--input").arg(format!("{key}={}", path.display()));
        }
        command.arg("--out").arg(bundle.join(format!("initrd-{name}.img")));
        run::captured(&mut command)?;
    }
    let firmware = bundle.join("firmware.fd");
    let emulator = required(&binaries.join("sealpod-emulator"))?;
    run::captured(Command::new(emulator).arg("firmware").arg("--out").arg(&firmware))?;
    Ok(bundle)
}

fn target_directory(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn release_directory(root: &Path) -> PathBuf {
    target_directory(root).join("x86_64-unknown-linux-gnu/release")
}

fn required(path: &Path) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is missing: run 'make build' first", path.display());
    }
    Ok(path.to_owned())
}

/// Copies under a temporary name first, so that a guest never boots half a file.
fn install(from: &Path, to: &Path) -> Result<()> {
    let staged = to.with_extension("part");
    fs::copy(from, &staged).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&staged, to).with_context(|| format!("cannot publish {}", to.display()))
}
