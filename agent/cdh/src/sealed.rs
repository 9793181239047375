//! Sealed secrets as CoCo writes them: `sealed.` and a JWS whose payload points to a resource (*vault*) or
//! carries data under a key that a resource wraps (*envelope*).
//!
//! The signature is always checked, with the key that `kid` names: a resource, or a credential of the
//! guest's configuration. A host could otherwise put one secret in another's place.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use aes_kw::KwAes256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::jws::Signed;

/// What a sealed secret begins with.
pub const PREFIX: &str = "sealed.";
/// Longest sealed secret, in bytes.
pub(crate) const MAX_SEALED: usize = 2 * 1024 * 1024;
const VERSION: &str = "0.1.0";
/// The only provider: the broker that the guest attests to.
const PROVIDER: &str = "kbs";
/// A 256-bit key under AES key wrap (RFC 3394).
const WRAPPED_KEY: usize = 40;

#[derive(Deserialize)]
struct Secret {
    version: String,
    provider: String,
    #[serde(flatten)]
    content: Content,
    // Of a key service elsewhere; ours has none.
    #[serde(default)]
    provider_settings: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Content {
    Vault { name: String },
    Envelope { key_id: String, encrypted_key: String, encrypted_data: String, wrap_type: String, iv: String },
}

/// The secret of a sealed secret. Refusals say what is wrong with it, and nothing that it holds.
pub async fn unseal(text: &str, identity: &dyn Identity) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if text.len() > MAX_SEALED {
        return Err(wrong("it is too long"));
    }
    let body =
        text.trim_ascii_end().strip_prefix(PREFIX).ok_or_else(|| wrong("it doesn't begin with 'sealed.'"))?;
    let signed = Signed::parse(body).map_err(wrong)?;
    let key = match signed.key_id.parse::<ResourceUri>() {
        Ok(uri) => Some(uri),
        Err(_) => identity.named_key(&signed.key_id),
    };
    let key = key.ok_or_else(|| {
        wrong("the key that its header names is neither a kbs:/// address nor a credential of this guest")
    })?;
    let key = identity.resource(&key).await?;
    let payload = Zeroizing::new(signed.verify(&key).map_err(wrong)?);
    let secret: Secret =
        serde_json::from_slice(&payload).map_err(|_| wrong("its payload is no secret of either type"))?;
    if secret.version != VERSION {
        return Err(wrong("its version is not 0.1.0"));
    }
    if secret.provider != PROVIDER || secret.provider_settings.is_some_and(|settings| !settings.is_empty()) {
        return Err(wrong(
            "its provider is not 'kbs' without settings; other key services are not reachable",
        ));
    }
    match secret.content {
        Content::Vault { name } => identity.resource(&address(&name)?).await,
        Content::Envelope { key_id, encrypted_key, encrypted_data, wrap_type, iv } => {
            if wrap_type != "A256GCM" {
                return Err(wrong("its wrap_type is not A256GCM"));
            }
            let parts =
                Envelope { key: decode(&encrypted_key)?, data: decode(&encrypted_data)?, iv: decode(&iv)? };
            let kek = identity.resource(&address(&key_id)?).await?;
            parts.open(&kek).map_err(wrong)
        }
    }
}

struct Envelope {
    key: Vec<u8>,
    data: Vec<u8>,
    iv: Vec<u8>,
}

impl Envelope {
    fn open(self, kek: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        const CLOSED: &str = "it doesn't open with its key";
        let kek: &[u8; 32] = kek.try_into().map_err(|_| "its key at the broker is not 32 bytes long")?;
        let wrapped: [u8; WRAPPED_KEY] =
            self.key.try_into().map_err(|_| "its encrypted_key is no wrapped 256-bit key (RFC 3394)")?;
        let iv: [u8; 12] = self.iv.try_into().map_err(|_| "its iv is not 12 bytes long")?;
        let mut key = Zeroizing::new([0; 32]);
        KwAes256::new(kek.into()).unwrap_key(&wrapped, key.as_mut()).map_err(|_| CLOSED)?;
        let mut data = Zeroizing::new(self.data);
        let at = data.len().checked_sub(16).ok_or(CLOSED)?;
        let tag: [u8; 16] = data[at..].try_into().map_err(|_| CLOSED)?;
        data.truncate(at);
        Aes256Gcm::new((&*key).into())
            .decrypt_inout_detached(&Nonce::from(iv), &[], data.as_mut_slice().into(), &Tag::from(tag))
            .map_err(|_| CLOSED)?;
        Ok(data)
    }
}

fn address(text: &str) -> Result<ResourceUri, Refusal> {
    text.parse().map_err(|_| wrong("what it names is no kbs:///repository/type/tag"))
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text).map_err(|_| wrong("a part of its envelope is not base64"))
}

fn wrong(detail: &'static str) -> Refusal {
    Refusal::new(Code::SecretUnseal, detail)
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
pub(crate) mod tests;
