//! `sealpod collateral`: AMD's certificates and revocation lists, fetched where there is a network, carried
//! in one file, imported where there is none.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use collateral::{AMD_KDS, Bounds, Collateral, Key, Line, MAX_BYTES, Patience, Reach, Roots, Settings};
use tee_evidence::snp::{Product, RawReport, Report};
use verifier::snp::{Anchors, from_kbs};

use crate::files::{self, Access};
use crate::identity::IdentityDir;

/// Longest evidence file: a report, or its JSON with certificates.
const EVIDENCE_LIMIT: usize = 1024 * 1024;
const ROOT_LIMIT: usize = 64 * 1024;
/// How long a command waits for one piece.
const WAIT: Duration = Duration::from_secs(120);

#[derive(Subcommand)]
pub(crate) enum CollateralCommand {
    /// Fetch what a chip's evidence is verified with: its certificate, chain and revocation list
    Fetch(FetchArgs),
    /// Write the cache into one file, for a site without a network
    Export(ExportArgs),
    /// Import such a file, a directory, or certificate files
    Import(ImportArgs),
    /// List the cache, with dates
    Show(CacheArgs),
}

#[derive(Args)]
pub(crate) struct CacheArgs {
    /// Cache directory [default: 'collateral' in the identity directory]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Root certificate of emulated processors that the cache may hold certificates of; repeatable
    #[arg(long, value_name = "FILE")]
    emulated_root: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// A report (1184 bytes), or evidence as guests send it (JSON)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["product", "chip", "tcb"])]
    report: Option<PathBuf>,
    /// Milan, Genoa (Bergamo and Siena too) or Turin; alone: chains and revocation lists only
    #[arg(long)]
    product: Option<String>,
    /// CHIP_ID, 128 hexadecimal digits, or 16 for Turin
    #[arg(long, value_name = "HEX", requires_all = ["product", "tcb"])]
    chip: Option<String>,
    /// bootloader=N,tee=N,snp=N,microcode=N, for Turin fmc=N too
    #[arg(long, requires = "chip")]
    tcb: Option<String>,
    /// For SEV and SEV-ES: the processor's cpu0-id, as 'sealpod-relay sev-platform' prints it
    #[arg(long, value_name = "HEX")]
    cpu0_id: Option<String>,
    /// Base URL of a key distribution service; repeatable, asked in order [default: AMD's]
    #[arg(long, value_name = "URL")]
    kds: Vec<String>,
    /// CA file for it [default: the system's CAs]
    #[arg(long, value_name = "FILE")]
    kds_ca: Option<PathBuf>,
    /// Allow http:// there
    #[arg(long)]
    allow_plain_http: bool,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// File to write (tar)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// Bundles, directories, or certificates of VLEKs, chips and chains
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(identity: &IdentityDir, command: &CollateralCommand) -> Result<ExitCode> {
    match command {
        CollateralCommand::Fetch(args) => fetch(identity, args),
        CollateralCommand::Export(args) => export(&open(identity, &args.cache)?, &args.output),
        CollateralCommand::Import(args) => import(&open(identity, &args.cache)?, &args.files),
        CollateralCommand::Show(args) => show(&open(identity, args)?),
    }
}

/// The owner's cache, with nobody to ask.
pub(crate) fn open(identity: &IdentityDir, args: &CacheArgs) -> Result<Arc<Collateral>> {
    opened(identity, args, Vec::new(), None, false)
}

fn opened(
    identity: &IdentityDir,
    args: &CacheArgs,
    kds: Vec<String>,
    ca: Option<PathBuf>,
    allow_plain: bool,
) -> Result<Arc<Collateral>> {
    let mut anchors = Anchors::amd();
    for path in &args.emulated_root {
        let root = files::read(path, ROOT_LIMIT)?;
        anchors = anchors.with_emulated(&root).with_context(|| path.display().to_string())?;
    }
    Ok(Collateral::open(Settings {
        directory: args.cache.clone().unwrap_or_else(|| identity.collateral()),
        kds,
        ca,
        allow_plain,
        roots: Roots::Of(anchors.fingerprints()),
        bounds: Bounds::default(),
        patience: Patience::default(),
        tell: Box::new(|line| eprintln!("sealpod: {line}")),
    })?)
}

fn fetch(identity: &IdentityDir, args: &FetchArgs) -> Result<ExitCode> {
    let keys = wanted(args)?;
    let kds = if args.kds.is_empty() { vec![AMD_KDS.to_owned()] } else { args.kds.clone() };
    let cache = opened(identity, &args.cache, kds, args.kds_ca.clone(), args.allow_plain_http)?;
    let mut missing = 0;
    crate::block_on(async {
        for key in &keys {
            let found = cache.get(key, Reach::Service, SystemTime::now(), WAIT).await;
            match found.note {
                None => println!("{key}"),
                Some(note) => {
                    missing += 1;
                    eprintln!("sealpod: {}", note.detail());
                }
            }
        }
    })?;
    ensure!(missing == 0, "{missing} of {} pieces could not be fetched", keys.len());
    println!("carry them to a site without a network with 'sealpod collateral export'");
    Ok(ExitCode::SUCCESS)
}

/// Everything that the named chips' evidence needs.
fn wanted(args: &FetchArgs) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    if let Some(path) = &args.report {
        keys.extend(by_report(&read_report(path)?)?);
    }
    match (&args.product, &args.chip, &args.tcb) {
        (Some(product), Some(chip), Some(tcb)) => {
            let vcek = collateral::vcek_of(product, chip, tcb)?;
            keys.extend(vcek.product().map(|product| both(product, Line::Vcek)).into_iter().flatten());
            keys.push(vcek);
        }
        (Some(name), None, None) => {
            let known = |known: &Product| known.name().eq_ignore_ascii_case(name);
            let Some(product) = Product::ALL.into_iter().find(known) else {
                bail!("'{name}' is no product; give Milan, Genoa (Bergamo and Siena too) or Turin");
            };
            keys.extend(Line::ALL.into_iter().flat_map(|line| both(product, line)));
        }
        _ => {}
    }
    if let Some(id) = &args.cpu0_id {
        let bytes = hex::decode(id).ok().and_then(|id| id.try_into().ok());
        keys.push(Key::Cek(bytes.context("--cpu0-id takes 128 hexadecimal digits")?));
    }
    ensure!(!keys.is_empty(), "say for which chip: --report FILE, or --product, --chip and --tcb");
    Ok(keys)
}

fn both(product: Product, line: Line) -> [Key; 2] {
    [Key::Chain(product, line), Key::Crl(product, line)]
}

/// A VLEK comes from its provider: then there are only its chain and list to fetch.
fn by_report(report: &Report) -> Result<Vec<Key>> {
    let signer = report.key_info.signing_key().context("the report is signed by nobody's key")?;
    let line = Line::from(signer);
    if line == Line::Vlek {
        let product = report.product().context("the report names no processor; give --product")?;
        return Ok(both(product, line).into());
    }
    let vcek = collateral::vcek_of_report(report)?;
    let product = vcek.product().context("the report names no processor")?;
    Ok(both(product, line).into_iter().chain([vcek]).collect())
}

fn read_report(path: &Path) -> Result<Report> {
    let bytes = files::read(path, EVIDENCE_LIMIT)?;
    let raw = match RawReport::from_bytes(&bytes) {
        Ok(raw) => raw,
        Err(length) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(json) => from_kbs(&json).with_context(|| path.display().to_string())?.report,
            Err(_) => bail!("{}: {length}, and it is not evidence in JSON", path.display()),
        },
    };
    Report::from_raw(&raw).with_context(|| path.display().to_string())
}

fn export(cache: &Arc<Collateral>, output: &Path) -> Result<ExitCode> {
    let (bundle, notes) = crate::block_on(cache.export(SystemTime::now()))??;
    for note in &notes {
        eprintln!("sealpod: left out: {note}");
    }
    files::write(output, &bundle, Access::Public)?;
    println!(
        "written to {}; import it with 'sealpod-broker collateral import' or 'sealpod collateral import'",
        output.display()
    );
    Ok(if notes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn import(cache: &Arc<Collateral>, paths: &[PathBuf]) -> Result<ExitCode> {
    let mut pieces = Vec::new();
    for path in paths {
        pieces.extend(collateral::gather(path)?);
        let total: usize = pieces.iter().map(|(_, bytes): &(Key, Vec<u8>)| bytes.len()).sum();
        ensure!(total <= MAX_BYTES, "that is more than a cache has room for");
    }
    let imported = crate::block_on(cache.import(&pieces, SystemTime::now()))?;
    for note in &imported.refused {
        eprintln!("sealpod: refused: {note}");
    }
    println!("{} new, {} known, {} refused", imported.new, imported.same, imported.refused.len());
    Ok(if imported.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(cache: &Arc<Collateral>) -> Result<ExitCode> {
    let now = SystemTime::now();
    let (pieces, notes) = crate::block_on(cache.pieces(now))??;
    print!("{}", collateral::table(&pieces, now));
    for note in &notes {
        eprintln!("sealpod: {note}");
    }
    if pieces.is_empty() && notes.is_empty() {
        println!("nothing is cached; fetch with 'sealpod collateral fetch'");
    }
    Ok(if notes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
