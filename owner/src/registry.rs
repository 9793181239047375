//! Registries as this machine reaches them: its CAs, its proxies, its user's logins; and the digest that a
//! tag has there. The digest is of the bytes that came back, not what a header says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use oci_registry::{
    Access, AuthFile, Client, Limits, Login, Proxies, Reference, RegistryError, Settings, Source,
};
use sealed_spec::RegistrySource;
use serde::Deserialize;
use thiserror::Error;

use crate::{files, tls};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Variants of one architecture that an index may list.
const MAX_VARIANTS: usize = 8;
const LOGINS_LIMIT: usize = 1024 * 1024;

/// Why an image can't be pinned.
#[derive(Debug, Error)]
pub(crate) enum PinError {
    #[error(
        "image {image}: {source}; is the registry up? Plain http must be said: --registry {host}=http://…"
    )]
    Unreachable { image: String, host: String, source: RegistryError },
    #[error(
        "image {image}: the registry wants a login: {source}; or --registry {host}=URL,user=NAME,password-file=FILE"
    )]
    Login { image: String, host: String, source: RegistryError },
    #[error("image {image}: registry {name} has no such image or tag")]
    Missing { image: String, name: String },
    #[error("image {image}: {source}")]
    Refused { image: String, source: RegistryError },
    #[error("image {image}: what registry {name} sent is not an image manifest: {problem}")]
    Manifest { image: String, name: String, problem: String },
}

/// A client with everything that this machine and its user have for registries, and what the command line says
/// about some of them.
pub(crate) fn client(sources: impl IntoIterator<Item = RegistrySource>) -> Result<Client> {
    let mut settings = settings(None)?;
    settings.sources.extend(sources.into_iter().map(source));
    Ok(Client::new(settings))
}

/// What this machine and its user have for registries. `authfile` is where the command line says that logins
/// are.
pub(crate) fn settings(authfile: Option<&Path>) -> Result<Settings> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(Settings {
        sources: Vec::new(),
        logins: logins(authfile, variable)?,
        ca_bundle: tls::system_bundle(),
        proxies: Proxies::from_environment(variable)?,
        limits: Limits {
            connect_timeout: Duration::from_secs(5),
            attempts: 3,
            backoff: Duration::from_millis(300),
            ..Limits::default()
        },
        agent: concat!("sealpod/", env!("CARGO_PKG_VERSION")),
    })
}

/// A source of the command line as the client takes it.
pub(crate) fn source(given: RegistrySource) -> Source {
    let mut source = Source::new(&given.host, &given.location);
    source.ca = given.ca;
    source.mirrors = given.mirrors.iter().map(|location| location.as_str().into()).collect();
    source.lookaside = given.lookaside;
    if let (Some(username), Some(password)) = (&given.username, &given.password) {
        source.login = Some(Login::password(username, password.expose()));
    }
    source
}

/// The files in which skopeo, podman and docker keep logins, the first first (containers-auth.json(5)). One
/// that is named must be there.
fn logins(authfile: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<AuthFile>> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = authfile.map(PathBuf::from).or_else(|| given("REGISTRY_AUTH_FILE"));
    let home = given("HOME");
    let docker = given("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let config = given("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let usual = [
        given("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json")),
        config.map(|config| config.join("containers/auth.json")),
        docker.map(|docker| docker.join("config.json")),
    ];
    let usual = usual.into_iter().flatten().filter(|path| path.exists());
    let paths: Vec<PathBuf> = if let Some(named) = named { vec![named] } else { usual.collect() };
    let read = |path: PathBuf| {
        let bytes = files::read(&path, LOGINS_LIMIT)?;
        AuthFile::parse(&bytes).with_context(|| path.display().to_string())
    };
    paths.into_iter().map(read).collect()
}

/// An image as its registry has it now.
pub(crate) struct Pinned {
    /// Digest of the manifest or index.
    pub(crate) digest: String,
    /// Layers of each image in it that guests may take.
    pub(crate) layers: Vec<LayerDescriptor>,
}

/// A layer as an image manifest lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerDescriptor {
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The image that `reference` names now.
pub(crate) async fn resolve(client: &Client, reference: &Reference) -> Result<Pinned, PinError> {
    let image = reference.to_string();
    let host = reference.host.clone();
    let refused = |source| PinError::Refused { image: image.clone(), source };
    let repository = client.repository(reference, Access::Pull).map_err(refused)?;
    let found = match &reference.digest {
        Some(digest) => repository.manifest(digest).await,
        None => repository.tagged(reference.tag.as_deref().unwrap_or("latest")).await,
    };
    let name = repository.registry();
    let document = found.map_err(|source| match source.of_registry() {
        RegistryError::Status { status: 401 | 403, .. } => {
            PinError::Login { image: image.clone(), host, source }
        }
        RegistryError::Status { status: 404, .. } => {
            PinError::Missing { image: image.clone(), name: name.clone() }
        }
        RegistryError::Unreachable { .. } => PinError::Unreachable { image: image.clone(), host, source },
        _ => refused(source),
    })?;
    let wrong = |problem| PinError::Manifest { image: image.clone(), name: name.clone(), problem };
    let layers = match read_manifest(&document.bytes).map_err(wrong)? {
        Manifest::Image(layers) => layers,
        Manifest::Index(fitting) => {
            let mut all = Vec::new();
            for digest in fitting {
                let digest =
                    digest.parse().map_err(|_| wrong("a digest in the index is not sha256".into()))?;
                let document = repository.manifest(&digest).await.map_err(refused)?;
                match read_manifest(&document.bytes).map_err(wrong)? {
                    Manifest::Image(layers) => all.extend(layers),
                    Manifest::Index(_) => return Err(wrong("the index lists another index".into())),
                }
            }
            all
        }
    };
    Ok(Pinned { digest: document.digest.to_string(), layers })
}

/// What is at a digest.
enum Manifest {
    Image(Vec<LayerDescriptor>),
    /// Digests of the images for these guests.
    Index(Vec<String>),
}

/// Is it an image for these guests? An index must offer linux/amd64.
fn read_manifest(body: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Platform {
        os: String,
        architecture: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: String,
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<Vec<Entry>>,
        layers: Option<Vec<LayerDescriptor>>,
    }
    let document: Document = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if document.schema_version != 2 {
        return Err(format!("schema version {}, 2 is needed", document.schema_version));
    }
    let index = matches!(document.media_type.as_deref(), Some(OCI_INDEX | DOCKER_INDEX));
    match (document.manifests, document.layers) {
        (Some(entries), None) => {
            let fits = |entry: &Entry| {
                entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
            };
            let fitting: Vec<_> = entries.into_iter().filter(fits).map(|entry| entry.digest).collect();
            match fitting.len() {
                0 => Err("the index has no linux/amd64 image".into()),
                1..=MAX_VARIANTS => Ok(Manifest::Index(fitting)),
                _ => Err(format!("the index has more than {MAX_VARIANTS} linux/amd64 images")),
            }
        }
        (None, Some(layers)) if !index => Ok(Manifest::Image(layers)),
        _ => Err("neither an index nor an image manifest".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_where_others_keep_them() {
        let home = tempfile::tempdir().unwrap();
        let place = |path: &str, host: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
            path.display().to_string()
        };
        let at = home.path().display().to_string();
        let find = |named: Option<String>| {
            logins(None, |name| match name {
                "HOME" => Some(at.clone()),
                "REGISTRY_AUTH_FILE" => named.clone(),
                _ => None,
            })
        };
        assert!(find(None).unwrap().is_empty());
        place(".docker/config.json", "docker.example");
        place(".config/containers/auth.json", "containers.example");
        let found = find(None).unwrap();
        assert!(found[0].login("containers.example", "a").unwrap().is_some());
        assert!(found[1].login("docker.example", "a").unwrap().is_some());
        let named = place("named.json", "named.example");
        let found = find(Some(named)).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].login("named.example", "a").unwrap().is_some());
        let given = home.path().join(".docker/config.json");
        let found = logins(Some(&given), |_| Some(format!("{at}/named.json"))).unwrap();
        assert!(found[0].login("docker.example", "a").unwrap().is_some());
        // One that is named and isn't there, or is damaged, is said.
        assert!(find(Some(format!("{at}/missing"))).unwrap_err().to_string().contains("missing"));
        std::fs::write(home.path().join("bad.json"), "sesame").unwrap();
        let error = format!("{:#}", find(Some(format!("{at}/bad.json"))).unwrap_err());
        assert!(error.contains("bad.json") && !error.contains("sesame"), "{error}");
    }

    #[test]
    fn manifests() {
        let index = |os, arch| {
            serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{ "digest": "sha256:00", "platform": { "os": os, "architecture": arch } }] })
                .to_string()
        };
        let found = read_manifest(index("linux", "amd64").as_bytes()).unwrap();
        assert!(matches!(found, Manifest::Index(digests) if digests == ["sha256:00"]));
        assert!(read_manifest(index("linux", "arm64").as_bytes()).err().unwrap().contains("no linux/amd64"));
        read_manifest(br#"{"schemaVersion":2,"layers":[]}"#).unwrap();
        assert!(
            read_manifest(br#"{"schemaVersion":1,"layers":[]}"#).err().unwrap().contains("schema version 1")
        );
        assert!(read_manifest(br#"{"schemaVersion":2}"#).is_err());
        assert!(read_manifest(br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#).is_err());
        assert!(read_manifest(b"<html>").is_err());
    }
}
