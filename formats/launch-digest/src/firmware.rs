//! What a guest firmware image says about itself: the GUID table that ends 32 bytes before the end of
//! the file and is read backwards, and the SEV metadata that it points to. edk2 OvmfPkg/ResetVector
//! (Ia16/ResetVectorVtf0.asm, X64/OvmfSevMetadata.asm). All lengths are bounded.

use tee_evidence::guid::Guid;
use tee_evidence::reader::{ReadError, Reader};

use crate::LaunchError;
use crate::hash_table::HASH_TABLE_LEN;

const FOOTER: Guid = Guid::new(0x96b582de_1fb2_45f7_baea_a366c55a082d);
const RESET_BLOCK: Guid = Guid::new(0x00f771de_1a7e_4fcb_890e_68c77e2fb44e);
const HASH_TABLE_AREA: Guid = Guid::new(0x7255371f_3a3b_4b04_927b_1da6efa8d454);
const SECRET_AREA: Guid = Guid::new(0x4c2eb361_7d9b_4cc3_8081_127c90d3d294);
const SEV_METADATA: Guid = Guid::new(0xdc886566_984a_4798_a75e_5585a7bf67cc);

const PAGE: u32 = 4096;
/// Length of an entry's tail, u16 length and GUID, which comes after its data.
const ENTRY_TAIL: usize = 18;
/// The table ends this far before the end of the image.
const TABLE_END: usize = 32;
const MAX_FIRMWARE: usize = 64 << 20;
const MAX_SECTIONS: u32 = 64;
/// More memory than any firmware has measured as zero pages.
const MAX_SECTION_BYTES: u64 = 256 << 20;

/// Why an image is not a guest firmware that we can measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// Too large or too small.
    #[error("guest firmware has {0} bytes; it must have at least 50 and at most {MAX_FIRMWARE}")]
    Size(usize),
    /// SNP measures whole pages.
    #[error("guest firmware has {0} bytes, which are not whole pages")]
    NotPages(usize),
    /// No table at the end.
    #[error("guest firmware has no OVMF table 32 bytes before its end, so it is not built for SEV")]
    NoTable,
    /// An entry's length is outside the table, or its data are too short.
    #[error("guest firmware: table entry {0} has a wrong length")]
    Entry(Guid),
    /// One GUID stands there twice, so what QEMU takes would be a guess.
    #[error("guest firmware: table entry {0} stands there twice")]
    Duplicate(Guid),
    /// The metadata's place, signature, version or size is wrong.
    #[error("guest firmware: SEV metadata {0}")]
    Metadata(&'static str),
    /// The metadata is cut off.
    #[error("guest firmware: SEV metadata: {0}")]
    MetadataRead(#[from] ReadError),
    /// A section that we can't measure.
    #[error(
        "guest firmware: SEV metadata section {index} (type {kind:#x}, {size:#x} bytes at {gpa:#x}) {why}"
    )]
    Section {
        /// Its number.
        index: u32,
        /// Its type.
        kind: u32,
        /// Where it is.
        gpa: u32,
        /// How long it is.
        size: u32,
        /// What is wrong.
        why: &'static str,
    },
}

/// A range of guest-physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First address.
    pub base: u32,
    /// Length in bytes.
    pub size: u32,
}

/// What a metadata section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Memory that the firmware needs before it can accept pages.
    SecureMemory,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// Calling area of a secure VM service module.
    SvsmCallingArea,
    /// The page with the hash table.
    KernelHashes,
}

/// A metadata section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// First address, on a page boundary.
    pub gpa: u32,
    /// Length in bytes, whole pages.
    pub size: u32,
    /// What it is for.
    pub kind: SectionKind,
}

/// A firmware image and what its tables say.
#[derive(Debug, Clone)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    reset_eip: Option<u32>,
    hash_table: Option<Area>,
    secret: Option<Area>,
    sections: Option<Vec<Section>>,
}

impl<'a> Firmware<'a> {
    /// Reads the tables of an image.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        if !(TABLE_END + ENTRY_TAIL..=MAX_FIRMWARE).contains(&bytes.len()) {
            return Err(FirmwareError::Size(bytes.len()));
        }
        let table = Table::find(bytes)?;
        Ok(Self {
            bytes,
            reset_eip: table
                .get(RESET_BLOCK)?
                .map(|mut data| data.u32())
                .transpose()
                .map_err(short(RESET_BLOCK))?,
            hash_table: table.area(HASH_TABLE_AREA)?,
            secret: table.area(SECRET_AREA)?,
            sections: match table.get(SEV_METADATA)? {
                Some(mut data) => Some(sections(bytes, data.u32().map_err(short(SEV_METADATA))?)?),
                None => None,
            },
        })
    }

    /// The image.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the image starts when it ends at 4 GiB.
    pub const fn gpa(&self) -> u64 {
        (1 << 32) - self.bytes.len() as u64
    }

    /// Where vCPUs other than the first start.
    pub const fn reset_eip(&self) -> Option<u32> {
        self.reset_eip
    }

    /// Where a launch secret is put, if the firmware has such a place.
    pub const fn secret_area(&self) -> Option<Area> {
        self.secret
    }

    /// The metadata sections in the order in which they are measured.
    pub fn sections(&self) -> Result<&[Section], LaunchError> {
        self.sections.as_deref().ok_or(LaunchError::NoMetadata)
    }

    /// Where the hash table goes. An area of no size is what firmware without direct boot has.
    pub fn hash_table_area(&self) -> Result<Area, LaunchError> {
        let area = self.hash_table.ok_or(LaunchError::NoKernelHashes("no table entry for it"))?;
        if area.base == 0 || (area.size as usize) < HASH_TABLE_LEN {
            return Err(LaunchError::NoKernelHashes("its area is empty or too small"));
        }
        Ok(area)
    }
}

fn short(guid: Guid) -> impl Fn(ReadError) -> FirmwareError {
    move |_| FirmwareError::Entry(guid)
}

struct Table<'a>(Vec<(Guid, &'a [u8])>);

impl<'a> Table<'a> {
    fn find(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        let end = bytes.len() - TABLE_END;
        let (guid, length) = tail(&bytes[..end]).ok_or(FirmwareError::NoTable)?;
        if guid != FOOTER {
            return Err(FirmwareError::NoTable);
        }
        let start = length
            .checked_sub(ENTRY_TAIL)
            .and_then(|length| (end - ENTRY_TAIL).checked_sub(length))
            .ok_or(FirmwareError::Entry(FOOTER))?;
        let mut rest = &bytes[start..end - ENTRY_TAIL];
        let mut entries: Vec<(Guid, &[u8])> = Vec::new();
        while let Some((guid, length)) = tail(rest) {
            let data_start = rest.len().checked_sub(length).filter(|_| length >= ENTRY_TAIL);
            let data_start = data_start.ok_or(FirmwareError::Entry(guid))?;
            if entries.iter().any(|(other, _)| *other == guid) {
                return Err(FirmwareError::Duplicate(guid));
            }
            entries.push((guid, &rest[data_start..rest.len() - ENTRY_TAIL]));
            rest = &rest[..data_start];
        }
        Ok(Self(entries))
    }

    fn get(&self, guid: Guid) -> Result<Option<Reader<'a>>, FirmwareError> {
        let data = self.0.iter().find(|(other, _)| *other == guid).map(|(_, data)| *data);
        match data {
            Some(data) if data.len() < 4 => Err(FirmwareError::Entry(guid)),
            data => Ok(data.map(Reader::new)),
        }
    }

    fn area(&self, guid: Guid) -> Result<Option<Area>, FirmwareError> {
        let Some(mut data) = self.get(guid)? else { return Ok(None) };
        let area = Area { base: data.u32().map_err(short(guid))?, size: data.u32().map_err(short(guid))? };
        Ok(Some(area))
    }
}

/// The entry whose tail ends these bytes.
fn tail(bytes: &[u8]) -> Option<(Guid, usize)> {
    let at = bytes.len().checked_sub(ENTRY_TAIL)?;
    let mut reader = Reader::new(&bytes[at..]);
    let length = reader.u16().ok()?;
    Some((Guid::from_efi_bytes(reader.array().ok()?), usize::from(length)))
}

fn sections(bytes: &[u8], from_end: u32) -> Result<Vec<Section>, FirmwareError> {
    let start = bytes.len().checked_sub(from_end as usize);
    let start = start.ok_or(FirmwareError::Metadata("lies outside the image"))?;
    let mut reader = Reader::new(&bytes[start..]);
    if reader.array()? != *b"ASEV" {
        return Err(FirmwareError::Metadata("has no 'ASEV' signature"));
    }
    let length = reader.u32()?;
    if reader.u32()? != 1 {
        return Err(FirmwareError::Metadata("has a version other than 1"));
    }
    let count = reader.u32()?;
    if count > MAX_SECTIONS || u64::from(length) < 16 + 12 * u64::from(count) {
        return Err(FirmwareError::Metadata("has a length that doesn't fit its number of sections"));
    }
    let mut sections = Vec::new();
    let mut total = 0;
    for index in 0..count {
        let (gpa, size, kind) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let refuse = |why| Err(FirmwareError::Section { index, kind, gpa, size, why });
        total += u64::from(size);
        if !gpa.is_multiple_of(PAGE) || size == 0 || !size.is_multiple_of(PAGE) {
            return refuse("is not whole pages");
        }
        if total > MAX_SECTION_BYTES || gpa.checked_add(size - 1).is_none() {
            return refuse("is larger than a firmware needs");
        }
        let kind = match kind {
            1 => SectionKind::SecureMemory,
            2 => SectionKind::Secrets,
            3 => SectionKind::Cpuid,
            4 => SectionKind::SvsmCallingArea,
            0x10 => SectionKind::KernelHashes,
            _ => return refuse("has an unknown type"),
        };
        let one_page = matches!(kind, SectionKind::Secrets | SectionKind::Cpuid | SectionKind::KernelHashes);
        if one_page && size != PAGE {
            return refuse("must be one page");
        }
        sections.push(Section { gpa, size, kind });
    }
    Ok(sections)
}
