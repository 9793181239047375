//! The owners' interface: signed statements in, a checkpoint of the audit log out.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::broker::{
    Accepted, MAX_RESOURCE, PolicyRequest, RegistrationRequest, ResourceRequest, RetirementRequest,
};
use protocols::name;
use protocols::owner::{
    MAX_STATEMENT, PolicyStatement, Registration, Resource, Retirement, Statement, StatementError, Verified,
    claimed_repository,
};
use protocols::refusal::Code;
use sealed_spec::SpecKey;
use serde_json::json;
use zeroize::Zeroizing;

use super::answer::answer;
use super::body;
use crate::broker::Broker;
use crate::chain;
use crate::refused::Refused;
use crate::store::{Outcome, Tx};

/// Bytes of a body: a statement, a key, and JSON around them.
pub(super) const STATEMENT_BYTES: usize = MAX_STATEMENT + 4096;
/// The same with a resource in base64url.
const RESOURCE_BYTES: usize = STATEMENT_BYTES + MAX_RESOURCE.div_ceil(3) * 4;

pub(super) async fn register(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_registration(&broker, request).await;
    answer(&broker, "register", result.map(|accepted| Json(accepted).into_response()))
}

pub(super) async fn keep(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_resource(&broker, request).await;
    answer(&broker, "resource", result.map(|accepted| Json(accepted).into_response()))
}

pub(super) async fn add_policy(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_policy(&broker, request).await;
    answer(&broker, "policy", result.map(|accepted| Json(accepted).into_response()))
}

pub(super) async fn retire(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_retirement(&broker, request).await;
    answer(&broker, "retire", result.map(|accepted| Json(accepted).into_response()))
}

async fn take_registration(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: RegistrationRequest = body::json(&parts, stream, STATEMENT_BYTES, Code::Statement).await?;
    let registration: Verified<Registration> = verify(broker, &request.registration).await?;
    let key = SpecKey::from_base64url(&request.key)
        .map_err(|_| Refused::new(Code::Statement, "key is not base64url of 32 bytes"))?;
    if name::sha256(key.as_bytes()) != registration.key_sha256 {
        return Err(Refused::new(Code::Statement, "key is not the one whose hash the registration names"));
    }
    let mut tx = broker.store().begin().await?;
    for uri in &registration.image_keys {
        // A pod whose images nobody can open had better fail here than in the guest.
        if tx.kept(uri).await?.is_none() {
            return Err(Refused::new(
                Code::Statement,
                format!("image key {uri} is not kept here; run 'sealpod image key push {uri}' first"),
            ));
        }
    }
    match tx.register(&registration, key.as_bytes()).await? {
        Outcome::Added => {
            let Registration { lineage, revision, spec_digest, key_id, .. } = &*registration;
            let Registration {
                namespace, workload_kind, workload_name, images, init_data, image_keys, ..
            } = &*registration;
            let detail = json!({
                "repository": registration.repository, "lineage": lineage, "revision": revision,
                "spec_digest": spec_digest, "statement": name::sha256(registration.jws().as_bytes()),
                "namespace": namespace, "kind": workload_kind, "name": workload_name, "images": images,
                "init_data": init_data, "image_keys": image_keys,
            });
            tx.record("key.registered", key_id, detail).await?;
        }
        Outcome::Same => {}
        Outcome::Taken(holder) => {
            return Err(Refused::new(
                Code::VersionExists,
                format!(
                    "revision {} of lineage '{}' can't be registered: {holder} exists and versions are \
                     never replaced; seal with a higher --revision",
                    registration.revision, registration.lineage
                ),
            ));
        }
    }
    accept(tx).await
}

async fn take_resource(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: ResourceRequest = body::json(&parts, stream, RESOURCE_BYTES, Code::Statement).await?;
    let resource: Verified<Resource> = verify(broker, &request.resource).await?;
    let content = BASE64_URL_SAFE_NO_PAD.decode(request.content.as_bytes()).map(Zeroizing::new);
    let content = content
        .ok()
        .filter(|content| content.len() <= MAX_RESOURCE)
        .ok_or_else(|| Refused::new(Code::Statement, "content is not base64url of at most 256 KiB"))?;
    if name::sha256(&content) != resource.sha256 {
        return Err(Refused::new(Code::Statement, "content is not the one whose hash the statement names"));
    }
    let mut tx = broker.store().begin().await?;
    match tx.keep(&resource, &content).await? {
        Outcome::Added => {
            let Resource { repository, uri, lineage, init_data, .. } = &*resource;
            let detail = json!({
                "repository": repository, "lineage": lineage, "init_data": init_data,
                "statement": name::sha256(resource.jws().as_bytes()),
            });
            tx.record("resource.kept", uri, detail).await?;
        }
        Outcome::Same => {}
        Outcome::Taken(holder) => {
            return Err(Refused::new(
                Code::VersionExists,
                format!("{holder} exists, and resources are never replaced; push it under another tag"),
            ));
        }
    }
    accept(tx).await
}

async fn take_policy(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: PolicyRequest = body::json(&parts, stream, STATEMENT_BYTES, Code::Statement).await?;
    let policy: Verified<PolicyStatement> = verify(broker, &request.policy).await?;
    let mut tx = broker.store().begin().await?;
    match tx.add_policy(&policy).await? {
        Outcome::Added => {
            let PolicyStatement { repository, lineage, serial, policy: rules } = &*policy;
            let detail = json!({
                "serial": serial, "statement": name::sha256(policy.jws().as_bytes()), "policy": rules,
            });
            tx.record("policy.set", &format!("{repository}/{lineage}"), detail).await?;
        }
        Outcome::Same => {}
        Outcome::Taken(holder) => {
            return Err(Refused::new(
                Code::PolicySerial,
                format!(
                    "policy serial {} of lineage '{}' is not above the one in force ({holder}); sign it \
                     again with a higher serial",
                    policy.serial, policy.lineage
                ),
            ));
        }
    }
    accept(tx).await
}

async fn take_retirement(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: RetirementRequest = body::json(&parts, stream, STATEMENT_BYTES, Code::Statement).await?;
    let retirement: Verified<Retirement> = verify(broker, &request.retirement).await?;
    let mut tx = broker.store().begin().await?;
    let Retirement { repository, lineage, revision } = &*retirement;
    match tx.retire(&retirement).await? {
        Some(Outcome::Added) => {
            let statement = name::sha256(retirement.jws().as_bytes());
            let detail = json!({ "revision": revision, "statement": statement });
            tx.record("revision.retired", &format!("{repository}/{lineage}"), detail).await?;
        }
        Some(_) => {}
        None => {
            return Err(Refused::new(
                Code::Statement,
                format!(
                    "revision {revision} of lineage '{lineage}' is not registered, so it can't be retired"
                ),
            ));
        }
    }
    accept(tx).await
}

/// Verifies a statement with the key of the owner that it claims to come from. Before the writer is asked
/// for anything: strangers can't keep it busy.
pub(super) async fn verify<S: Statement>(broker: &Broker, jws: &str) -> Result<Verified<S>, Refused> {
    let repository = claimed_repository(jws).map_err(|error| refuse_statement(&error))?;
    let owner = broker.store().owner(&repository).await?.ok_or_else(|| {
        Refused::new(
            Code::OwnerUnknown,
            format!(
                "repository '{repository}' is not enrolled here; ask the broker's operator to run \
                 'sealpod-broker owner enrol'"
            ),
        )
    })?;
    owner.verify(jws).map_err(|error| refuse_statement(&error))
}

fn refuse_statement(error: &StatementError) -> Refused {
    let code = match error {
        StatementError::Signature(_) => Code::OwnerSignature,
        _ => Code::Statement,
    };
    // The sources carry what is wrong with which field.
    Refused::new(code, chain(error))
}

pub(super) async fn accept(mut tx: Tx<'_>) -> Result<Accepted, Refused> {
    let checkpoint = tx.keep_checkpoint().await?;
    tx.commit().await?;
    Ok(Accepted { checkpoint })
}
