//! How many reports a second one core verifies, from bytes to a grant, beside the raw P-384 verify rate of
//! the library underneath: `cargo run --release -p verifier --example reports_per_second [VECTORS]`.
//!
//! Emulated evidence has AMD's formats and key lengths, and a revocation list. A real chip's report comes on top
//! where VECTORS holds `snp/milan-v3-routex` (default: `$SEALPOD_VECTORS`, then `../shared/vectors`); it has no list.

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Launch, Processor, Product};
use tee_evidence::snp::{CertEntry, CertKind, CertificateTable, RawReport, Report};
use verifier::snp::{Anchors, Evidence, Revocation, Session, pile};
use verifier::{Denial, LaunchDigest, ReferenceValues, SnpReference, TeeKind};

const RUN: Duration = Duration::from_secs(2);
/// AMD's.
const RSA_BITS: usize = 4096;

struct Case {
    name: &'static str,
    report: Vec<u8>,
    chain: Vec<CertEntry>,
    anchors: Anchors,
    revocation: Revocation,
    now: SystemTime,
    session: Session,
    reference: ReferenceValues,
}

impl Case {
    fn new(
        name: &'static str,
        report: Vec<u8>,
        chain: Vec<CertEntry>,
        anchors: Anchors,
        tee: TeeKind,
        now: SystemTime,
    ) -> Result<Self, Box<dyn Error>> {
        let fields = Report::parse(&report)?;
        Ok(Self {
            name,
            session: Session { report_data: fields.report_data, host_data: fields.host_data },
            reference: ReferenceValues {
                tee: vec![tee],
                launch_digests: vec![LaunchDigest {
                    name: "measured".into(),
                    digest: fields.measurement.into(),
                }],
                snp: Some(SnpReference {
                    allow_smt: true,
                    allow_debug: fields.policy.debug(),
                    allow_migrate_ma: fields.policy.migrate_ma(),
                    vmpl: fields.vmpl,
                    ..Default::default()
                }),
                ..Default::default()
            },
            revocation: if chain.iter().any(|entry| entry.kind == CertKind::Crl) {
                Revocation::Required
            } else {
                Revocation::Waived
            },
            report,
            chain,
            anchors,
            now,
        })
    }

    fn emulated() -> Result<Self, Box<dyn Error>> {
        let now = SystemTime::now();
        let authorities = Authorities::generate(Product::Milan, RSA_BITS, now)?;
        let launch = Launch { measurement: [7; 48], ..Launch::default() };
        let chip = Chip::new(Product::Milan, [9; SECRET]);
        let processor = Processor::launch(chip, launch, Vec::new(), &authorities, now)?;
        let answer = processor.answer(&Call::ExtendedReport([0; 96], 8));
        let report = answer.message.get(32..32 + RawReport::LEN).ok_or("no report")?.to_vec();
        let chain = CertificateTable::parse(&answer.certificates)?.into_entries();
        let root = chain.iter().find(|entry| entry.kind == CertKind::Ark).ok_or("no root")?;
        let anchors = Anchors::amd().with_emulated(&root.data)?;
        Self::new("emulated, with a revocation list", report, chain, anchors, TeeKind::SnpEmulated, now)
    }

    fn real(root: &std::path::Path) -> Result<Self, Box<dyn Error>> {
        let report = std::fs::read(root.join("report.bin"))?;
        let mut chain = pile::read(&std::fs::read(root.join("ask_ark.pem"))?)?;
        chain.extend(pile::read(&std::fs::read(root.join("vcek.pem"))?)?);
        let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self::new("real, without a revocation list", report, chain, Anchors::amd(), TeeKind::Snp, now)
    }

    fn grant(&self, anchors: &Anchors) -> Result<(), Denial> {
        let grant = Evidence::parse(&self.report, &self.chain)?
            .check_signature(anchors, self.revocation, self.now)?
            .appraise(&self.session)?
            .grant(&self.reference)?;
        black_box(grant);
        Ok(())
    }

    fn print(&self, raw: f64) -> Result<(), Denial> {
        // Anchors remember what verified; these forget it each time.
        let first = rate(|| self.grant(&self.anchors.forgetful()))?;
        let again = rate(|| self.grant(&self.anchors))?;
        println!("{}:", self.name);
        println!("  reports, bytes to grant, chip seen first: {first:.0}/s, {:.2} of it", first / raw);
        println!("  reports, bytes to grant, chip seen again: {again:.0}/s, {:.2} of it", again / raw);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os()
        .nth(1)
        .or_else(|| std::env::var_os("SEALPOD_VECTORS"))
        .map_or_else(|| PathBuf::from("../shared/vectors"), PathBuf::from)
        .join("snp/milan-v3-routex");
    let emulated = Case::emulated()?;
    let signed = emulated.report.get(..0x2a0).ok_or("no report")?;
    let raw = raw_rate(signed).map_err(|_| "ring failed at its own signature")?;
    println!("raw P-384 verifications: {raw:.0}/s on one core");
    emulated.print(raw)?;
    if root.is_dir() {
        Case::real(&root)?.print(raw)?;
    } else {
        println!("skipped: no vectors at {}", root.display());
    }
    Ok(())
}

fn raw_rate(message: &[u8]) -> Result<f64, Unspecified> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random)?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| Unspecified)?;
    let signature = key.sign(&random, message)?;
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key().as_ref());
    rate(|| public.verify(black_box(message), signature.as_ref()))
}

/// Calls a second, over [`RUN`].
fn rate<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed() < RUN {
        call()?;
        calls += 1;
    }
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}
