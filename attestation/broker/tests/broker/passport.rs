//! Two brokers: one attests a guest, the other releases keys on its token.

use axum::http::StatusCode;
use protocols::owner::PolicyTee;
use protocols::refusal::Code;
use sealpod_broker::config::{Collateral, Compat, Config, Limits, Passport, Token, Trust};
use serde_json::Value;

use crate::guest::Guest;
use crate::support::{Answer, World, get, policy, policy_statement, resource_path};

const OTHER: &str = "https://other.example";
const THIS: &str = "https://broker.example";

async fn broker(
    issuer: &str,
    audiences: &[&str],
    passport: impl FnOnce(&std::path::Path) -> Vec<Passport>,
) -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ark.pem");
    std::fs::write(&root, crate::guest::root_pem()).unwrap();
    let passport = passport(dir.path());
    // Only the other broker knows the emulated root.
    let emulated_roots = if passport.is_empty() { vec![root] } else { Vec::new() };
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: dir.path().join("state"),
        server_names: vec!["broker.example".into()],
        trust: Trust { emulated_roots, passport, ..Trust::default() },
        token: Token {
            issuer: Some(issuer.to_owned()),
            audiences: audiences.iter().map(|&name| name.to_owned()).collect(),
        },
        compat: Compat::default(),
        collateral: Collateral::default(),
        limits: Limits::default(),
    };
    World::configured(dir, config).await
}

/// The broker that attests, and the one that trusts it for `tee`.
async fn brokers(tee: &str) -> (World, World) {
    let other = broker(OTHER, &[THIS], |_| Vec::new()).await;
    let jwks = other.send(get("/kbs/v0/jwks", &[])).await;
    assert_eq!(jwks.status, StatusCode::OK);
    let this = broker(THIS, &[], |dir| {
        let keys = dir.join("other.jwks");
        std::fs::write(&keys, jwks.body.to_string()).unwrap();
        vec![Passport { issuer: OTHER.into(), audience: THIS.into(), keys, tee: vec![tee.into()] }]
    })
    .await;
    (other, this)
}

async fn token(at: &World, guest: &Guest) -> String {
    let (cookie, nonce) = at.auth().await;
    let answer = at.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["token"].as_str().unwrap().to_owned()
}

async fn ask(at: &World, token: &str, key_id: &str) -> Answer {
    at.send(get(&resource_path(key_id), &[("authorization", &format!("Bearer {token}"))])).await
}

#[tokio::test]
async fn a_key_is_released_on_another_brokers_word_to_the_guest_that_it_names() {
    let (other, this) = brokers("snp-emulated").await;
    let pushed = this.push(1).await;
    let guest = pushed.guest();
    let token = token(&other, &guest).await;
    // Whoever shows it: only the guest can open what comes.
    let answer = ask(&this, &token, pushed.key_id()).await;
    assert_eq!(answer.open(&guest), pushed.key);
    let events = this.events().await;
    let released = events.iter().find(|event| event["event"] == "key.released").unwrap();
    let trust = released["detail"]["verdict"]["trust"].as_str().unwrap();
    assert!(trust.starts_with("passport of https://other.example: emulated"), "{trust}");
    // The same guest is the same release.
    ask(&this, &token, pushed.key_id()).await.open(&guest);
    assert_eq!(this.events().await.iter().filter(|event| event["event"] == "key.released").count(), 1);
}

#[tokio::test]
async fn an_emulated_passport_matches_no_production_policy() {
    let (other, this) = brokers("snp-emulated").await;
    let pushed = this.push(1).await;
    let mut production = policy();
    production.tee = vec![PolicyTee::Snp];
    assert_eq!(this.set_policy(policy_statement(&this.owner, 2, production)).await.status, StatusCode::OK);
    let token = token(&other, &pushed.guest()).await;
    assert_eq!(ask(&this, &token, pushed.key_id()).await.code(), Code::TeeKind);
}

#[tokio::test]
async fn a_passport_of_a_kind_that_its_issuer_is_not_trusted_for_is_refused() {
    let (other, this) = brokers("snp").await;
    let pushed = this.push(1).await;
    let token = token(&other, &pushed.guest()).await;
    assert_eq!(ask(&this, &token, pushed.key_id()).await.code(), Code::TeeKind);
}

#[tokio::test]
async fn a_passport_for_another_audience_is_refused() {
    let other = broker(OTHER, &["https://third.example"], |_| Vec::new()).await;
    let jwks: Value = other.send(get("/kbs/v0/jwks", &[])).await.body;
    let this = broker(THIS, &[], |dir| {
        let keys = dir.join("other.jwks");
        std::fs::write(&keys, jwks.to_string()).unwrap();
        vec![Passport { issuer: OTHER.into(), audience: THIS.into(), keys, tee: vec!["snp-emulated".into()] }]
    })
    .await;
    let pushed = this.push(1).await;
    let token = token(&other, &pushed.guest()).await;
    let answer = ask(&this, &token, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
}

#[tokio::test]
async fn a_passport_expires_and_needs_trust() {
    let (other, this) = brokers("snp-emulated").await;
    let pushed = this.push(1).await;
    let token = token(&other, &pushed.guest()).await;
    this.wait(other.config.limits.session_lifetime());
    assert_eq!(ask(&this, &token, pushed.key_id()).await.code(), Code::Session);
    // A broker that trusts nobody takes nobody's.
    let alone = World::new().await;
    let pushed = alone.push(1).await;
    let token = self::token(&other, &pushed.guest()).await;
    assert_eq!(ask(&alone, &token, pushed.key_id()).await.code(), Code::Session);
}

#[tokio::test]
async fn a_passport_of_a_guest_for_another_sealed_spec_gets_nothing() {
    let (other, this) = brokers("snp-emulated").await;
    let (pushed, second) = (this.push(1).await, this.push(2).await);
    let token = token(&other, &second.guest()).await;
    assert_eq!(ask(&this, &token, pushed.key_id()).await.code(), Code::SpecDigest);
}
