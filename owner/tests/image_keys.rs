//! Image keys with the built program: made, kept, pushed, served to encrypting tools, found when a pod is sealed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "image_keys/layout.rs"]
mod layout;
#[path = "image_keys/provider.rs"]
mod provider;
#[path = "image_keys/sealing.rs"]
mod sealing;
#[path = "image_keys/store.rs"]
mod store;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use std::sync::{Arc, Mutex};

use protocols::audit::{AuditKey, Checkpoint, Head, Record};
use protocols::broker::ResourceRequest;
use protocols::owner::{OwnerPublicKey, Resource, Verified};
use serde_json::json;
use support::{Fake, Owner, certificates, reply};

/// A broker that accepts everything, and an owner of `acme` who pins it.
fn world() -> (Owner, Fake) {
    let (ca, tls) = certificates();
    let key = AuditKey::generate().unwrap();
    let records: Arc<Mutex<Vec<Record>>> = Arc::default();
    let broker = Fake::start(Some(tls), move |seen| {
        let mut records = records.lock().unwrap();
        let head = records.last().map_or_else(Head::default, Record::head);
        records.push(Record::after(&head, "2026-11-21T23:00:00Z", "test", &*seen.line, json!({})).unwrap());
        let checkpoint = Checkpoint::sign(&records.last().unwrap().head(), &key);
        reply(200, serde_json::to_vec(&json!({ "checkpoint": checkpoint })).unwrap())
    });
    let owner = Owner::new(&ca, broker.port);
    (owner, broker)
}

/// The resources that the broker was handed, verified.
fn resources(owner: &Owner, broker: &Fake) -> Vec<(Verified<Resource>, String)> {
    let public: OwnerPublicKey = owner.read("id/owner.pub").trim().parse().unwrap();
    let posts = broker.requests().into_iter().filter(|seen| seen.line == "POST /sealpod/v1/resources");
    posts
        .map(|seen| {
            let request: ResourceRequest = serde_json::from_slice(&seen.body).unwrap();
            (public.verify::<Resource>(&request.resource).unwrap(), request.content.to_string())
        })
        .collect()
}
