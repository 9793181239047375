//! Key release and resources: RCAR (version 0.4.0) with the broker that initdata pins, over TLS that ends
//! there. The relay in between, if any, moves bytes.

mod http;
mod session;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocols::rcar::{
    ATTEST_PATH, AUTH_PATH, AttestRequest, AttestResponse, AuthRequest, Challenge, EphemeralKey, InitData,
    JweFlattened, NONCE_LENGTH, ResourceUri, RuntimeData, TeeEvidence, binding, report_data,
};
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;

use crate::initdata::VerifiedInitdata;
use crate::tee::{Binding, Tee, chain};
pub use session::Session;
pub use transport::Transport;

/// Answers besides the token are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Peers put initdata's claims into their tokens.
const MAX_TOKEN: usize = 8 * 1024 * 1024;

/// How patient the client is.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries to connect.
    pub attempts: u32,
    /// Pause after the first failed try; doubles up to two seconds.
    pub pause: Duration,
    /// For one connection with its TLS handshake.
    pub connect: Duration,
    /// For one answer of the broker.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            pause: Duration::from_millis(200),
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
        }
    }
}

/// Proves what this guest is to the broker and receives the key of its one sealed spec.
pub async fn release_key(
    initdata: &VerifiedInitdata,
    tee: &Arc<dyn Tee>,
    transport: Transport,
) -> Result<SpecKey, Refusal> {
    release_key_with(initdata, tee, transport, &Patience::default()).await
}

/// [`release_key`] with other limits.
pub async fn release_key_with(
    initdata: &VerifiedInitdata,
    tee: &Arc<dyn Tee>,
    transport: Transport,
    patience: &Patience,
) -> Result<SpecKey, Refusal> {
    let target = transport::Target::new(initdata.config()?, transport)?;
    match handshake(initdata, tee, &target, patience).await {
        // A session can die between two requests (a broker restarted, a clock jumped). Once.
        Err(Refusal { code: Code::Nonce | Code::Session, .. }) => {
            handshake(initdata, tee, &target, patience).await
        }
        other => other,
    }
}

async fn handshake(
    initdata: &VerifiedInitdata,
    tee: &Arc<dyn Tee>,
    target: &transport::Target,
    patience: &Patience,
) -> Result<SpecKey, Refusal> {
    let mut client = http::Client::new(target, patience);
    // The token is for third parties; the session's cookie is what the broker goes by.
    let (key, _) = attest(&mut client, initdata.body(), initdata.sealed_spec(), tee).await?;
    let key_id: ResourceUri = initdata
        .config()?
        .key_id
        .as_str()
        .parse()
        .map_err(|error| Refusal::new(Code::InitdataInvalid, chain(&error)))?;
    let answer: JweFlattened = client.get(&key_id.http_path(), MAX_ANSWER).await?;
    let opened = key.open(&answer).map_err(|error| protocol(chain(&error)))?;
    SpecKey::from_bytes(&opened)
        .map_err(|_| protocol(format!("the key has {} bytes instead of 32", opened.len())))
}

/// Authentication and attestation. The key is what the broker wraps to from now on.
async fn attest(
    client: &mut http::Client<'_>,
    initdata: &str,
    sealed_spec: [u8; 32],
    tee: &Arc<dyn Tee>,
) -> Result<(EphemeralKey, String), Refusal> {
    let challenge: Challenge = client.post(AUTH_PATH, &AuthRequest::new(tee.kind()), MAX_ANSWER).await?;
    if STANDARD.decode(&challenge.nonce).map(|nonce| nonce.len()) != Ok(NONCE_LENGTH) {
        return Err(protocol("the nonce is not 32 bytes in base64"));
    }

    let key = EphemeralKey::generate().map_err(|error| Refusal::new(Code::Internal, chain(&error)))?;
    let public = key.public_jwk();
    let bound = report_data(&binding(&challenge.nonce, &public, ""));
    let request = AttestRequest {
        init_data: Some(InitData { format: "toml".to_owned(), body: initdata.to_owned() }),
        runtime_data: RuntimeData { nonce: challenge.nonce, tee_pubkey: public },
        tee_evidence: TeeEvidence {
            primary_evidence: evidence(tee, bound, sealed_spec).await?,
            additional_evidence: String::new(),
        },
    };
    let AttestResponse { token } = client.post(ATTEST_PATH, &request, MAX_TOKEN).await?;
    Ok((key, token))
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

fn protocol(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BrokerProtocol, format!("the broker's answer can't be used: {}", detail.into()))
}

#[cfg(test)]
pub(crate) mod tests;
