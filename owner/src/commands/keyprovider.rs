//! `sealpod keyprovider`: ocicrypt's key provider protocol with the owner's image keys, so that skopeo, buildah and ctr
//! encrypt straight for a key that the broker releases. As a command: one JSON on standard input, one on standard output.
//! As a service: gRPC.

mod handler;
mod listen;

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use encrypted_image::coco::{ATTESTATION_AGENT, SEALPOD};
use encrypted_image::keyprovider::MAX_MESSAGE;
use zeroize::Zeroizing;

use crate::identity::IdentityDir;
use handler::KeyProvider;
use listen::ListenAddress;

#[derive(Args)]
pub(crate) struct KeyProviderArgs {
    /// Serve gRPC here, instead of answering the one request on standard input
    #[arg(long, value_name = "127.0.0.1:PORT|unix:PATH")]
    listen: Option<ListenAddress>,
    /// Name of this provider in the callers' configuration; images carry it, and guests know these two
    #[arg(long, value_name = "NAME", default_value = SEALPOD, value_parser = [SEALPOD, ATTESTATION_AGENT])]
    name: String,
    /// Make keys that are asked for and aren't there, and hand them to the broker
    #[arg(long)]
    create: bool,
    /// The server's certificate (PEM); with TLS, other addresses than loopback may be listened on
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key", "client_ca"])]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// CA of the clients that are served (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
}

pub(crate) fn run(directory: &IdentityDir, args: &KeyProviderArgs) -> Result<ExitCode> {
    let provider = KeyProvider::new(directory, &args.name, args.create)?;
    match &args.listen {
        Some(address) => listen::run(address, args, provider)?,
        None => answer_once(&provider)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn answer_once(provider: &KeyProvider) -> Result<()> {
    let mut input = std::io::stdin();
    ensure!(
        !input.is_terminal(),
        "a request of the key provider protocol is needed on standard input; skopeo and 'sealpod image' run this \
         command by the configuration that OCICRYPT_KEYPROVIDER_CONFIG names"
    );
    let mut request = Zeroizing::new(Vec::new());
    input.by_ref().take(MAX_MESSAGE as u64 + 1).read_to_end(&mut request).context("standard input")?;
    let reply = provider.request(None, &request).map_err(|error| anyhow!(error))?;
    let mut output = std::io::stdout().lock();
    output.write_all(&reply).and_then(|()| output.flush()).context("standard output")
}
