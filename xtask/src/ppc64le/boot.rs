//! Boots the part of the agent that talks to the ultravisor in QEMU's pseries machine. There is no
//! ultravisor: the call arrives as an ordinary system call, and a tracing parent of the caller answers it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::{cargo, home, with_tools};
use crate::run;

const KERNEL: &str = "linux-image-powerpc64le:ppc64el";
const EMULATOR: &str = "qemu-system-ppc";
/// An emulated processor; half a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// What `pseries_init` says at the end.
const DONE: [&str; 2] = ["nobody answers where there is no ultravisor", "the ESM file was read as it is"];

const MANIFEST: &str = r#"
[[file]]
path = "/init"
mode = 0o755
input = "init"

[[directory]]
path = "/dev"
mode = 0o755

[[node]]
path = "/dev/console"
mode = 0o600
kind = "char"
major = 5
minor = 1
"#;

/// Builds, boots, and says what the guest said.
pub(crate) fn boot(root: &Path) -> Result<String> {
    let init = cargo(root, &["build", "--package", "agent-attest", "--example", "pseries_init"])?
        .join("examples/pseries_init");
    let machine = machine()?;
    let directory = home()?.join(format!("boot.{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let said = in_guest(root, &init, &machine, &directory);
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    said
}

/// QEMU and a kernel, unpacked.
fn machine() -> Result<PathBuf> {
    let home = home()?;
    let machine = home.join("machine");
    if kernel(&machine).is_err() || !machine.join("usr/bin/qemu-system-ppc64").is_file() {
        let apt = Apt::new(&home.join("apt"))?;
        let image = apt.dependency(KERNEL, "linux-image-")?;
        apt.unpack(&[format!("{image}:ppc64el"), EMULATOR.to_owned()], &machine)?;
    }
    Ok(machine)
}

fn kernel(machine: &Path) -> Result<PathBuf> {
    let boot = machine.join("boot");
    let images = fs::read_dir(&boot).with_context(|| format!("cannot list {}", boot.display()))?;
    images
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinux-")))
        .with_context(|| format!("no kernel in {}", boot.display()))
}

fn in_guest(root: &Path, init: &Path, machine: &Path, directory: &Path) -> Result<String> {
    let (manifest, initrd) = (directory.join("manifest.toml"), directory.join("initrd.img"));
    let console = directory.join("console");
    fs::write(&manifest, MANIFEST).context("cannot write the initrd's manifest")?;
    let mut builder = Command::new(env!("CARGO"));
    builder.current_dir(root).args(["run", "--quiet", "--package", "initrd", "--", "--manifest"]);
    builder.arg(&manifest).arg("--input").arg(format!("init={}", init.display())).arg("--out").arg(&initrd);
    run::captured(&mut builder)?;

    let mut qemu = Command::new(machine.join("usr/bin/qemu-system-ppc64"));
    with_tools(&mut qemu, machine);
    qemu.args(["-L", "/usr/share/qemu", "-M", "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"])
        .args(["-cpu", "POWER9", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-append", "console=hvc0 quiet panic=-1", "-serial"])
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel(machine)?)
        .arg("-initrd")
        .arg(&initrd);
    let log = File::create(directory.join("log")).context("cannot write the log")?;
    let mut guest = qemu.stdin(Stdio::null()).stderr(log).spawn().context("cannot start QEMU")?;
    let started = Instant::now();
    while guest.try_wait().context("cannot wait for QEMU")?.is_none() {
        if started.elapsed() > PATIENCE {
            guest.kill().and_then(|()| guest.wait()).context("cannot end QEMU")?;
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let found = DONE.map(|text| said.lines().find(|line| line.contains(text)));
    match found {
        [Some(_), Some(line)] => Ok(line.trim().to_owned()),
        _ => {
            let tail: Vec<&str> = said.lines().rev().take(20).collect();
            bail!("the guest didn't read its file; its console, last line first:\n{}", tail.join("\n"))
        }
    }
}
