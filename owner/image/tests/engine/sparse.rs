//! Indexes that list what isn't there: nothing is left out unless that was asked for, and then it is said.

use std::io::Read;

use owner_image::document::Descriptor;
use owner_image::operation::{self, Job, Removal};
use owner_image::store::{Archive, ArchiveWriter, Document, Layout, Source};
use owner_image::{Silent, StoreError};
use serde_json::{Value, json};

use super::maker::*;

/// `plain`, encrypted as `enc`, for two platforms.
fn made() -> Maker {
    let maker = Maker::new();
    maker.multi("plain", &[("linux/amd64", &[Layer::Gzip("a")]), ("linux/arm64", &[Layer::Gzip("b")])]);
    encrypt(&maker, "plain", "enc", &["k"]);
    maker
}

fn second(maker: &Maker, name: &str) -> Value {
    maker.root(name)["manifests"][1].clone()
}

/// As a registry that says of one manifest that it isn't there.
struct KeepsBack<'a>(Layout, &'a str);

impl Source for KeepsBack<'_> {
    fn root(&self) -> Result<Document, StoreError> {
        self.0.root()
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.0.document(descriptor)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.0.open(descriptor)
    }

    fn holds(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        Ok(descriptor.digest.to_string() != self.1 && self.0.holds(descriptor)?)
    }
}

#[test]
fn a_manifest_that_is_kept_back() {
    let maker = made();
    for name in ["plain", "enc"] {
        let digest = second(&maker, name)["digest"].as_str().unwrap().to_owned();
        let source = KeepsBack(maker.layout(name), &digest);
        let to = Maker::new();
        for selection in [all(), platform("linux/arm64")] {
            let destination = to.layout("x");
            let job =
                Job { source: &source, destination: &destination, selection: &selection, observer: &Silent };
            let (opening, new) = (keys(&["k"]), recipients(&["n"]));
            let all_but = Removal::AllBut { schemes: &[], keep: &new, keys: &opening };
            let mut refused = vec![operation::inspect(&source, &selection).map(drop)];
            refused.push(operation::check(&source, &selection, &[]).map(drop));
            refused.push(operation::encrypt(job, &new).map(drop));
            refused.push(operation::decrypt(job, &opening).map(drop));
            refused.push(operation::rotate(job, &opening, &new).map(drop));
            refused.push(operation::add(job, &opening, &new).map(drop));
            refused.push(operation::remove(job, &all_but).map(drop));
            for outcome in refused {
                let error = outcome.unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("index entry {digest} (linux/arm64) is missing")),
                    "{error}"
                );
                assert!(error.ends_with("with --platform: there is linux/amd64"), "{error}");
            }
        }
        assert_eq!(to.index()["manifests"], json!([]));
        assert!(to.blobs().is_empty());
    }
}

#[test]
fn left_out_on_purpose_and_said() {
    let maker = made();
    let absent = second(&maker, "plain");
    let digest = absent["digest"].as_str().unwrap();
    std::fs::remove_file(maker.blob_path(digest)).unwrap();
    let report = encrypt_chosen(&maker, "plain", "half", &["k"], &platform("linux/amd64")).unwrap();
    let note = format!("index entry {digest} (linux/arm64) stays as it was: it isn't where the image is");
    assert_eq!(report.notes, [note.as_str()]);
    assert_eq!(second(&maker, "half"), absent);
    let seen = operation::inspect(&maker.layout("half"), &platform("linux/amd64")).unwrap();
    assert_eq!(seen.notes, [note.as_str()]);
    let key = ("k".to_owned(), keys(&["k"]));
    let found = operation::check(&maker.layout("half"), &platform("linux/amd64"), &[key]).unwrap();
    assert!(found.authorised);
    assert_eq!(found.notes, [note.as_str()]);
    // An archive of it is held to the same.
    let path = maker.path().join("half.tar");
    let (source, selection) = (maker.layout("half"), platform("linux/amd64"));
    let destination = ArchiveWriter::create(&path, None).unwrap();
    let job = Job { source: &source, destination: &destination, selection: &selection, observer: &Silent };
    operation::add(job, &keys(&["k"]), &recipients(&["n"])).unwrap();
    let archive = Archive::open(&path, None).unwrap();
    assert!(
        operation::inspect(&archive, &all()).unwrap_err().to_string().contains("(linux/arm64) is missing")
    );
    operation::inspect(&archive, &selection).unwrap();
}

#[test]
fn what_is_no_manifest_is_said() {
    let maker = made();
    let foreign = json!({"mediaType": "text/plain", "digest": maker.blob(b"text"), "size": 4});
    let mut index = maker.root("plain");
    index["manifests"].as_array_mut().unwrap().push(foreign.clone());
    let text = index.to_string();
    let digest = maker.blob(text.as_bytes());
    maker.name("plain", json!({"mediaType": INDEX, "digest": digest, "size": text.len()}));
    let report = encrypt(&maker, "plain", "enc", &["k"]);
    assert_eq!(maker.root("enc")["manifests"][2], foreign);
    assert_eq!(report.notes.len(), 1);
    assert!(report.notes[0].ends_with("'text/plain' is neither a manifest nor an index"), "{report:?}");
}
