//! Guests for tests and examples: evidence under an emulated root, for any launch and initdata.

use std::sync::OnceLock;
use std::time::SystemTime;

use protocols::rcar::{
    AttestRequest, EphemeralKey, InitData, Jwk, RuntimeData, TeeEvidence, TeeKind, binding, report_data,
};
use sealed_spec::initdata::{BrokerPin, Initdata, SealpodConfig, Via};
use sealpod_emulator::snp::processor::DEFAULT_POLICY;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Fault, Launch, Processor, Product, Tcb};
use serde_json::Value;
use tee_evidence::snp::json::to_kbs;
use tee_evidence::snp::{CertificateTable, RawReport};

/// The launch digest of a guest that nobody changed.
pub(crate) const MEASUREMENT: [u8; 48] = [0xa5; 48];

/// Keys of the emulated AMD, made once: that takes a moment.
pub(crate) fn authorities() -> &'static Authorities {
    static AUTHORITIES: OnceLock<Authorities> = OnceLock::new();
    AUTHORITIES.get_or_init(|| Authorities::generate(Product::Milan, 2048, SystemTime::now()).unwrap())
}

/// The root certificate of [`authorities`], PEM.
pub(crate) fn root_pem() -> String {
    use x509_cert::der::EncodePem;
    authorities().ark_certificate.to_pem(x509_cert::der::pem::LineEnding::LF).unwrap()
}

/// A guest: a launched VM with its initdata and ephemeral key.
pub(crate) struct Guest {
    pub(crate) key: EphemeralKey,
    pub(crate) init_data: Option<String>,
    processor: Processor,
}

/// How a guest is launched; the default is what policies here allow.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) measurement: [u8; 48],
    pub(crate) policy: u64,
    pub(crate) vmpl: u32,
    pub(crate) tcb: Tcb,
    pub(crate) host_data: Option<[u8; 32]>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) chip: u8,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            measurement: MEASUREMENT,
            policy: DEFAULT_POLICY,
            vmpl: 0,
            tcb: Tcb::default(),
            host_data: None,
            faults: Vec::new(),
            chip: 7,
        }
    }
}

impl Machine {
    /// Launches a guest with this initdata.
    pub(crate) fn boot(&self, init_data: Option<String>) -> Guest {
        let digest = init_data.as_ref().map(|body| sealed_spec::initdata::digest(body.as_bytes()));
        let launch = Launch {
            policy: self.policy,
            measurement: self.measurement,
            host_data: self.host_data.or(digest).unwrap_or_default(),
            report_id: [9; 32],
            reported_tcb: self.tcb,
            committed_tcb: self.tcb,
            launch_tcb: self.tcb,
            ..Launch::default()
        };
        let mut faults = self.faults.clone();
        faults.extend((self.vmpl > 0).then(|| Fault::vmpl(self.vmpl)));
        let chip = Chip::new(Product::Milan, [self.chip; 48]);
        let processor = Processor::launch(chip, launch, faults, authorities(), SystemTime::now()).unwrap();
        Guest { key: EphemeralKey::generate().unwrap(), init_data, processor }
    }
}

impl Guest {
    /// What the guest sends to `/attest` for a nonce.
    pub(crate) fn attest_request(&self, nonce: &str) -> AttestRequest {
        self.attest_request_as(nonce, self.key.public_jwk())
    }

    /// The same with another key in it than the guest's own.
    pub(crate) fn attest_request_as(&self, nonce: &str, key: Jwk) -> AttestRequest {
        let data = report_data(&binding(nonce, &key, ""));
        AttestRequest {
            init_data: self.init_data.clone().map(|body| InitData { format: "toml".into(), body }),
            runtime_data: RuntimeData { nonce: nonce.to_owned(), tee_pubkey: key },
            tee_evidence: TeeEvidence {
                primary_evidence: self.evidence(&data),
                additional_evidence: String::new(),
            },
        }
    }

    /// A report over `report_data` with its certificates, as RCAR carries them.
    pub(crate) fn evidence(&self, report_data: &[u8; 64]) -> Value {
        let mut request = [0; 96];
        request[..64].copy_from_slice(report_data);
        let answer = self.processor.answer(&Call::ExtendedReport(request, 4));
        assert_eq!(answer.exit_info, 0);
        let report = RawReport::from_bytes(&answer.message[32..]).unwrap();
        let table = CertificateTable::parse(&answer.certificates).unwrap();
        to_kbs(&report, table.entries()).unwrap()
    }
}

/// Initdata that names a sealed spec and its key.
pub(crate) fn init_data(spec_digest: &str, key_id: &str) -> String {
    let broker = BrokerPin {
        url: "https://broker.example:8443".into(),
        via: Via::Relay,
        ca: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into(),
    };
    let config =
        SealpodConfig { sealed_spec: spec_digest.parse().unwrap(), key_id: key_id.parse().unwrap(), broker };
    Initdata { config, document: None }.to_toml().unwrap()
}

/// What `/auth` takes.
pub(crate) fn auth_request() -> Value {
    serde_json::to_value(protocols::rcar::AuthRequest::new(TeeKind::Snp)).unwrap()
}
