//! One requirement of a list: containers-policy.json(5), "Policy Requirements".

use serde_json::Value;

use crate::PolicyError;
use crate::identity::SignedIdentity;
use crate::json::Object;
use crate::keys::{self, KeyMembers, Keys};
use crate::openpgp::Keyring;
use crate::public_key::PublicKey;

const KNOWN: &str = "insecureAcceptAnything, reject, signedBy and sigstoreSigned";

/// What an image has to fulfil.
#[derive(Clone, Debug)]
pub(crate) enum Requirement {
    AcceptAnything,
    Reject,
    SignedBy { keys: Keys<Keyring>, identity: SignedIdentity },
    SigstoreSigned { keys: Keys<Vec<PublicKey>>, identity: SignedIdentity },
}

impl Requirement {
    pub(crate) fn parse(at: &str, value: Value) -> Result<Self, PolicyError> {
        let mut object = Object::new(at.to_owned(), value)?;
        let kind = object.required("type")?;
        let requirement = match kind.as_str() {
            "insecureAcceptAnything" => Self::AcceptAnything,
            "reject" => Self::Reject,
            "signedBy" => signed_by(at, &mut object)?,
            "sigstoreSigned" => sigstore_signed(at, &mut object)?,
            _ => return Err(PolicyError::UnknownType { at: at.to_owned(), name: kind, known: KNOWN }),
        };
        object.finish()?;
        Ok(requirement)
    }

    /// A list of them, of which all have to hold.
    pub(crate) fn list(at: &str, value: Value) -> Result<Vec<Self>, PolicyError> {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let item = |(index, item)| Self::parse(&format!("{at}[{index}]"), item);
                items.into_iter().enumerate().map(item).collect()
            }
            _ => Err(PolicyError::Value {
                at: at.to_owned(),
                problem: "it must be a list of requirements with at least one".into(),
            }),
        }
    }

    pub(crate) fn files(&self) -> &[String] {
        match self {
            Self::SignedBy { keys: Keys::Files(files), .. }
            | Self::SigstoreSigned { keys: Keys::Files(files), .. } => files,
            _ => &[],
        }
    }
}

fn signed_by(at: &str, object: &mut Object) -> Result<Requirement, PolicyError> {
    let key_type = object.required("keyType")?;
    match key_type.as_str() {
        "GPGKeys" => {}
        "signedByGPGKeys" | "X509Certificates" | "signedByX509CAs" => {
            return Err(PolicyError::Unsupported {
                at: at.to_owned(),
                what: format!("keyType {key_type:?}"),
                next: "use \"GPGKeys\" with the keys that sign",
            });
        }
        _ => return Err(PolicyError::UnknownType { at: at.to_owned(), name: key_type, known: "GPGKeys" }),
    }
    let keys = match keys::members(object, false)? {
        KeyMembers::Files(files) => Keys::Files(files),
        KeyMembers::Data(datas) => {
            let ring = Keyring::parse(datas.first().map_or(&[], Vec::as_slice));
            Keys::Here(ring.map_err(|problem| PolicyError::Key { at: at.to_owned(), problem })?)
        }
    };
    Ok(Requirement::SignedBy { keys, identity: SignedIdentity::parse(at, object.take("signedIdentity"))? })
}

fn sigstore_signed(at: &str, object: &mut Object) -> Result<Requirement, PolicyError> {
    for (member, next) in [
        (
            "fulcio",
            "a guest can't reach a transparency log: sign with a key of your own and name it in keyPath",
        ),
        ("pki", "name the signing keys themselves in keyPaths"),
        ("rekorPublicKeyPath", "leave it out, or keep the image by digest"),
        ("rekorPublicKeyPaths", "leave it out, or keep the image by digest"),
        ("rekorPublicKeyData", "leave it out, or keep the image by digest"),
        ("rekorPublicKeyDatas", "leave it out, or keep the image by digest"),
    ] {
        if object.take(member).is_some() {
            return Err(PolicyError::Unsupported { at: at.to_owned(), what: format!("{member:?}"), next });
        }
    }
    let keys = match keys::members(object, true)? {
        KeyMembers::Files(files) => Keys::Files(files),
        KeyMembers::Data(datas) => {
            let keys: Result<_, _> = datas.iter().map(|data| PublicKey::from_pem(data)).collect();
            Keys::Here(keys.map_err(|problem| PolicyError::Key { at: at.to_owned(), problem })?)
        }
    };
    Ok(Requirement::SigstoreSigned {
        keys,
        identity: SignedIdentity::parse(at, object.take("signedIdentity"))?,
    })
}
