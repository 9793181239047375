//! `sealpod-broker`: the daemon and its operator's commands.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use protocols::broker::MAX_RESOURCE;
use protocols::name;
use protocols::owner::{KEY_KIND, OwnerPublicKey};
use protocols::rcar::ResourceUri;
use sealpod_broker::broker::{self, Broker};
use sealpod_broker::clock::Clock;
use sealpod_broker::config::{COMPAT_REPOSITORY, Config};
use sealpod_broker::state_dir::file;
use sealpod_broker::store::Enrolment;
use sealpod_broker::{collateral, core_dump, log, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Attestation and key broker for sealed pods.
#[derive(Parser)]
#[command(name = "sealpod-broker", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the state directory: keys, the broker's own CA, the database
    Init {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
    },
    /// Serve until SIGTERM or SIGINT; prints 'ready ADDRESS' once it listens
    Serve {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
    },
    /// Owners: who may write keys and policies, each below a repository of their own
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// ESM blobs of Power PEF
    #[command(subcommand)]
    Blob(BlobCommand),
    /// AMD's certificates and revocation lists, for sites without a network
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The compat repository: the operator's own resources, for stock clients of the key broker protocol
    #[command(subcommand)]
    Compat(CompatCommand),
}

#[derive(Subcommand)]
enum CompatCommand {
    /// Write a resource, over what was there; works while the broker serves
    Put {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// Its address, kbs:///compat/TYPE/TAG
        #[arg(long)]
        uri: ResourceUri,
        /// File with its bytes
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum CollateralCommand {
    /// Import what 'sealpod collateral export' wrote, or certificate files; works while the broker serves
    Import {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// Bundles, directories, or certificates of VLEKs, chips and chains
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum BlobCommand {
    /// Deny a blob for ever, whoever enrolled it: its guests get nothing more; works while the broker serves
    Deny {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// The blob's id, 32 hexadecimal digits
        blob: String,
    },
}

#[derive(Subcommand)]
enum OwnerCommand {
    /// Enrol an owner; works while the broker serves
    Enrol {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// The owner's repository
        #[arg(long)]
        repository: String,
        /// The owner's public key, as 'sealpod init' printed it; base64url may start with a hyphen
        #[arg(long, allow_hyphen_values = true)]
        key: OwnerPublicKey,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Verify the whole log and write it as JSON lines, with its signed checkpoints at the end
    Export {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// File to write (must not exist); standard output without it
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Print the last records, with every check behind a release or refusal
    Show {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// How many
        #[arg(long, default_value_t = 10)]
        last: u32,
    },
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sealpod-broker: the runtime can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(Arguments::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpod-broker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    core_dump::forbid().context("core dumps can't be switched off")?;
    match command {
        Command::Init { config } => init(&config).await,
        Command::Serve { config } => serve(&config).await,
        Command::Owner(OwnerCommand::Enrol { config, repository, key }) => {
            enrol(&config, &repository, &key).await
        }
        Command::Blob(BlobCommand::Deny { config, blob }) => deny_blob(&config, &blob).await,
        Command::Collateral(CollateralCommand::Import { config, files }) => import(&config, &files).await,
        Command::Audit(AuditCommand::Export { config, output }) => export(&config, output.as_deref()).await,
        Command::Audit(AuditCommand::Show { config, last }) => show(&config, last).await,
        Command::Compat(CompatCommand::Put { config, uri, file }) => put(&config, &uri, &file).await,
    }
}

async fn init(config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    broker::init(&config).await?;
    let path = |name| config.state.join(name).display().to_string();
    println!("state directory {} is ready", config.state.display());
    println!("owners pin {}", path(file::CA));
    println!("auditors keep {}", path(file::AUDIT_PUB));
    println!("keep a copy of {} elsewhere: without it every stored key is lost", path(file::MASTER_KEY));
    Ok(())
}

async fn serve(config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    let log = log::stderr();
    // Before anything can take long, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
    let started = Broker::start(&config, Clock::system(), log.clone()).await?;
    let listener = server::bind(config.listen).await?;
    let address = listener.local_addr().context("the listening address can't be read")?;
    let trust = &config.trust;
    let emulated = [&trust.emulated_roots, &trust.emulated_sev_arks, &trust.emulated_tpm_keys];
    if emulated.iter().any(|files| !files.is_empty()) {
        slog::warn!(log, "THIS BROKER TRUSTS EMULATED HARDWARE: evidence under an emulated root or software TPM key \
            proves nothing about a machine; remove trust.emulated_* from the configuration for production";
            "trust" => started.broker.trust().join(", "));
    }
    if config.trust.sample {
        slog::warn!(
            log,
            "THIS BROKER ACCEPTS SAMPLE EVIDENCE: anybody can make it, and gets the resources of the compat \
            repository that compat.tee opens to it; remove trust.sample from the configuration for production"
        );
    }
    slog::info!(log, "serving"; "address" => %address, "version" => env!("CARGO_PKG_VERSION"),
        "audit_records" => started.audit.head.seq, "trust" => started.broker.trust().join(", "));

    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server::serve(started.broker.clone(), started.tls, listener, stopped));
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready {address}").and_then(|()| stdout.flush()).context("standard output is closed")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    slog::info!(log, "stopping");
    stop.send_replace(true);
    serving.await.context("the server failed")?;
    let counters = started.broker.counters();
    slog::info!(log, "stopped"; "released" => counters.released.count(), "refused" => counters.refused.count());
    // The last reference: the queue of deliveries ends with it.
    drop(started.broker);
    // A connection that outlived the drain may still hold one: what it delivers stays reserved.
    let _ = tokio::time::timeout(Duration::from_secs(5), started.work).await;
    Ok(())
}

async fn enrol(config: &Path, repository: &str, key: &OwnerPublicKey) -> Result<()> {
    let config = Config::load(config)?;
    name::repository(repository)?;
    let (_, store) = broker::open_store(&config.state, Clock::system()).await?;
    match store.enrol(repository, key).await? {
        Enrolment::New => println!("repository '{repository}' is enrolled"),
        Enrolment::Same => println!("repository '{repository}' was enrolled with this key before"),
        Enrolment::OtherKey => bail!(
            "repository '{repository}' belongs to another key; choose another name, or ask its owner for \
             the key"
        ),
    }
    store.close().await;
    Ok(())
}

async fn deny_blob(config: &Path, blob: &str) -> Result<()> {
    let config = Config::load(config)?;
    if blob.len() != 32 || !blob.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        bail!("'{blob}' is no blob's id; 'sealpod esm show' prints it: 32 lower-case hexadecimal digits");
    }
    let (_, store) = broker::open_store(&config.state, Clock::system()).await?;
    if store.deny_blob(blob).await? {
        println!("blob {blob} is denied: its guests get nothing more from this broker");
    } else {
        println!("blob {blob} was denied before");
    }
    store.close().await;
    Ok(())
}

async fn import(config: &Path, files: &[PathBuf]) -> Result<()> {
    let config = Config::load(config)?;
    let (anchors, _) = broker::anchors(&config.trust.emulated_roots)?;
    let whole = collateral::import(&config, &anchors, files, |line| println!("{line}")).await?;
    if whole { Ok(()) } else { bail!("not everything was imported; the lines above say why") }
}

async fn export(config: &Path, output: Option<&Path>) -> Result<()> {
    let config = Config::load(config)?;
    let (_, store) = broker::open_store(&config.state, Clock::system()).await?;
    let mut out: Box<dyn Write + Send> = match output {
        Some(path) => Box::new(
            std::fs::File::create_new(path).with_context(|| format!("{} can't be made", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    let summary = store.export_audit(&mut out, &[]).await?;
    out.flush().context("the export can't be written")?;
    eprintln!("{} records, {} checkpoints, whole and unchanged", summary.head.seq, summary.checkpoints);
    store.close().await;
    Ok(())
}

async fn show(config: &Path, last: u32) -> Result<()> {
    let config = Config::load(config)?;
    let (_, store) = broker::open_store(&config.state, Clock::system()).await?;
    for record in store.last_records(last).await? {
        print!("{}", sealpod_broker::show::record(&record));
    }
    store.close().await;
    Ok(())
}

async fn put(config: &Path, uri: &ResourceUri, file: &Path) -> Result<()> {
    let config = Config::load(config)?;
    if uri.repository() != COMPAT_REPOSITORY || uri.kind() == KEY_KIND {
        bail!("{uri} is not in the operator's repository: write kbs:///{COMPAT_REPOSITORY}/TYPE/TAG");
    }
    let length = std::fs::metadata(file).with_context(|| format!("{} can't be read", file.display()))?.len();
    if length > MAX_RESOURCE as u64 {
        bail!("{} is longer than {MAX_RESOURCE} bytes, the most that a resource can have", file.display());
    }
    let content = std::fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
    let content = zeroize::Zeroizing::new(content);
    let (_, store) = broker::open_store(&config.state, Clock::system()).await?;
    store.write_compat(uri, &content).await?;
    store.close().await;
    println!("{uri} is written");
    Ok(())
}
