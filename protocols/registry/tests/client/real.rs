//! Debian's docker-registry on loopback, with TLS and a password file: what is pushed is pulled, mounted, and
//! not sent twice; a transfer that breaks goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use oci_registry::{
    Access, Client, Digest, FileContent, Login, Proxy, Pushed, Reference, RegistryError, Repository,
    Settings, Source,
};

use crate::proxies::Tunnel;
use crate::server::Certified;
use crate::{limits, noise, run, whole};

/// `me:sesame`, as `htpasswd -B` writes it.
const USERS: &str = "me:$2y$05$l2M1jYyXVW6.S639CeOk3.NTQElxfByCLbn4C/3C8XeAqWglWCmAe\n";

struct Registry {
    child: Child,
    source: Source,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// `None` where the program isn't installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let certified = Certified::new();
        std::fs::write(path("certificate"), &certified.certificate).unwrap();
        std::fs::write(path("key"), &certified.key).unwrap();
        std::fs::write(path("users"), USERS).unwrap();
        let at = directory.path().display();
        let configuration = format!(
            "version: 0.1\n\
             log: {{ accesslog: {{ disabled: true }}, formatter: text }}\n\
             storage: {{ filesystem: {{ rootdirectory: {at}/storage }} }}\n\
             auth: {{ htpasswd: {{ realm: test, path: {at}/users }} }}\n\
             http: {{ addr: 127.0.0.1:0, secret: x, tls: {{ certificate: {at}/certificate, key: {at}/key }} }}\n"
        );
        std::fs::write(path("configuration"), configuration).unwrap();
        let mut child = match Command::new("docker-registry")
            .args(["serve", &path("configuration").display().to_string()])
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: docker-registry: {error}; run scripts/setup");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
        });
        let location = format!("https://127.0.0.1:{}", port.expect("it says where it listens"));
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let source = Source {
            ca: Some(certified.ca),
            login: Some(Login::password("me", "sesame")),
            ..Source::new("registry.test", &location)
        };
        Some(Self { child, source, _directory: directory })
    }

    fn open(&self, source: Source, name: &str) -> Repository {
        let client = Client::new(Settings { sources: vec![source], limits: limits(), ..Settings::default() });
        client.repository(&Reference::parse(name).unwrap(), Access::Push).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_is_pushed_is_pulled() {
    let Some(registry) = Registry::start() else { return };
    run(async {
        let repository = registry.open(registry.source.clone(), "registry.test/team/app:v1");
        let (blob, config) = (noise(3 << 20), b"{}".to_vec());
        let digest = Digest::of(&blob);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        std::fs::write(&path, &blob).unwrap();
        let size = blob.len() as u64;
        let push = async |repository: &Repository, from: &[&str]| {
            repository.push_blob(&digest, size, &FileContent(path.clone()), from, &|_| ()).await.unwrap()
        };
        assert_eq!(push(&repository, &[]).await, Pushed::Uploaded);
        assert_eq!(push(&repository, &[]).await, Pushed::Existed);
        assert_eq!(repository.has_blob(&digest).await.unwrap(), Some(size));
        let content = Bytes::from(config.clone());
        repository.push_blob(&Digest::of(&config), 2, &content, &[], &|_| ()).await.unwrap();
        repository.push_blob(&Digest::of(b""), 0, &Bytes::new(), &[], &|_| ()).await.unwrap();

        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}]}}"#,
            Digest::of(&config)
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let named = repository.push_manifest(manifest.as_bytes(), kind, Some("v1")).await.unwrap();
        assert!(repository.has_manifest(&named).await.unwrap());
        let pulled = registry.open(registry.source.clone(), "registry.test/team/app:v1");
        let document = pulled.tagged("v1").await.unwrap();
        assert_eq!((document.digest, document.media_type.as_deref()), (named, Some(kind)));
        assert_eq!(pulled.manifest(&named).await.unwrap().bytes, manifest.as_bytes());
        assert_eq!(pulled.small_blob(&Digest::of(&config), "config").await.unwrap(), config);
        assert_eq!(whole(&pulled, &digest, blob.len()).await.unwrap(), blob);
        assert_eq!(pulled.tagged("v2").await.unwrap_err().status(), Some(404));
        assert!(pulled.signatures(&named).await.unwrap().is_empty());
        assert!(pulled.referrers(&named, None).await.unwrap().is_empty());

        let other = registry.open(registry.source.clone(), "registry.test/team/other:v1");
        assert_eq!(push(&other, &["team/none", "team/app"]).await, Pushed::Mounted);
        assert_eq!(other.has_blob(&digest).await.unwrap(), Some(size));

        // Another digest than the bytes have is the registry's to refuse.
        let content = Bytes::from_static(b"x");
        let error = other.push_blob(&Digest::of(b"y"), 1, &content, &[], &|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    });
}

#[test]
fn logins_are_wanted() {
    let Some(registry) = Registry::start() else { return };
    run(async {
        for login in [None, Some(Login::password("me", "guess"))] {
            let source = Source { login, ..registry.source.clone() };
            let error = registry.open(source, "registry.test/team/app").tagged("v1").await.unwrap_err();
            assert_eq!(error.status(), Some(401), "{error}");
            assert!(!error.to_string().contains("guess"), "{error}");
        }
        let source = Source { ca: Some(Certified::new().ca), ..registry.source.clone() };
        let error = registry.open(source, "registry.test/team/app").tagged("v1").await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("TLS handshake"), "{error}");
    });
}

#[test]
fn a_broken_upload_goes_on() {
    let Some(registry) = Registry::start() else { return };
    run(async {
        // The line goes down in the middle of the blob, twice.
        let tunnel = Tunnel::start(vec![3 << 20, 2 << 20]);
        let proxy = Some(Proxy::parse(&format!("http://{}", tunnel.address)).unwrap());
        let source = Source { proxy, ..registry.source.clone() };
        let repository = registry.open(source, "registry.test/team/app");
        let blob = noise(8 << 20);
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);
        let content = Bytes::from(blob.clone());
        let pushed = repository.push_blob(&digest, size, &content, &[], &|_| ()).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded);
        assert!(tunnel.requests().len() >= 3);
        assert_eq!(whole(&repository, &digest, blob.len()).await.unwrap(), blob);
    });
}
