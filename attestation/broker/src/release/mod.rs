//! Releases: appraised evidence → the registration of exactly the sealed spec that it names → the owner's
//! policy in force → a row for the release and its audit record → the key, wrapped to the attested key.
//!
//! | step | module |
//! |---|---|
//! | may it have the key at all, and does its evidence match | `decide`, `reference` |
//! | a key's limit, its row, its record | `record` |
//! | one transaction for all that wait | `queue` |
//! | owners' resources, the operator's resources | `resource`, `compat` |

mod compat;
mod decide;
mod queue;
mod record;
mod reference;
mod resource;

use std::sync::Arc;

use protocols::audit::Checkpoint;
use protocols::rcar::{JweFlattened, ResourceUri, wrap};
use protocols::refusal::Code;

use crate::appraise::Attested;
use crate::broker::Broker;
use crate::refused::Refused;
use crate::store::{Confirmed, Release};

pub(crate) use decide::nothing_to_release;
pub(crate) use decide::{Claim, Grant, entitled};
pub(crate) use queue::Queue;
pub(crate) use record::{exact_verdict, record, table};

/// A released key on its way out.
pub(crate) struct Released {
    pub(crate) jwe: JweFlattened,
    /// None for a resource: it isn't counted.
    pub(crate) release: Option<Release>,
    /// Where the audit log stands, if this request added to it.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Decides on, records and makes the release of `uri` to an attested session.
///
/// # Errors
/// The refusal; denials are in the audit log, and any failure of the database is a refusal.
pub(crate) async fn release(
    broker: &Broker,
    attested: Arc<Attested>,
    uri: ResourceUri,
) -> Result<Released, Refused> {
    let recorded = broker.releases().release(attested.clone(), uri).await?;
    let jwe = wrap(attested.key(), &recorded.key).map_err(|error| {
        Refused::new(Code::Internal, "the key can't be wrapped to the attested key")
            .because(error.to_string())
    })?;
    broker.counters().released.add();
    Ok(Released { jwe, release: recorded.release, checkpoint: recorded.checkpoint })
}

/// Takes a guest's word that its key arrived and opened its sealed spec. Saying it again is harmless.
///
/// # Errors
/// The refusal: nothing was released to this guest under that address.
pub(crate) async fn confirm(broker: &Broker, attested: &Attested, uri: &ResourceUri) -> Result<(), Refused> {
    let mut tx = broker.store().begin().await?;
    match tx.confirm(&uri.to_string(), attested.thumbprint()).await? {
        None => return Err(nothing_to_release().because("nothing was released to this guest")),
        Some(Confirmed::Again) => return Ok(()),
        Some(Confirmed::Now(release)) => {
            let detail = serde_json::json!({ "release": release.id, "attested_key": attested.thumbprint() });
            tx.record("release.confirmed", &uri.to_string(), detail).await?;
        }
    }
    Ok(tx.commit().await?)
}
