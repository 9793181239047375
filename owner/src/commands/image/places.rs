//! How registries are reached, from options and the environment.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use oci_registry::{AuthFile, Login, Proxies, Source};
use owner_image::places::Registries;
use sealed_spec::RegistrySource;

use super::options::RegistryArgs;
use crate::{files, tls};

/// Longest file of logins.
const AUTH_FILE: usize = 1024 * 1024;

pub(super) fn registries(args: &RegistryArgs) -> Result<Registries> {
    let sources: Result<Vec<Source>> =
        args.registry.iter().map(|option| Ok(source(option.load()?))).collect();
    let variable = |name: &str| std::env::var(name).ok();
    Ok(Registries {
        sources: sources?,
        logins: logins(args)?,
        ca_bundle: tls::system_bundle(),
        proxies: Proxies::from_environment(variable)?,
    })
}

fn source(source: RegistrySource) -> Source {
    let password = source.username.as_deref().zip(source.password.as_ref());
    Source {
        ca: source.ca.clone(),
        login: password.map(|(username, password)| Login::password(username, password.expose())),
        ..Source::new(&source.host, &source.location)
    }
}

/// Where skopeo and docker keep them; a file that was named has to be there.
fn logins(args: &RegistryArgs) -> Result<Option<AuthFile>> {
    let named = args.authfile.clone().or_else(|| variable("REGISTRY_AUTH_FILE"));
    let docker = || {
        let directory =
            variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")))?;
        Some(directory.join("config.json")).filter(|path| path.exists())
    };
    let Some(path) = named.or_else(docker) else { return Ok(None) };
    let bytes = files::read(&path, AUTH_FILE)?;
    AuthFile::parse(&bytes).map(Some).with_context(|| path.display().to_string())
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
