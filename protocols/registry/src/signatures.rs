//! Where signatures of an image are: a cosign tag or referrer beside it, the registry's signature extension,
//! or a lookaside server. What is found here is only bytes; who checks them believes nothing of where they
//! came from, so a mirror may be asked, too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, LINK};
use serde::Deserialize;

use crate::repository::{Repository, accept};
use crate::server::{self, Server};
use crate::{Digest, RegistryError, retry};

const COSIGN_PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// More than anyone makes, and few enough to check.
const MAX_SIGNATURES: usize = 64;
const MAX_LOOKASIDE: usize = 32;
const MAX_COSIGN_PAYLOAD: u64 = 64 << 10;
const MAX_SIMPLE: usize = 128 << 10;
const MAX_REFERRERS: usize = 256;
const MAX_PAGES: usize = 8;
const SUPPORTS: HeaderName = HeaderName::from_static("x-registry-supports-signatures");

/// A signature as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A simple-signing blob: an OpenPGP message.
    Simple(Vec<u8>),
    /// Cosign's: the payload, and its signature in base64.
    Cosign {
        /// Simple-signing JSON.
        payload: Vec<u8>,
        /// Of the payload, base64, as annotated.
        signature: String,
    },
}

/// What an index or a manifest names (image-spec, "Descriptor").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of the content.
    #[serde(default)]
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Of the content, bytes.
    pub size: u64,
    /// What an artifact is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Anything.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A server of simple signatures.
pub(crate) struct Lookaside {
    pub(crate) server: Server,
    /// `/path/repository`
    pub(crate) base: String,
}

impl Repository {
    /// All signatures of a manifest, of each kind. None is no error.
    pub async fn signatures(&self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let mut found = self.cosign_signatures(digest).await?;
        found.extend(self.simple_signatures(digest).await?);
        Ok(found)
    }

    /// Cosign's signatures: the layers of the manifest tagged `sha256-<hex>.sig`.
    pub async fn cosign_signatures(&self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        #[derive(Deserialize)]
        struct Manifest {
            layers: Vec<Descriptor>,
        }
        let what = "signature manifest";
        let manifest = match self.tagged_as(&format!("sha256-{}.sig", digest.hex()), what, true).await {
            Err(error) if error.status() == Some(404) => return Ok(Vec::new()),
            found => found?,
        };
        let manifest: Manifest = parse(&manifest.bytes, what)?;
        let mut found = Vec::new();
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == COSIGN_PAYLOAD) {
            let Some(signature) = layer.annotations.get(COSIGN_SIGNATURE) else { continue };
            if found.len() >= MAX_SIGNATURES {
                return Err(too_many(what, MAX_SIGNATURES));
            }
            if layer.size > MAX_COSIGN_PAYLOAD {
                let what = "signature payload".to_owned();
                return Err(RegistryError::TooLarge { what, limit: MAX_COSIGN_PAYLOAD });
            }
            let payload = self.small_blob(&layer.digest, "signature payload").await?;
            if payload.len() as u64 != layer.size {
                return Err(document("signature payload", "its size is not the one in its manifest"));
            }
            found.push(Signature::Cosign { payload, signature: signature.clone() });
        }
        Ok(found)
    }

    /// Simple signatures: the registry's own extension, if it says that it has it, and the lookaside server.
    pub async fn simple_signatures(&self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let places = self.places();
        let mut found = retry::retry(&places.limits, || self.extension(digest)).await?;
        match &places.lookaside {
            None => {}
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(lookaside)) => {
                for number in 1..=MAX_LOOKASIDE {
                    match retry::retry(&places.limits, || lookaside.signature(digest, number)).await? {
                        Some(signature) => found.push(Signature::Simple(signature)),
                        None => break,
                    }
                }
            }
        }
        Ok(found)
    }

    /// `X-Registry-Supports-Signatures`: `GET /extensions/v2/<repository>/signatures/<digest>`.
    async fn extension(&self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            signatures: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            version: u32,
            #[serde(rename = "type")]
            kind: String,
            content: String,
        }
        let (server, what) = (&self.places().registry, "signatures");
        let supports = match server.get(&Method::GET, "/v2/", &HeaderMap::new(), "registry").await {
            Ok((response, _)) => {
                let supports = response.headers.get(SUPPORTS).is_some_and(|value| value == "1");
                response.discard().await;
                supports
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => false,
        };
        if !supports {
            return Ok(Vec::new());
        }
        let target = format!("/extensions/v2/{}/signatures/{digest}", server.repository);
        let (response, origin) = match server.get(&Method::GET, &target, &HeaderMap::new(), what).await {
            Err(error) if error.status() == Some(404) => return Ok(Vec::new()),
            answer => answer?,
        };
        let body = server::read(response, self.places().limits.document_bytes, what, &origin).await?;
        let answer: Answer = parse(&body, what)?;
        if answer.signatures.len() > MAX_SIGNATURES {
            return Err(too_many(what, MAX_SIGNATURES));
        }
        let known =
            answer.signatures.into_iter().filter(|entry| entry.version == 2 && entry.kind == "atomic");
        known
            .map(|entry| match STANDARD.decode(entry.content) {
                Ok(bytes) if bytes.len() <= MAX_SIMPLE => Ok(Signature::Simple(bytes)),
                Ok(_) => Err(RegistryError::TooLarge { what: "signature".into(), limit: MAX_SIMPLE as u64 }),
                Err(_) => Err(document(what, "a signature is not base64")),
            })
            .collect()
    }

    /// What refers to a manifest (distribution-spec, "Listing Referrers"), by the API or its fallback tag.
    /// `artifact_type`: only those.
    pub async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let places = self.places();
        let found = match retry::retry(&places.limits, || self.referrers_api(digest)).await {
            Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => {
                match self.tagged_as(&format!("sha256-{}", digest.hex()), "referrers", true).await {
                    Err(error) if error.status() == Some(404) => Vec::new(),
                    found => descriptors(&found?.bytes)?,
                }
            }
            found => found?,
        };
        // Registries may filter; whether this one did doesn't matter.
        let fits =
            |found: &Descriptor| artifact_type.is_none() || found.artifact_type.as_deref() == artifact_type;
        Ok(found.into_iter().filter(fits).collect())
    }

    async fn referrers_api(&self, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let places = self.places();
        let server = &places.registry;
        let mut target = server.target(&format!("referrers/{digest}"));
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let (response, origin) = server.get(&Method::GET, &target, &accept(INDEX), "referrers").await?;
            let next = response.headers.get(LINK).and_then(|link| next_page(server, link.to_str().ok()?));
            let body = server::read(response, places.limits.document_bytes, "referrers", &origin).await?;
            found.extend(descriptors(&body)?);
            if found.len() > MAX_REFERRERS {
                return Err(too_many("referrers", MAX_REFERRERS));
            }
            match next {
                Some(next) => target = next,
                None => return Ok(found),
            }
        }
        Err(too_many("referrers", MAX_REFERRERS))
    }
}

impl Lookaside {
    /// `<base>/<repository>@sha256=<hex>/signature-<number>`; `None`: there are no more.
    async fn signature(&self, digest: &Digest, number: usize) -> Result<Option<Vec<u8>>, RegistryError> {
        let target = format!("{}@sha256={}/signature-{number}", self.base, digest.hex());
        let what = "signature";
        match self.server.get(&Method::GET, &target, &HeaderMap::new(), what).await {
            Ok((response, origin)) => {
                server::read(response, MAX_SIMPLE as u64, what, &origin).await.map(Some)
            }
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn descriptors(index: &[u8]) -> Result<Vec<Descriptor>, RegistryError> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let index: Index = parse(index, "referrers")?;
    if index.manifests.len() > MAX_REFERRERS {
        return Err(too_many("referrers", MAX_REFERRERS));
    }
    Ok(index.manifests)
}

/// `<path>; rel="next"` (RFC 8288), at the registry itself.
fn next_page(server: &Server, link: &str) -> Option<String> {
    let (location, parameters) = link.strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    let (origin, target) = server.origin.redirected(location).ok()?;
    (origin == server.origin).then_some(target)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| {
        document(what, &format!("not the JSON that it should be, at byte {}", error.column()))
    })
}

fn document(what: &'static str, reason: &str) -> RegistryError {
    RegistryError::Document { what, reason: reason.to_owned() }
}

fn too_many(what: &'static str, limit: usize) -> RegistryError {
    RegistryError::Document { what, reason: format!("more than {limit} of them") }
}
