//! An ESM blob: `/lockboxes` with the blob's key for each machine, `/digest` with what may be launched, `/file`
//! with the files. Digests and files are AES-256-GCM with an IV of 16 bytes and nothing else authenticated.

use super::fdt::Node;
use super::{Refusal, TpmKey};
use aes_gcm::aead::Aead;
use aes_gcm::aead::consts::U16;
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit};
use zeroize::Zeroizing;

type Gcm = AesGcm<Aes256, U16>;
/// A file's name and contents.
pub(super) type Named = (String, Zeroizing<Vec<u8>>);
/// The blob's symmetric key.
pub(super) type Key = Zeroizing<[u8; 32]>;

const COMPATIBLE: &str = "ibm,esm";
const FILES_COMPATIBLE: &str = "ibm,esm-file";

/// A blob as read. Only its key says what is in it.
pub(super) struct Blob {
    root: Node,
    files: Node,
}

/// What the blob is for. The digest of RTAS is not compared: QEMU brings its own.
pub(super) struct Digests {
    pub(super) kernel: Vec<u8>,
    pub(super) kernel_size: u32,
    pub(super) initrd: Vec<u8>,
    pub(super) bootargs: Vec<u8>,
}

impl Blob {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let root = Node::read(bytes)?;
        if root.text("compatible") != Some(COMPATIBLE) {
            return Err(Refusal::Form("compatible"));
        }
        let file = root.child("file").ok_or(Refusal::Form("/file"))?;
        let files = Node::read(file.property("files-fdt").ok_or(Refusal::Form("files-fdt"))?)?;
        if files.text("compatible") != Some(FILES_COMPATIBLE) {
            return Err(Refusal::Form("compatible of the files"));
        }
        Ok(Self { root, files })
    }

    /// Swaps the ciphertexts of two files, as a host can.
    pub(super) fn swap(&mut self, one: &str, other: &str) {
        for node in &mut self.files.children {
            for file in &mut node.children {
                if file.name == one {
                    other.clone_into(&mut file.name);
                } else if file.name == other {
                    one.clone_into(&mut file.name);
                }
            }
        }
    }

    /// Opens the lockbox for this machine.
    pub(super) fn key(&self, tpm: &TpmKey) -> Result<Key, Refusal> {
        let lockboxes = self.root.child("lockboxes").ok_or(Refusal::Form("/lockboxes"))?;
        let fingerprint = tpm.fingerprint();
        let lockbox = lockboxes.children.iter().find(|lockbox| {
            lockbox.child("pubkey-fingerprint").is_some_and(|print| {
                print.text("algorithm") == Some("SHA256") && print.property("hash") == Some(&fingerprint[..])
            })
        });
        let wrapped = lockbox
            .ok_or(Refusal::NoLockbox)?
            .property("encrypted-symkey")
            .ok_or(Refusal::Form("encrypted-symkey"))?;
        let unwrapped = tpm.unwrap(wrapped).filter(|key| key.len() == 32).ok_or(Refusal::Lockbox)?;
        let mut key = Key::default();
        key.copy_from_slice(&unwrapped);
        Ok(key)
    }

    pub(super) fn digests(&self, key: &Key) -> Result<Digests, Refusal> {
        let node = self.root.child("digest").and_then(|digest| digest.child("digests-fdt"));
        let plain = decrypt(node.ok_or(Refusal::Form("/digest/digests-fdt"))?, key)?;
        let tree = Node::read(&plain)?;
        let digests = tree.child("digests").ok_or(Refusal::Form("/digests"))?;
        if digests.text("algorithm") != Some("SHA512") {
            return Err(Refusal::Form("algorithm of the digests"));
        }
        let value =
            |name: &'static str| digests.property(name).map(<[u8]>::to_vec).ok_or(Refusal::Form(name));
        let size = value("kernel-size")?;
        Ok(Digests {
            kernel: value("kernel")?,
            kernel_size: u32::from_be_bytes(size.try_into().map_err(|_| Refusal::Form("kernel-size"))?),
            initrd: value("initrd")?,
            bootargs: value("bootargs")?,
        })
    }

    /// All files, decrypted.
    pub(super) fn files(&self, key: &Key) -> Result<Vec<Named>, Refusal> {
        let files = self.files.child("files").ok_or(Refusal::Form("/files"))?;
        files.children.iter().map(|file| Ok((file.name.clone(), decrypt(file, key)?))).collect()
    }
}

fn decrypt(node: &Node, key: &Key) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if node.text("algorithm") != Some("AES256-GCM") {
        return Err(Refusal::Form("algorithm"));
    }
    let value = |name: &'static str| node.property(name).ok_or(Refusal::Form(name));
    let iv: [u8; 16] = value("iv")?.try_into().map_err(|_| Refusal::Form("iv"))?;
    let mac: [u8; 16] = value("mac")?.try_into().map_err(|_| Refusal::Form("mac"))?;
    let sealed = [value("ciphertext")?, &mac].concat();
    Gcm::new(&(**key).into())
        .decrypt(&iv.into(), &sealed[..])
        .map(Zeroizing::new)
        .map_err(|_| Refusal::Decrypt(node.name.clone()))
}
