//! The command line itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocols::owner::SevSecret;
use sealed_spec::initdata::Via;
use sealed_spec::{KbsUri, Lineage, Repository};

use crate::commands::appraise::{Moment, ReportData};
use crate::commands::collateral::CollateralCommand;
use crate::commands::esm::EsmCommand;
use crate::commands::image::ImageCommand;
use crate::commands::keyprovider::KeyProviderArgs;
use crate::commands::push::{SevMinimum, TcbMinimum, sev_secret};
use crate::commands::resource::ResourceOption;
use crate::commands::seal::{
    Ceiling, ContainerAnd, DebugOption, ExecGrant, RegistryOption, ResolveVia, VolumeOption,
};
use crate::identity::IdentityDir;
use crate::run::RunArgs;

/// Seal Kubernetes pods so that only a confidential VM can read them
#[derive(Parser)]
#[command(name = "sealpod", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Directory with the owner's key and settings
    #[arg(long, global = true, value_name = "DIR", default_value_t = IdentityDir::default())]
    pub(crate) identity: IdentityDir,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an owner identity: a key, a repository name, and the pinned broker
    Init(InitArgs),
    /// Seal a pod: writes the manifest for the cluster and a key file for `push`
    Seal(Box<SealArgs>),
    /// Hand a sealed pod's key, its signed registration and a release policy to the broker
    Push(PushArgs),
    /// Hand a secret to the broker that guests of a lineage may fetch
    Resource(ResourceArgs),
    /// Wrap layer keys for skopeo, buildah and ctr with image keys: ocicrypt's key provider protocol
    Keyprovider(KeyProviderArgs),
    /// End a revision: its key is not released again
    Retire(RetireArgs),
    /// Compute the launch digest that a guest must report
    Measure(MeasureArgs),
    /// Open sealed logs: kubectl logs POD | sealpod logs
    Logs(LogsArgs),
    /// Boot a sealed pod in a guest on this machine
    Run(RunArgs),
    /// Check this machine, the identity and the broker, and say what to do
    Doctor(DoctorArgs),
    /// Appraise evidence offline as the broker would, and print every check
    Appraise(Box<AppraiseArgs>),
    /// Say what a refusal code means and what to do
    Explain(ExplainArgs),
    /// ESM blobs: what guests of Power PEF prove themselves with
    #[command(subcommand)]
    Esm(EsmCommand),
    /// Encrypted images: encrypt, decrypt, change who can open them
    #[command(subcommand)]
    Image(Box<ImageCommand>),
    /// AMD's certificates and revocation lists, which evidence is verified with
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// The broker's audit log
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// Name of your repository at the broker
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Repository,
    /// The broker's address as this machine reaches it
    #[arg(long, value_name = "https://HOST[:PORT]")]
    pub(crate) broker: String,
    /// The broker's CA certificate (PEM); only it is trusted
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_ca: PathBuf,
    /// The broker's address as guests reach it, if another; its host must be in the certificate too
    #[arg(long, value_name = "https://HOST[:PORT]")]
    pub(crate) guest_broker: Option<String>,
    /// How guests reach the broker
    #[arg(long, value_enum, default_value = "relay")]
    pub(crate) via: ViaOption,
}

/// How guests reach the broker.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ViaOption {
    /// Through the host's relay; TLS still ends in the guest
    Relay,
    /// Over the pod's network
    Direct,
}

impl From<ViaOption> for Via {
    fn from(option: ViaOption) -> Self {
        match option {
            ViaOption::Relay => Self::Relay,
            ViaOption::Direct => Self::Direct,
        }
    }
}

const GRANTS: &str = "What the host may do";

#[derive(Args)]
pub(crate) struct SealArgs {
    /// The manifest: one Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob
    pub(crate) manifest: PathBuf,
    /// Where to write the sealed manifest [default: <MANIFEST>-sealed.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where to write the key for `push` [default: beside the output, .key.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_output: Option<PathBuf>,
    /// Line of revisions [default: <namespace>.<name>]
    #[arg(long)]
    pub(crate) lineage: Option<Lineage>,
    /// Revision, from 1 [default: one more than this identity's last of that lineage]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
    /// Namespace where the manifest names none [default: default]
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// How the guest reaches a registry; http:// must be said; repeatable
    #[arg(
        long,
        value_name = "HOST=URL[,ca=FILE][,user=NAME,password-file=FILE|,credentials=kbs:///…][,mirror=URL]…[,lookaside=URL]"
    )]
    pub(crate) registry: Vec<RegistryOption>,
    /// The proxy that guests pull through: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// A file with the proxy's URL, which may hold a login: http://USER:PASSWORD@HOST:PORT
    #[arg(long, value_name = "FILE", conflicts_with = "proxy")]
    pub(crate) proxy_file: Option<PathBuf>,
    /// A host that guests reach without the proxy: HOST, HOST:PORT or .DOMAIN; repeatable
    #[arg(long, value_name = "HOST")]
    pub(crate) proxy_except: Vec<String>,
    /// Where the guest keeps unpacked image layers: its memory, or a disk that the host gives the VM, encrypted
    /// under a key of the guest (docs/encrypted-images.md)
    #[arg(long, value_name = "WHERE", default_value = "memory")]
    pub(crate) layer_store: LayerStoreOption,
    /// How this machine reaches a registry to look tags up, if another way; repeatable
    #[arg(long, value_name = "HOST=URL")]
    pub(crate) resolve_via: Vec<ResolveVia>,
    /// Who must have signed the images of --by-tag: a containers-policy.json(5); its key files are sealed in
    #[arg(long, value_name = "FILE", requires = "by_tag")]
    pub(crate) image_policy: Option<PathBuf>,
    /// A container whose image stays named by tag: the guest takes what the tag means when the pod starts, if
    /// the image policy's signatures vouch for it; repeatable
    #[arg(long, value_name = "CONTAINER", requires = "image_policy")]
    pub(crate) by_tag: Vec<String>,
    /// A key at the broker that opens a container's image, where its layers don't name one (jwe, pkcs7); repeatable
    #[arg(long, value_name = "CONTAINER=kbs:///REPOSITORY/image-key/TAG")]
    pub(crate) image_key: Vec<ContainerAnd<KbsUri>>,
    /// Secrets and ConfigMaps (YAML) that the pod refers to: their contents are sealed; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) with: Vec<PathBuf>,
    /// A Secret's key that the guest fetches from the broker instead; repeatable
    #[arg(long, value_name = "NAME/KEY=kbs:///REPOSITORY/TYPE/TAG")]
    pub(crate) from_broker: Vec<ContainerAnd<KbsUri>>,
    /// Grants in a file (YAML), as in the manifest's annotation sealpod.dev/grants
    #[arg(long, value_name = "FILE", help_heading = GRANTS)]
    pub(crate) grants: Option<PathBuf>,
    /// Who may read what the containers print [default: off]
    #[arg(long, value_enum, help_heading = GRANTS)]
    pub(crate) grant_logs: Option<LogsOption>,
    /// A command that the host may run in a container, exactly; repeatable
    #[arg(long, value_name = "CONTAINER=COMMAND", help_heading = GRANTS)]
    pub(crate) grant_exec: Vec<ExecGrant>,
    /// The host may write to the container's standard input (the pod's stdin: true); repeatable
    #[arg(long, value_name = "CONTAINER", help_heading = GRANTS)]
    pub(crate) grant_attach: Vec<String>,
    /// How far the host may raise a container's resources while it runs; repeatable
    #[arg(long, value_name = "CONTAINER=cpu:N,memory:N", help_heading = GRANTS)]
    pub(crate) grant_update: Vec<ContainerAnd<Ceiling>>,
    /// A volume whose contents are the host's: a live ConfigMap, Secret, token, downward API; repeatable
    #[arg(long, value_name = "CONTAINER:PATH[:exec][:max=SIZE]", help_heading = GRANTS)]
    pub(crate) grant_volume: Vec<VolumeOption>,
    /// The pod gets its service account's token from the host
    #[arg(long, help_heading = GRANTS)]
    pub(crate) grant_service_account_token: bool,
    /// A field or resource that variables may take from the host: status.podIP, limits.cpu; repeatable
    #[arg(long, value_name = "FIELD", help_heading = GRANTS)]
    pub(crate) grant_downward: Vec<String>,
    /// The host may set the variables that Kubernetes makes for services
    #[arg(long, help_heading = GRANTS)]
    pub(crate) grant_service_links: bool,
    /// Debug containers of these names (debugger-*) may be added, with this image
    #[arg(long, value_name = "NAMES=IMAGE[,count=N]", help_heading = GRANTS)]
    pub(crate) grant_debug: Option<DebugOption>,
    /// What a container may ask the broker for, through a socket of its own; repeatable
    #[arg(long, value_name = "CONTAINER=kbs:///REPOSITORY/TYPE/TAG", help_heading = GRANTS)]
    pub(crate) resource: Vec<ContainerAnd<KbsUri>>,
    /// Put the sealed document into the annotation instead of a ConfigMap
    #[arg(long)]
    pub(crate) inline: bool,
    /// Runtime class, where the manifest names none
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime_class: Option<String>,
    /// Image of the placeholder containers, for clusters whose nodes pull it
    #[arg(long, value_name = "IMAGE")]
    pub(crate) placeholder_image: Option<String>,
    /// Print what the host can read, and why
    #[arg(long)]
    pub(crate) show_public: bool,
}

/// Who may read what the containers print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogsOption {
    /// Nobody
    Off,
    /// The owner: `kubectl logs POD | sealpod logs`
    Sealed,
    /// The host, in clear
    Clear,
}

#[derive(Args)]
pub(crate) struct PushArgs {
    /// The key file that `seal` wrote
    pub(crate) key: PathBuf,
    /// A secret that containers of this lineage may fetch, pushed first; repeatable
    #[arg(long, value_name = "FILE=kbs:///REPOSITORY/TYPE/TAG")]
    pub(crate) resource: Vec<ResourceOption>,
    /// Release policy (TOML), whole
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measurement", "minimum_tcb", "minimum_sev", "minimum_revision"])]
    pub(crate) policy: Option<PathBuf>,
    /// What `measure` wrote: makes a policy that allows these guests; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) measurement: Vec<PathBuf>,
    /// Lowest TCB versions of one product, the only one allowed then, or 'current' or a date for the known minima of each line; needed for hardware
    #[arg(
        long,
        value_name = "PRODUCT=BOOTLOADER,TEE,SNP,MICROCODE[,FMC]|current|DATE",
        requires = "measurement"
    )]
    pub(crate) minimum_tcb: Option<TcbMinimum>,
    /// Lowest SEV firmware: API version, and lowest build of exactly that version; needed for SEV and SEV-ES hardware
    #[arg(long, value_name = "MAJOR.MINOR[,BUILD]", requires = "measurement")]
    pub(crate) minimum_sev: Option<SevMinimum>,
    /// What SEV and SEV-ES guests get by injection: a key to prove themselves to the broker with, or the spec key itself
    #[arg(long, value_name = "connection|bundle", requires = "measurement", value_parser = sev_secret)]
    pub(crate) sev_secret: Option<SevSecret>,
    /// Lowest revision that still gets its key [default: as the last policy pushed from here says, else 1]
    #[arg(long, requires = "measurement", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) minimum_revision: Option<u64>,
    /// Write the policy that was made to a file as well
    #[arg(long, value_name = "FILE", requires = "measurement")]
    pub(crate) save_policy: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ResourceArgs {
    /// What it holds, byte for byte
    pub(crate) file: PathBuf,
    /// Where containers ask for it; a tag is used once
    #[arg(value_name = "kbs:///REPOSITORY/TYPE/TAG")]
    pub(crate) uri: KbsUri,
    /// Whose guests get it
    #[arg(long)]
    pub(crate) lineage: Lineage,
    /// Initdata (TOML) of guests under a policy that get it too; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) initdata: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// What `kubectl logs` printed, or a container's log file; '-' is standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Refuse logs whose beginning or end is missing too
    #[arg(long)]
    pub(crate) whole: bool,
    /// Put container and stream before each line
    #[arg(long)]
    pub(crate) prefix: bool,
}

#[derive(Args)]
pub(crate) struct RetireArgs {
    /// Line of revisions
    #[arg(long)]
    pub(crate) lineage: Lineage,
    /// The revision that ends
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: u64,
}

#[derive(Args)]
pub(crate) struct MeasureArgs {
    /// What the guest is booted from
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: PathBuf,
    /// Name of this guest in policies [default: the file's name and the digest's start]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where to write the measurement for `push`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Check what a guest needs as well
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct AppraiseArgs {
    /// A report (1184 bytes), evidence in the key broker protocol's JSON, or a whole body of /attest
    pub(crate) evidence: PathBuf,
    /// Release policy (TOML); without it only authenticity is appraised
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Certificates: PEM, DER or a certificate table, of any chips; a directory is searched; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) certs: Vec<PathBuf>,
    /// Revocation list (DER or PEM); repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Vec<PathBuf>,
    /// Go without a revocation list: keys that AMD withdrew are not noticed
    #[arg(long, conflicts_with = "crl")]
    pub(crate) without_crl: bool,
    /// Appraise for that time, as in 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Moment>,
    /// What the report must be bound to [default: what an /attest body says]
    #[arg(long, value_name = "HEX")]
    pub(crate) report_data: Option<ReportData>,
    /// Initdata that the guest must have been launched with [default: what an /attest body holds]
    #[arg(long, value_name = "FILE")]
    pub(crate) initdata: Option<PathBuf>,
    /// Also trust an emulator's root: proves nothing about hardware; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) emulated_root: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The code, or the whole line that holds it; without it, all codes are listed
    pub(crate) code: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify an exported log against the checkpoints that pushes brought back
    Verify(AuditArgs),
}

#[derive(Args)]
pub(crate) struct AuditArgs {
    /// What `sealpod-broker audit export` wrote
    pub(crate) log: PathBuf,
    /// The broker's audit key, if no push has brought it yet
    // One public key in 64 starts with a hyphen.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) key: Option<protocols::audit::AuditPublicKey>,
}

/// `--layer-store`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum LayerStoreOption {
    /// Guest memory
    Memory,
    /// A virtio disk with the serial number sealpod-layers
    Device,
}
