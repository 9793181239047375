//! A broker: state directory, database, sessions, keys and anchors, put together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use collateral::Collateral;
use protocols::audit::{AuditKey, Summary};
use protocols::owner::KeyError;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::task::JoinHandle;
use verifier::Trust;
use verifier::snp::Anchors;
use zeroize::Zeroizing;

use crate::admin::{AdminKeyError, AdminKeys};
use crate::appraise::Attested;
use crate::challenge::Challenges;
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::counters::Counters;
use crate::journal::Journal;
use crate::log::Throttle;
use crate::passport::{PassportError, Passports};
use crate::release::Queue;
use crate::secrets::{MasterKey, SecretError};
use crate::sessions::{SessionError, Sessions};
use crate::state_dir::{Staging, StateDir, StateError, StateLock, file};
use crate::store::{Store, StoreError};
use crate::tls::{self, TlsError};
use crate::token::{Names, TokenError, TokenKey};

/// Bytes that are read of a file with SEV authorities: it holds a few of 1600.
const MAX_BUNDLE: u64 = 16 * 1024;

/// Why a broker can't be made or started.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key.
    #[error("master.key: {0}")]
    MasterKey(SecretError),
    /// The audit key.
    #[error("audit key")]
    AuditKey(#[from] KeyError),
    /// The token key.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A configured trust anchor.
    #[error("emulated root {path}: {problem}")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cache of AMD's collateral.
    #[error("collateral")]
    Collateral(#[from] collateral::OpenError),
    /// A configured software TPM key.
    #[error("software TPM key {path}: {problem}")]
    TpmKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
    /// Keys of administrators.
    #[error(transparent)]
    AdminKey(#[from] AdminKeyError),
    /// Keys of another broker.
    #[error(transparent)]
    Passport(#[from] PassportError),
    /// The key of challenges.
    #[error(transparent)]
    Challenges(#[from] SessionError),
}

/// Makes a state directory: keys, CA, database.
///
/// # Errors
/// [`BrokerError`]; then nothing is left behind.
pub async fn init(config: &Config) -> Result<(), BrokerError> {
    let staging = Staging::begin(&config.state)?;
    let mut master = Zeroizing::new([0; MasterKey::LENGTH]);
    getrandom::fill(master.as_mut()).map_err(|_| BrokerError::Random)?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(master.as_ref()) + "\n");
    staging.write(file::MASTER_KEY, text.as_bytes(), true)?;

    let ca = tls::new_ca()?;
    staging.write(file::CA, ca.certificate.as_bytes(), false)?;
    staging.write(file::CA_KEY, ca.key.as_bytes(), true)?;
    staging.write(file::TOKEN_KEY, TokenKey::generate()?.as_bytes(), true)?;
    let audit_key = AuditKey::generate()?;
    audit_key.save(&staging.path(file::AUDIT_KEY))?;
    staging.write(file::AUDIT_PUB, format!("{}\n", audit_key.public()).as_bytes(), false)?;

    let database = staging.path(file::DATABASE);
    staging.write(file::DATABASE, b"", true)?;
    let master = MasterKey::new(master.as_ref()).map_err(BrokerError::MasterKey)?;
    Store::create(&database, &master).await?;
    Ok(staging.finish()?)
}

/// Opens the database of a state directory, without serving it.
///
/// # Errors
/// [`BrokerError`].
pub async fn open_store(place: &Path, clock: Clock) -> Result<(StateDir, Store), BrokerError> {
    let state = StateDir::open(place)?;
    let text = state.secret(file::MASTER_KEY)?;
    let bytes = BASE64_STANDARD
        .decode(text.trim_end())
        .map(Zeroizing::new)
        .map_err(|_| BrokerError::MasterKey(SecretError::Length))?;
    let master = MasterKey::new(&bytes).map_err(BrokerError::MasterKey)?;
    let audit_key = AuditKey::load(&state.path(file::AUDIT_KEY))?;
    let store = Store::open(&state.path(file::DATABASE), master, audit_key, clock).await?;
    Ok((state, store))
}

/// A broker that can answer requests.
pub struct Broker {
    store: Arc<Store>,
    challenges: Challenges,
    sessions: Sessions<Attested>,
    tokens: TokenKey,
    anchors: Anchors,
    pef_anchors: verifier::pef::Anchors,
    sev_anchors: verifier::sev::Anchors,
    collateral: Arc<Collateral>,
    collateral_wait: Duration,
    passports: Passports,
    admins: AdminKeys,
    trust: Vec<String>,
    sample: bool,
    limits: Limits,
    clock: Clock,
    log: slog::Logger,
    throttle: Throttle,
    counters: Counters,
    releases: Queue,
    journal: Journal,
    _lock: StateLock,
}

/// What came up with a broker.
pub struct Started {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The TLS configuration with its certificate.
    pub tls: Arc<ServerConfig>,
    /// The audit log as it was found, verified.
    pub audit: Summary,
    /// Ends when the broker is gone, every release is decided and every delivery marked.
    pub work: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker on an initialised state directory: takes the lock, verifies the audit log, loads
    /// anchors.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start(config: &Config, clock: Clock, log: slog::Logger) -> Result<Started, BrokerError> {
        let lock = StateDir::open(&config.state)?.lock()?;
        let (state, store) = open_store(&config.state, clock.clone()).await?;
        // Before anything is added: nothing is to be chained to a log that isn't whole.
        let audit = store.verify_audit(&[]).await?;
        let names = Names { issuer: config.issuer(), audiences: config.token.audiences.clone() };
        let tokens = TokenKey::parse(&state.secret(file::TOKEN_KEY)?, names)?;
        let tls = tls::server_config(&state.secret(file::CA_KEY)?, &config.server_names)?;
        let (anchors, mut trust) = anchors(&config.trust.emulated_roots)?;
        let (pef_anchors, software) = crate::blob::anchors(&config.trust.emulated_tpm_keys)?;
        trust.extend(software);
        let sev_anchors = sev_anchors(&config.trust.emulated_sev_arks)?;
        trust.extend(sev_anchors.emulated().map(|trust| trust.to_string()));
        if config.trust.sample {
            trust.push(Trust::Nobody.to_string());
        }
        let passports = Passports::load(&config.trust.passport)?;
        trust.extend(passports.names());
        let collateral = crate::collateral::open(config, &anchors, log.clone())?;
        let mut tx = store.begin().await?;
        let detail = json!({ "version": env!("CARGO_PKG_VERSION"), "trust": trust });
        tx.record("broker.started", "broker", detail).await?;
        tx.keep_checkpoint().await?;
        tx.commit().await?;

        let store = Arc::new(store);
        let limits = config.limits.clone();
        let challenges = Challenges::new(limits.session_lifetime())?;
        let sessions = Sessions::new(limits.sessions, limits.sessions_per_address);
        let (journal, writing) = Journal::new(store.clone(), log.clone());
        let (releases, writer) = Queue::new(store.clone(), clock.clone(), config.compat.clone(), log.clone());
        let broker = Arc::new(Self {
            store,
            challenges,
            sessions,
            tokens,
            anchors,
            pef_anchors,
            sev_anchors,
            collateral,
            collateral_wait: config.collateral.wait(&config.limits),
            passports,
            admins: AdminKeys::load(&config.compat.admin_keys)?,
            trust,
            sample: config.trust.sample,
            limits,
            clock,
            log,
            throttle: Throttle::default(),
            counters: Counters::default(),
            releases,
            journal,
            _lock: lock,
        });
        let writer = tokio::spawn(writer.run());
        let work = tokio::spawn(async move {
            writing.await;
            let _ = writer.await;
        });
        Ok(Started { broker, tls, audit, work })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn sessions(&self) -> &Sessions<Attested> {
        &self.sessions
    }

    pub(crate) fn tokens(&self) -> &TokenKey {
        &self.tokens
    }

    pub(crate) fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Software TPM keys that are trusted as emulated ones.
    pub(crate) fn pef_anchors(&self) -> &verifier::pef::Anchors {
        &self.pef_anchors
    }

    /// Roots of SEV and SEV-ES platforms.
    pub(crate) fn sev_anchors(&self) -> &verifier::sev::Anchors {
        &self.sev_anchors
    }

    /// AMD's certificates and revocation lists.
    pub(crate) fn collateral(&self) -> &Arc<Collateral> {
        &self.collateral
    }

    /// How long an attestation waits for those.
    pub(crate) fn collateral_wait(&self) -> Duration {
        self.collateral_wait
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    pub(crate) fn releases(&self) -> &Queue {
        &self.releases
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn admins(&self) -> &AdminKeys {
        &self.admins
    }

    pub(crate) fn passports(&self) -> &Passports {
        &self.passports
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Whether the operator accepts sample evidence.
    pub(crate) fn accepts_sample(&self) -> bool {
        self.sample
    }

    /// Where it logs.
    pub fn log(&self) -> &slog::Logger {
        &self.log
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many attested sessions it holds.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Roots that it accepts evidence under, in words.
    #[must_use]
    pub fn trust(&self) -> &[String] {
        &self.trust
    }
}

/// AMD's built-in roots and the configured emulated ones, and both in words.
///
/// # Errors
/// [`BrokerError::Anchor`].
pub fn anchors(emulated: &[PathBuf]) -> Result<(Anchors, Vec<String>), BrokerError> {
    let mut anchors = Anchors::amd();
    for path in emulated {
        let failed = |problem: String| BrokerError::Anchor { path: path.clone(), problem };
        let mut certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        let (Some(first), None) = (certificates.next(), certificates.next()) else {
            return Err(failed("it must hold exactly one certificate, the emulated ARK".into()));
        };
        let certificate = first.map_err(|error| failed(error.to_string()))?;
        anchors = anchors.with_emulated(&certificate).map_err(|error| failed(error.to_string()))?;
    }
    let trust =
        std::iter::once(Trust::Amd).chain(anchors.emulated()).map(|trust| trust.to_string()).collect();
    Ok((anchors, trust))
}

/// AMD's built-in roots of SEV platforms and the configured emulated ones.
fn sev_anchors(emulated: &[PathBuf]) -> Result<verifier::sev::Anchors, BrokerError> {
    use std::io::Read as _;
    let mut anchors = verifier::sev::Anchors::amd();
    for path in emulated {
        let failed = |problem: String| BrokerError::Anchor { path: path.clone(), problem };
        let mut bundle = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BUNDLE).read_to_end(&mut bundle))
            .map_err(|error| failed(error.to_string()))?;
        anchors = anchors.with_emulated(&bundle).map_err(|error| failed(error.to_string()))?;
    }
    Ok(anchors)
}
