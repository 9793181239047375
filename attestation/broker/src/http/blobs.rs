//! Owners' statements about ESM blobs of Power PEF.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use protocols::broker::{Accepted, BlobDenialRequest, BlobRequest};
use protocols::name;
use protocols::owner::{BlobDenial, PefBlob, Verified};
use protocols::refusal::Code;
use serde_json::json;

use super::answer::answer;
use super::body;
use super::owner_api::{STATEMENT_BYTES, accept, verify};
use crate::blob;
use crate::broker::Broker;
use crate::refused::Refused;
use crate::store::Outcome;

pub(super) async fn enrol(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_blob(&broker, request).await;
    answer(&broker, "blob", result.map(|accepted| Json(accepted).into_response()))
}

pub(super) async fn deny(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().statements.add();
    let result = take_denial(&broker, request).await;
    answer(&broker, "blob denial", result.map(|accepted| Json(accepted).into_response()))
}

async fn take_blob(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: BlobRequest = body::json(&parts, stream, STATEMENT_BYTES, Code::Statement).await?;
    let statement: Verified<PefBlob> = verify(broker, &request.blob).await?;
    // What no guest could use later is refused now, with the reason.
    let machines =
        blob::enrolment(&statement).and_then(|enrolment| blob::machines(&enrolment, broker.pef_anchors()))?;
    let mut tx = broker.store().begin().await?;
    match tx.enrol_blob(&statement).await? {
        Outcome::Added => {
            let PefBlob { repository, lineage, blob, serial, key, init_data, spec_digest, .. } = &*statement;
            let detail = json!({
                "repository": repository, "lineage": lineage, "serial": serial, "key": key.to_string(),
                "init_data": init_data, "spec_digest": spec_digest, "machines": machines,
                "statement": name::sha256(statement.jws().as_bytes()),
            });
            tx.record("blob.enrolled", blob, detail).await?;
        }
        Outcome::Same => {}
        Outcome::Taken(holder) => {
            return Err(Refused::new(
                Code::VersionExists,
                format!(
                    "serial {} of blob {} can't be enrolled: {holder} exists; only a blob's machines can change, \
                     with a higher serial",
                    statement.serial, statement.blob
                ),
            ));
        }
    }
    accept(tx).await
}

async fn take_denial(broker: &Broker, request: Request) -> Result<Accepted, Refused> {
    let (parts, stream) = request.into_parts();
    let request: BlobDenialRequest = body::json(&parts, stream, STATEMENT_BYTES, Code::Statement).await?;
    let denial: Verified<BlobDenial> = verify(broker, &request.denial).await?;
    let mut tx = broker.store().begin().await?;
    match tx.deny(&denial).await? {
        Some(Outcome::Added) => {
            let statement = name::sha256(denial.jws().as_bytes());
            let detail = json!({ "by": denial.repository, "statement": statement });
            tx.record("blob.denied", &denial.blob, detail).await?;
        }
        Some(_) => {}
        None => {
            return Err(Refused::new(
                Code::Statement,
                format!(
                    "blob {} is not enrolled by repository '{}', so it can't be denied",
                    denial.blob, denial.repository
                ),
            ));
        }
    }
    accept(tx).await
}
