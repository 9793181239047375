//! The OVMF-shaped firmware file: written here, and read back for measuring.
//!
//! QEMU boots without SEV firmware on machines without the hardware, so an emulated launch measures a
//! file that the project generates: 64 KiB, never executed (its reset vector halts), with the tables that
//! tools find in a real OVMF built for SEV-SNP with direct kernel boot. Layout, from the end of the file:
//!
//! | offset from the end | bytes | what |
//! |---|---|---|
//! | 16 | 16 | reset vector: `cli; hlt; jmp` to the `hlt` |
//! | 32 | 16 | zero |
//! | 32 + 114 | 114 | GUID table, read backwards: footer, reset block, secret area, hash table area, SEV metadata |
//! | 1024 | 100 | SEV metadata: `ASEV`, length, version 1, count, sections of (address, bytes, type) |
//! | 65536 | | a text that says what the file is |

use crate::guid::uefi;

/// Bytes in the generated file.
pub const LENGTH: usize = 64 * 1024;

const PAGE: u32 = 4096;
/// The GUID table ends this many bytes before the end of the file.
const TABLE_END: usize = 32;
/// Length and GUID of an entry of the GUID table; its data stands before them.
const ENTRY: usize = 18;
const METADATA_FROM_END: usize = 1024;
const METADATA_HEADER: usize = 16;
const METADATA_SECTION: usize = 12;
/// More sections than any OVMF has.
const SECTIONS_MAX: u32 = 64;
/// More memory in one section than any OVMF asks for.
const SECTION_BYTES_MAX: u32 = 64 << 20;

const FOOTER: [u8; 16] = uefi("96b582de-1fb2-45f7-baea-a366c55a082d");
const RESET_BLOCK: [u8; 16] = uefi("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
const SECRET_AREA: [u8; 16] = uefi("4c2eb361-7d9b-4cc3-8081-127c90d3d294");
const HASH_TABLE_AREA: [u8; 16] = uefi("7255371f-3a3b-4b04-927b-1da6efa8d454");
const SEV_METADATA: [u8; 16] = uefi("dc886566-984a-4798-a75e-5585a7bf67cc");

/// Where application processors start: what a real OVMF has there.
const RESET_ADDRESS: u32 = 0x0080_b004;
const HASH_TABLE: (u32, u32) = (0x0081_0c00, 0x400);
const SECRETS: (u32, u32) = (0x0081_0000, 0xc00);
/// The sections of an OVMF built for SEV-SNP with kernel hashes.
const SECTIONS: [Section; 7] = [
    Section { address: 0x0080_0000, length: 0x9000, kind: SectionKind::Memory },
    Section { address: 0x0080_a000, length: 0x3000, kind: SectionKind::Memory },
    Section { address: 0x0080_d000, length: 0x1000, kind: SectionKind::Secrets },
    Section { address: 0x0080_e000, length: 0x1000, kind: SectionKind::Cpuid },
    Section { address: 0x0080_f000, length: 0x1000, kind: SectionKind::CallingArea },
    Section { address: 0x0081_0000, length: 0x1000, kind: SectionKind::KernelHashes },
    Section { address: 0x0081_1000, length: 0xf000, kind: SectionKind::Memory },
];

const BANNER: &str = "Sealpod emulated firmware, version 1\n\
    This file is measured in place of OVMF on machines without AMD SEV-SNP and is never executed.\n\
    It carries the tables of an OVMF with kernel hashes; its reset vector halts.\n";

/// Writes the firmware file. Always the same bytes.
pub fn generate() -> Vec<u8> {
    let mut file = vec![0; LENGTH];
    put(&mut file, 0, BANNER.as_bytes());
    let metadata = metadata(&SECTIONS);
    put(&mut file, LENGTH - METADATA_FROM_END, &metadata);

    let mut table = Vec::new();
    entry(&mut table, &[METADATA_FROM_END as u32], SEV_METADATA);
    entry(&mut table, &[HASH_TABLE.0, HASH_TABLE.1], HASH_TABLE_AREA);
    entry(&mut table, &[SECRETS.0, SECRETS.1], SECRET_AREA);
    entry(&mut table, &[RESET_ADDRESS], RESET_BLOCK);
    let total = table.len() + ENTRY;
    table.extend_from_slice(&(total as u16).to_le_bytes());
    table.extend_from_slice(&FOOTER);
    put(&mut file, LENGTH - TABLE_END - table.len(), &table);

    put(&mut file, LENGTH - 16, &[0xfa, 0xf4, 0xeb, 0xfd]);
    file
}

/// A firmware file with the facts that the launch measures.
#[derive(Debug, Clone)]
pub struct Firmware {
    bytes: Vec<u8>,
    reset_address: u32,
    hash_table: Option<u32>,
    secrets: Option<u32>,
    sections: Option<Vec<Section>>,
}

/// A range of guest memory that the launch prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    /// Guest physical address, a multiple of 4096.
    pub(crate) address: u32,
    /// Bytes, a multiple of 4096.
    pub(crate) length: u32,
    pub(crate) kind: SectionKind,
}

/// Section types of OVMF's SEV metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Memory = 1,
    Secrets = 2,
    Cpuid = 3,
    CallingArea = 4,
    KernelHashes = 0x10,
}

/// Why a file is not usable as firmware.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("firmware: {0}; make one with `sealpod-emulator firmware --out FILE`")]
pub struct FirmwareError(&'static str);

impl Firmware {
    /// Reads the tables of a firmware file.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, FirmwareError> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(PAGE as usize) || bytes.len() > 64 << 20 {
            return Err(FirmwareError("the length is not a multiple of 4096 up to 64 MiB"));
        }
        let mut reset_address = None;
        let mut hash_table = None;
        let mut secrets = None;
        let mut metadata = None;
        let mut rest = table(&bytes)?;
        while !rest.is_empty() {
            let entry = last_entry(rest)?;
            let first =
                || entry.data.get(..4).map(word).ok_or(FirmwareError("a GUID table entry is too short"));
            match entry.guid {
                RESET_BLOCK => reset_address = Some(first()?),
                HASH_TABLE_AREA => hash_table = Some(first()?).filter(|base| *base != 0),
                SECRET_AREA => secrets = entry.data.get(4..8).map(word).filter(|length| *length != 0),
                SEV_METADATA => metadata = Some(first()? as usize),
                _ => {}
            }
            rest = entry.before;
        }
        let sections = metadata.map(|from_end| sections(&bytes, from_end)).transpose()?;
        let reset_address = reset_address.ok_or(FirmwareError("no SEV-ES reset block"))?;
        Ok(Self { bytes, reset_address, hash_table, secrets, sections })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The firmware ends at 4 GiB.
    pub(crate) fn address(&self) -> u64 {
        (1 << 32) - self.bytes.len() as u64
    }

    pub(crate) fn reset_address(&self) -> u32 {
        self.reset_address
    }

    /// Guest physical address of the kernel hash table, if the firmware has room for one.
    pub(crate) fn hash_table(&self) -> Option<u32> {
        self.hash_table
    }

    /// Bytes of the area for an injected secret, if the firmware has room for one.
    pub(crate) fn secret_area(&self) -> Option<u32> {
        self.secrets
    }

    /// What an SEV-SNP launch prepares; `None` if the firmware was built for SEV and SEV-ES alone.
    pub(crate) fn sections(&self) -> Option<&[Section]> {
        self.sections.as_deref()
    }
}

fn table(bytes: &[u8]) -> Result<&[u8], FirmwareError> {
    let upto = &bytes[..bytes.len() - TABLE_END];
    let footer = upto.len() - ENTRY;
    if upto[footer + 2..] != FOOTER {
        return Err(FirmwareError("no GUID table 32 bytes before the end"));
    }
    let total = usize::from(half(&upto[footer..]));
    total
        .checked_sub(ENTRY)
        .and_then(|length| footer.checked_sub(length))
        .map(|start| &upto[start..footer])
        .ok_or(FirmwareError("the GUID table is longer than the file"))
}

/// An entry of the GUID table.
struct TableEntry<'a> {
    /// The entries before it.
    before: &'a [u8],
    guid: [u8; 16],
    data: &'a [u8],
}

fn last_entry(table: &[u8]) -> Result<TableEntry<'_>, FirmwareError> {
    const BROKEN: FirmwareError = FirmwareError("the lengths in the GUID table don't add up");
    let header = table.len().checked_sub(ENTRY).ok_or(BROKEN)?;
    let length = usize::from(half(&table[header..]));
    let start = table.len().checked_sub(length).filter(|start| *start <= header).ok_or(BROKEN)?;
    let guid = table[header + 2..].try_into().map_err(|_| BROKEN)?;
    Ok(TableEntry { before: &table[..start], guid, data: &table[start..header] })
}

fn sections(bytes: &[u8], from_end: usize) -> Result<Vec<Section>, FirmwareError> {
    const BROKEN: FirmwareError = FirmwareError("the SEV metadata doesn't fit into the file");
    let start = bytes.len().checked_sub(from_end).ok_or(BROKEN)?;
    let header = bytes.get(start..start + METADATA_HEADER).ok_or(BROKEN)?;
    if &header[..4] != b"ASEV" || word(&header[8..]) != 1 {
        return Err(FirmwareError("the SEV metadata has another signature or version"));
    }
    let count = word(&header[12..]);
    if count > SECTIONS_MAX
        || word(&header[4..]) as usize != METADATA_HEADER + count as usize * METADATA_SECTION
    {
        return Err(FirmwareError("the SEV metadata's length doesn't match its number of sections"));
    }
    let first = start + METADATA_HEADER;
    let body = bytes.get(first..first + count as usize * METADATA_SECTION).ok_or(BROKEN)?;
    body.chunks_exact(METADATA_SECTION)
        .map(|raw| {
            let kind = match word(&raw[8..]) {
                1 => SectionKind::Memory,
                2 => SectionKind::Secrets,
                3 => SectionKind::Cpuid,
                4 => SectionKind::CallingArea,
                0x10 => SectionKind::KernelHashes,
                _ => return Err(FirmwareError("the SEV metadata has a section of an unknown type")),
            };
            let (address, length) = (word(raw), word(&raw[4..]));
            if address % PAGE != 0 || length % PAGE != 0 || length > SECTION_BYTES_MAX {
                return Err(FirmwareError("a section of the SEV metadata is not made of whole pages"));
            }
            if kind == SectionKind::KernelHashes && length != PAGE {
                return Err(FirmwareError("the kernel hashes section is not one page"));
            }
            Ok(Section { address, length, kind })
        })
        .collect()
}

fn metadata(sections: &[Section]) -> Vec<u8> {
    let length = METADATA_HEADER + sections.len() * METADATA_SECTION;
    let mut out = b"ASEV".to_vec();
    for value in [length as u32, 1, sections.len() as u32] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    for section in sections {
        for value in [section.address, section.length, section.kind as u32] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    out
}

fn entry(table: &mut Vec<u8>, data: &[u32], guid: [u8; 16]) {
    for value in data {
        table.extend_from_slice(&value.to_le_bytes());
    }
    table.extend_from_slice(&((data.len() * 4 + ENTRY) as u16).to_le_bytes());
    table.extend_from_slice(&guid);
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn half(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_generated_file_reads_back() {
        let firmware = Firmware::parse(generate()).unwrap();
        assert_eq!(firmware.sections(), Some(&SECTIONS[..]));
        assert_eq!(firmware.secret_area(), Some(SECRETS.1));
        assert_eq!(firmware.hash_table(), Some(HASH_TABLE.0));
        assert_eq!(firmware.reset_address(), RESET_ADDRESS);
        assert_eq!(firmware.address(), 0xffff_0000);
    }

    #[test]
    fn the_hash_table_lies_in_the_page_that_is_measured_for_it() {
        let page = SECTIONS.iter().find(|section| section.kind == SectionKind::KernelHashes).unwrap();
        assert!(HASH_TABLE.0 >= page.address && HASH_TABLE.0 + HASH_TABLE.1 <= page.address + page.length);
    }

    #[test]
    fn files_with_other_shapes_are_refused() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = generate();
            change(&mut file);
            assert!(Firmware::parse(file).is_err());
        };
        refused(&|file| file.clear());
        refused(&|file| file.push(0));
        refused(&|file| file[LENGTH - TABLE_END - 1] ^= 1);
        refused(&|file| file[LENGTH - TABLE_END - ENTRY] = 1);
        refused(&|file| file[LENGTH - METADATA_FROM_END] ^= 1);
        refused(&|file| file[LENGTH - METADATA_FROM_END + 4] ^= 1);
        refused(&|file| file[LENGTH - METADATA_FROM_END + 8] = 2);
        refused(&|file| file[LENGTH - METADATA_FROM_END + 12] = 0xff);
        refused(&|file| file[LENGTH - METADATA_FROM_END + METADATA_HEADER] = 1);
        refused(&|file| file[LENGTH - METADATA_FROM_END + METADATA_HEADER + 8] = 9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn changed_tables_never_panic(changes in proptest::collection::vec((0..2048_usize, any::<u8>()), 1..8)) {
            let mut file = generate();
            for (from_end, value) in changes {
                file[LENGTH - 1 - from_end] = value;
            }
            let _ = Firmware::parse(file);
        }
    }
}
