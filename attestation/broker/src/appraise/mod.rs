//! From a challenge and evidence to an attested session: what the guest is, which key it holds, and which
//! sealed spec its initdata names. Whether any of that is good enough is decided key by key, later.
//!
//! | kind | module | what vouches |
//! |---|---|---|
//! | `snp` | `snp` | AMD's signature over the report |
//! | `sev` | `sev` | a key that was injected into a measured launch |
//! | `pef` | `pef` | a key in an ESM blob that only enrolled machines open |
//! | `sample` | `sample` | nothing; only where the operator accepts it |
//! | a token | `crate::passport` | another broker that the operator trusts |

mod evidence;
mod pef;
mod sample;
mod sev;
mod snp;

use std::time::SystemTime;

use protocols::rcar::{AttestRequest, InitData, Jwk, binding, report_data};
use protocols::refusal::Code;
use sealed_spec::initdata::{self, Initdata, SealpodConfig};
use sealed_spec::{KeyId, SpecDigest};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use verifier::Appraised;

use crate::broker::Broker;
use crate::challenge::Challenge;
use crate::refused::Refused;
use crate::token::{Claims, thumbprint};

pub(crate) use evidence::Evidence;
pub use evidence::{Kind, read_evidence};

/// Evidence that was checked for this broker's challenge, with everything that it vouches for.
pub(crate) struct Attested {
    appraised: Appraised,
    key: Jwk,
    thumbprint: String,
    init_data: Option<[u8; 32]>,
    sealed: Result<Named, String>,
}

/// What initdata names. The rest of it is the guest's business, and would be memory for its taking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Digest of the one sealed spec that the guest can open.
    pub(crate) sealed_spec: SpecDigest,
    /// Its key.
    pub(crate) key_id: KeyId,
}

impl From<SealpodConfig> for Named {
    fn from(config: SealpodConfig) -> Self {
        Self { sealed_spec: config.sealed_spec, key_id: config.key_id }
    }
}

/// What evidence has to be bound to: this session's nonce and key, and the initdata that came with it.
pub(crate) struct Bound {
    /// SHA-384 over nonce, key and additional evidence, and zeros.
    pub(crate) report_data: [u8; 64],
    /// SHA-256 of the initdata.
    pub(crate) init_data: Option<[u8; 32]>,
    /// What it names.
    pub(crate) sealed: Result<Named, String>,
    /// RFC 7638 thumbprint of the session's key.
    pub(crate) thumbprint: String,
}

/// Checks evidence against a challenge, which is used up by it.
///
/// The order is: the guest's key is one, the initdata's digest is known, the evidence is genuine and
/// repeats both the transcript's hash and the initdata's digest. Beside the session comes what its token
/// says.
pub(crate) async fn appraise(
    broker: &Broker,
    challenge: Challenge,
    request: &AttestRequest<Box<RawValue>>,
    now: SystemTime,
) -> Result<(Attested, String), Refused> {
    let kind = Kind::from_code(challenge.kind())
        .ok_or_else(|| Refused::new(Code::Internal, "the session is for a kind of evidence that is none"))?;
    let alias = broker.challenges().alias(challenge.id());
    let runtime = &request.runtime_data;
    // Before it is hashed, stored or named in a release: a key that nothing can be wrapped to gets none.
    runtime.tee_pubkey.validate().map_err(|error| Refused::new(Code::Evidence, error.to_string()))?;
    let init_data = request.init_data.as_ref().map(measured).transpose()?;
    let evidence = Evidence::parse(kind, &request.tee_evidence.primary_evidence)?;
    let sealed = match &request.init_data {
        // Nothing binds sample evidence to initdata, so it names nothing.
        _ if kind == Kind::Sample => Err("sample evidence vouches for no initdata".to_owned()),
        Some(body) => Initdata::parse(body.body.as_bytes())
            .map(|initdata| initdata.config.into())
            .map_err(|error| error.to_string()),
        None => Err("the guest has no initdata".to_owned()),
    };
    let nonce = challenge.spend();
    let additional = &request.tee_evidence.additional_evidence;
    let report_data = report_data(&binding(&nonce, &runtime.tee_pubkey, additional));
    let key = runtime.tee_pubkey.clone();
    let thumbprint = thumbprint(&key.crv, &key.x, &key.y);
    let bound = Bound { report_data, init_data, sealed, thumbprint };
    let appraised = evidence.appraise(broker, &bound, now).await?;

    let Bound { init_data, sealed, thumbprint, .. } = bound;
    let init_data = init_data.filter(|_| kind != Kind::Sample);
    let attested = Attested { appraised, key, thumbprint, init_data, sealed };
    let claims = attested.claims(kind.name(), &nonce, &report_data);
    let token = broker
        .tokens()
        .issue(alias, &claims, now, broker.limits().session_lifetime())
        .map_err(|error| Refused::new(Code::Internal, error.to_string()))?;
    Ok((attested, token))
}

impl Attested {
    /// A session in which another broker's token stands for the evidence.
    pub(crate) fn by_passport(appraised: Appraised, key: Jwk, sealed: Result<Named, String>) -> Self {
        let init_data = Some(appraised.verdict().init_data).filter(|digest| *digest != [0; 32]);
        let thumbprint = thumbprint(&key.crv, &key.x, &key.y);
        Self { appraised, key, thumbprint, init_data, sealed }
    }

    /// The appraised evidence.
    pub(crate) fn appraised(&self) -> &Appraised {
        &self.appraised
    }

    /// The guest's public key: what the evidence is bound to, and what keys are wrapped to.
    pub(crate) fn key(&self) -> &Jwk {
        &self.key
    }

    /// RFC 7638 thumbprint of that key.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// `sha256:` digest of the initdata that the guest was launched with.
    pub(crate) fn init_data(&self) -> Option<String> {
        self.init_data.map(|digest| format!("sha256:{}", hex::encode(digest)))
    }

    /// What the guest's initdata says it is for, or why it says nothing.
    pub(crate) fn sealed(&self) -> Result<&Named, &str> {
        self.sealed.as_ref().map_err(String::as_str)
    }

    /// What the session's token says.
    fn claims<'a>(&'a self, tee: &'static str, nonce: &'a str, report_data: &'a [u8]) -> Claims<'a> {
        let init_data_claims = match &self.sealed {
            Ok(named) => {
                json!({ "sealed_spec": named.sealed_spec.to_string(), "key_id": named.key_id.to_string() })
            }
            Err(_) => Value::Null,
        };
        let verdict = self.appraised.verdict();
        Claims {
            tee,
            verdict,
            report_data,
            nonce,
            tee_pubkey: &self.key,
            init_data: self.init_data.as_ref().map(<[u8; 32]>::as_slice),
            init_data_claims,
        }
    }
}

/// The digest of initdata as HOST_DATA has it.
fn measured(init_data: &InitData) -> Result<[u8; 32], Refused> {
    if init_data.format != "toml" {
        let given: String = init_data.format.chars().take(32).collect();
        return Err(Refused::new(
            Code::InitdataInvalid,
            format!("initdata of format '{given}' is not known; 'toml' is"),
        ));
    }
    Ok(initdata::digest(init_data.body.as_bytes()))
}
