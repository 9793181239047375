//! Bodies of the fuzz targets of Power PEF: device trees and ESM blobs, the agent's file out of a blob, evidence.

#![allow(dead_code)] // Each target uses one of them.

use agent_attest::tee::pef::{Chunk, Pef, Ultravisor};
use tee_evidence::pef::fdt::Node;
use tee_evidence::pef::{Digests, EsmBlob};
use verifier::pef::{Evidence, MachineKey};

/// A tree, a blob and a plaintext of digests: what is read is written and read the same.
pub(crate) fn esm_blob(data: &[u8]) {
    // Writing fails where the same strings, shared in another way, don't fit any more.
    if let Ok(tree) = Node::parse(data)
        && let Ok(bytes) = tree.encode(&[])
    {
        assert_eq!(Node::parse(&bytes), Ok(tree));
    }
    if let Ok(blob) = EsmBlob::parse(data)
        && let Ok(bytes) = blob.encode()
    {
        assert_eq!(EsmBlob::parse(&bytes), Ok(blob));
    }
    if let Ok(digests) = Digests::parse(data) {
        assert_eq!(Digests::parse(&digests.encode().unwrap_or_default()), Ok(digests));
    }
}

/// Answers of an ultravisor, one a call: a byte of length, then as many bytes of data as there are.
struct Answers<'a>(&'a [u8]);

impl Ultravisor for Answers<'_> {
    fn get_file(&mut self, _: &[u8; 64], _: u64) -> Option<Chunk> {
        let (length, rest) = self.0.split_first()?;
        let length = i64::from(length.cast_signed());
        let (now, later) = rest.split_at(usize::try_from(length).unwrap_or(0).min(64).min(rest.len()));
        self.0 = later;
        let mut data = [0; 64];
        data[..now.len()].copy_from_slice(now);
        Some(Chunk { length, data })
    }
}

/// One file, handed out as the bytes themselves say, and in whole chunks.
pub(crate) fn esm_file(data: &[u8]) {
    let _ = Pef::take(&mut Answers(data));
    let mut chunked: Vec<u8> = Vec::new();
    for chunk in data.chunks(64) {
        chunked.push(chunk.len() as u8); // 64 at most
        chunked.extend(chunk);
    }
    chunked.push(0);
    let _ = Pef::take(&mut Answers(&chunked));
}

/// A blob's id and a signature, a line end between them; and the text as a machine's key.
pub(crate) fn pef_evidence(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let blob = String::from_utf8_lossy(&data[..at]);
    let _ = Evidence::parse(&blob, data.get(at + 1..).unwrap_or_default());
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = MachineKey::from_pem(text);
    }
}
