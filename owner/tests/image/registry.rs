//! Images at a registry: Debian's `docker-registry` on loopback.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::workshop::Workshop;

/// A registry, until it is dropped.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(shop: &Workshop) -> Self {
        // The registry doesn't say which port it took, so one is chosen that was free just now.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let configuration = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}}}\n",
            shop.path("registry").display()
        );
        std::fs::write(shop.path("registry.yml"), configuration).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", "registry.yml"])
            .current_dir(shop.dir())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on")), "the registry didn't start");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn to_and_from_a_registry() {
    let shop = Workshop::new();
    shop.ec("ec");
    shop.rsa("rsa");
    let registry = Registry::start(&shop);
    let host = format!("127.0.0.1:{}", registry.port);
    let http = format!("--registry {host}=http://{host}");
    shop.good(&format!("encrypt oci:plain:v1 docker://{host}/acme/web:v1 -r jwe:ec.pub --layer -1 {http}"));
    shop.sh(&format!("skopeo copy -q --src-tls-verify=false --decryption-key ec.pem docker://{host}/acme/web:v1 oci:theirs:v1"));
    shop.same("plain:v1", "theirs:v1");
    // In place, and to another repository of the same registry.
    shop.good(&format!("recipients add docker://{host}/acme/web:v1 -k ec.pem -r jwe:rsa.pub {http}"));
    shop.good(&format!("rotate docker://{host}/acme/web:v1 --to docker://{host}/acme/other:v2 -k rsa.pem -r jwe:rsa.pub {http}"));
    shop.good(&format!("check docker://{host}/acme/other:v2 -k rsa.pem {http}"));
    let report = shop.good(&format!("inspect docker://{host}/acme/other:v2 {http}"));
    let digest = report.split("manifest ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    shop.good(&format!(
        "decrypt docker://{host}/acme/other@{digest} docker://{host}/acme/plain:v1 -k rsa.pem {http}"
    ));
    shop.sh(&format!(
        "skopeo copy -q --src-tls-verify=false docker://{host}/acme/plain:v1 oci:plain-again:v1"
    ));
    shop.same("plain:v1", "plain-again:v1");
    // What skopeo pushed is opened here.
    shop.sh(&format!("skopeo copy -q --dest-tls-verify=false --encryption-key jwe:ec.pub oci:plain:v1 docker://{host}/acme/theirs:v1"));
    shop.good(&format!("decrypt docker://{host}/acme/theirs:v1 oci:ours:v1 -k ec.pem {http}"));
    shop.same("plain:v1", "ours:v1");
}

#[test]
fn refused() {
    let shop = Workshop::new();
    shop.ec("ec");
    let registry = Registry::start(&shop);
    let host = format!("127.0.0.1:{}", registry.port);
    let http = format!("--registry {host}=http://{host}");
    let digest = format!("sha256:{}", "0".repeat(64));
    let error =
        shop.refused(&format!("encrypt oci:plain:v1 docker://{host}/acme/web@{digest} -r jwe:ec.pub {http}"));
    assert!(error.contains("written under a tag, not a digest"), "{error}");
    let error = shop.refused(&format!("decrypt docker://{host}/acme/missing:v1 oci:x:v1 -k ec.pem {http}"));
    assert!(error.contains("acme/missing"), "{error}");
    let error = shop.refused(&format!("inspect docker://{host}/acme/web:v1"));
    assert!(error.contains(&host), "{error}");
}
