//! Archives of `docker save`, old and new.

use std::path::Path;

use owner_image::operation::{self, Job};
use owner_image::store::{Archive, ArchiveWriter, Destination, Source};
use owner_image::{ImageError, Report, Silent, StoreError};
use serde_json::{Value, json};

use super::maker::*;

fn job<T>(source: &dyn Source, destination: &dyn Destination, work: impl FnOnce(Job<'_>) -> T) -> T {
    let selection = all();
    work(Job { source, destination, selection: &selection, observer: &Silent })
}

fn encrypt_to(source: &dyn Source, destination: &dyn Destination) -> Result<Report, ImageError> {
    job(source, destination, |job| operation::encrypt(job, &recipients(&["k"])))
}

fn decrypt_to(source: &dyn Source, destination: &dyn Destination) -> Result<Report, ImageError> {
    job(source, destination, |job| operation::decrypt(job, &keys(&["k"])))
}

fn member(archive: &Path, name: &str) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap().to_str() == Some(name))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
    Some(bytes)
}

/// As Docker 24 wrote it: the second layer, the same as the first, is a link to it.
fn old_archive(maker: &Maker, path: &Path, change: impl FnOnce(&mut Value)) {
    maker.single("old", &[Layer::Plain("same"), Layer::Plain("same")]);
    let manifest = maker.root("old");
    let config = std::fs::read(maker.blob_path(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    let layer = std::fs::read(maker.blob_path(&layer_digests(&manifest)[0])).unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("1111/layer.tar", &layer);
    add("cafe.json", &config);
    let mut saved = json!([{"Config": "cafe.json", "RepoTags": ["busybox:v1"], "Layers": ["1111/layer.tar", "2222/layer.tar"]}]);
    change(&mut saved);
    add("manifest.json", saved.to_string().as_bytes());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_cksum();
    builder.append_link(&mut header, "2222/layer.tar", "../1111/layer.tar").unwrap();
    builder.finish().unwrap();
}

#[test]
fn an_old_archive_there_and_back() {
    let (maker, dir) = (Maker::new(), tempfile::tempdir().unwrap());
    let (old, encrypted, plain) =
        (dir.path().join("old.tar"), dir.path().join("enc.tar"), dir.path().join("plain.tar"));
    old_archive(&maker, &old, |_| {});
    for name in [None, Some("busybox:v1"), Some("docker.io/library/busybox:v1")] {
        Archive::open(&old, name).unwrap();
    }
    let source = Archive::open(&old, None).unwrap();
    encrypt_to(&source, &ArchiveWriter::create(&encrypted, Some("busybox:v1")).unwrap()).unwrap();
    assert!(member(&encrypted, "manifest.json").is_none(), "nothing that docker load would run");
    let source = Archive::open(&encrypted, Some("docker.io/library/busybox:v1")).unwrap();
    decrypt_to(&source, &ArchiveWriter::create(&plain, Some("busybox:v1")).unwrap()).unwrap();
    let saved: Value = serde_json::from_slice(&member(&plain, "manifest.json").unwrap()).unwrap();
    assert_eq!(saved[0]["RepoTags"], json!(["busybox:v1"]));
    let layer = saved[0]["Layers"][1].as_str().unwrap();
    assert_eq!(member(&plain, layer), member(&old, "1111/layer.tar"));
    let beside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(beside.len(), 3, "no draft is left");
}

#[test]
fn in_place_and_from_a_layout() {
    let (maker, dir) = (Maker::new(), tempfile::tempdir().unwrap());
    maker.single("x", &[Layer::Gzip("1"), Layer::Zstd("2")]);
    let path = dir.path().join("x.tar");
    encrypt_to(&maker.layout("x"), &ArchiveWriter::create(&path, Some("x:v1")).unwrap()).unwrap();
    let source = Archive::open(&path, None).unwrap();
    let destination = ArchiveWriter::replacing(&path, None, &source).unwrap();
    job(&source, &destination, |job| operation::add(job, &keys(&["k"]), &recipients(&["b"]))).unwrap();
    let to = Maker::new();
    let both = Archive::open(&path, Some("x:v1")).unwrap();
    job(&both, &to.layout("plain"), |job| operation::decrypt(job, &keys(&["b"]))).unwrap();
    assert_eq!(to.root("plain"), maker.root("x"));
    // It was replaced meanwhile.
    let destination = ArchiveWriter::replacing(&path, None, &source).unwrap();
    let error = job(&source, &destination, |job| operation::add(job, &keys(&["k"]), &recipients(&["b"])));
    assert!(matches!(error, Err(ImageError::Store(StoreError::Changed { .. }))));
}

#[test]
fn refused() {
    let (maker, dir) = (Maker::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.tar");
    let error = |path: &Path, name| Archive::open(path, name).err().unwrap().to_string();
    old_archive(&maker, &path, |_| {});
    assert!(error(&path, Some("alpine:v1")).contains("no image 'alpine:v1' in it; it has busybox:v1"));
    let there = ArchiveWriter::create(&path, None).err().unwrap().to_string();
    assert!(there.contains("there already"), "{there}");
    old_archive(&maker, &path, |saved| {
        let second = saved[0].clone();
        saved.as_array_mut().unwrap().push(second);
    });
    assert!(error(&path, None).contains("2 images fit"));
    old_archive(&maker, &path, |saved| saved[0]["Layers"][1] = "3333/layer.tar".into());
    assert!(error(&path, None).contains("3333/layer.tar, which manifest.json names, is missing"));
    old_archive(&maker, &path, |saved| saved[0]["Layers"][1] = "../../etc/passwd".into());
    assert!(error(&path, None).contains("is missing"));
    old_archive(&maker, &path, |saved| saved[0]["Layers"] = json!(["1111/layer.tar"]));
    assert!(error(&path, None).contains("names 1 layers, the configuration 2"));
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
    assert!(error(&path, None).contains("decompress it first"));
    std::fs::write(&path, [b'x'; 2000]).unwrap();
    assert!(error(&path, None).contains("not a tar file"));
    std::fs::write(&path, [0; 1024]).unwrap();
    assert!(error(&path, None).contains("no image that 'docker save' wrote"));
}

#[test]
fn a_layer_is_held_to_its_diff_id() {
    let (maker, dir) = (Maker::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.tar");
    old_archive(&maker, &path, |_| {});
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[512 + 600] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let to = Maker::new();
    let error = encrypt_to(&Archive::open(&path, None).unwrap(), &to.layout("enc")).unwrap_err().to_string();
    assert!(error.contains("damaged or exchanged"), "{error}");
}
