//! Certificates and lists that a guest's host didn't supply: from the operator's import, from a service on
//! loopback, or from nowhere, which refuses.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use collateral::{Key, Line};
use protocols::rcar::ATTEST_PATH;
use protocols::refusal::Code;
use sealpod_broker::collateral::import;
use sealpod_broker::config::{Collateral, Config, Limits};
use serde_json::Value;
use tee_evidence::snp::json::from_kbs;
use tee_evidence::snp::{CertKind, Product, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::guest::{Guest, Machine, authorities};
use crate::support::{Answer, World, post};

/// Everything that a service has for a guest, by its key.
fn pieces(guest: &Guest) -> Vec<(Key, Vec<u8>)> {
    use x509_cert::der::EncodePem;
    use x509_cert::der::pem::LineEnding;
    let evidence = from_kbs(guest.evidence(&[0; 64])).unwrap();
    let report = Report::from_raw(&evidence.report).unwrap();
    let entry = |kind| evidence.certificates.iter().find(|entry| entry.kind == kind).unwrap().data.clone();
    let all = authorities();
    let chain = [&all.ask_certificate, &all.ark_certificate].map(|one| one.to_pem(LineEnding::LF).unwrap());
    let vcek = Key::vcek(Product::Milan, &report.chip_id, report.reported_tcb).unwrap();
    vec![
        (Key::Chain(Product::Milan, Line::Vcek), chain.concat().into_bytes()),
        (Key::Crl(Product::Milan, Line::Vcek), entry(CertKind::Crl)),
        (vcek, entry(CertKind::Vcek)),
    ]
}

/// A service on loopback that has what the map has.
async fn service(pieces: Vec<(Key, Vec<u8>)>) -> (String, Arc<Mutex<HashMap<String, Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let has = pieces.into_iter().map(|(key, bytes)| (key.kds_path().unwrap(), bytes)).collect();
    let has: Arc<Mutex<HashMap<_, _>>> = Arc::new(Mutex::new(has));
    let answers = has.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let body = answers.lock().unwrap().get(request.split(' ').nth(1).unwrap()).cloned();
            let (status, body) = body.map_or((500, Vec::new()), |body| (200, body));
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        }
    });
    (url, has)
}

async fn world(collateral: Collateral) -> World {
    let (dir, config) = World::with(Limits::default(), true).await.stop().await;
    let fresh = Config { state: dir.path().join("other"), collateral, ..config };
    World::configured(dir, fresh).await
}

/// Attests with what the guest's host supplied as its table.
async fn attest(world: &World, guest: &Guest, table: impl Fn(&mut Value)) -> Answer {
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    table(&mut request.tee_evidence.primary_evidence["cert_chain"]);
    world.send(post(ATTEST_PATH, &serde_json::to_value(request).unwrap(), &[("cookie", &cookie)])).await
}

/// No certificates at all.
fn nothing(chain: &mut Value) {
    *chain = Value::Null;
}

#[tokio::test]
async fn what_is_nowhere_refuses_and_says_what_to_do() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let answer = attest(&world, &guest, nothing).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Collateral));
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("VCEK of Milan chip") && detail.contains("sealpod collateral fetch"), "{detail}");
}

#[tokio::test]
async fn a_service_supplies_what_the_host_did_not() {
    let guest = Machine::default().boot(None);
    let (url, has) = service(pieces(&guest)).await;
    let world = world(Collateral { kds: vec![url], allow_plain_http: true, ..Collateral::default() }).await;
    assert_eq!(attest(&world, &guest, nothing).await.status, StatusCode::OK);
    // From then on the service isn't needed, not even by the next process.
    has.lock().unwrap().clear();
    assert_eq!(attest(&world, &guest, nothing).await.status, StatusCode::OK);
    let world = world.restart().await;
    assert_eq!(attest(&world, &guest, nothing).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_service_that_is_down_or_lies_refuses() {
    let guest = Machine::default().boot(None);
    let other = Machine { chip: 8, ..Machine::default() }.boot(None);
    let good = pieces(&guest);
    for missing in 0..3 {
        let mut lies = good.clone();
        lies[missing].1 = pieces(&other)[2].1.clone();
        let mut gone = good.clone();
        gone.remove(missing);
        for pieces in [lies, gone] {
            let (url, _) = service(pieces).await;
            let kds = vec![url.clone()];
            let world = world(Collateral { kds, allow_plain_http: true, ..Collateral::default() }).await;
            let answer = attest(&world, &guest, nothing).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Collateral));
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(!detail.contains(&url), "a guest learns no addresses: {detail}");
        }
    }
}

#[tokio::test]
async fn an_import_serves_a_site_without_a_network() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let pieces = pieces(&guest);
    let bundle = collateral::write(pieces.iter().map(|(key, bytes)| (key, bytes.as_slice()))).unwrap();
    let file = world.config.state.join("bundle.tar");
    std::fs::write(&file, bundle).unwrap();
    let said = run_import(&world.config, &file).await;
    assert_eq!(said, (true, "3 new, 0 known, 0 refused".to_owned()));
    assert_eq!(attest(&world, &guest, nothing).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_import_under_a_root_that_is_not_trusted_is_refused() {
    let untrusting = World::with(Limits::default(), false).await;
    let guest = Machine::default().boot(None);
    let pieces = pieces(&guest);
    let bundle = collateral::write(pieces.iter().map(|(key, bytes)| (key, bytes.as_slice()))).unwrap();
    let file = untrusting.config.state.join("bundle.tar");
    std::fs::write(&file, bundle).unwrap();
    let said = run_import(&untrusting.config, &file).await;
    assert_eq!(said, (false, "0 new, 0 known, 3 refused".to_owned()));
}

async fn run_import(config: &Config, file: &Path) -> (bool, String) {
    let (anchors, _) = sealpod_broker::broker::anchors(&config.trust.emulated_roots).unwrap();
    let mut last = String::new();
    let whole = import(config, &anchors, &[file.to_owned()], |line| last = line).await.unwrap();
    (whole, last)
}

#[tokio::test]
async fn a_host_that_supplies_another_chips_certificate_changes_nothing() {
    let guest = Machine::default().boot(None);
    let other = Machine { chip: 8, ..Machine::default() }.boot(None);
    let theirs = other.evidence(&[0; 64])["cert_chain"].clone();
    let (url, _) = service(pieces(&guest)).await;
    let asking = world(Collateral { kds: vec![url], allow_plain_http: true, ..Collateral::default() }).await;
    let answer = attest(&asking, &guest, |chain| *chain = theirs.clone()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    // With nobody to ask, there is only what the host says.
    let answer = attest(&World::new().await, &guest, |chain| *chain = theirs.clone()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Signature));
}
