//! SEV-SNP: what an honest platform shows is granted, and each single thing that hardware or host can do wrong
//! is refused by the check that is there for it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::report::Identity;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Fault, KeyKind, Launch, Processor, Product, Tcb};
use sealpod_emulator::{firmware, measure};
use tee_evidence::snp::{CertificateTable, RawReport, json};
use verifier::snp::{Anchors, Evidence, Revocation, Session};
use verifier::{Check, Denial, Grant, LaunchDigest, ReferenceValues, SnpReference, TeeKind, Trust};
use x509_cert::der::Encode;

const REPORT_DATA: [u8; 64] = [7; 64];
const HOST_DATA: [u8; 32] = [2; 32];
const PRODUCTS: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];

/// Keys of the emulated AMD, made once for each product. Half of AMD's key length, so that the test stays fast.
fn authorities(product: Product) -> &'static Authorities {
    static ALL: [OnceLock<Authorities>; 3] = [const { OnceLock::new() }; 3];
    ALL[product as usize].get_or_init(|| Authorities::generate(product, 2048, SystemTime::now()).unwrap())
}

fn anchors(product: Product) -> Anchors {
    Anchors::amd().with_emulated(&authorities(product).ark_certificate.to_der().unwrap()).unwrap()
}

/// A guest and what is asked of it.
#[derive(Clone)]
struct Case {
    product: Product,
    launch: Launch,
    reference: SnpReference,
}

impl Case {
    fn new(product: Product) -> Self {
        let launch = Launch { measurement: measured(), host_data: HOST_DATA, ..Launch::default() };
        Self { product, launch, reference: SnpReference { allow_smt: true, ..SnpReference::default() } }
    }

    fn vlek(product: Product) -> Self {
        let mut case = Self::new(product);
        case.launch.signing_key = KeyKind::Vlek;
        case.reference.vlek_csp_ids = vec!["emulated-cloud".into()];
        case
    }

    /// Report and certificate table as a guest gets them.
    fn answer(&self, faults: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let faults = faults.iter().map(|fault| fault.parse::<Fault>().unwrap()).collect();
        let chip = Chip::new(self.product, [9; SECRET]);
        let processor = Processor::launch(
            chip,
            self.launch.clone(),
            faults,
            authorities(self.product),
            SystemTime::now(),
        )
        .unwrap();
        let mut request = [0; 96];
        request[..64].copy_from_slice(&REPORT_DATA);
        let mut answer = processor.answer(&Call::ExtendedReport(request, 4));
        (answer.message.split_off(32), answer.certificates)
    }

    fn grant_at(&self, faults: &[&str], anchors: &Anchors, now: SystemTime) -> Result<Grant, Denial> {
        let (report, table) = self.answer(faults);
        let table = CertificateTable::parse(&table).unwrap();
        let reference = ReferenceValues {
            tee: vec![TeeKind::SnpEmulated],
            launch_digests: vec![LaunchDigest { name: "emulated".into(), digest: measured().into() }],
            snp: Some(self.reference.clone()),
            ..Default::default()
        };
        Evidence::parse(&report, table.entries())?
            .check_signature(anchors, Revocation::Required, now)?
            .appraise(&Session { report_data: REPORT_DATA, host_data: HOST_DATA })?
            .grant(&reference)
    }

    fn grant(&self, faults: &[&str]) -> Result<Grant, Denial> {
        self.grant_at(faults, &anchors(self.product), SystemTime::now())
    }

    fn refused(&self, faults: &[&str], check: Check) {
        match self.grant(faults) {
            Ok(_) => panic!("{faults:?} is granted"),
            Err(denial) => assert_eq!(denial.check, check, "{faults:?}: {denial}"),
        }
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
    for product in PRODUCTS {
        for (case, version) in [
            (Case::new(product), 2),
            (Case::new(product), 3),
            (Case::new(product), 5),
            (Case::vlek(product), 3),
            (Case::vlek(product), 5),
        ] {
            let case = Case { launch: Launch { report_version: version, ..case.launch }, ..case };
            let what = format!("{product:?} {version} {:?}", case.launch.signing_key);
            let grant = case.grant(&[]).unwrap_or_else(|denial| panic!("{what}: {denial}"));
            assert_eq!(grant.verdict().tee, TeeKind::SnpEmulated, "{what}");
            assert!(matches!(&grant.verdict().trust, Trust::Emulated { common_name, .. }
                if common_name.contains("EMULATED")));
        }
    }
}

/// The way from guest to broker: certificate table, then the JSON of the key broker protocol.
#[test]
fn evidence_survives_the_key_broker_protocol() {
    for case in [Case::new(Product::Milan), Case::vlek(Product::Genoa), Case::new(Product::Turin)] {
        let (report, table) = case.answer(&[]);
        let report = RawReport::from_bytes(&report).unwrap();
        let table = CertificateTable::parse(&table).unwrap();
        let sent = json::to_kbs(&report, table.entries()).unwrap();
        let received = json::from_kbs(&sent).unwrap();
        assert_eq!(received, json::KbsEvidence { report, certificates: table.into_entries() });
    }
}

#[test]
fn reports_of_other_forms_are_refused() {
    let case = Case::new(Product::Milan);
    for fault in [
        "version=0",
        "version=1",
        "version=6",
        "version=4294967295",
        "truncated",
        "trailing",
        "algorithm=0",
        "algorithm=2",
        "report-bytes=04c:01",
        "report-bytes=18b:01",
        "report-bytes=1eb:01",
        "report-bytes=1f8:01",
        "report-bytes=29f:80",
        "report-bytes=048:20",
        "report-bytes=110:01",
        "signing-key=2",
        "signing-key=7",
        "masked-chip-key",
        "signature-padding",
    ] {
        case.refused(&[fault], Check::Evidence);
    }
}

#[test]
fn signatures_have_one_form_and_one_key() {
    let case = Case::new(Product::Milan);
    for fault in ["signature", "empty-signature", "high-r", "high-s"] {
        case.refused(&[fault], Check::Signature);
    }
}

#[test]
fn certificates_of_other_chips_tcbs_and_kinds_are_refused() {
    let chip = format!("chip-id={}", "ee".repeat(64));
    let case = Case::new(Product::Milan);
    for (fault, check) in [
        (chip.as_str(), Check::Collateral),
        ("masked-chip-id", Check::Collateral),
        ("reported-tcb=snp=1", Check::Collateral),
        ("reported-tcb=microcode=1", Check::Collateral),
        ("extension=3.3:020117", Check::Collateral),
        ("absent-key", Check::Collateral),
        ("table-empty", Check::Collateral),
        ("signing-key=1", Check::Collateral),
        ("report-bytes=188:1911", Check::Collateral),
        ("report-bytes=188:1a02", Check::Collateral),
        ("other-authority", Check::CertificateChain),
        ("other-kind", Check::CertificateChain),
        ("expired-key", Check::CertificateChain),
        ("future-key", Check::CertificateChain),
        ("extension=3.9:020100", Check::CertificateChain),
        ("extension=5:160178", Check::CertificateChain),
        ("extension=4:0001", Check::CertificateChain),
        ("extension=2:160454657374", Check::CertificateChain),
        ("extension=3.3:02020118", Check::CertificateChain),
    ] {
        case.refused(&[fault], check);
    }
    for oid in ["1", "2", "3.1", "3.2", "3.3", "3.8", "4"] {
        case.refused(&[&format!("missing-oid={oid}")], Check::CertificateChain);
    }
    Case::new(Product::Turin).refused(&["missing-oid=3.9"], Check::CertificateChain);
    Case::new(Product::Turin).refused(&["reported-tcb=fmc=1"], Check::Collateral);
}

#[test]
fn a_providers_key_is_for_its_provider_under_its_own_authority() {
    let case = Case::vlek(Product::Milan);
    let hardware_id = format!("extension=4:{}", "ee".repeat(64));
    for (fault, check) in [
        ("other-authority", Check::CertificateChain),
        ("other-kind", Check::CertificateChain),
        ("expired-key", Check::CertificateChain),
        ("missing-oid=5", Check::CertificateChain),
        (hardware_id.as_str(), Check::CertificateChain),
        ("revoked-asvk", Check::CertificateChain),
        ("signing-key=0", Check::Collateral),
        ("absent-crl", Check::Collateral),
        ("signature", Check::Signature),
    ] {
        case.refused(&[fault], check);
    }
    let mut strict = case.clone();
    strict.reference.vlek_csp_ids = Vec::new();
    strict.refused(&[], Check::CertificateChain);
    strict.reference.vlek_csp_ids = vec!["emulated-clou".into()];
    strict.refused(&[], Check::CertificateChain);
    assert!(case.grant(&["masked-chip-id"]).is_ok(), "a VLEK is for no chip");
}

#[test]
fn revocation_lists_must_be_there_fresh_and_the_roots() {
    let case = Case::new(Product::Milan);
    for fault in ["absent-crl", "stale-crl", "future-crl", "forged-crl"] {
        case.refused(&[fault], Check::Collateral);
    }
    case.refused(&["revoked-ask"], Check::CertificateChain);
    case.refused(&["revoked-ask", "stale-crl"], Check::CertificateChain);
    assert!(case.grant(&["revoked-asvk"]).is_ok(), "the ASVK signed nothing here");
    let two_years = Duration::from_secs(2 * 365 * 24 * 60 * 60);
    let denial = case.grant_at(&[], &anchors(Product::Milan), SystemTime::now() + two_years).unwrap_err();
    assert_eq!(denial.check, Check::Collateral, "a list from two years ago: {denial}");
}

#[test]
fn certificate_tables_that_attack_the_parser_are_refused() {
    let case = Case::new(Product::Milan);
    for fault in ["table-overlap", "table-huge", "table-far", "table-unterminated", "table-duplicate"] {
        assert!(CertificateTable::parse(&case.answer(&[fault]).1).is_err(), "{fault}");
    }
}

#[test]
fn guests_that_others_can_look_into_are_refused() {
    let case = Case::new(Product::Milan);
    for fault in ["policy=b0000", "policy=70000", "policy=10000", "policy=4030000", "policy=8000000000030000"]
    {
        case.refused(&[fault], Check::GuestPolicy);
    }
    for fault in ["vmpl=1", "vmpl=3", "vmpl=4294967295"] {
        case.refused(&[fault], Check::Vmpl);
    }
    let mut strict = case;
    strict.reference.allow_smt = false;
    strict.refused(&[], Check::GuestPolicy);
}

#[test]
fn platforms_that_can_be_or_were_rolled_back_are_refused() {
    for product in [Product::Milan, Product::Turin] {
        let mut case = Case::new(product);
        for part in ["bootloader=3", "snp=23", "microcode=218"] {
            case.refused(&[&format!("committed-tcb={part}")], Check::Tcb);
            case.refused(&[&format!("current-tcb={part}")], Check::Tcb);
        }
        assert!(case.grant(&["launch-tcb=snp=10"]).is_ok(), "no minimum, no roll-back");
        case.reference.minimum_tcb.snp = 24;
        assert!(case.grant(&[]).is_ok());
        case.refused(&["launch-tcb=snp=23"], Check::Tcb);
        // Higher in one part does not make up for another: a TCB is not one number.
        case.refused(&["launch-tcb=snp=23,microcode=255,bootloader=255"], Check::Tcb);
        case.launch.launch_tcb = Tcb { snp: 25, ..Tcb::default() };
        assert!(case.grant(&[]).is_ok());
    }
}

#[test]
fn platforms_without_demanded_protections_are_refused() {
    let mut case = Case::new(Product::Genoa);
    assert!(case.grant(&["alias-check-off"]).is_ok());
    case.reference.require_alias_check = true;
    assert!(case.grant(&[]).is_ok());
    case.refused(&["alias-check-off"], Check::Tcb);

    let mut case = Case::new(Product::Genoa);
    case.reference.required_mitigations = 0b11;
    case.refused(&[], Check::Tcb);
    case.launch.report_version = 5;
    case.launch.mitigations = [0b111; 2];
    assert!(case.grant(&[]).is_ok());
    case.refused(&["mitigations=5"], Check::Tcb);
    case.refused(&["launch-mitigations=6"], Check::Tcb);
}

#[test]
fn id_blocks_count_only_if_their_keys_are_the_owners() {
    let mut case = Case::new(Product::Milan);
    let identity = Identity {
        family_id: [1; 16],
        image_id: [2; 16],
        guest_svn: 5,
        id_key_digest: [3; 48],
        author_key_digest: Some([4; 48]),
    };
    case.reference.id_key_digests = vec![[3; 48]];
    case.reference.author_key_digests = vec![[4; 48]];
    case.reference.minimum_guest_svn = 5;
    case.refused(&[], Check::GuestPolicy);
    case.launch.identity = Some(identity.clone());
    assert!(case.grant(&[]).is_ok());
    case.refused(&["guest-svn=4"], Check::GuestPolicy);
    case.refused(&["report-bytes=0e0:ff"], Check::GuestPolicy);
    case.refused(&["report-bytes=110:ff"], Check::GuestPolicy);
    case.launch.identity = Some(Identity { author_key_digest: None, ..identity });
    case.refused(&[], Check::GuestPolicy);
}

#[test]
fn without_its_root_configured_emulated_evidence_is_refused() {
    let case = Case::new(Product::Milan);
    let now = SystemTime::now();
    let foreign = Authorities::generate(Product::Milan, 2048, now).unwrap();
    let foreign = Anchors::amd().with_emulated(&foreign.ark_certificate.to_der().unwrap()).unwrap();
    for anchors in [Anchors::amd(), foreign, anchors(Product::Genoa)] {
        let denial = case.grant_at(&[], &anchors, now).unwrap_err();
        assert_eq!(denial.check, Check::CertificateChain, "{denial}");
    }
    let century = Duration::from_secs(60 * 60 * 24 * 365 * 100);
    let denial = case.grant_at(&[], &anchors(Product::Milan), now + century).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain, "{denial}");
}
