//! gRPC in clear: TCP and unix sockets, our client and our service, and peers that speak something else.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use owner_image::provider::Operation;
use owner_image::provider::server::listen_unix;
use serde_json::json;

use crate::peer::{Service, both_directions, configured, file, refusal};

fn check(service: &Service, address: &str) {
    let directory = tempfile::tempdir().unwrap();
    let providers = configured(directory.path(), &json!({ "grpc": address }));
    let (scripted, asked) = (&service.scripted, || {
        service
            .scripted
            .asked()
            .into_iter()
            .map(|(operation, request)| {
                let op = if operation == Operation::Wrap { "keywrap" } else { "keyunwrap" };
                assert_eq!(request["op"], op, "asked by the method's own name");
                request
            })
            .collect()
    });
    both_directions(&providers, |reply| scripted.says(Ok(reply)), asked);
    scripted.says(Err("no such key".into()));
    for operation in [Operation::Wrap, Operation::Unwrap] {
        let error = refusal(&providers, operation);
        assert!(error.contains("FailedPrecondition: no such key"), "{error}");
    }
    scripted.says(Ok(Vec::new()));
    assert!(refusal(&providers, Operation::Unwrap).contains("message is empty"));
}

#[test]
fn both_directions_over_tcp() {
    let service = Service::tcp(None);
    check(&service, &format!("127.0.0.1:{}", service.port));
}

#[test]
fn a_name_is_looked_up() {
    let service = Service::tcp(None);
    check(&service, &format!("dns:///localhost:{}", service.port));
}

#[test]
fn both_directions_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "provider.sock");
    let service = Service::unix(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    check(&service, &format!("unix:{}", path.display()));
    // One that is served isn't taken over; one that is left is.
    let runtime = crate::peer::runtime();
    assert!(runtime.block_on(async { listen_unix(&path).map(drop) }).is_err());
    drop(service);
    runtime.block_on(async { listen_unix(&path).map(drop) }).unwrap();
    std::fs::write(file(&directory, "file"), "precious").unwrap();
    assert!(runtime.block_on(async { listen_unix(&file(&directory, "file")).map(drop) }).is_err());
}

#[test]
fn nobody_there() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for address in [format!("127.0.0.1:{port}"), format!("unix:{}", file(&directory, "none").display())] {
        let error = refusal(&configured(directory.path(), &json!({ "grpc": address })), Operation::Wrap);
        assert!(error.contains("no connection") && error.contains(&address), "{error}");
    }
}

#[test]
fn peers_that_speak_something_else() {
    let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    // An HTTP/2 frame that claims 16 MiB.
    let huge = b"\xff\xff\xff\x00\x00\x00\x00\x00\x00".to_vec();
    for bytes in [Vec::new(), plain, huge, vec![b'x'; 1 << 20]] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The client may have hung up by then.
            let _ = stream.write_all(&bytes);
        });
        let directory = tempfile::tempdir().unwrap();
        let error = refusal(&configured(directory.path(), &json!({ "grpc": address })), Operation::Wrap);
        assert!(error.contains(&address) && error.len() < 1000, "{error}");
        peer.join().unwrap();
    }
}
