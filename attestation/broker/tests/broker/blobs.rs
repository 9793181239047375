//! ESM blobs of Power PEF: enrolled and denied by signed statements, and what their guests get.

use axum::http::StatusCode;
use protocols::broker::{BLOB_DENIALS_PATH, BLOBS_PATH};
use protocols::owner::{BlobDenial, PefBlob, PefPolicy, PolicyTee, ReleasePolicy, Releases};
use protocols::pef::BlobKey;
use protocols::rcar::{
    AUTH_PATH, AttestRequest, AuthRequest, EphemeralKey, InitData, RuntimeData, TeeEvidence, TeeKind,
    binding, report_data,
};
use protocols::refusal::Code;
use sealpod_broker::config::Limits;
use serde_json::json;

use crate::support::{Answer, Owner, Pushed, World, policy_statement, post};

/// The emulated ultravisor's kind of key.
pub(crate) const SOFTWARE: &str = include_str!("../../../verifier/testdata/pef/software.pem");
pub(crate) const MACHINE: &str = include_str!("../../../verifier/testdata/pef/machine-1.pem");
pub(crate) const OTHER_MACHINE: &str = include_str!("../../../verifier/testdata/pef/machine-2.pem");
pub(crate) const BLOB: &str = "00112233445566778899aabbccddeeff";

/// A guest that was launched with a blob.
pub(crate) struct PefGuest {
    ephemeral: EphemeralKey,
    blob: String,
    key: BlobKey,
    init_data: String,
    spec: [u8; 32],
}

impl PefGuest {
    fn new(pushed: &Pushed) -> Self {
        let mut spec = [0; 32];
        hex::decode_to_slice(&pushed.registration.spec_digest["sha256:".len()..], &mut spec).unwrap();
        let (ephemeral, key) = (EphemeralKey::generate().unwrap(), BlobKey::generate().unwrap().0);
        Self { ephemeral, blob: BLOB.into(), key, init_data: pushed.init_data(), spec }
    }

    pub(crate) fn statement(&self, owner: &Owner, pushed: &Pushed, machines: &[&str]) -> PefBlob {
        PefBlob {
            repository: owner.repository.clone(),
            lineage: pushed.registration.lineage.clone(),
            blob: self.blob.clone(),
            serial: 1,
            key: self.key.public(),
            init_data: protocols::name::sha256(self.init_data.as_bytes()),
            spec_digest: pushed.registration.spec_digest.clone(),
            machines: machines.iter().map(|pem| (*pem).to_owned()).collect(),
        }
    }

    fn request(&self, nonce: &str) -> AttestRequest {
        let public = self.ephemeral.public_jwk();
        let data = report_data(&binding(nonce, &public, ""));
        let evidence = self.key.evidence(&data, &self.spec, &self.blob);
        AttestRequest {
            init_data: Some(InitData { format: "toml".into(), body: self.init_data.clone() }),
            runtime_data: RuntimeData { nonce: nonce.to_owned(), tee_pubkey: public },
            tee_evidence: TeeEvidence {
                primary_evidence: serde_json::to_value(evidence).unwrap(),
                additional_evidence: String::new(),
            },
        }
    }
}

async fn auth(world: &World) -> (String, String) {
    let request = serde_json::to_value(AuthRequest::new(TeeKind::Pef)).unwrap();
    let answer = world.send(post(AUTH_PATH, &request, &[])).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (answer.cookie(), answer.body["nonce"].as_str().unwrap().to_owned())
}

async fn attest(world: &World, guest: &PefGuest) -> (String, Answer) {
    let (cookie, nonce) = auth(world).await;
    let answer = world.attest(&cookie, &guest.request(&nonce)).await;
    (cookie, answer)
}

async fn ask(world: &World, guest: &PefGuest, pushed: &Pushed) -> Answer {
    let (cookie, answer) = attest(world, guest).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    world.resource(&cookie, pushed.key_id()).await
}

pub(crate) async fn enrol(world: &World, owner: &Owner, statement: &PefBlob) -> Answer {
    world.send(post(BLOBS_PATH, &json!({ "blob": owner.sign(statement) }), &[])).await
}

pub(crate) async fn deny(world: &World, owner: &Owner, blob: &str) -> Answer {
    let denial = BlobDenial { repository: owner.repository.clone(), blob: blob.to_owned() };
    world.send(post(BLOB_DENIALS_PATH, &json!({ "denial": owner.sign(&denial) }), &[])).await
}

fn pef_policy(tee: PolicyTee) -> ReleasePolicy {
    ReleasePolicy {
        minimum_revision: 1,
        tee: vec![tee],
        launch_digest: Vec::new(),
        snp: None,
        sev: None,
        pef: None,
        releases: Releases::Unlimited,
    }
}

/// A broker with a pushed spec, a policy, and a guest whose blob is enrolled for these machines.
pub(crate) async fn launched(tee: PolicyTee, machines: &[&str]) -> (World, Pushed, PefGuest) {
    let world = World::new().await;
    let pushed = world.push(1).await;
    set_policy(&world, 2, pef_policy(tee)).await;
    let guest = PefGuest::new(&pushed);
    let answer = enrol(&world, &world.owner, &guest.statement(&world.owner, &pushed, machines)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (world, pushed, guest)
}

async fn set_policy(world: &World, serial: u64, policy: ReleasePolicy) {
    let answer = world.set_policy(policy_statement(&world.owner, serial, policy)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

fn refused(answer: &Answer, code: Code) {
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.code(), code, "{answer:?}");
}

#[tokio::test]
async fn a_guest_of_an_enrolled_blob_gets_its_key_and_the_record_says_what_nobody_checked() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE, OTHER_MACHINE]).await;
    let answer = ask(&world, &guest, &pushed).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let jwe = serde_json::from_value(answer.body).unwrap();
    assert_eq!(guest.ephemeral.open(&jwe).unwrap().as_slice(), pushed.key);
    let events = world.events().await;
    let enrolled = events.iter().find(|event| event["event"] == "blob.enrolled").unwrap();
    assert_eq!((&enrolled["subject"], &enrolled["detail"]["lineage"]), (&json!(BLOB), &json!("web")));
    let released = events.iter().find(|event| event["event"] == "key.released").unwrap();
    let verdict = &released["detail"]["verdict"];
    assert_eq!((&verdict["tee"], &verdict["blob"]), (&json!("pef"), &json!(BLOB)));
    let unchecked =
        verdict["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == "not_checked");
    let unchecked: Vec<_> = unchecked.map(|check| check["check"].as_str().unwrap()).collect();
    assert!(["quote", "firmware", "instance"].iter().all(|check| unchecked.contains(check)), "{unchecked:?}");
}

#[tokio::test]
async fn a_blob_that_nobody_enrolled_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = PefGuest::new(&pushed);
    refused(&attest(&world, &guest).await.1, Code::CertificateChain);
}

#[tokio::test]
async fn evidence_of_another_session_is_refused() {
    let (world, _, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let (_, old) = auth(&world).await;
    let (cookie, nonce) = auth(&world).await;
    let mut request = guest.request(&old);
    request.runtime_data.nonce = nonce;
    refused(&world.attest(&cookie, &request).await, Code::Signature);
}

#[tokio::test]
async fn another_key_under_the_blobs_id_is_refused() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let impostor = PefGuest::new(&pushed);
    assert_eq!(impostor.blob, guest.blob);
    refused(&attest(&world, &impostor).await.1, Code::Signature);
}

#[tokio::test]
async fn other_initdata_than_the_blobs_is_refused() {
    let (world, _, mut guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    guest.init_data = guest.init_data.replace("broker.example", "evil.example");
    refused(&attest(&world, &guest).await.1, Code::HostData);
}

#[tokio::test]
async fn another_spec_than_the_blobs_is_refused() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let mut statement = guest.statement(&world.owner, &pushed, &[MACHINE]);
    statement.blob = "1".repeat(32);
    statement.spec_digest = format!("sha256:{}", "1".repeat(64));
    assert_eq!(enrol(&world, &world.owner, &statement).await.status, StatusCode::OK);
    let guest = PefGuest { blob: statement.blob, ..guest };
    refused(&attest(&world, &guest).await.1, Code::HostData);
}

#[tokio::test]
async fn a_guest_without_initdata_is_refused() {
    let (world, _, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let (cookie, nonce) = auth(&world).await;
    let mut request = guest.request(&nonce);
    request.init_data = None;
    refused(&world.attest(&cookie, &request).await, Code::Signature);
}

#[tokio::test]
async fn another_owners_blob_opens_nothing_of_this_one() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    set_policy(&world, 2, pef_policy(PolicyTee::Pef)).await;
    let thief = world.another_owner("thief").await;
    let guest = PefGuest::new(&pushed);
    let statement = guest.statement(&thief, &pushed, &[MACHINE]);
    assert_eq!(enrol(&world, &thief, &statement).await.status, StatusCode::OK);
    refused(&ask(&world, &guest, &pushed).await, Code::CertificateChain);
    assert!(!world.events().await.iter().any(|event| event["event"] == "key.released"));
}

#[tokio::test]
async fn a_blob_of_another_lineage_opens_nothing_of_this_one() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    set_policy(&world, 2, pef_policy(PolicyTee::Pef)).await;
    let guest = PefGuest::new(&pushed);
    let mut statement = guest.statement(&world.owner, &pushed, &[MACHINE]);
    statement.lineage = "db".into();
    assert_eq!(enrol(&world, &world.owner, &statement).await.status, StatusCode::OK);
    refused(&ask(&world, &guest, &pushed).await, Code::CertificateChain);
}

#[tokio::test]
async fn pef_is_refused_where_the_policy_does_not_name_it() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    set_policy(&world, 3, crate::support::policy()).await;
    refused(&ask(&world, &guest, &pushed).await, Code::TeeKind);
}

#[tokio::test]
async fn software_tpm_keys_count_where_configured_and_only_as_emulated() {
    let (world, pushed, guest) = launched(PolicyTee::PefEmulated, &[SOFTWARE]).await;
    assert_eq!(ask(&world, &guest, &pushed).await.status, StatusCode::OK);
    set_policy(&world, 3, pef_policy(PolicyTee::Pef)).await;
    refused(&ask(&world, &guest, &pushed).await, Code::TeeKind);
}

#[tokio::test]
async fn a_production_broker_enrols_no_software_tpm_keys_and_forgets_those_it_had() {
    let world = World::with(Limits::default(), false).await;
    let pushed = world.push(1).await;
    let guest = PefGuest::new(&pushed);
    for machines in [[SOFTWARE].as_slice(), &[MACHINE, SOFTWARE]] {
        let statement = guest.statement(&world.owner, &pushed, machines);
        refused(&enrol(&world, &world.owner, &statement).await, Code::CertificateChain);
    }
    assert!(!world.events().await.iter().any(|event| event["event"] == "blob.enrolled"));

    let (mut world, _, guest) = launched(PolicyTee::PefEmulated, &[SOFTWARE]).await;
    world.config.trust.emulated_tpm_keys.clear();
    let world = world.restart().await;
    refused(&attest(&world, &guest).await.1, Code::CertificateChain);
}

#[tokio::test]
async fn limited_releases_need_the_policys_word() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let limited = |allow_limited_releases| ReleasePolicy {
        releases: Releases::Once,
        pef: Some(PefPolicy { allow_limited_releases, ..PefPolicy::default() }),
        ..pef_policy(PolicyTee::Pef)
    };
    assert!(limited(false).validate().is_err(), "owners can't even sign it");
    set_policy(&world, 3, limited(true)).await;
    assert_eq!(ask(&world, &guest, &pushed).await.status, StatusCode::OK);
    let twin = PefGuest { ephemeral: EphemeralKey::generate().unwrap(), ..guest };
    let answer = ask(&world, &twin, &pushed).await;
    assert_ne!(answer.status, StatusCode::OK, "once is once: {answer:?}");
}

#[tokio::test]
async fn a_policy_that_lists_machines_refuses_blobs_for_others() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE, OTHER_MACHINE]).await;
    let fingerprint = |pem: &str| protocols::name::sha256(pem.as_bytes())["sha256:".len()..].to_owned();
    let listing = |machines: &[&str]| ReleasePolicy {
        pef: Some(PefPolicy {
            machines: machines.iter().map(|pem| fingerprint(pem)).collect(),
            ..PefPolicy::default()
        }),
        ..pef_policy(PolicyTee::Pef)
    };
    set_policy(&world, 3, listing(&[MACHINE])).await;
    refused(&ask(&world, &guest, &pushed).await, Code::CertificateChain);
    set_policy(&world, 4, listing(&[MACHINE, OTHER_MACHINE])).await;
    assert_eq!(ask(&world, &guest, &pushed).await.status, StatusCode::OK);
    // The machines can change; nothing else, and not backwards.
    let mut statement = guest.statement(&world.owner, &pushed, &[MACHINE]);
    refused(&enrol(&world, &world.owner, &statement).await, Code::VersionExists);
    statement.serial = 2;
    assert_eq!(enrol(&world, &world.owner, &statement).await.status, StatusCode::OK);
    set_policy(&world, 5, listing(&[MACHINE])).await;
    assert_eq!(ask(&world, &guest, &pushed).await.status, StatusCode::OK);
    statement.serial = 3;
    statement.lineage = "db".into();
    refused(&enrol(&world, &world.owner, &statement).await, Code::VersionExists);
    let old = guest.statement(&world.owner, &pushed, &[MACHINE, OTHER_MACHINE]);
    refused(&enrol(&world, &world.owner, &old).await, Code::VersionExists);
}

#[tokio::test]
async fn a_denied_blob_gets_nothing_not_even_in_a_session_from_before() {
    let (world, pushed, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let (cookie, answer) = attest(&world, &guest).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    for _ in 0..2 {
        assert_eq!(deny(&world, &world.owner, BLOB).await.status, StatusCode::OK);
    }
    refused(&world.resource(&cookie, pushed.key_id()).await, Code::CertificateChain);
    refused(&attest(&world, &guest).await.1, Code::CertificateChain);
    // Enrolling it again changes nothing.
    let mut statement = guest.statement(&world.owner, &pushed, &[MACHINE]);
    statement.serial = 9;
    enrol(&world, &world.owner, &statement).await;
    refused(&attest(&world, &guest).await.1, Code::CertificateChain);
    let denials = world.events().await.into_iter().filter(|event| event["event"] == "blob.denied");
    assert_eq!(denials.count(), 1);
}

#[tokio::test]
async fn nobody_denies_another_owners_blob_and_the_operator_denies_any() {
    let (world, _, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let thief = world.another_owner("thief").await;
    refused(&deny(&world, &thief, BLOB).await, Code::Statement);
    refused(&deny(&world, &world.owner, &"2".repeat(32)).await, Code::Statement);
    assert_eq!(attest(&world, &guest).await.1.status, StatusCode::OK);

    let clock = sealpod_broker::clock::Clock::system();
    let (_, store) = sealpod_broker::broker::open_store(&world.config.state, clock).await.unwrap();
    assert!(store.deny_blob(BLOB).await.unwrap() && !store.deny_blob(BLOB).await.unwrap());
    store.close().await;
    refused(&attest(&world, &guest).await.1, Code::CertificateChain);
}

#[tokio::test]
async fn statements_of_strangers_and_with_other_keys_are_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = PefGuest::new(&pushed);
    let thief = world.another_owner("thief").await;
    // Signed by one owner, for another's repository.
    let statement = guest.statement(&world.owner, &pushed, &[MACHINE]);
    refused(&enrol(&world, &thief, &statement).await, Code::OwnerSignature);
    for pem in ["", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", &MACHINE.replace('\n', "\r\n")]
    {
        let statement = guest.statement(&world.owner, &pushed, &[pem]);
        refused(&enrol(&world, &world.owner, &statement).await, Code::Statement);
    }
}

#[tokio::test]
async fn a_row_that_its_owner_did_not_sign_is_an_error() {
    let (world, _, guest) = launched(PolicyTee::Pef, &[MACHINE]).await;
    let mut database = world.database().await;
    sqlx::query("UPDATE blobs SET blob = ?").bind("3".repeat(32)).execute(&mut database).await.unwrap();
    let guest = PefGuest { blob: "3".repeat(32), ..guest };
    refused(&attest(&world, &guest).await.1, Code::Internal);
}
