//! Builds images with an OVMF table and SEV metadata, whole or with one thing broken.

#![allow(dead_code, reason = "each test binary uses its own part")]

use tee_evidence::guid::Guid;

pub(crate) const FOOTER: u128 = 0x96b582de_1fb2_45f7_baea_a366c55a082d;
pub(crate) const RESET_BLOCK: u128 = 0x00f771de_1a7e_4fcb_890e_68c77e2fb44e;
pub(crate) const HASH_TABLE: u128 = 0x7255371f_3a3b_4b04_927b_1da6efa8d454;
pub(crate) const SECRET: u128 = 0x4c2eb361_7d9b_4cc3_8081_127c90d3d294;
pub(crate) const METADATA: u128 = 0xdc886566_984a_4798_a75e_5585a7bf67cc;

pub(crate) struct Builder {
    pub(crate) pages: usize,
    pub(crate) reset_eip: Option<u32>,
    pub(crate) hash_table: (u32, u32),
    pub(crate) sections: Vec<(u32, u32, u32)>,
    /// Signature, length (none: the right one), version, number of sections (none: the right one).
    pub(crate) header: ([u8; 4], Option<u32>, u32, Option<u32>),
    pub(crate) metadata_from_end: u32,
    pub(crate) more: Vec<(u128, Vec<u8>)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            pages: 1,
            reset_eip: Some(0x0080_b004),
            hash_table: (0x0080_ec00, 0x400),
            sections: vec![
                (0x0080_0000, 0x9000, 1),
                (0x0080_a000, 0x3000, 1),
                (0x0080_d000, 0x1000, 2),
                (0x0080_f000, 0x1000, 3),
                (0x0080_e000, 0x1000, 0x10),
                (0x0081_0000, 0x2000, 4),
            ],
            header: (*b"ASEV", None, 1, None),
            metadata_from_end: 1024,
            more: Vec::new(),
        }
    }
}

impl Builder {
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..self.pages * 4096).map(|n| n as u8).collect();
        let (signature, length, version, count) = self.header;
        let sections = self.sections.len() as u32;
        let mut metadata = signature.to_vec();
        for word in [length.unwrap_or(16 + 12 * sections), version, count.unwrap_or(sections)] {
            metadata.extend_from_slice(&word.to_le_bytes());
        }
        for (gpa, size, kind) in &self.sections {
            for word in [gpa, size, kind] {
                metadata.extend_from_slice(&word.to_le_bytes());
            }
        }
        let at = image.len() - 1024;
        image[at..at + metadata.len()].copy_from_slice(&metadata);

        let mut entries = vec![(METADATA, self.metadata_from_end.to_le_bytes().to_vec())];
        entries
            .push((HASH_TABLE, [self.hash_table.0.to_le_bytes(), self.hash_table.1.to_le_bytes()].concat()));
        entries.push((SECRET, [0x0080_d000u32.to_le_bytes(), 0x1000u32.to_le_bytes()].concat()));
        entries.extend(self.reset_eip.map(|eip| (RESET_BLOCK, eip.to_le_bytes().to_vec())));
        entries.extend(self.more.clone());
        let mut table = Vec::new();
        for (guid, data) in entries {
            table.extend_from_slice(&data);
            table.extend_from_slice(&(data.len() as u16 + 18).to_le_bytes());
            table.extend_from_slice(&Guid::new(guid).to_efi_bytes());
        }
        table.extend_from_slice(&(table.len() as u16 + 18).to_le_bytes());
        table.extend_from_slice(&Guid::new(FOOTER).to_efi_bytes());
        let end = image.len() - 32;
        image[end - table.len()..end].copy_from_slice(&table);
        image
    }
}
