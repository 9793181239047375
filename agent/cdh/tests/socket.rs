//! The services through a socket, with the client that CoCo's software has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use agent_cdh::{Identity, serve};
use async_trait::async_trait;
use protocols::cdh::{GetResourceRequest, ImagePullRequest, SecureMountRequest, UnsealSecretInput};
use protocols::cdh_ttrpc::{
    GetResourceServiceClient, ImagePullServiceClient, SealedSecretServiceClient, SecureMountServiceClient,
};
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use ttrpc::r#async::Client;
use ttrpc::context::{self, Context};
use zeroize::Zeroizing;

/// A container that may have one resource, and whose broker answers when told to.
struct Web {
    gate: Semaphore,
}

#[async_trait]
impl Identity for Web {
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        if uri.tag() == "slow" {
            drop(self.gate.acquire().await.unwrap());
        }
        if uri.tag() == "key" || uri.tag() == "slow" {
            return Ok(Zeroizing::new(b"value".to_vec()));
        }
        Err(Refusal::new(Code::ResourceDenied, format!("{uri} is not listed for this container")))
    }
}

fn web() -> Arc<Web> {
    Arc::new(Web { gate: Semaphore::new(0) })
}

async fn client(path: &Path) -> Client {
    Client::connect(&format!("unix://{}", path.display())).await.unwrap()
}

fn patient() -> Context {
    context::with_duration(std::time::Duration::from_secs(20))
}

fn ask(uri: &str) -> GetResourceRequest {
    GetResourceRequest { ResourcePath: uri.to_owned(), ..Default::default() }
}

fn status(error: ttrpc::Error) -> (ttrpc::Code, String) {
    match error {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("no status: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_what_is_listed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), web(), Box::new(|_| true)).await.unwrap();
    let client = client(socket.path()).await;
    let resources = GetResourceServiceClient::new(client.clone());
    let answer = resources.get_resource(patient(), &ask("kbs:///team/db/key")).await.unwrap();
    assert_eq!(answer.Resource, b"value");
    let refused = resources.get_resource(patient(), &ask("kbs:///team/db/other")).await.unwrap_err();
    let (code, message) = status(refused);
    assert_eq!(code, ttrpc::Code::PERMISSION_DENIED);
    assert!(message.starts_with("sealpod[RESOURCE_DENIED]: kbs:///team/db/other"), "{message}");
    for malformed in ["", "kbs:///a/b", "kbs:///a/../c", "http://x", "kbs://host/a/b/c"] {
        let error = resources.get_resource(patient(), &ask(malformed)).await.unwrap_err();
        assert_eq!(status(error).0, ttrpc::Code::INVALID_ARGUMENT, "{malformed}");
    }
    let secret = UnsealSecretInput { secret: b"sealed.a.b.c".to_vec(), ..Default::default() };
    let error =
        SealedSecretServiceClient::new(client.clone()).unseal_secret(patient(), &secret).await.unwrap_err();
    assert!(status(error).1.starts_with("sealpod[SECRET_UNSEAL]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_volumes_are_not_a_containers_business() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), web(), Box::new(|_| true)).await.unwrap();
    let client = client(socket.path()).await;
    let pull =
        ImagePullServiceClient::new(client.clone()).pull_image(patient(), &ImagePullRequest::default()).await;
    let mount =
        SecureMountServiceClient::new(client).secure_mount(patient(), &SecureMountRequest::default()).await;
    for error in [pull.unwrap_err(), mount.unwrap_err()] {
        let (code, message) = status(error);
        assert_eq!(code, ttrpc::Code::PERMISSION_DENIED);
        assert!(message.starts_with("sealpod[MODE]"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_hung_up_on() {
    let directory = tempfile::tempdir().unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    let socket = serve(directory.path(), web(), Box::new(move |pid| pid != own)).await.unwrap();
    let mut stream = UnixStream::connect(socket.path()).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_connections_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let web = web();
    let socket = serve(directory.path(), web.clone(), Box::new(|_| true)).await.unwrap();
    let resources = GetResourceServiceClient::new(client(socket.path()).await);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..9 {
        let resources = resources.clone();
        waiting.spawn(async move { resources.get_resource(patient(), &ask("kbs:///team/db/slow")).await });
    }
    // One of the nine is one too many, whichever it is; the others are answered.
    let first = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(status(first).0, ttrpc::Code::RESOURCE_EXHAUSTED);
    web.gate.add_permits(8);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().Resource, b"value");
    }
    // The client above holds one of four connections.
    let mut held = Vec::new();
    for _ in 0..3 {
        let resources = GetResourceServiceClient::new(client(socket.path()).await);
        resources.get_resource(patient(), &ask("kbs:///team/db/key")).await.unwrap();
        held.push(resources);
    }
    let mut fifth = UnixStream::connect(socket.path()).await.unwrap();
    assert_eq!(fifth.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_ends_with_its_container() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), web(), Box::new(|_| true)).await.unwrap();
    let path = socket.path().to_owned();
    let resources = GetResourceServiceClient::new(client(&path).await);
    resources.get_resource(patient(), &ask("kbs:///team/db/key")).await.unwrap();
    drop(socket);
    assert!(!path.exists());
    assert!(
        resources.get_resource(patient(), &ask("kbs:///team/db/key")).await.is_err(),
        "open connections end too"
    );
}
