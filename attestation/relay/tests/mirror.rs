//! The mirror as a broker's cache sees it, and as others do; and the table for QEMU that comes out of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collateral::{Collateral, Key, Line, Reach, Roots, Settings, Why};
use sealpod_emulator::snp::certificates::Endorsement;
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::crl::Revocations;
use sealpod_emulator::snp::{Authorities, Chip, KeyKind, Tcb};
use sealpod_relay::collateral::mirror;
use tee_evidence::snp::{CertKind, CertificateTable, Product};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

const WAIT: Duration = Duration::from_secs(60);
const CHAIN: Key = Key::Chain(Product::Milan, Line::Vcek);
const CRL: Key = Key::Crl(Product::Milan, Line::Vcek);

/// A chip's key and everything that AMD's service would have for it.
fn pieces() -> (Key, Vec<(Key, Vec<u8>)>) {
    let now = SystemTime::now();
    let all = Authorities::generate(sealpod_emulator::snp::Product::Milan, 2048, now).unwrap();
    let chip = Chip::new(sealpod_emulator::snp::Product::Milan, [1; SECRET]);
    let tcb = Tcb { bootloader: 3, tee: 0, snp: 8, microcode: 115, fmc: 0 };
    let vcek = all.ask.endorse(&chip, &Endorsement::new(KeyKind::Vcek, tcb, now)).unwrap();
    let chain = [&all.ask_certificate, &all.ark_certificate].map(|one| one.to_pem(LineEnding::LF).unwrap());
    let crl = all.crl(&Revocations::none(now)).unwrap();
    let words = (hex::encode(chip.id()), "bootloader=3,tee=0,snp=8,microcode=115");
    let key = collateral::vcek_of("Milan", &words.0, words.1).unwrap();
    let pieces =
        vec![(CHAIN, chain.concat().into_bytes()), (key.clone(), vcek.to_der().unwrap()), (CRL, crl)];
    (key, pieces)
}

fn cache(directory: &Path, kds: Vec<String>) -> Arc<Collateral> {
    let settings = Settings::offline(directory.to_owned(), Roots::Any);
    Collateral::open(Settings { kds, allow_plain: true, ..settings }).unwrap()
}

/// A mirror of that cache: its address, and what ends it.
async fn mirror_of(collateral: Arc<Collateral>) -> (String, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let serving = tokio::spawn(mirror::serve(listener, collateral, log, async move {
        let _ = stopped.await;
    }));
    (address, stop, serving)
}

async fn say(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_broker_without_a_network_gets_everything_from_a_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let (vcek, pieces) = pieces();
    let here = cache(&dir.path().join("relay"), Vec::new());
    assert_eq!(here.import(&pieces, SystemTime::now()).await.new, 3);
    let (address, stop, serving) = mirror_of(here).await;
    let broker = cache(&dir.path().join("broker"), vec![format!("http://{address}")]);
    for (key, bytes) in &pieces {
        let found = broker.get(key, Reach::Service, SystemTime::now(), WAIT).await;
        assert_eq!(found.item.unwrap().bytes(), bytes, "{key}");
    }
    let absent = Key::Cek([1; 64]);
    let note = broker.get(&absent, Reach::Service, SystemTime::now(), WAIT).await.note.unwrap();
    assert!(matches!(note.why, Why::NotFound(_)), "{note}");

    let table = broker.certificate_table(&vcek, SystemTime::now(), WAIT).await.unwrap();
    let kinds: Vec<_> =
        CertificateTable::parse(&table).unwrap().entries().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [CertKind::Vcek, CertKind::Ask, CertKind::Ark, CertKind::Crl]);
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn whatever_is_no_question_for_a_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _stop, _serving) = mirror_of(cache(dir.path(), Vec::new())).await;
    let path = CRL.kds_path().unwrap();
    let request = |line: &str| format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    for (line, status) in [
        (format!("GET {path}"), "404"),
        ("GET /".to_owned(), "404"),
        ("GET /vcek/v1/Rome/crl".to_owned(), "404"),
        (format!("GET {path}?x=y"), "404"),
        ("GET /../../etc/passwd".to_owned(), "404"),
        (format!("POST {path}"), "405"),
        (format!("GET /{}", "a".repeat(60_000)), "431"),
    ] {
        let answer = say(&address, &request(&line)).await;
        let told = answer.split(' ').nth(1).unwrap_or_default();
        assert!(told == status || (status == "431" && told == "414"), "{line:.40}: {answer:.80}");
    }
}

#[tokio::test]
async fn a_service_that_is_down_behind_the_mirror_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::offline(dir.path().to_owned(), Roots::Any);
    settings.kds = vec!["http://127.0.0.1:1".to_owned()];
    settings.allow_plain = true;
    settings.patience.pauses = [Duration::from_millis(1); 2];
    let (address, _stop, _serving) = mirror_of(Collateral::open(settings).unwrap()).await;
    let path = CHAIN.kds_path().unwrap();
    let answer = say(&address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 2"), "{answer}");
    assert!(!answer.contains("127.0.0.1"), "{answer}");
}
