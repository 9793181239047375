//! Two programs that share no measuring or verifying code, the emulated processor and this verifier, have
//! to agree: on launch digests, and on which evidence is genuine. The way between them is the real one:
//! certificate table, then the JSON of the key broker protocol.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, SystemTime};

use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::processor::DEFAULT_POLICY;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Fault, Launch, Processor, Product, Tcb};
use sealpod_emulator::{firmware, measure};
use tee_evidence::snp::{CertificateTable, RawReport, json};
use verifier::snp::{Anchors, Evidence, Revocation, Session};
use verifier::{Check, Denial, Grant, LaunchDigest, ReferenceValues, SnpReference, TeeKind, Trust};
use x509_cert::der::Encode;

const REPORT_DATA: [u8; 64] = [7; 64];
const HOST_DATA: [u8; 32] = [2; 32];

struct Platform {
    product: Product,
    authorities: Authorities,
    now: SystemTime,
}

impl Platform {
    fn new(product: Product) -> Self {
        let now = SystemTime::now();
        // Half of AMD's key length, so that the test stays fast.
        Self { product, authorities: Authorities::generate(product, 2048, now).unwrap(), now }
    }

    fn anchors(&self) -> Anchors {
        Anchors::amd().with_emulated(&self.authorities.ark_certificate.to_der().unwrap()).unwrap()
    }

    /// Evidence of a guest with these faults, through table and JSON.
    fn evidence(&self, faults: Vec<Fault>) -> json::KbsEvidence {
        let launch = Launch { measurement: measured(), host_data: HOST_DATA, ..Launch::default() };
        let chip = Chip::new(self.product, [9; SECRET]);
        let processor = Processor::launch(chip, launch, faults, &self.authorities, self.now).unwrap();
        let mut request = [0; 96];
        request[..64].copy_from_slice(&REPORT_DATA);
        let answer = processor.answer(&Call::ExtendedReport(request, 4));
        let report = RawReport::from_bytes(&answer.message[32..]).unwrap();
        let table = CertificateTable::parse(&answer.certificates).unwrap();
        let sent = json::to_kbs(&report, table.entries()).unwrap();
        let received = json::from_kbs(&sent).unwrap();
        assert_eq!(received, json::KbsEvidence { report, certificates: table.into_entries() });
        received
    }

    fn grant(&self, faults: Vec<Fault>, anchors: &Anchors, now: SystemTime) -> Result<Grant, Denial> {
        let evidence = self.evidence(faults);
        let reference = ReferenceValues {
            tee: vec![TeeKind::SnpEmulated],
            launch_digests: vec![LaunchDigest { name: "emulated".into(), digest: measured().into() }],
            snp: Some(SnpReference { allow_smt: true, ..Default::default() }),
            ..Default::default()
        };
        Evidence::parse(evidence.report.as_bytes(), &evidence.certificates)?
            .check_signature(anchors, Revocation::Required, now)?
            .appraise(&Session { report_data: REPORT_DATA, host_data: HOST_DATA })?
            .grant(&reference)
    }
}

/// The digest of the emulator's own firmware file, as the owner would compute it.
fn measured() -> [u8; 48] {
    let kernel = launch_digest::Kernel { kernel: b"kernel", initrd: b"initrd", cmdline: "quiet" };
    let launch = launch_digest::Launch {
        firmware: &firmware::generate(),
        kernel: Some(kernel),
        vcpus: 2,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: launch_digest::GUEST_FEATURES_SNP,
    };
    launch_digest::snp(&launch).unwrap()
}

#[test]
fn launch_digests_agree() {
    let parsed = firmware::Firmware::parse(firmware::generate()).unwrap();
    let hashes = measure::HashTable::of_bytes(b"kernel", b"initrd", "quiet");
    let theirs = measure::Launch {
        firmware: &parsed,
        hashes: &hashes,
        vcpus: 2,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: measure::DEFAULT_GUEST_FEATURES,
    };
    assert_eq!(theirs.digest().unwrap(), measured());
}

#[test]
fn emulated_evidence_is_granted_and_says_so() {
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        let platform = Platform::new(product);
        let grant = platform.grant(Vec::new(), &platform.anchors(), platform.now).unwrap();
        assert_eq!(grant.verdict().tee, TeeKind::SnpEmulated);
        assert!(matches!(&grant.verdict().trust, Trust::Emulated { common_name, .. }
            if common_name.contains("EMULATED")));
    }
}

#[test]
fn the_emulators_faults_are_each_refused() {
    let platform = Platform::new(Product::Milan);
    for (check, fault) in [
        (Check::Signature, Fault::signature()),
        (Check::GuestPolicy, Fault::policy(DEFAULT_POLICY | 1 << 19)),
        (Check::GuestPolicy, Fault::policy(1 << 16)),
        (Check::Vmpl, Fault::vmpl(1)),
        (Check::Vmpl, Fault::vmpl(u32::MAX)),
        (Check::Collateral, Fault::chip_id([0xee; 64])),
        (Check::Collateral, Fault::chip_id([0; 64])),
        (Check::Collateral, Fault::reported_tcb(Tcb { snp: 1, ..Tcb::default() })),
    ] {
        let what = format!("{fault:?}");
        let denial = platform.grant(vec![fault], &platform.anchors(), platform.now).unwrap_err();
        assert_eq!(denial.check, check, "{what}: {denial}");
    }
}

#[test]
fn without_its_root_configured_emulated_evidence_is_refused() {
    let platform = Platform::new(Product::Milan);
    for anchors in [Anchors::amd(), Platform::new(Product::Milan).anchors()] {
        let denial = platform.grant(Vec::new(), &anchors, platform.now).unwrap_err();
        assert_eq!(denial.check, Check::CertificateChain, "{denial}");
    }
    let later = platform.now + Duration::from_secs(60 * 60 * 24 * 365 * 100);
    let denial = platform.grant(Vec::new(), &platform.anchors(), later).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain, "{denial}");
}
