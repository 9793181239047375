//! `sealpod measure`: the launch digest that a guest must report, from the files it is booted from.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use launch_digest::{GUEST_FEATURES_SNP, Kernel, Launch};
use launcher::{GuestManifest, Platform};
use protocols::owner::PolicyTee;
use serde::{Deserialize, Serialize};

use crate::cli::MeasureArgs;
use crate::files::{self, Access};

const FILE_LIMIT: usize = 1024 * 1024 * 1024;

/// What `measure` writes and `push` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measurement {
    /// Name in policies.
    pub(crate) name: String,
    /// Kind of TEE that reports it.
    pub(crate) tee: PolicyTee,
    /// Lower-case hex digits: 96 for SNP, 64 for SEV and SEV-ES.
    pub(crate) launch_digest: String,
    /// What was measured, for people.
    pub(crate) measured: Measured,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    pub(crate) firmware: String,
    pub(crate) kernel: String,
    pub(crate) initrd: String,
    pub(crate) append: String,
    pub(crate) vcpus: u32,
    pub(crate) cpu_model: String,
}

pub(crate) fn run(args: &MeasureArgs) -> Result<ExitCode> {
    let guest = GuestManifest::load(&args.guest)?;
    let mut measurement = measure(&guest)?;
    let stem = args.guest.file_stem().and_then(|stem| stem.to_str()).unwrap_or("guest").replace(' ', "-");
    let short = &measurement.launch_digest[..8];
    measurement.name = args.name.clone().unwrap_or_else(|| format!("{stem}-{short}"));

    println!("launch digest: {}", measurement.launch_digest);
    println!("  name       {}", measurement.name);
    println!("  tee        {}", measurement.tee.name());
    let measured = &measurement.measured;
    for (what, value) in [
        ("firmware", &measured.firmware),
        ("kernel", &measured.kernel),
        ("initrd", &measured.initrd),
        ("append", &measured.append),
        ("cpu model", &measured.cpu_model),
    ] {
        println!("  {what:10} {value}");
    }
    println!("  vcpus      {}", measured.vcpus);
    if matches!(measurement.tee, PolicyTee::Sev | PolicyTee::SevEmulated) {
        println!("  note: SEV measures neither the number nor the model of vCPUs, and protects no registers");
    }
    if let Some(path) = &args.output {
        files::write(path, (serde_json::to_string_pretty(&measurement)? + "\n").as_bytes(), Access::Public)?;
        println!("written to {}; allow it with 'sealpod push --measurement'", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the files and computes; the name is left empty.
pub(crate) fn measure(guest: &GuestManifest) -> Result<Measurement> {
    let tee = match guest.platform {
        Platform::Snp { .. } => PolicyTee::Snp,
        Platform::SnpEmulated { .. } => PolicyTee::SnpEmulated,
        Platform::Sev { es: false, .. } => PolicyTee::Sev,
        Platform::Sev { es: true, .. } => PolicyTee::SevEs,
        Platform::SevEmulated { es: false, .. } => PolicyTee::SevEmulated,
        Platform::SevEmulated { es: true, .. } => PolicyTee::SevEsEmulated,
        Platform::None => bail!("nothing vouches for a guest of platform 'none'; measure one of kind 'snp'"),
    };
    let read = |path: &Path| files::read(path, FILE_LIMIT).context("guest");
    let (firmware, kernel, initrd) = (read(&guest.firmware)?, read(&guest.kernel)?, read(&guest.initrd)?);
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(Kernel { kernel: &kernel, initrd: &initrd, cmdline: &guest.append }),
        vcpus: guest.vcpus,
        cpu: guest.cpu_model.parse()?,
        guest_features: GUEST_FEATURES_SNP,
    };
    let digest = match tee {
        PolicyTee::Sev | PolicyTee::SevEmulated => launch_digest::sev(&launch).map(hex::encode),
        PolicyTee::SevEs | PolicyTee::SevEsEmulated => launch_digest::sev_es(&launch).map(hex::encode),
        _ => launch_digest::snp(&launch).map(hex::encode),
    };
    let digest = digest.with_context(|| format!("firmware {}", guest.firmware.display()))?;
    Ok(Measurement {
        name: String::new(),
        tee,
        launch_digest: digest,
        measured: Measured {
            firmware: protocols::name::sha256(&firmware),
            kernel: protocols::name::sha256(&kernel),
            initrd: protocols::name::sha256(&initrd),
            append: guest.append.clone(),
            vcpus: guest.vcpus,
            cpu_model: guest.cpu_model.clone(),
        },
    })
}
