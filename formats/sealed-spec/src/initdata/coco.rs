//! Initdata of the policy mode, as CoCo's guests have it: `policy.rego`, and where `aa.toml` and
//! `cdh.toml` say the broker is.
//!
//! Keys that mean nothing here are named, for a record, and otherwise ignored as CoCo does; those that
//! would protect something and can't here are refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{InitdataError, MAX_CA, short, toml_message};
use crate::origin::host_port;

/// Entry of `[data]` that holds the policy. Its presence, without `sealpod.toml`, is what asks for the
/// policy mode.
pub const POLICY_ENTRY: &str = "policy.rego";
const ATTESTER_ENTRY: &str = "aa.toml";
const HUB_ENTRY: &str = "cdh.toml";
/// Keys of `cdh.toml`'s `[image]` that ask for checks of images which this guest doesn't make.
const UNSUPPORTED_IMAGE: [&str; 3] =
    ["image_security_policy", "image_security_policy_uri", "sigstore_config_uri"];
/// Most names and credentials.
const MAX_LIST: usize = 64;

/// What a guest of the policy mode is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInitdata {
    /// The policy's text.
    pub policy: String,
    /// The broker, if the guest has one.
    pub broker: Option<BrokerAccess>,
    /// Keys for sealed secrets by their names: the last part of a credential's path, and its resource.
    pub credentials: BTreeMap<String, String>,
    /// The resource that holds registries' credentials, a containers-auth.json.
    pub registry_credentials: Option<String>,
    /// More certificates that registries may have, PEM.
    pub registry_certificates: Vec<String>,
    /// Entries and keys without effect.
    pub ignored: Vec<String>,
}

/// A key broker service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAccess {
    /// `https://host[:port]`, or `http://host[:port]`: then whoever is on the way can answer in its place,
    /// although nobody there can read what is for this guest.
    pub url: String,
    /// The only certificates to trust, PEM; none with `http`.
    pub ca: Option<String>,
}

impl BrokerAccess {
    /// Whether the connection proves who answers.
    pub fn is_authenticated(&self) -> bool {
        self.ca.is_some()
    }
}

#[derive(Deserialize, Default)]
struct Attester {
    #[serde(default)]
    token_configs: BTreeMap<String, toml::Value>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct TokenConfig {
    url: String,
    cert: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize, Default)]
struct Hub {
    kbc: Option<Kbc>,
    #[serde(default)]
    credentials: Vec<Credential>,
    #[serde(default)]
    image: Image,
    /// Where CoCo's hub listens; here each container has its own.
    #[serde(rename = "socket")]
    _socket: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct Kbc {
    name: String,
    url: Option<String>,
    kbs_cert: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct Credential {
    resource_uri: String,
    path: String,
}

#[derive(Deserialize, Default)]
struct Image {
    authenticated_registry_credentials_uri: Option<String>,
    #[serde(default)]
    extra_root_certificates: Vec<String>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

impl PolicyInitdata {
    /// From the entries of `[data]`.
    pub(super) fn parse(mut data: BTreeMap<String, String>) -> Result<Self, InitdataError> {
        let policy = data.remove(POLICY_ENTRY).ok_or(InitdataError::NoConfig)?;
        let mut ignored = Names::default();
        let attester: Attester = entry(&mut data, ATTESTER_ENTRY)?;
        let hub: Hub = entry(&mut data, HUB_ENTRY)?;
        ignored.add("", data.keys());
        ignored.add("aa.toml ", attester.others.keys());
        ignored.add("cdh.toml ", hub.others.keys());

        let from_hub = hub.kbc.map(|kbc| kbc.broker(&mut ignored)).transpose()?.flatten();
        let mut from_attester = None;
        for (name, config) in attester.token_configs {
            if name == "kbs" {
                from_attester = Some(token_config(config, &mut ignored)?);
            } else {
                ignored.add("aa.toml token_configs.", [&name]);
            }
        }
        let broker = match (from_hub, from_attester) {
            (Some(hub), Some(attester)) if hub != attester => {
                return Err(refuse(HUB_ENTRY, "[kbc] and [token_configs.kbs] of aa.toml name two brokers"));
            }
            (hub, attester) => hub.or(attester),
        };
        for key in UNSUPPORTED_IMAGE {
            if hub.image.others.contains_key(key) {
                let rule = format!("image.{key} asks for a check of images that this guest doesn't make");
                return Err(refuse(HUB_ENTRY, &rule));
            }
        }
        ignored.add("cdh.toml image.", hub.image.others.keys());
        Ok(Self {
            policy,
            broker,
            credentials: credentials(hub.credentials)?,
            registry_credentials: hub.image.authenticated_registry_credentials_uri,
            registry_certificates: hub.image.extra_root_certificates,
            ignored: ignored.0,
        })
    }
}

impl Kbc {
    fn broker(self, ignored: &mut Names) -> Result<Option<BrokerAccess>, InitdataError> {
        if self.name != "cc_kbc" {
            let rule = format!("kbc.name {:?} is not served here; 'cc_kbc' is", short(&self.name));
            return Err(refuse(HUB_ENTRY, &rule));
        }
        ignored.add("cdh.toml kbc.", self.others.keys());
        let url = self.url.filter(|url| !url.is_empty());
        url.map(|url| access(HUB_ENTRY, "kbc.kbs_cert", &url, self.kbs_cert)).transpose()
    }
}

fn token_config(config: toml::Value, ignored: &mut Names) -> Result<BrokerAccess, InitdataError> {
    let config: TokenConfig = config.try_into().map_err(|error: toml::de::Error| {
        refuse(ATTESTER_ENTRY, &format!("token_configs.kbs: {}", error.message()))
    })?;
    ignored.add("aa.toml token_configs.kbs.", config.others.keys());
    access(ATTESTER_ENTRY, "token_configs.kbs.cert", &config.url, config.cert)
}

fn access(entry: &str, key: &str, url: &str, cert: Option<String>) -> Result<BrokerAccess, InitdataError> {
    let url = url.trim_end_matches('/').to_owned();
    let cert = cert.filter(|cert| !cert.trim().is_empty());
    if url.strip_prefix("http://").is_some_and(host_port) {
        return match cert {
            None => Ok(BrokerAccess { url, ca: None }),
            Some(_) => Err(refuse(entry, &format!("{key} says whom to trust, but the url is http"))),
        };
    }
    if !url.strip_prefix("https://").is_some_and(host_port) {
        return Err(refuse(entry, "the url must be https://host[:port] or http://host[:port]"));
    }
    let ca =
        cert.ok_or_else(|| refuse(entry, &format!("{key} is missing: no public authority is trusted here")))?;
    if ca.len() > MAX_CA || !ca.contains("-----BEGIN CERTIFICATE-----") {
        return Err(refuse(entry, &format!("{key} must hold PEM certificates, at most 64 KiB")));
    }
    Ok(BrokerAccess { url, ca: Some(ca) })
}

/// CoCo writes credentials to files; what asks for one by name means the file's name.
fn credentials(list: Vec<Credential>) -> Result<BTreeMap<String, String>, InitdataError> {
    if list.len() > MAX_LIST {
        return Err(refuse(HUB_ENTRY, "more than 64 credentials"));
    }
    let mut credentials = BTreeMap::new();
    for Credential { resource_uri, path } in list {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if name.is_empty() || credentials.insert(name, resource_uri).is_some() {
            return Err(refuse(
                HUB_ENTRY,
                "two credentials have paths that end in the same name, or in none",
            ));
        }
    }
    Ok(credentials)
}

fn entry<T: Default + for<'de> Deserialize<'de>>(
    data: &mut BTreeMap<String, String>,
    name: &str,
) -> Result<T, InitdataError> {
    match data.remove(name) {
        Some(text) => toml::from_str(&text).map_err(|error| refuse(name, &toml_message(&text, &error))),
        None => Ok(T::default()),
    }
}

fn refuse(entry: &str, rule: &str) -> InitdataError {
    InitdataError::Coco { entry: entry.to_owned(), rule: rule.to_owned() }
}

/// Names for a record.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn add<'a>(&mut self, place: &str, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            if self.0.len() < MAX_LIST {
                self.0.push(format!("{place}{}", short(name)));
            }
        }
    }
}

#[cfg(test)]
#[path = "coco_tests.rs"]
mod tests;
