//! A launched guest that comes back: its connection's key is found, and the evidence that it made with it is held
//! against the launch. A connection is one guest's: the first attested key that uses it is the only one that does.

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::refusal::Code;
use protocols::sev::{CONNECTION_KEY, ConnectionEvidence};
use verifier::Appraised;
use verifier::sev::{ConnectionSession, Launched};
use zeroize::Zeroizing;

use super::{failed, request};
use crate::appraise::Bound;
use crate::broker::Broker;
use crate::refused::Refused;

/// A connection's key and launch as one value, to be sealed.
pub(super) fn stored(key: &[u8; CONNECTION_KEY], launched: &Launched) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let launched = launched.to_bytes().map_err(|error| failed(&error))?;
    let mut out = Zeroizing::new(Vec::with_capacity(CONNECTION_KEY + launched.len()));
    out.extend_from_slice(key);
    out.extend_from_slice(&launched);
    Ok(out)
}

/// Appraises what a guest made with its connection's key.
///
/// # Errors
/// The refusal.
pub(crate) async fn appraise(
    broker: &Broker,
    evidence: &ConnectionEvidence,
    bound: &Bound,
) -> Result<Appraised, Refused> {
    let unknown = || {
        Refused::new(Code::Evidence, "there is no such connection, or it has expired; launch the guest again")
    };
    let id = request::id(&evidence.connection).ok_or_else(unknown)?;
    let mac = BASE64_STANDARD
        .decode(&evidence.mac)
        .map_err(|_| Refused::new(Code::Evidence, "the connection's mac is not base64"))?;
    let (Some(init_data), Ok(named)) = (bound.init_data, &bound.sealed) else {
        return Err(Refused::new(
            Code::InitdataInvalid,
            "evidence of a SEV guest needs the initdata that it was launched for",
        ));
    };
    let session = ConnectionSession {
        report_data: bound.report_data,
        init_data,
        sealed_spec: *named.sealed_spec.as_bytes(),
    };
    let mut tx = broker.store().begin().await?;
    let stored = tx.connection(id).await?.ok_or_else(unknown)?;
    let (key, launched) = stored.secret.split_first_chunk::<CONNECTION_KEY>().ok_or_else(unknown)?;
    let launched = Launched::from_bytes(launched).map_err(|error| failed(&error))?;
    let appraised = launched.connect(key, &session, &mac)?;
    if !tx.bind_connection(id, &bound.thumbprint).await? {
        return Err(Refused::new(
            Code::Binding,
            "the connection belongs to another attested key: it is for one guest, which keeps its key",
        ));
    }
    tx.commit().await?;
    Ok(appraised)
}
