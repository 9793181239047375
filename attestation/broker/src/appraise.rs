//! From a session's nonce and evidence to an appraised session: what the guest is, which key it holds, and
//! which sealed spec its initdata names. Whether any of that is good enough is decided key by key, later.

use std::time::SystemTime;

use protocols::rcar::{AttestRequest, InitData, Jwk, binding, report_data};
use protocols::refusal::Code;
use sealed_spec::initdata::{self, Initdata, SealpodConfig};
use sealed_spec::{KeyId, SpecDigest};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use verifier::snp::{Anchors, Evidence, Revocation, Session, from_kbs};
use verifier::{Appraised, Check, Denial, Trust};

use crate::http::Refused;
use crate::sessions::SessionNonce;
use crate::token::{Claims, thumbprint};

/// Evidence that was checked for this broker's nonce, with everything that it vouches for.
///
/// Only [`appraise`] makes one, and only from a nonce that is consumed by it.
pub(crate) struct Attested {
    appraised: Appraised,
    verdict: Value,
    nonce: String,
    key: Jwk,
    thumbprint: String,
    report_data: [u8; 64],
    init_data: Option<[u8; 32]>,
    sealed: Result<Named, String>,
}

/// What initdata names. The rest of it is the guest's business, and would be memory for its taking.
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

/// Checks evidence against a session's nonce.
///
/// The order is: the nonce is this session's, the initdata's digest is known, the report is signed by a
/// trusted chain and repeats both the transcript's hash and the initdata's digest.
pub(crate) fn appraise(
    nonce: SessionNonce,
    request: &AttestRequest<Box<RawValue>>,
    anchors: &Anchors,
    now: SystemTime,
) -> Result<Attested, Refused> {
    let runtime = &request.runtime_data;
    if !nonce.matches(&runtime.nonce) {
        return Err(Refused::new(
            Code::Nonce,
            "the evidence is for another session's nonce; start again with /kbs/v0/auth",
        ));
    }
    // Before it is hashed, stored or named in a release: a key that nothing can be wrapped to gets none.
    runtime.tee_pubkey.validate().map_err(|error| Refused::new(Code::Evidence, error.to_string()))?;
    let nonce = nonce.spend();
    let init_data = request.init_data.as_ref().map(measured).transpose()?;
    let evidence = &request.tee_evidence;
    let report_data = report_data(&binding(&nonce, &runtime.tee_pubkey, &evidence.additional_evidence));
    // Without initdata the report has to say so: zeros.
    let session = Session { report_data, host_data: init_data.unwrap_or_default() };
    let bytes = from_kbs(&*evidence.primary_evidence)
        .map_err(|error| Refused::new(Code::Evidence, error.to_string()))?;
    let appraised = Evidence::parse(bytes.report.as_bytes(), &bytes.certificates)
        .and_then(|evidence| evidence.check_signature(anchors, Revocation::Required, now))
        .and_then(|checked| checked.appraise(&session))
        .map_err(denied)?;
    let sealed = match &request.init_data {
        Some(body) => Initdata::parse(body.body.as_bytes())
            .map(|initdata| initdata.config.into())
            .map_err(|error| error.to_string()),
        None => Err("the guest has no initdata".to_owned()),
    };
    let verdict = serde_json::to_value(appraised.verdict()).map(exact).map_err(|error| {
        Refused::new(Code::Internal, "the verdict can't be written").because(error.to_string())
    })?;
    let key = runtime.tee_pubkey.clone();
    let thumbprint = thumbprint(&key.crv, &key.x, &key.y);
    Ok(Attested { appraised, verdict, nonce, key, thumbprint, report_data, init_data, sealed })
}

impl Attested {
    /// The appraised evidence.
    pub(crate) fn appraised(&self) -> &Appraised {
        &self.appraised
    }

    /// The verdict, as JSON.
    pub(crate) fn verdict(&self) -> &Value {
        &self.verdict
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

    /// The evidence in a few words, for the log.
    pub(crate) fn summary(&self) -> String {
        let verdict = self.appraised.verdict();
        let launch_digest = verdict.launch_digest().unwrap_or_default();
        format!("{}, launch digest {}", verdict.trust, hex::encode(launch_digest))
    }

    /// What the session's token says.
    pub(crate) fn claims(&self) -> Claims<'_> {
        let init_data_claims = match &self.sealed {
            Ok(named) => {
                json!({ "sealed_spec": named.sealed_spec.to_string(), "key_id": named.key_id.to_string() })
            }
            Err(_) => Value::Null,
        };
        Claims {
            tee: "snp",
            genuine: self.appraised.verdict().trust == Trust::Amd,
            verdict: self.verdict.clone(),
            report_data: &self.report_data,
            nonce: &self.nonce,
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

/// Numbers that JSON readers may round become strings: the audit log holds exact values only.
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) if number.as_u64().is_none_or(|number| number >= 1 << 53) => {
            Value::String(number.to_string())
        }
        Value::Array(items) => items.into_iter().map(exact).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, exact(value))).collect())
        }
        other => other,
    }
}

/// A failed check under the code that it has everywhere.
pub(crate) fn denied(denial: Denial) -> Refused {
    let code = match denial.check {
        Check::LaunchDigest => Code::LaunchDigest,
        Check::TeeKind => Code::TeeKind,
        Check::Tcb => Code::Tcb,
        Check::GuestPolicy => Code::GuestPolicy,
        Check::Vmpl => Code::Vmpl,
        Check::Evidence => Code::Evidence,
        Check::Signature => Code::Signature,
        Check::CertificateChain => Code::CertificateChain,
        Check::Collateral => Code::Collateral,
        Check::Binding => Code::Binding,
        Check::HostData => Code::HostData,
    };
    Refused::new(code, denial.detail)
}
