//! The three serializations (RFC 7516 section 7), each base64url in one spelling.

use serde::Deserialize;
use zeroize::Zeroizing;

use super::content::Encryption;
use super::header::{Header, Members};
use super::{JweError, MAX_MESSAGE, MAX_RECIPIENTS};
use crate::encoding::shown;
use crate::keys::base64url;

/// A JWE, read but not yet believed.
pub(super) struct Message {
    /// As it was written: the additional authenticated data.
    protected_text: String,
    protected: Members,
    shared: Members,
    aad: Option<String>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) iv: Vec<u8>,
    pub(super) ciphertext: Zeroizing<Vec<u8>>,
    pub(super) tag: Vec<u8>,
}

pub(super) struct Recipient {
    header: Members,
    pub(super) encrypted_key: Vec<u8>,
}

/// Both JSON serializations. Unknown members are ignored, as section 7.2.1 rules.
#[derive(Deserialize)]
struct Json {
    protected: Option<String>,
    unprotected: Option<Members>,
    header: Option<Members>,
    recipients: Option<Vec<JsonRecipient>>,
    encrypted_key: Option<String>,
    aad: Option<String>,
    iv: Option<String>,
    ciphertext: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize)]
struct JsonRecipient {
    header: Option<Members>,
    encrypted_key: Option<String>,
}

impl Message {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JweError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(JweError::TooLarge);
        }
        let json = if bytes.trim_ascii_start().first() == Some(&b'{') {
            serde_json::from_slice(bytes).map_err(|_| JweError::Malformed("not the JSON of a JWE"))?
        } else {
            compact(bytes)?
        };
        Self::from_json(json)
    }

    fn from_json(json: Json) -> Result<Self, JweError> {
        let protected_text = json.protected.ok_or(JweError::Malformed("no protected header"))?;
        let protected = Members::parse(&decode("the protected header is not base64url", &protected_text)?)?;
        let recipients = match json.recipients {
            None => vec![Recipient::new(json.header, json.encrypted_key)?],
            Some(_) if json.header.is_some() => {
                return Err(JweError::Malformed("both 'recipients' and 'header': flattened or general?"));
            }
            Some(several) if several.is_empty() => return Err(JweError::Malformed("no recipients")),
            Some(several) if several.len() > MAX_RECIPIENTS => return Err(JweError::TooManyRecipients),
            Some(several) => {
                // Peers repeat the first recipient's key here; anything else is no JWE of theirs.
                let first = several.first().and_then(|first| first.encrypted_key.as_ref());
                if json.encrypted_key.is_some() && json.encrypted_key.as_ref() != first {
                    return Err(JweError::Malformed(
                        "'encrypted_key' beside 'recipients' is not the first one's",
                    ));
                }
                several
                    .into_iter()
                    .map(|each| Recipient::new(each.header, each.encrypted_key))
                    .collect::<Result<_, _>>()?
            }
        };
        if let Some(aad) = &json.aad {
            decode("'aad' is not base64url", aad)?;
        }
        Ok(Self {
            protected_text,
            protected,
            shared: json.unprotected.unwrap_or_default(),
            aad: json.aad,
            recipients,
            iv: member("no base64url 'iv'", json.iv)?.to_vec(),
            ciphertext: member("no base64url 'ciphertext'", json.ciphertext)?,
            tag: member("no base64url 'tag'", json.tag)?.to_vec(),
        })
    }

    pub(super) fn encryption(&self) -> Result<Encryption, JweError> {
        let name =
            self.protected.text("enc").ok_or(JweError::Malformed("'enc' is not in the protected header"))?;
        Encryption::from_name(name)
            .ok_or_else(|| JweError::Unsupported { what: "content encryption", name: shown(name) })
    }

    pub(super) fn header_of<'a>(&'a self, recipient: &'a Recipient) -> Result<Header<'a>, JweError> {
        Header::join(&self.protected, [&self.shared, &recipient.header])
    }

    /// Section 5.1 step 14.
    pub(super) fn aad(&self) -> String {
        match &self.aad {
            None => self.protected_text.clone(),
            Some(aad) => format!("{}.{aad}", self.protected_text),
        }
    }
}

impl Recipient {
    fn new(header: Option<Members>, encrypted_key: Option<String>) -> Result<Self, JweError> {
        let encrypted_key = match encrypted_key {
            // Of `dir`, which is then refused by its name.
            None => Vec::new(),
            Some(text) => decode("'encrypted_key' is not base64url", &text)?.to_vec(),
        };
        Ok(Self { header: header.unwrap_or_default(), encrypted_key })
    }
}

/// Five parts with dots between them (section 7.1).
fn compact(bytes: &[u8]) -> Result<Json, JweError> {
    let malformed = JweError::Malformed("neither JSON nor the five parts of a compact JWE");
    let text = str::from_utf8(bytes).map_err(|_| JweError::Malformed("not text"))?;
    let mut parts = text.split('.').map(str::to_owned);
    let mut part = || parts.next();
    let (Some(protected), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag), None) =
        (part(), part(), part(), part(), part(), part())
    else {
        return Err(malformed);
    };
    Ok(Json {
        protected: Some(protected),
        unprotected: None,
        header: None,
        recipients: None,
        encrypted_key: Some(encrypted_key),
        aad: None,
        iv: Some(iv),
        ciphertext: Some(ciphertext),
        tag: Some(tag),
    })
}

fn decode(what: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, JweError> {
    base64url(text).ok_or(JweError::Malformed(what))
}

fn member(what: &'static str, text: Option<String>) -> Result<Zeroizing<Vec<u8>>, JweError> {
    decode(what, &text.ok_or(JweError::Malformed(what))?)
}
