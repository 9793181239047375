//! The ESM blob: lockboxes with the blob's symmetric key for each RSA key that may have it, the encrypted
//! digests of the launch, and the encrypted files. open-power/svm-tools `docs/README.ESM`.

mod error;
mod name;
mod nodes;
#[cfg(test)]
mod tests;

use std::fmt;

use super::fdt::Node;
pub use error::EsmError;
pub use name::FileName;
pub(in crate::pef) use nodes::{array, exactly, text};

/// Bytes of a key's fingerprint: SHA-256 of its PEM file, line ends included.
pub const FINGERPRINT: usize = 32;
/// Bytes of the symmetric key under RSA-2048 OAEP-SHA256.
pub const SYMKEY_CIPHERTEXT: usize = 256;
/// Bytes of an AES-256-GCM initialisation vector here, more than the usual twelve.
pub const IV: usize = 16;
/// Bytes of an AES-256-GCM tag.
pub const MAC: usize = 16;
/// Most lockboxes of a blob, the owner's own one included.
pub const MAX_LOCKBOXES: usize = 65;
/// Longest file. The ultravisor has one 64 KiB page for all of them.
pub const MAX_FILE: usize = 16 * 1024;
/// Most files.
const MAX_FILES: usize = 16;
/// The ultravisor copies the tree of the files into one page.
const MAX_FILES_TREE: usize = 64 * 1024;
const MAX_COMMENT: usize = 128;

pub(super) const COMPATIBLE: &str = "ibm,esm";
const FILES_COMPATIBLE: &str = "ibm,esm-file";
const FILE_ALGORITHM: &str = "AES256-GCM";
const FINGERPRINT_ALGORITHM: &str = "SHA256";
const ORIGIN: &str = "origin-lockbox";
const NUMBERED: &str = "lockbox-";
/// The order in which svm-tools first names each property.
const ORDER: [&str; 9] = [
    "compatible",
    "untrusted-comment",
    "encrypted-symkey",
    "algorithm",
    "hash",
    "ciphertext",
    "iv",
    "mac",
    "files-fdt",
];
const FILES_ORDER: [&str; 6] = ["compatible", "algorithm", "untrusted-comment", "ciphertext", "iv", "mac"];
const SEALED: [&str; 5] = ["mac", "iv", "ciphertext", "untrusted-comment", "algorithm"];

/// Whose lockbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The blob's maker, who can open it to change it.
    Origin,
    /// A machine; from 1. Published firmware only tries number 1.
    Number(u32),
}

/// The symmetric key for one RSA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockbox {
    /// Whose.
    pub place: Place,
    /// Anybody can change it.
    pub comment: String,
    /// The symmetric key under RSA-2048 OAEP-SHA256.
    pub encrypted_key: [u8; SYMKEY_CIPHERTEXT],
    /// SHA-256 of the RSA key's PEM file.
    pub fingerprint: [u8; FINGERPRINT],
}

/// Bytes under the symmetric key, AES-256-GCM without additional data: nothing ties them to their name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Anybody can change it.
    pub comment: String,
    /// Initialisation vector.
    pub iv: [u8; IV],
    /// Tag.
    pub mac: [u8; MAC],
    /// As long as the plaintext.
    pub ciphertext: Vec<u8>,
}

/// A file of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EsmFile {
    /// Its name.
    pub name: FileName,
    /// Its contents.
    pub sealed: Sealed,
}

/// An ESM blob. Order stands for nothing; [`EsmBlob::encode`] writes it as svm-tools does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EsmBlob {
    /// The origin's and the machines', in the order of their numbers.
    pub lockboxes: Vec<Lockbox>,
    /// The launch's digests.
    pub digests: Sealed,
    /// The files, in the order in which they were added.
    pub files: Vec<EsmFile>,
}

impl EsmBlob {
    /// Reads a blob. Nothing in it is authenticated: whoever has the symmetric key finds out.
    pub fn parse(bytes: &[u8]) -> Result<Self, EsmError> {
        let root = Node::parse(bytes).map_err(EsmError::Fdt)?;
        exactly(&root, "/", &["compatible"], &["lockboxes", "digest", "file"])?;
        if text(&root, "compatible")? != COMPATIBLE {
            return Err(EsmError::Compatible);
        }
        let child = |name| root.child(name).ok_or(EsmError::Missing(name));
        let digest = child("digest")?;
        exactly(digest, "/digest", &[], &["digests-fdt"])?;
        let digests = digest.child("digests-fdt").ok_or(EsmError::Missing("digests-fdt"))?;
        let file = child("file")?;
        exactly(file, "/file", &["files-fdt"], &[])?;
        let files = file.property("files-fdt").ok_or(EsmError::Missing("files-fdt"))?;
        let blob = Self {
            lockboxes: lockboxes(child("lockboxes")?)?,
            digests: sealed(digests, "/digest/digests-fdt")?,
            files: parse_files(files)?,
        };
        blob.check()?;
        Ok(blob)
    }

    /// Writes a blob.
    pub fn encode(&self) -> Result<Vec<u8>, EsmError> {
        self.check()?;
        // libfdt puts each new child and property in front of the others, so the newest stands first.
        let mut lockboxes = Node::new("lockboxes");
        for lockbox in self.lockboxes.iter().rev() {
            lockboxes.children.push(encode_lockbox(lockbox));
        }
        let digest = Node::new("digest").with_child(encode_sealed("digests-fdt", &self.digests));
        let file = Node::new("file").with("files-fdt", self.encode_files()?);
        let root = Node::default().with_text("compatible", COMPATIBLE);
        let root = root.with_child(lockboxes).with_child(digest).with_child(file);
        root.encode(&ORDER).map_err(EsmError::Fdt)
    }

    fn encode_files(&self) -> Result<Vec<u8>, EsmError> {
        let mut files = Node::new("files");
        for file in self.files.iter().rev() {
            files.children.push(encode_sealed(file.name.as_str(), &file.sealed));
        }
        let root = Node::default().with_text("compatible", FILES_COMPATIBLE).with_child(files);
        let bytes = root.encode(&FILES_ORDER).map_err(EsmError::Files)?;
        if bytes.len() > MAX_FILES_TREE {
            return Err(EsmError::TooLong { name: "files-fdt", found: bytes.len(), most: MAX_FILES_TREE });
        }
        Ok(bytes)
    }

    /// The lockbox for the key with that fingerprint.
    pub fn lockbox(&self, fingerprint: &[u8; FINGERPRINT]) -> Option<&Lockbox> {
        self.lockboxes.iter().find(|lockbox| lockbox.fingerprint == *fingerprint)
    }

    /// The number for another machine: one more than the highest.
    pub fn next_place(&self) -> Place {
        let highest = self.lockboxes.iter().map(|lockbox| match lockbox.place {
            Place::Origin => 0,
            Place::Number(number) => number,
        });
        Place::Number(highest.max().unwrap_or(0).saturating_add(1))
    }

    /// What holds for reading and for writing.
    fn check(&self) -> Result<(), EsmError> {
        if self.lockboxes.len() > MAX_LOCKBOXES {
            return Err(EsmError::TooMany("lockboxes"));
        }
        if self.files.len() > MAX_FILES {
            return Err(EsmError::TooMany("files"));
        }
        if !self.lockboxes.iter().any(|lockbox| lockbox.place == Place::Origin) {
            return Err(EsmError::Missing(ORIGIN));
        }
        for (index, lockbox) in self.lockboxes.iter().enumerate() {
            comment(&lockbox.comment)?;
            let others = &self.lockboxes[..index];
            if others.iter().any(|other| other.fingerprint == lockbox.fingerprint) {
                let hex: String = lockbox.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(EsmError::DuplicateKey(hex));
            }
            if lockbox.place == Place::Number(0) || others.iter().any(|other| other.place == lockbox.place) {
                return Err(EsmError::LockboxName(place_name(lockbox.place)));
            }
        }
        for sealed in std::iter::once(&self.digests).chain(self.files.iter().map(|file| &file.sealed)) {
            comment(&sealed.comment)?;
            let found = sealed.ciphertext.len();
            if found > MAX_FILE {
                return Err(EsmError::TooLong { name: "ciphertext", found, most: MAX_FILE });
            }
        }
        Ok(())
    }
}

fn parse_files(bytes: &[u8]) -> Result<Vec<EsmFile>, EsmError> {
    if bytes.len() > MAX_FILES_TREE {
        return Err(EsmError::TooLong { name: "files-fdt", found: bytes.len(), most: MAX_FILES_TREE });
    }
    let root = Node::parse(bytes).map_err(EsmError::Files)?;
    exactly(&root, "files-fdt:/", &["compatible"], &["files"])?;
    if text(&root, "compatible")? != FILES_COMPATIBLE {
        return Err(EsmError::Compatible);
    }
    let files = root.child("files").ok_or(EsmError::Missing("files"))?;
    if let Some((name, _)) = files.properties.first() {
        return Err(EsmError::Unexpected { name: name.clone(), place: "files-fdt:/files".into() });
    }
    let read = |node: &Node| Ok(EsmFile { name: node.name.parse()?, sealed: sealed(node, &node.name)? });
    files.children.iter().rev().map(read).collect()
}

fn lockboxes(node: &Node) -> Result<Vec<Lockbox>, EsmError> {
    if let Some((name, _)) = node.properties.first() {
        return Err(EsmError::Unexpected { name: name.clone(), place: "/lockboxes".into() });
    }
    let mut all = node.children.iter().map(lockbox).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|lockbox| lockbox.place);
    Ok(all)
}

fn lockbox(node: &Node) -> Result<Lockbox, EsmError> {
    let place = place(&node.name).ok_or_else(|| EsmError::LockboxName(node.name.clone()))?;
    exactly(node, &node.name, &["untrusted-comment", "encrypted-symkey"], &["pubkey-fingerprint"])?;
    let key = node.child("pubkey-fingerprint").ok_or(EsmError::Missing("pubkey-fingerprint"))?;
    exactly(key, "pubkey-fingerprint", &["algorithm", "hash"], &[])?;
    if text(key, "algorithm")? != FINGERPRINT_ALGORITHM {
        return Err(EsmError::Algorithm);
    }
    Ok(Lockbox {
        place,
        comment: text(node, "untrusted-comment")?.to_owned(),
        encrypted_key: array(node, "encrypted-symkey")?,
        fingerprint: array(key, "hash")?,
    })
}

fn encode_lockbox(lockbox: &Lockbox) -> Node {
    let key = Node::new("pubkey-fingerprint")
        .with("hash", lockbox.fingerprint)
        .with_text("algorithm", FINGERPRINT_ALGORITHM);
    Node::new(&place_name(lockbox.place))
        .with("encrypted-symkey", lockbox.encrypted_key)
        .with_text("untrusted-comment", &lockbox.comment)
        .with_child(key)
}

fn place(name: &str) -> Option<Place> {
    if name == ORIGIN {
        return Some(Place::Origin);
    }
    let digits = name.strip_prefix(NUMBERED)?;
    let number: u32 = digits.parse().ok()?;
    // One number has one name.
    (number > 0 && number.to_string() == digits).then_some(Place::Number(number))
}

fn place_name(place: Place) -> String {
    match place {
        Place::Origin => ORIGIN.to_owned(),
        Place::Number(number) => format!("{NUMBERED}{number}"),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place_name(*self))
    }
}

fn sealed(node: &Node, place: &str) -> Result<Sealed, EsmError> {
    exactly(node, place, &SEALED, &[])?;
    if text(node, "algorithm")? != FILE_ALGORITHM {
        return Err(EsmError::Algorithm);
    }
    let ciphertext = node.property("ciphertext").ok_or(EsmError::Missing("ciphertext"))?;
    Ok(Sealed {
        comment: text(node, "untrusted-comment")?.to_owned(),
        iv: array(node, "iv")?,
        mac: array(node, "mac")?,
        ciphertext: ciphertext.to_vec(),
    })
}

fn encode_sealed(name: &str, sealed: &Sealed) -> Node {
    Node::new(name)
        .with("mac", sealed.mac)
        .with("iv", sealed.iv)
        .with("ciphertext", sealed.ciphertext.as_slice())
        .with_text("untrusted-comment", &sealed.comment)
        .with_text("algorithm", FILE_ALGORITHM)
}

fn comment(text: &str) -> Result<(), EsmError> {
    let ok = text.len() <= MAX_COMMENT && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    ok.then_some(()).ok_or(EsmError::Text("untrusted-comment"))
}
