//! How many reports a second one core verifies, from bytes to a grant, beside the raw P-384 verify rate of
//! the library underneath: `cargo run --release -p verifier --example reports_per_second [VECTORS]`, where
//! VECTORS holds `snp/milan-v3-routex` (default: `$SEALPOD_VECTORS`, then `../shared/vectors`).

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use tee_evidence::snp::{CertEntry, CertKind, Report};
use verifier::snp::{Anchors, Evidence, Revocation, Session};
use verifier::{Denial, LaunchDigest, ReferenceValues, SnpReference, TeeKind};

const RUN: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os()
        .nth(1)
        .or_else(|| std::env::var_os("SEALPOD_VECTORS"))
        .map_or_else(|| PathBuf::from("../shared/vectors"), PathBuf::from)
        .join("snp/milan-v3-routex");
    if !root.is_dir() {
        println!("skipped: no vectors at {}", root.display());
        return Ok(());
    }
    let bytes = std::fs::read(root.join("report.bin"))?;
    let pem = std::fs::read_to_string(root.join("ask_ark.pem"))?;
    let (ask, ark) = pem.trim_end().rsplit_once("-----BEGIN").ok_or("no two certificates in ask_ark.pem")?;
    let chain = [
        CertEntry { kind: CertKind::Vcek, data: std::fs::read(root.join("vcek.pem"))? },
        CertEntry { kind: CertKind::Ask, data: ask.into() },
        CertEntry { kind: CertKind::Ark, data: format!("-----BEGIN{ark}\n").into() },
    ];
    let report = Report::parse(&bytes)?;
    let session = Session { report_data: report.report_data, host_data: report.host_data };
    let reference = ReferenceValues {
        tee: vec![TeeKind::Snp],
        launch_digests: vec![LaunchDigest { name: "vector".into(), digest: report.measurement.into() }],
        snp: Some(SnpReference {
            allow_smt: true,
            allow_debug: report.policy.debug(),
            allow_migrate_ma: report.policy.migrate_ma(),
            vmpl: report.vmpl,
            ..Default::default()
        }),
        ..Default::default()
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let grant = |anchors: &Anchors| {
        let grant = Evidence::parse(&bytes, &chain)?
            .check_signature(anchors, Revocation::Waived, now)?
            .appraise(&session)?
            .grant(&reference)?;
        black_box(grant);
        Ok::<_, Denial>(())
    };
    let first = rate(|| grant(&Anchors::amd()))?;
    let anchors = Anchors::amd();
    let again = rate(|| grant(&anchors))?;

    let raw = raw_rate(&bytes[..0x2a0]).map_err(|_| "ring failed at its own signature")?;
    println!("raw P-384 verifications:                 {raw:.0}/s on one core");
    println!("reports, bytes to grant, chip seen first: {first:.0}/s, {:.2} of it", first / raw);
    println!("reports, bytes to grant, chip seen again: {again:.0}/s, {:.2} of it", again / raw);
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
