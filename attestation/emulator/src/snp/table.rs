//! The certificate table that a host hands to a guest (GHCB specification, "SNP certificate table"): GUID,
//! offset u32, length u32 each; a zero entry ends it.

use crate::guid::as_written;

pub(crate) const ARK: [u8; 16] = as_written("c0b406a4-a803-4952-9743-3fb6014cd0ae");
/// ASK or ASVK.
pub(crate) const ASK: [u8; 16] = as_written("4ab7b379-bbac-4fe4-a02f-05aef327c782");
pub(crate) const VCEK: [u8; 16] = as_written("63da758d-e664-4564-adc5-f4b93be8accd");
pub(crate) const VLEK: [u8; 16] = as_written("a8074bc2-a25a-483e-aae6-39c045a0b8a1");
pub(crate) const CRL: [u8; 16] = as_written("92f81bc3-5811-4d3d-97ff-d19f88dc67ea");

/// GUID, offset, length.
pub(crate) const ENTRY: usize = 24;

/// The table with its certificates behind it.
pub(crate) fn encode(entries: &[([u8; 16], Vec<u8>)]) -> Vec<u8> {
    let mut offset = (entries.len() + 1) * ENTRY;
    let mut table = Vec::new();
    for (guid, data) in entries {
        table.extend_from_slice(guid);
        table.extend_from_slice(&(offset as u32).to_le_bytes());
        table.extend_from_slice(&(data.len() as u32).to_le_bytes());
        offset += data.len();
    }
    table.extend_from_slice(&[0; ENTRY]);
    for (_, data) in entries {
        table.extend_from_slice(data);
    }
    table
}
