//! Image keys: kept once for any number of lineages, released to guests whose registration names them.

use axum::http::StatusCode;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::broker::RESOURCES_PATH;
use protocols::name::sha256;
use protocols::owner::Resource;
use protocols::refusal::Code;
use serde_json::json;

use crate::guest::{Guest, Machine};
use crate::support::{Answer, Owner, Pushed, World, policy, policy_statement, post};

const URI: &str = "kbs:///shop/image-key/web";
const KEK: &[u8] = &[0x42; 32];
const INIT_DATA: &str =
    "version = '0.1.0'\nalgorithm = 'sha256'\n[data]\n'policy.rego' = 'package agent_policy'\n";

fn statement() -> Resource {
    Resource {
        repository: "shop".into(),
        uri: URI.into(),
        sha256: sha256(KEK),
        lineage: None,
        init_data: Vec::new(),
    }
}

fn listed() -> Resource {
    Resource { lineage: Some("web".into()), init_data: vec![sha256(INIT_DATA.as_bytes())], ..statement() }
}

async fn keep_as(world: &World, owner: &Owner, resource: &Resource, content: &[u8]) -> Answer {
    let body = json!({ "resource": owner.sign(resource), "content": BASE64_URL_SAFE_NO_PAD.encode(content) });
    world.send(post(RESOURCES_PATH, &body, &[])).await
}

async fn keep(world: &World, resource: &Resource) {
    let answer = keep_as(world, &world.owner, resource, KEK).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// A registered and permitted sealing whose spec names these image keys.
async fn sealed(world: &World, lineage: &str, revision: u64, image_keys: &[&str]) -> Pushed {
    let mut pushed = world.owner.sealed(lineage, revision);
    pushed.registration.image_keys = image_keys.iter().map(|&key| key.to_owned()).collect();
    let answer = world.register(&world.owner, &pushed).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let mut allowed = policy_statement(&world.owner, revision, policy());
    allowed.lineage = lineage.into();
    assert_eq!(world.set_policy(allowed).await.status, StatusCode::OK);
    pushed
}

async fn refused(world: &World, guest: &Guest, code: Code) {
    let answer = world.ask(guest, URI).await;
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.code(), code, "{answer:?}");
    assert!(!world.events().await.iter().any(|event| event["event"] == "resource.released"));
}

#[tokio::test]
async fn guests_of_every_spec_that_names_it_get_it() {
    let world = World::new().await;
    keep(&world, &statement()).await;
    for lineage in ["web", "batch"] {
        let guest = sealed(&world, lineage, 1, &[URI]).await.guest();
        assert_eq!(world.ask(&guest, URI).await.open(&guest), KEK, "{lineage}");
    }
    let events = world.events().await;
    let registered = events.iter().find(|event| event["event"] == "key.registered").unwrap();
    assert_eq!(registered["detail"]["image_keys"], json!([URI]));
    assert_eq!(events.iter().filter(|event| event["event"] == "resource.released").count(), 2);
}

#[tokio::test]
async fn a_spec_that_does_not_name_it_gets_nothing() {
    let world = World::new().await;
    keep(&world, &statement()).await;
    refused(&world, &sealed(&world, "web", 1, &[]).await.guest(), Code::Resource).await;
}

#[tokio::test]
async fn being_of_the_lineage_is_not_enough() {
    let world = World::new().await;
    keep(&world, &Resource { lineage: Some("web".into()), ..statement() }).await;
    refused(&world, &sealed(&world, "web", 1, &[]).await.guest(), Code::Resource).await;
}

#[tokio::test]
async fn naming_another_key_is_not_enough() {
    let world = World::new().await;
    let other = "kbs:///shop/image-key/other";
    keep(&world, &statement()).await;
    keep(&world, &Resource { uri: other.into(), ..statement() }).await;
    let guest = sealed(&world, "web", 1, &[other]).await.guest();
    refused(&world, &guest, Code::Resource).await;
}

#[tokio::test]
async fn a_name_alone_makes_no_other_resource_an_image_key() {
    let world = World::new().await;
    let secret = "kbs:///shop/db/password";
    keep(&world, &Resource { uri: secret.into(), lineage: Some("batch".into()), ..statement() }).await;
    let guest = sealed(&world, "web", 1, &[secret]).await.guest();
    assert_eq!(world.ask(&guest, secret).await.code(), Code::Resource);
}

#[tokio::test]
async fn the_checks_of_the_specs_own_key_come_first() {
    let world = World::new().await;
    keep(&world, &statement()).await;
    let pushed = sealed(&world, "web", 1, &[URI]).await;
    let other = Machine { measurement: [0x5a; 48], ..Machine::default() };
    refused(&world, &other.boot(Some(pushed.init_data())), Code::LaunchDigest).await;
    world.retire(&world.owner, "web", 1).await;
    refused(&world, &pushed.guest(), Code::RevisionRetired).await;
}

#[tokio::test]
async fn another_owners_guest_gets_nothing() {
    let world = World::new().await;
    keep(&world, &statement()).await;
    let other = world.another_owner("bank").await;
    let theirs = other.sealed("web", 1);
    assert_eq!(world.register(&other, &theirs).await.status, StatusCode::OK);
    refused(&world, &theirs.guest(), Code::Resource).await;
    // Their registration can't name it either.
    let mut naming = other.sealed("web", 2);
    naming.registration.image_keys = vec![URI.into()];
    assert!(other.key.sign_statement(&naming.registration).is_err());
}

#[tokio::test]
async fn a_registration_that_names_an_unknown_key_is_refused() {
    let world = World::new().await;
    let mut pushed = world.owner.sealed("web", 1);
    pushed.registration.image_keys = vec![URI.into()];
    let answer = world.register(&world.owner, &pushed).await;
    assert_eq!(answer.code(), Code::Statement, "{answer:?}");
    keep(&world, &statement()).await;
    assert_eq!(world.register(&world.owner, &pushed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn pushing_it_again_changes_nothing_and_other_bytes_are_refused() {
    let world = World::new().await;
    keep(&world, &listed()).await;
    let kept = world.events().await.len();
    // What each later pod that uses the image says: the same bytes, for nobody else.
    for again in [statement(), listed(), Resource { lineage: Some("batch".into()), ..statement() }] {
        keep(&world, &again).await;
    }
    assert_eq!(world.events().await.len(), kept);
    let other = Resource { sha256: sha256(b"other"), ..statement() };
    assert_eq!(keep_as(&world, &world.owner, &other, b"other").await.code(), Code::VersionExists);
    let guest = sealed(&world, "web", 1, &[URI]).await.guest();
    assert_eq!(world.ask(&guest, URI).await.open(&guest), KEK);
}

#[tokio::test]
async fn pushing_it_again_admits_nobody_new() {
    let world = World::new().await;
    keep(&world, &statement()).await;
    let wider = keep_as(&world, &world.owner, &listed(), KEK).await;
    assert_eq!(wider.code(), Code::VersionExists);
    sealed(&world, "web", 1, &[URI]).await;
    refused(&world, &Machine::default().boot(Some(INIT_DATA.into())), Code::Resource).await;
}

#[tokio::test]
async fn a_listed_guest_under_a_policy_gets_it() {
    let world = World::new().await;
    keep(&world, &listed()).await;
    sealed(&world, "web", 1, &[]).await;
    let guest = Machine::default().boot(Some(INIT_DATA.into()));
    assert_eq!(world.ask(&guest, URI).await.open(&guest), KEK);
}
