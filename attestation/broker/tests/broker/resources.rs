//! Resources of owners: kept once, released to their lineage's guests and to listed guests under a policy.

use axum::http::StatusCode;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::broker::{MAX_RESOURCE, RESOURCES_PATH};
use protocols::name::sha256;
use protocols::owner::Resource;
use protocols::refusal::Code;
use serde_json::json;

use crate::guest::{Guest, Machine};
use crate::support::{Answer, Owner, World, policy, policy_statement, post};

const URI: &str = "kbs:///shop/db/password.1";
const CONTENT: &[u8] = b"hunter2";

/// Initdata of a guest under a policy.
fn under_policy(rules: &str) -> String {
    format!("version = '0.1.0'\nalgorithm = 'sha256'\n[data]\n'policy.rego' = '''\n{rules}'''\n")
}

fn statement(init_data: &[&str]) -> Resource {
    Resource {
        repository: "shop".into(),
        uri: URI.into(),
        sha256: sha256(CONTENT),
        lineage: Some("web".into()),
        init_data: init_data.iter().map(|body| sha256(body.as_bytes())).collect(),
    }
}

async fn keep_as(world: &World, owner: &Owner, resource: &Resource, content: &[u8]) -> Answer {
    let body = json!({ "resource": owner.sign(resource), "content": BASE64_URL_SAFE_NO_PAD.encode(content) });
    world.send(post(RESOURCES_PATH, &body, &[])).await
}

async fn keep(world: &World, resource: &Resource) {
    let answer = keep_as(world, &world.owner, resource, CONTENT).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

async fn refused(world: &World, guest: &Guest, code: Code) {
    let answer = world.ask(guest, URI).await;
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.code(), code, "{answer:?}");
    assert!(!world.events().await.iter().any(|event| event["event"] == "resource.released"));
}

#[tokio::test]
async fn a_lineages_guest_gets_its_resource_beside_its_key() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    keep(&world, &statement(&[])).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    assert_eq!(world.resource(&cookie, URI).await.open(&guest), CONTENT);
    assert_eq!(world.resource(&cookie, pushed.key_id()).await.open(&guest), pushed.key);
    let events = world.events().await;
    let kept = events.iter().find(|event| event["event"] == "resource.kept").unwrap();
    assert_eq!(kept["subject"], URI);
    let released = events.iter().find(|event| event["event"] == "resource.released").unwrap();
    assert_eq!((&released["subject"], &released["detail"]["lineage"]), (&json!(URI), &json!("web")));
}

#[tokio::test]
async fn a_listed_guest_under_a_policy_gets_it() {
    let world = World::new().await;
    let body = under_policy("package agent_policy\n");
    world.push(1).await;
    keep(&world, &statement(&[&body])).await;
    let guest = Machine::default().boot(Some(body));
    assert_eq!(world.ask(&guest, URI).await.open(&guest), CONTENT);
}

#[tokio::test]
async fn a_guest_under_another_policy_does_not() {
    let world = World::new().await;
    world.push(1).await;
    keep(&world, &statement(&[&under_policy("package agent_policy\n")])).await;
    let other = Machine::default().boot(Some(under_policy("package agent_policy\nA := true\n")));
    refused(&world, &other, Code::Resource).await;
    refused(&world, &Machine::default().boot(None), Code::Resource).await;
}

#[tokio::test]
async fn a_listed_guest_that_was_launched_otherwise_does_not() {
    let world = World::new().await;
    let body = under_policy("package agent_policy\n");
    world.push(1).await;
    keep(&world, &statement(&[&body])).await;
    let other = Machine { measurement: [0x5a; 48], ..Machine::default() };
    refused(&world, &other.boot(Some(body)), Code::LaunchDigest).await;
}

#[tokio::test]
async fn without_a_release_policy_nobody_under_a_policy_gets_it() {
    let world = World::new().await;
    let body = under_policy("package agent_policy\n");
    keep(&world, &statement(&[&body])).await;
    refused(&world, &Machine::default().boot(Some(body)), Code::PolicyMissing).await;
}

#[tokio::test]
async fn another_lineage_and_another_owner_get_nothing() {
    let world = World::new().await;
    world.push(1).await;
    keep(&world, &statement(&[])).await;
    let mut elsewhere = policy_statement(&world.owner, 1, policy());
    elsewhere.lineage = "batch".into();
    let batch = world.owner.sealed("batch", 1);
    assert_eq!(world.register(&world.owner, &batch).await.status, StatusCode::OK);
    assert_eq!(world.set_policy(elsewhere).await.status, StatusCode::OK);
    refused(&world, &batch.guest(), Code::Resource).await;
    let other = world.another_owner("bank").await;
    let theirs = other.sealed("web", 1);
    assert_eq!(world.register(&other, &theirs).await.status, StatusCode::OK);
    refused(&world, &theirs.guest(), Code::Resource).await;
}

#[tokio::test]
async fn a_retired_revision_loses_its_resources_too() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    keep(&world, &statement(&[])).await;
    world.retire(&world.owner, "web", 1).await;
    refused(&world, &pushed.guest(), Code::RevisionRetired).await;
}

#[tokio::test]
async fn a_guest_launched_otherwise_gets_neither_key_nor_resource() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    keep(&world, &statement(&[])).await;
    let other = Machine { measurement: [0x5a; 48], ..Machine::default() };
    refused(&world, &other.boot(Some(pushed.init_data())), Code::LaunchDigest).await;
}

#[tokio::test]
async fn what_nobody_kept_is_refused_as_what_is_not_yours() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    refused(&world, &pushed.guest(), Code::Resource).await;
}

#[tokio::test]
async fn statements_hold_what_they_say() {
    let world = World::new().await;
    let good = statement(&[]);
    let code = |answer: Answer| answer.code();
    let with = |change: &dyn Fn(&mut Resource)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed
    };
    let other = world.another_owner("bank").await;
    let keep = |resource: Resource, content: Vec<u8>| {
        let world = &world;
        async move { keep_as(world, &world.owner, &resource, &content).await }
    };
    assert_eq!(code(keep(good.clone(), b"other".to_vec()).await), Code::Statement);
    let large = vec![0; MAX_RESOURCE + 1];
    let resource = with(&|resource| resource.sha256 = sha256(&vec![0; MAX_RESOURCE + 1]));
    assert_eq!(code(keep(resource, large).await), Code::Statement);
    assert_eq!(code(keep_as(&world, &other, &good, CONTENT).await), Code::OwnerSignature);
    // A key never signs what isn't valid, so these don't come into being.
    for bad in [
        with(&|resource| resource.uri = "kbs:///bank/db/password".into()),
        with(&|resource| resource.uri = "kbs:///shop/sealed-spec/web.r1.00000000".into()),
        with(&|resource| resource.uri = "kbs:///shop/db".into()),
        with(&|resource| resource.sha256 = "sha256:00".into()),
        with(&|resource| resource.init_data = vec!["00".into()]),
        with(&|resource| resource.init_data = vec![sha256(b""); 65]),
        with(&|resource| resource.lineage = None),
        with(&|resource| resource.lineage = Some("..".into())),
    ] {
        assert!(world.owner.key.sign_statement(&bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_resource_is_never_replaced() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    keep(&world, &statement(&[])).await;
    keep(&world, &statement(&[])).await;
    let changed = Resource { sha256: sha256(b"other"), ..statement(&[]) };
    let answer = keep_as(&world, &world.owner, &changed, b"other").await;
    assert_eq!(answer.code(), Code::VersionExists);
    let world = world.restart().await;
    let guest = pushed.guest();
    assert_eq!(world.ask(&guest, URI).await.open(&guest), CONTENT);
}

#[tokio::test]
async fn whoever_holds_the_database_alone_cannot_change_one() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    keep(&world, &statement(&[])).await;
    let mut database = world.database().await;
    sqlx::query("UPDATE resources SET uri = 'kbs:///shop/db/password.2'")
        .execute(&mut database)
        .await
        .unwrap();
    let answer = world.ask(&pushed.guest(), "kbs:///shop/db/password.2").await;
    assert_eq!(answer.code(), Code::Internal);
}
