//! `sealpod push`: the key with its signed registration, and a release policy.

mod minimum;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, ensure};
use protocols::broker::{POLICIES_PATH, PolicyRequest, REGISTRATIONS_PATH, RegistrationRequest};
use protocols::owner::{
    ApiVersion, LaunchDigest, MinimumTcb, PolicyStatement, PolicyTee, Registration, ReleasePolicy, Releases,
    SevPolicy, SevSecret, SnpPolicy,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use minimum::TcbMinimum;

use super::image_key::{self, Pusher};
use super::measure::Measurement;
use super::resource::Signed;
use crate::broker::Broker;
use crate::cli::PushArgs;
use crate::files::{self, Access};
use crate::identity::IdentityDir;
use crate::keystore::KeyStore;

const LIMIT: usize = 1024 * 1024;

/// The key file that `seal` writes: what the broker needs, before it is signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFile {
    /// Layout of this file.
    pub(crate) version: u32,
    /// What will be signed.
    pub(crate) registration: Registration,
    /// base64url of the 32 bytes. The secret.
    pub(crate) key: Zeroizing<String>,
}

/// Layout of key files.
pub(crate) const KEY_FILE_VERSION: u32 = 1;

/// `--minimum-sev`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SevMinimum(ApiVersion, u8);

impl FromStr for SevMinimum {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "an API version and a build are needed, such as 1.51,6 or 1.51";
        let (api, build) = text.split_once(',').unwrap_or((text, "0"));
        let api = ApiVersion::try_from(api.to_owned()).map_err(|_| FORM)?;
        Ok(Self(api, build.parse().map_err(|_| FORM)?))
    }
}

/// `--sev-secret`.
pub(crate) fn sev_secret(text: &str) -> Result<SevSecret, String> {
    match text {
        "connection" => Ok(SevSecret::Connection),
        "bundle" => Ok(SevSecret::Bundle),
        _ => Err("'connection' or 'bundle' is needed".into()),
    }
}

pub(crate) fn run(directory: &IdentityDir, args: &PushArgs) -> Result<ExitCode> {
    let identity = directory.load()?;
    let file = read_key_file(&args.key)?;
    let registration = &file.registration;
    ensure!(
        registration.repository == identity.repository.as_str(),
        "{} was sealed for repository '{}', this identity is '{}'; name the right one with --identity",
        args.key.display(),
        registration.repository,
        identity.repository
    );
    // Before anything is sent: half a push is worse than none.
    let policy = policy(args, directory.minimum_revision(&registration.lineage)?)?;
    let key = directory.key()?;
    let broker = Broker::of(&identity)?;

    let resource = |option| Signed::of_file(&identity, &key, &registration.lineage, option, Vec::new());
    let resources: Vec<_> = args.resource.iter().map(resource).collect::<Result<_>>()?;
    let image_keys = image_key::of_registration(&KeyStore::of(directory)?, registration)?;
    // A guest that starts in between must find them; and the broker registers no spec whose keys it lacks.
    for resource in &resources {
        println!("{}", resource.send(&broker, directory)?);
    }
    let pusher = Pusher::of(directory)?;
    for image_key in &image_keys {
        println!("{}", pusher.push(image_key, None, &[])?);
    }

    let request =
        RegistrationRequest { registration: key.sign_statement(registration)?, key: file.key.clone() };
    let accepted = crate::block_on(broker.post(REGISTRATIONS_PATH, &request))??;
    directory.keep_checkpoint(&accepted.checkpoint)?;
    println!(
        "registered {} as revision {} of lineage '{}'",
        registration.spec_digest, registration.revision, registration.lineage
    );

    let Some(policy) = policy else {
        println!(
            "no policy given: the key is released as the lineage's last policy says, and not at all before its first"
        );
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(path) = &args.save_policy {
        files::write(path, policy.to_toml()?.as_bytes(), Access::Public)?;
    }
    let lineage = &registration.lineage;
    let statement = PolicyStatement {
        repository: registration.repository.clone(),
        lineage: lineage.clone(),
        serial: directory.next_serial(lineage)?,
        policy,
    };
    let request = PolicyRequest { policy: key.sign_statement(&statement)? };
    let accepted = crate::block_on(broker.post(POLICIES_PATH, &request))??;
    directory.keep_checkpoint(&accepted.checkpoint)?;
    directory.record_policy(lineage, statement.serial, statement.policy.minimum_revision)?;
    println!("policy of lineage '{lineage}' (serial {}):", statement.serial);
    println!("  from revision {}", statement.policy.minimum_revision);
    for LaunchDigest { name, digest } in &statement.policy.launch_digest {
        println!("  to guests with launch digest {digest} ({name})");
    }
    if statement.policy.tee.iter().any(|tee| tee.is_emulated()) {
        println!(
            "  warning: EMULATED evidence is allowed: it proves nothing about a machine; for tests and demonstrations only"
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn read_key_file(path: &Path) -> Result<KeyFile> {
    let mode = std::fs::metadata(path).with_context(|| path.display().to_string())?.mode();
    ensure!(
        mode & 0o077 == 0,
        "key file {} can be read by others; run 'chmod 600' on it, and seal again if they may have read it",
        path.display()
    );
    let text = files::read_text(path, LIMIT)?;
    // The error must not quote the file: it holds the key.
    let file: KeyFile = serde_json::from_str(&text).map_err(|error| {
        anyhow!(
            "{}:{}:{}: not a key file; take the one that 'sealpod seal' wrote",
            path.display(),
            error.line(),
            error.column()
        )
    })?;
    ensure!(
        file.version == KEY_FILE_VERSION,
        "{}: key file version {} is not supported, {KEY_FILE_VERSION} is; seal again",
        path.display(),
        file.version
    );
    Ok(file)
}

fn policy(args: &PushArgs, minimum_revision: u64) -> Result<Option<ReleasePolicy>> {
    if let Some(path) = &args.policy {
        let text = files::read_text(path, LIMIT)?;
        return Ok(Some(ReleasePolicy::from_toml(&text).with_context(|| path.display().to_string())?));
    }
    if args.measurement.is_empty() {
        return Ok(None);
    }
    let mut tee = Vec::new();
    let mut launch_digest = Vec::new();
    for path in &args.measurement {
        let text = files::read_text(path, LIMIT)?;
        let measurement: Measurement = serde_json::from_str(&text)
            .with_context(|| format!("{}: not what 'sealpod measure' writes", path.display()))?;
        if !tee.contains(&measurement.tee) {
            tee.push(measurement.tee);
        }
        launch_digest.push(LaunchDigest { name: measurement.name, digest: measurement.launch_digest });
    }
    let names = |family: fn(PolicyTee) -> bool| tee.iter().any(|kind| family(*kind));
    let snp = names(PolicyTee::is_snp).then(|| snp_policy(args, &tee)).transpose()?;
    let sev = names(PolicyTee::is_sev).then(|| sev_policy(args, &tee)).transpose()?;
    let policy = ReleasePolicy {
        minimum_revision: args.minimum_revision.unwrap_or(minimum_revision),
        tee,
        launch_digest,
        snp,
        sev,
        pef: None,
        releases: Releases::Unlimited,
    };
    policy.validate()?;
    Ok(Some(policy))
}

/// An old firmware may have holes that attestation can't see past: the owner has to say what is new enough.
fn snp_policy(args: &PushArgs, tee: &[PolicyTee]) -> Result<SnpPolicy> {
    let minimum_tcb = match &args.minimum_tcb {
        Some(minimum) => return minimum.policy(),
        None if tee.contains(&PolicyTee::Snp) => {
            anyhow::bail!(
                "--minimum-tcb is needed for hardware: 'current', or the lowest versions you trust, such as milan=3,0,8,115"
            )
        }
        None => MinimumTcb { bootloader: 0, tee: 0, snp: 0, microcode: 0, fmc: None },
    };
    Ok(SnpPolicy::new(minimum_tcb))
}

fn sev_policy(args: &PushArgs, tee: &[PolicyTee]) -> Result<SevPolicy> {
    let SevMinimum(minimum_api, minimum_build) = match args.minimum_sev {
        Some(minimum) => minimum,
        None if tee.iter().any(|kind| kind.is_sev() && !kind.is_emulated()) => {
            anyhow::bail!(
                "--minimum-sev is needed for hardware: the lowest SEV firmware you trust, such as 1.51,6"
            )
        }
        None => SevMinimum(ApiVersion { major: 0, minor: 0 }, 0),
    };
    Ok(SevPolicy {
        secret: args.sev_secret.unwrap_or_default(),
        ..SevPolicy::new(minimum_api, minimum_build)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sev_minima_have_one_form() {
        let read = |text: &str| {
            text.parse::<SevMinimum>().map(|SevMinimum(api, build)| (api.major, api.minor, build))
        };
        assert_eq!(read("1.51,6"), Ok((1, 51, 6)));
        assert_eq!(read("1.51"), Ok((1, 51, 0)));
        for wrong in ["", "1", "1.51,", "1.51,256", "1.051", "1,51", "1.51,6,7"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            (sev_secret("bundle"), sev_secret("connection")),
            (Ok(SevSecret::Bundle), Ok(SevSecret::Connection))
        );
        assert!(sev_secret("key").is_err());
    }

    #[test]
    fn hardware_needs_a_minimum() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            push: PushArgs,
        }
        let args = |more: &[&str]| {
            Line::try_parse_from([&["push", "key.json", "--measurement", "m.json"], more].concat())
                .map(|line| line.push)
        };
        let none = args(&[]).unwrap();
        for tee in [PolicyTee::Sev, PolicyTee::SevEs] {
            assert!(sev_policy(&none, &[tee]).unwrap_err().to_string().contains("--minimum-sev"));
        }
        assert!(sev_policy(&none, &[PolicyTee::SevEsEmulated]).is_ok());
        let some = args(&["--minimum-sev", "1.51,6", "--sev-secret", "bundle"]).unwrap();
        let policy = sev_policy(&some, &[PolicyTee::SevEs]).unwrap();
        assert_eq!((policy.minimum_api, policy.minimum_build), (ApiVersion { major: 1, minor: 51 }, 6));
        assert_eq!(policy.secret, SevSecret::Bundle);
    }
}
