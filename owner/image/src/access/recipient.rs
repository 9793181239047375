//! `--recipient`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use encrypted_image::Wrap;
use encrypted_image::coco::{BrokerKey, SEALPOD};
use encrypted_image::jwe::JweWrap;
use encrypted_image::keys::{Certificate, PublicKey};
use encrypted_image::pkcs7::Pkcs7Wrap;

use super::{AccessError, Tools, read};
use crate::pgp::{Gnupg, PgpRecipients, PublicRing};
use crate::pkcs11::{KeyFile, Pkcs11Recipients, is_key_file};
use crate::provider::{ConfigError, ProviderArg};

/// One of `--recipient`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// `jwe:PUBLIC_KEY`
    Jwe(PathBuf),
    /// `pkcs7:CERTIFICATE`
    Pkcs7(PathBuf),
    /// `pgp:NAME[@KEYRING]`; without a keyring GnuPG's own.
    Pgp {
        /// Name, address, fingerprint or key id.
        name: String,
        /// A file of `gpg --export`.
        keyring: Option<PathBuf>,
    },
    /// `pkcs11:FILE`: a public key, or a description of one on a token.
    Pkcs11(PathBuf),
    /// `provider:NAME[:PARAMETERS]`
    Provider(ProviderArg),
    /// `kbs:///…`: a key that a broker releases to guests.
    Broker(String),
}

impl FromStr for Recipient {
    type Err = AccessError;
    fn from_str(text: &str) -> Result<Self, AccessError> {
        let wrong = || AccessError::Recipient(text.to_owned());
        let (scheme, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(wrong)?;
        Ok(match scheme {
            "jwe" => Self::Jwe(rest.into()),
            "pkcs7" => Self::Pkcs7(rest.into()),
            "pgp" => pgp(rest),
            "pkcs11" => Self::Pkcs11(rest.into()),
            "kbs" => Self::Broker(text.to_owned()),
            "provider" => Self::Provider(rest.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        })
    }
}

/// Addresses have an `@` too: what follows the last one is a keyring if there is such a file.
fn pgp(text: &str) -> Recipient {
    match text.rsplit_once('@') {
        Some((name, keyring))
            if !name.is_empty() && (keyring.contains('/') || Path::new(keyring).is_file()) =>
        {
            Recipient::Pgp { name: name.to_owned(), keyring: Some(keyring.into()) }
        }
        _ => Recipient::Pgp { name: text.to_owned(), keyring: None },
    }
}

/// What recipients come to.
pub struct Wraps {
    /// One for each scheme and provider.
    pub wraps: Vec<Box<dyn Wrap>>,
    /// What the owner should know of them.
    pub warnings: Vec<String>,
}

/// Reads keys and certificates; of each scheme all recipients come into one wrapped key.
///
/// # Errors
/// When one can't be read or used; nothing is encrypted for the others then.
pub fn wraps(recipients: &[Recipient], tools: &Tools<'_>) -> Result<Wraps, AccessError> {
    let (mut wraps, mut warnings): (Vec<Box<dyn Wrap>>, _) = (Vec::new(), Vec::new());
    let (mut jwe, mut pkcs7, mut pkcs11) = (Vec::new(), Vec::new(), Vec::new());
    let mut pgp: BTreeMap<Option<&Path>, Vec<&str>> = BTreeMap::new();
    let mut providers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for recipient in recipients {
        match recipient {
            Recipient::Jwe(path) => jwe.push(key(path, PublicKey::parse)?),
            Recipient::Pkcs7(path) => pkcs7.push(key(path, Certificate::parse)?),
            Recipient::Pkcs11(path) => pkcs11.push(path.as_path()),
            Recipient::Pgp { name, keyring } => pgp.entry(keyring.as_deref()).or_default().push(name),
            // This program's own provider needs no program beside it, unless one is configured.
            Recipient::Provider(ProviderArg { name, parameters: uri })
                if name == SEALPOD
                    && uri.starts_with("kbs:")
                    && !tools.providers.is_some_and(|configured| configured.has(SEALPOD)) =>
            {
                wraps.push(Box::new(broker_key(uri, tools)?));
            }
            Recipient::Provider(ProviderArg { name, parameters }) => {
                providers.entry(name).or_default().push(parameters.clone());
            }
            Recipient::Broker(uri) => wraps.push(Box::new(broker_key(uri, tools)?)),
        }
    }
    if !jwe.is_empty() {
        wraps.push(Box::new(JweWrap::new(jwe)?));
    }
    if !pkcs7.is_empty() {
        wraps.push(Box::new(Pkcs7Wrap::new(pkcs7)?));
    }
    for (keyring, names) in pgp {
        wraps.push(Box::new(openpgp(keyring, &names, tools.now, &mut warnings)?));
    }
    if !pkcs11.is_empty() {
        wraps.push(Box::new(token(&pkcs11, tools)?));
    }
    for (name, parameters) in providers {
        let configured = tools.providers.ok_or_else(|| ConfigError::None(name.to_owned()))?;
        wraps.push(Box::new(configured.wrapper(name, parameters)?));
    }
    Ok(Wraps { wraps, warnings })
}

fn broker_key(uri: &str, tools: &Tools<'_>) -> Result<BrokerKey, AccessError> {
    (tools.broker_key)(uri).map_err(|reason| AccessError::Broker { uri: uri.to_owned(), reason })
}

fn key<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, encrypted_image::keys::KeyError>,
) -> Result<T, AccessError> {
    parse(&read(path)?).map_err(|source| AccessError::KeyFile { path: path.into(), source })
}

fn openpgp(
    keyring: Option<&Path>,
    names: &[&str],
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<PgpRecipients, AccessError> {
    let mut ring = PublicRing::new();
    match keyring {
        Some(path) => ring.add(&path.display().to_string(), &read(path)?)?,
        None => ring.add("gpg's keyring", &Gnupg::default().export()?)?,
    }
    let recipients = PgpRecipients::select(&ring, names.iter().copied(), now)?;
    for recipient in recipients.recipients().filter(|recipient| !recipient.opens_with_ocicrypt) {
        warnings.push(format!(
            "recipient pgp:{}: skopeo and ctr can't decrypt with key {}",
            recipient.name, recipient.key_id
        ));
    }
    Ok(recipients)
}

fn token(paths: &[&Path], tools: &Tools<'_>) -> Result<Pkcs11Recipients, AccessError> {
    let hash = Pkcs11Recipients::hash_named(tools.oaep_hash.as_deref())?;
    let mut recipients = Pkcs11Recipients::new(hash, tools.pkcs11.clone(), (tools.modules)()?);
    for path in paths {
        let (bytes, file) = (read(path)?, path.display().to_string());
        match is_key_file(&bytes) {
            true => recipients.add_token(KeyFile::parse(&file, &bytes)?)?,
            false => recipients.add_public_key(&file, &bytes)?,
        }
    }
    Ok(recipients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |text: &str| text.parse::<Recipient>().unwrap();
        assert_eq!(parse("jwe:a:b.pem"), Recipient::Jwe("a:b.pem".into()));
        assert_eq!(parse("pkcs7:a.crt"), Recipient::Pkcs7("a.crt".into()));
        let alice = Recipient::Pgp { name: "alice@example.org".to_owned(), keyring: None };
        assert_eq!(parse("pgp:alice@example.org"), alice);
        let ring =
            Recipient::Pgp { name: "alice@example.org".to_owned(), keyring: Some("./ring.gpg".into()) };
        assert_eq!(parse("pgp:alice@example.org@./ring.gpg"), ring);
        let uri = "kbs:///acme/image-key/web";
        assert_eq!(parse(uri), Recipient::Broker(uri.to_owned()));
        let own = ProviderArg { name: SEALPOD.to_owned(), parameters: uri.to_owned() };
        assert_eq!(parse(&format!("provider:sealpod:{uri}")), Recipient::Provider(own));
        let provider = ProviderArg { name: "kms".to_owned(), parameters: "a:b=c".to_owned() };
        assert_eq!(parse("provider:kms:a:b=c"), Recipient::Provider(provider));
        assert!(
            matches!(parse("provider:kms"), Recipient::Provider(ProviderArg { name, .. }) if name == "kms")
        );
        for bad in ["", "jwe", "jwe:", "a.pem", "provider:", "provider::x", "age:x"] {
            assert!(bad.parse::<Recipient>().is_err(), "{bad}");
        }
    }
}
