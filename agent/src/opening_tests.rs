//! Opening, by what the host supplied. In each refusing test one thing is wrong.

use std::collections::BTreeMap;

use sealed_spec::initdata::{BrokerPin, Via};
use sealed_spec::podspec::{Container, PodSpec};
use sealed_spec::{HeaderFields, ImageRef, KeyId, Lineage, Repository, Workload, WorkloadKind, seal};

use tokio::sync::mpsc::{Sender, channel};

use super::*;
use crate::quarantine::{Copy, SHARED};

struct Fake {
    config: Result<SealpodConfig, Refusal>,
    document: Option<String>,
    key: Result<[u8; 32], Refusal>,
    confirmed: Option<Sender<()>>,
}

#[async_trait]
impl KeySource for Fake {
    fn config(&self) -> Result<&SealpodConfig, Refusal> {
        self.config.as_ref().map_err(Clone::clone)
    }

    fn document(&self) -> Option<&str> {
        self.document.as_deref()
    }

    async fn release_key(&self) -> Result<SpecKey, Refusal> {
        self.key.clone().map(|key| SpecKey::from_bytes(&key).unwrap())
    }

    async fn confirm(&self) {
        if let Some(confirmed) = &self.confirmed {
            confirmed.send(()).await.unwrap();
        }
    }
}

struct Fixture {
    source: Fake,
    document: String,
    quarantine: Quarantine,
    _dir: tempfile::TempDir,
}

fn sealed(name: &str) -> (SealedDocument, SpecKey, KeyId) {
    let container = Container { name: name.into(), image: "r.example/x:1".into(), ..Container::default() };
    let mut spec = SealedSpec::new(PodSpec { containers: vec![container], ..PodSpec::default() });
    let digest = format!("sha256:{}", "0".repeat(64));
    spec.images = BTreeMap::from([(name.to_owned(), ImageRef::pinned("r.example/x:1", digest))]);
    let repository: Repository = "acme".parse().unwrap();
    let lineage: Lineage = "web".parse().unwrap();
    let key_id = KeyId::generate(&repository, &lineage, 1).unwrap();
    let workload = Workload { kind: WorkloadKind::Pod, name: "web".into() };
    let fields = HeaderFields { key_id: key_id.clone(), namespace: "default".into(), workload };
    let key = SpecKey::generate().unwrap();
    (seal(&spec, &fields, &key).unwrap(), key, key_id)
}

fn fixture() -> Fixture {
    let (document, key, key_id) = sealed("web");
    let broker = BrokerPin { url: "https://broker".into(), via: Via::Relay, ca: String::new() };
    let config = SealpodConfig { sealed_spec: document.digest(), key_id, broker };
    let source = Fake { config: Ok(config), document: None, key: Ok(*key.as_bytes()), confirmed: None };
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Quarantine::new(&dir.path().join("q")).unwrap();
    Fixture { source, document: document.as_str().to_owned(), quarantine, _dir: dir }
}

impl Fixture {
    fn copied(&self, name: &str, text: &str) {
        let path = format!("{SHARED}/{name}");
        let (size, data) = (text.len() as i64, text.as_bytes());
        self.quarantine.copy(&Copy { path: &path, mode: 0o100_644, size, offset: 0, data }).unwrap();
    }

    async fn open(self) -> Result<(), Refusal> {
        let opening = Opening::new(Box::new(self.source));
        opening.release().await?;
        opening.open_copied(&self.quarantine).await?;
        assert_eq!(opening.phase(), Phase::Open);
        assert!(opening.require().unwrap().pod.container("web").is_some());
        Ok(())
    }

    async fn refused(self) -> Code {
        self.open().await.unwrap_err().code
    }
}

#[tokio::test]
async fn the_document_comes_with_initdata_or_among_copied_files() {
    let mut f = fixture();
    f.source.document = Some(f.document.clone());
    f.open().await.unwrap();
    let f = fixture();
    f.copied("c1-hosts", "127.0.0.1 localhost");
    f.copied("c1-spec/..2026/sealed-spec.jwe", &f.document);
    f.open().await.unwrap();
}

#[tokio::test]
async fn what_opened_is_confirmed_once_and_nothing_else_is() {
    let (confirmed, mut confirmations) = channel(4);
    let mut f = fixture();
    f.source.confirmed = Some(confirmed);
    f.source.document = Some(f.document.clone());
    let opening = Opening::new(Box::new(f.source));
    opening.release().await.unwrap();
    opening.release().await.unwrap();
    assert!(!opening.open_copied(&f.quarantine).await.unwrap());
    drop(opening);
    // Ends with the last that could send.
    assert_eq!((confirmations.recv().await, confirmations.recv().await), (Some(()), None));

    let (confirmed, mut confirmations) = channel(4);
    let mut f = fixture();
    f.source.confirmed = Some(confirmed);
    f.source.key = Ok([7; 32]);
    f.copied("b", &f.document);
    assert_eq!(f.refused().await, Code::SpecInvalid);
    assert_eq!(confirmations.recv().await, None);
}

#[tokio::test]
async fn nothing_opens_before_the_key_is_there() {
    let f = fixture();
    f.copied("c1-spec", &f.document);
    let opening = Opening::new(Box::new(f.source));
    assert_eq!(opening.open_copied(&f.quarantine).await.unwrap_err().code, Code::SpecNotOpen);
    assert_eq!(opening.require().unwrap_err().code, Code::SpecNotOpen);
    assert_eq!(opening.phase(), Phase::Before);
}

#[tokio::test]
async fn without_a_document_it_is_missing() {
    let f = fixture();
    f.copied("c1-hosts", "127.0.0.1 localhost");
    assert_eq!(f.refused().await, Code::SpecMissing);
}

#[tokio::test]
async fn another_sealed_document_is_a_mismatch() {
    let f = fixture();
    f.copied("c1-spec", sealed("other").0.as_str());
    assert_eq!(f.refused().await, Code::SpecDigestMismatch);
    // Wherever it comes from.
    let mut f = fixture();
    f.source.document = Some(sealed("web").0.as_str().to_owned());
    assert_eq!(f.refused().await, Code::SpecDigestMismatch);
}

#[tokio::test]
async fn the_right_one_is_found_among_others() {
    let f = fixture();
    f.copied("a", sealed("other").0.as_str());
    f.copied("b", &f.document);
    f.copied("c", &format!("{}\n", f.document));
    f.open().await.unwrap();
}

#[tokio::test]
async fn a_line_break_makes_another_document() {
    let f = fixture();
    f.copied("b", &format!("{}\n", f.document));
    assert!(f.refused().await != Code::SpecNotOpen);
}

#[tokio::test]
async fn a_wrong_key_opens_nothing() {
    let mut f = fixture();
    f.source.key = Ok([7; 32]);
    f.copied("b", &f.document);
    assert_eq!(f.refused().await, Code::SpecInvalid);
}

#[tokio::test]
async fn a_document_under_another_key_id_is_refused() {
    let mut f = fixture();
    let other = sealed("web").2;
    if let Ok(config) = &mut f.source.config {
        config.key_id = other;
    }
    f.copied("b", &f.document);
    assert_eq!(f.refused().await, Code::SpecInvalid);
}

#[tokio::test]
async fn what_went_wrong_at_boot_is_said_to_whoever_asks() {
    let mut f = fixture();
    f.source.config = Err(Refusal::new(Code::HostDataMismatch, "they differ"));
    assert_eq!(f.refused().await, Code::HostDataMismatch);
}

#[tokio::test]
async fn the_brokers_refusal_is_passed_on_and_a_later_try_may_succeed() {
    let mut f = fixture();
    f.source.key = Err(Refusal::new(Code::LaunchDigest, "not in the policy"));
    assert_eq!(f.refused().await, Code::LaunchDigest);
}
