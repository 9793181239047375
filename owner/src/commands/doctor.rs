//! `sealpod doctor`: checks, one line each, and what to do about those that fail.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use launcher::{GuestManifest, Platform};

use super::measure;
use crate::broker::Broker;
use crate::cli::DoctorArgs;
use crate::identity::IdentityDir;

/// One check's outcome.
enum Finding {
    Good(String),
    Note(String),
    Bad { what: String, next: String },
}

use Finding::{Bad, Good, Note};

pub(crate) fn run(directory: &IdentityDir, args: &DoctorArgs) -> Result<ExitCode> {
    let mut failed = 0;
    let mut show = |area: &str, findings: Vec<Finding>| {
        for finding in findings {
            match finding {
                Good(what) => println!("ok    {area}: {what}"),
                Note(what) => println!("note  {area}: {what}"),
                Bad { what, next } => {
                    failed += 1;
                    println!("FAIL  {area}: {what}\n      -> {next}");
                }
            }
        }
    };
    show("identity", identity(directory));
    show("broker", broker(directory));
    show("machine", machine());
    if let Some(path) = &args.guest {
        show("guest", guest(path));
    }
    match failed {
        0 => println!("\nnothing stands in the way"),
        failed => println!("\n{failed} to put right"),
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bad(error: &anyhow::Error, next: &str) -> Finding {
    Bad { what: crate::one_line(error), next: next.to_owned() }
}

fn identity(directory: &IdentityDir) -> Vec<Finding> {
    let identity = match directory.load() {
        Ok(identity) => identity,
        Err(error) => return vec![bad(&error, "run 'sealpod init'")],
    };
    match directory.key() {
        Ok(key) => {
            vec![Good(format!("repository '{}', key {} in {directory}", identity.repository, key.public()))]
        }
        Err(error) => {
            vec![bad(&error, "restore the key from your copy: without it nothing can be pushed or retired")]
        }
    }
}

fn broker(directory: &IdentityDir) -> Vec<Finding> {
    let Ok(identity) = directory.load() else { return vec![Note("not checked without an identity".into())] };
    let health = Broker::of(&identity).and_then(|broker| crate::block_on(broker.health())?);
    match health {
        Ok(health) => {
            let mut findings = vec![Good(format!(
                "{} answers over the pinned certificate, version {}",
                identity.broker_url, health.version
            ))];
            for anchor in &health.trust {
                if anchor.to_ascii_lowercase().contains("emulated") {
                    findings.push(Note(format!("trusts {anchor}: for tests and demonstrations only")));
                } else {
                    findings.push(Good(format!("trusts {anchor}")));
                }
            }
            findings
        }
        Err(error) => vec![bad(&error, "start the broker, or make a new identity with its address and CA")],
    }
}

fn machine() -> Vec<Finding> {
    let mut findings = Vec::new();
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        // Whether guests get anywhere with it shows only when one is booted: `run` tries.
        Ok(_) => findings.push(Note("/dev/kvm opens; 'sealpod run' boots a small guest to see whether it works, and translates (TCG) if not".into())),
        Err(_) => findings.push(Note("no /dev/kvm: 'sealpod run' translates (TCG), which is slow and works".into())),
    }
    let snp = std::fs::read_to_string("/sys/module/kvm_amd/parameters/sev_snp").unwrap_or_default();
    if matches!(snp.trim(), "Y" | "1") {
        findings.push(Good("AMD SEV-SNP is on".into()));
    } else {
        findings.push(Note("no AMD SEV-SNP: guests here run with the emulated secure processor".into()));
    }
    findings
}

fn guest(path: &Path) -> Vec<Finding> {
    let guest = match GuestManifest::load(path) {
        Ok(guest) => guest,
        Err(error) => return vec![bad(&error.into(), "see docs for guest.toml")],
    };
    let mut findings = Vec::new();
    match guest.check_files() {
        Ok(()) => match measure::measure(&guest) {
            Ok(measurement) => findings.push(Good(format!("launch digest {}", measurement.launch_digest))),
            Err(error) => {
                findings.push(bad(&error, "use firmware, kernel and CPU model that can be measured"));
            }
        },
        Err(error) => findings.push(bad(&error.into(), "build the guest first ('make')")),
    }
    findings.push(program(&guest.qemu, "--version", "install qemu-system-x86"));
    if let Platform::SnpEmulated { emulator, state, .. } | Platform::SevEmulated { emulator, state, .. } =
        &guest.platform
    {
        findings.push(program(emulator, "--help", "build it: cargo build -p emulator"));
        if state.join("ark.pem").exists() {
            findings.push(Good(format!("emulator state {}", state.display())));
        } else {
            findings.push(Bad {
                what: format!("emulator state {} has no ark.pem", state.display()),
                next: format!("run '{} init --state {}'", emulator.display(), state.display()),
            });
        }
    }
    findings
}

fn program(name: &Path, argument: &str, next: &str) -> Finding {
    let Some(path) = find(name) else {
        return Bad { what: format!("program {} is not here", name.display()), next: next.to_owned() };
    };
    match Command::new(&path).arg(argument).output() {
        Ok(output) if output.status.success() => {
            let first = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
            Good(format!("{}: {first}", path.display()))
        }
        Ok(output) => Bad {
            what: format!("{} {argument} ended with {}", path.display(), output.status),
            next: next.to_owned(),
        },
        Err(error) => {
            Bad { what: format!("{} can't be started: {error}", path.display()), next: next.to_owned() }
        }
    }
}

fn find(name: &Path) -> Option<PathBuf> {
    let runnable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return Some(name.to_owned()).filter(runnable);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(name)).find(runnable)
}
