//! Authentication and attestation: a nonce, evidence over it and the guest's key, a token.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocols::rcar::{
    ATTEST_PATH, AUTH_PATH, AttestRequest, AttestResponse, AuthRequest, Challenge, EphemeralKey, InitData,
    NONCE_LENGTH, RuntimeData, TeeEvidence, binding, report_data,
};
use protocols::refusal::{Code, Refusal};
use serde::Deserialize;

use super::http::{Client, Failure};
use super::protocol;
use crate::tee::{Binding, Tee};

/// Answers besides the token are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Peers put initdata's claims into their tokens.
const MAX_TOKEN: usize = 8 * 1024 * 1024;

/// What attests.
pub(super) struct Guest {
    /// The document, whole.
    pub(super) initdata: String,
    /// The digest that it names.
    pub(super) sealed_spec: [u8; 32],
    pub(super) tee: Arc<dyn Tee>,
    /// What the broker wraps to.
    pub(super) key: EphemeralKey,
}

/// The token, and with `client` the session's cookie.
pub(super) async fn attest(client: &mut Client<'_>, guest: &Guest) -> Result<String, Failure> {
    let kind = guest.tee.kind();
    let challenge: Challenge = client.post(AUTH_PATH, &AuthRequest::new(kind), MAX_ANSWER).await?;
    if STANDARD.decode(&challenge.nonce).map(|nonce| nonce.len()) != Ok(NONCE_LENGTH) {
        return Err(protocol("the nonce is not 32 bytes in base64").into());
    }
    let public = guest.key.public_jwk();
    let bound = report_data(&binding(&challenge.nonce, &public, ""));
    let request = AttestRequest {
        init_data: Some(InitData { format: "toml".to_owned(), body: guest.initdata.clone() }),
        runtime_data: RuntimeData { nonce: challenge.nonce, tee_pubkey: public },
        tee_evidence: TeeEvidence {
            primary_evidence: evidence(&guest.tee, bound, guest.sealed_spec).await?,
            additional_evidence: String::new(),
        },
    };
    let AttestResponse { token } = client.post(ATTEST_PATH, &request, MAX_TOKEN).await?;
    Ok(token)
}

async fn evidence(
    tee: &Arc<dyn Tee>,
    report_data: [u8; 64],
    sealed_spec: [u8; 32],
) -> Result<serde_json::Value, Refusal> {
    let tee = Arc::clone(tee);
    // The firmware can keep its caller waiting; RPCs go on meanwhile.
    tokio::task::spawn_blocking(move || {
        tee.evidence(&Binding { report_data: &report_data, sealed_spec: &sealed_spec })
    })
    .await
    .map_err(|_| Refusal::new(Code::Internal, "the request for evidence was aborted"))?
    .map_err(|error| error.refusal())
}

/// When a token was issued, in seconds since the epoch. Whoever sent it is who it is by TLS; its signature is
/// for third parties. None where it doesn't say.
pub(super) fn issued(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        iat: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.iat)
}
