//! AMD's certificates and revocation lists for brokers and QEMUs of a site: a caching mirror of the key
//! distribution service, and certificate tables for QEMU's `certs-path`. All of it is public and signed by
//! AMD; the relay vouches for none of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use collateral::{Bounds, Collateral, Patience, Roots, Settings};
use slog::{Logger, info, warn};
use tokio::net::TcpListener;

use crate::serve::Lines;

pub mod mirror;

/// `sealpod-relay collateral …`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mirror: Option<Mirror>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a certificate table for a chip, for QEMU's `certs-path`
    Certs(Certs),
}

/// A cache and whom it asks.
#[derive(Debug, Args)]
struct Cache {
    /// Cache directory
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Base URL of a key distribution service, such as https://kdsintf.amd.com; repeatable, asked in order
    #[arg(long, value_name = "URL")]
    kds: Vec<String>,
    /// CA file for them [default: the system's CAs]
    #[arg(long, value_name = "FILE")]
    kds_ca: Option<PathBuf>,
    /// Allow http:// there
    #[arg(long)]
    allow_plain_http: bool,
}

#[derive(Debug, Args)]
struct Mirror {
    /// Where brokers ask, by plain HTTP: ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Debug, Args)]
struct Certs {
    #[command(flatten)]
    cache: Cache,
    /// Milan, Genoa (Bergamo and Siena too) or Turin
    #[arg(long)]
    product: String,
    /// CHIP_ID, 128 hexadecimal digits, or 16 for Turin
    #[arg(long, value_name = "HEX")]
    chip: String,
    /// bootloader=N,tee=N,snp=N,microcode=N, for Turin fmc=N too
    #[arg(long)]
    tcb: String,
    /// Where to write the table
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command; the mirror until `stop` resolves.
///
/// # Errors
/// What the operator has to change.
pub async fn run(arguments: Arguments, log: Logger, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    match (arguments.command, arguments.mirror) {
        (Some(Command::Certs(certs)), _) => self::certs(&certs, log).await,
        (None, Some(mirror)) => {
            let cache = open(&mirror.cache, log.clone())?;
            let listener = TcpListener::bind(mirror.listen)
                .await
                .with_context(|| format!("can't listen on {}", mirror.listen))?;
            info!(log, "mirroring"; "listen" => %listener.local_addr()?, "kds" => mirror.cache.kds.join(", "));
            mirror::serve(listener, cache, log, stop).await;
            Ok(())
        }
        (None, None) => bail!("--listen ADDRESS and --cache DIR are missing"),
    }
}

fn open(cache: &Cache, log: Logger) -> anyhow::Result<Arc<Collateral>> {
    let lines = Lines::default();
    Ok(Collateral::open(Settings {
        directory: cache.cache.clone(),
        kds: cache.kds.clone(),
        ca: cache.kds_ca.clone(),
        allow_plain: cache.allow_plain_http,
        // Whoever uses the answers knows which roots count.
        roots: Roots::Any,
        bounds: Bounds::default(),
        patience: Patience::default(),
        tell: Box::new(move |line| {
            if lines.admit() {
                warn!(log, "collateral"; "detail" => line);
            }
        }),
    })?)
}

/// How long a command waits for the network.
const WAIT: Duration = Duration::from_secs(120);

async fn certs(args: &Certs, log: Logger) -> anyhow::Result<()> {
    let cache = open(&args.cache, log)?;
    let key = collateral::vcek_of(&args.product, &args.chip, &args.tcb)?;
    let bytes = cache.certificate_table(&key, SystemTime::now(), WAIT).await?;
    std::fs::write(&args.out, &bytes).with_context(|| format!("{} can't be written", args.out.display()))?;
    println!("{}: {} bytes for QEMU's certs-path", args.out.display(), bytes.len());
    Ok(())
}
