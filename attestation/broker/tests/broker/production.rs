//! A broker in its production configuration, which names no emulated root, refuses every kind of emulated
//! evidence, though the policy allows it by name. The evidence itself is in order: brokers that trust its root
//! grant it in other tests.

use std::sync::OnceLock;
use std::time::SystemTime;

use axum::http::StatusCode;
use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::broker::BLOBS_PATH;
use protocols::owner::{LaunchDigest, OwnerKey, PefBlob, PefPolicy, PolicyTee, ReleasePolicy};
use protocols::rcar::{
    AUTH_PATH, AttestRequest, AuthRequest, EphemeralKey, InitData, RuntimeData, TeeEvidence, TeeKind,
    binding, report_data,
};
use protocols::refusal::Code;
use protocols::sev::{SESSIONS_PATH, SessionRequest};
use sealpod_broker::config::{Collateral, Compat, Config, Limits, Token, Trust};
use sealpod_emulator::sev::Platform;
use sealpod_emulator::sev::platform::Published;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, KeyKind, Launch, Processor, Product};
use sealpod_emulator::ultravisor::TpmKey;
use serde_json::{Value, json};
use tee_evidence::snp::{CertificateTable, RawReport, json::to_kbs};

use crate::guest::MEASUREMENT;
use crate::support::{Answer, Pushed, World, policy, policy_statement, post};

const EMULATED: [PolicyTee; 4] =
    [PolicyTee::SnpEmulated, PolicyTee::SevEmulated, PolicyTee::SevEsEmulated, PolicyTee::PefEmulated];

/// What a configuration file says that names nothing to trust.
async fn production() -> (World, Pushed) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: dir.path().join("state"),
        server_names: vec!["broker.example".into()],
        trust: Trust::default(),
        token: Token::default(),
        compat: Compat::default(),
        collateral: Collateral::default(),
        limits: Limits::default(),
    };
    let world = World::configured(dir, config).await;
    let pushed = world.push(1).await;
    let answer = world.set_policy(policy_statement(&world.owner, 2, everything())).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (world, pushed)
}

/// A policy that allows whatever is emulated.
fn everything() -> ReleasePolicy {
    ReleasePolicy {
        tee: EMULATED.to_vec(),
        launch_digest: vec![
            LaunchDigest { name: "snp".into(), digest: hex::encode(MEASUREMENT) },
            LaunchDigest { name: "sev".into(), digest: "a5".repeat(32) },
        ],
        sev: Some(serde_json::from_value(json!({ "minimum_api": "1.51", "minimum_build": 0 })).unwrap()),
        pef: Some(PefPolicy::default()),
        ..policy()
    }
}

fn refused(what: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::CertificateChain), "{what}");
}

async fn nothing_happened(world: &World) {
    for event in world.events().await {
        let name = event["event"].as_str().unwrap_or_default();
        assert!(
            !["key.released", "blob.enrolled", "launch.opened", "launch.granted"].contains(&name),
            "{event}"
        );
    }
}

/// Keys of the emulated AMD, made once for each product.
fn authorities(product: Product) -> &'static Authorities {
    static ALL: [OnceLock<Authorities>; 3] = [const { OnceLock::new() }; 3];
    ALL[product as usize].get_or_init(|| Authorities::generate(product, 2048, SystemTime::now()).unwrap())
}

async fn attest(
    world: &World,
    tee: TeeKind,
    pushed: &Pushed,
    evidence: impl Fn(&[u8; 64]) -> Value,
) -> Answer {
    let request = serde_json::to_value(AuthRequest::new(tee)).unwrap();
    let answer = world.send(post(AUTH_PATH, &request, &[])).await;
    if answer.status != StatusCode::OK {
        return answer;
    }
    let nonce = answer.body["nonce"].as_str().unwrap().to_owned();
    let tee_pubkey = EphemeralKey::generate().unwrap().public_jwk();
    let data = report_data(&binding(&nonce, &tee_pubkey, ""));
    let request = AttestRequest {
        init_data: Some(InitData { format: "toml".into(), body: pushed.init_data() }),
        tee_evidence: TeeEvidence { primary_evidence: evidence(&data), additional_evidence: String::new() },
        runtime_data: RuntimeData { nonce, tee_pubkey },
    };
    world.attest(&answer.cookie(), &request).await
}

#[tokio::test]
async fn snp_of_every_product_kind_of_key_and_version() {
    let (world, pushed) = production().await;
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        for (signing_key, report_version) in
            [(KeyKind::Vcek, 2), (KeyKind::Vcek, 3), (KeyKind::Vlek, 3), (KeyKind::Vcek, 5)]
        {
            let launch = Launch {
                measurement: MEASUREMENT,
                host_data: sealed_spec::initdata::digest(pushed.init_data().as_bytes()),
                signing_key,
                report_version,
                ..Launch::default()
            };
            let chip = Chip::new(product, [7; 48]);
            let processor =
                Processor::launch(chip, launch, Vec::new(), authorities(product), SystemTime::now()).unwrap();
            let evidence = |data: &[u8; 64]| {
                let mut request = [0; 96];
                request[..64].copy_from_slice(data);
                let answer = processor.answer(&Call::ExtendedReport(request, 4));
                let report = RawReport::from_bytes(&answer.message[32..]).unwrap();
                to_kbs(&report, CertificateTable::parse(&answer.certificates).unwrap().entries()).unwrap()
            };
            let answer = attest(&world, TeeKind::Snp, &pushed, evidence).await;
            refused(&format!("{product:?} {signing_key:?} {report_version}"), &answer);
        }
    }
    nothing_happened(&world).await;
}

#[tokio::test]
async fn sev_and_sev_es_get_no_session() {
    let (world, pushed) = production().await;
    let chip = Chip::new(Product::Milan, [7; 48]);
    let platform = Platform::new(&chip, Published::issue(&chip, 2048).unwrap());
    for es in [false, true] {
        let request = SessionRequest {
            init_data: pushed.init_data(),
            es,
            pdh: BASE64_STANDARD.encode(platform.pdh),
            cert_chain: BASE64_STANDARD.encode(&platform.chain),
            cpu0_id: BASE64_STANDARD.encode(platform.id),
        };
        let answer = world.send(post(SESSIONS_PATH, &serde_json::to_value(request).unwrap(), &[])).await;
        refused(if es { "sev-es" } else { "sev" }, &answer);
    }
    // A connection that nobody was given.
    let evidence =
        |_: &[u8; 64]| json!({ "connection": "00".repeat(16), "mac": BASE64_STANDARD.encode([0; 48]) });
    let answer = attest(&world, TeeKind::Sev, &pushed, evidence).await;
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    nothing_happened(&world).await;
}

#[tokio::test]
async fn software_tpms_enrol_no_blob() {
    let (world, pushed) = production().await;
    let statement = PefBlob {
        repository: world.owner.repository.clone(),
        lineage: pushed.registration.lineage.clone(),
        blob: "00112233445566778899aabbccddeeff".into(),
        serial: 1,
        key: OwnerKey::generate().unwrap().public(),
        init_data: protocols::name::sha256(pushed.init_data().as_bytes()),
        spec_digest: pushed.registration.spec_digest.clone(),
        machines: vec![TpmKey::generate().unwrap().public_pem().to_owned()],
    };
    let answer = world.send(post(BLOBS_PATH, &json!({ "blob": world.owner.sign(&statement) }), &[])).await;
    refused("pef", &answer);
    let evidence =
        |_: &[u8; 64]| json!({ "blob": statement.blob, "signature": BASE64_STANDARD.encode([0; 64]) });
    refused("a blob that is not enrolled", &attest(&world, TeeKind::Pef, &pushed, evidence).await);
    nothing_happened(&world).await;
}

#[tokio::test]
async fn sample_evidence_is_of_no_use() {
    let (world, pushed) = production().await;
    let evidence =
        |data: &[u8; 64]| json!({ "svn": "1", "report_data": BASE64_STANDARD.encode(&data[..48]) });
    let answer = attest(&world, TeeKind::Sample, &pushed, evidence).await;
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    nothing_happened(&world).await;
}
