//! `sealpod init`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cli::InitArgs;
use crate::identity::{Identity, IdentityDir, broker_pin};
use crate::{files, tls};

const CA_LIMIT: usize = 64 * 1024;

pub(crate) fn run(directory: &IdentityDir, args: &InitArgs) -> Result<ExitCode> {
    let ca = files::read_text(&args.broker_ca, CA_LIMIT)?;
    tls::pinned(&ca).with_context(|| args.broker_ca.display().to_string())?;
    let via = args.via.into();
    let here = broker_pin(&args.broker, via, &ca).context("--broker")?;
    let guest_url = args.guest_broker.as_deref().unwrap_or(&args.broker);
    let guest = broker_pin(guest_url, via, &ca).context("--guest-broker")?;
    let identity = Identity { repository: args.repository.clone(), broker_url: here.url, guest };
    let key = directory.create(&identity)?;

    println!("identity for repository '{}' is in {directory}", identity.repository);
    println!(
        "the private key never leaves {}; keep a copy where only you can read it",
        directory.key_file().display()
    );
    println!("public key: {}", key.public());
    println!();
    println!("ask the broker's operator to enrol it:");
    println!(
        "  sealpod-broker owner enrol --config <BROKER.toml> --repository {} --key {}",
        identity.repository,
        key.public()
    );
    Ok(ExitCode::SUCCESS)
}
