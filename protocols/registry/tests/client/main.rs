//! The client against registries, mirrors, proxies and token services that lie, stall and break; and against
//! a real registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod mirrors;
mod proxies;
mod pulls;
mod pushes;
mod real;
mod server;
mod signatures;

use std::time::Duration;

use oci_registry::{Access, Client, Digest, Limits, Login, Reference, Repository, Settings, Source};
use server::Server;

/// Runs a test in a runtime of the agent's kind: one thread.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// Small, and no waiting between attempts.
fn limits() -> Limits {
    Limits {
        document_bytes: 64 << 10,
        attempts: 3,
        backoff: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        ..Limits::default()
    }
}

/// For what must be given up: nothing that answers takes as long on loopback.
fn impatient() -> Limits {
    Limits { idle_timeout: Duration::from_millis(100), ..limits() }
}

fn reference() -> Reference {
    Reference::parse("registry.test/team/app:v1").unwrap()
}

fn open(settings: Settings, access: Access) -> Repository {
    Client::new(settings).repository(&reference(), access).unwrap()
}

/// The repository at one server, with these limits.
fn at(server: &Server, limits: Limits) -> Repository {
    open(Settings { sources: vec![server.source()], limits, ..Settings::default() }, Access::Pull)
}

fn pushing(server: &Server, limits: Limits) -> Repository {
    open(Settings { sources: vec![server.source()], limits, ..Settings::default() }, Access::Push)
}

fn with_login(server: &Server) -> Source {
    Source { login: Some(Login::password("me", "sesame")), ..server.source() }
}

/// Everything of a blob, and the digest that it has.
async fn whole(
    repository: &Repository,
    digest: &Digest,
    size: usize,
) -> Result<Vec<u8>, oci_registry::RegistryError> {
    let mut download = repository.download(digest, size as u64);
    let mut bytes = Vec::new();
    loop {
        while let Some(chunk) = download.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let actual = Digest::of(&bytes);
        if actual == *digest {
            return Ok(bytes);
        }
        download.reject(&actual)?;
        bytes.clear();
    }
}

fn blob_path(bytes: &[u8]) -> String {
    format!("/v2/team/app/blobs/{}", Digest::of(bytes))
}

fn manifest_path(bytes: &[u8]) -> String {
    format!("/v2/team/app/manifests/{}", Digest::of(bytes))
}

/// Bytes that differ from each other.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}
