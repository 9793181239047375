//! SNP: the digest is a chain of SHA-384 over one PAGE_INFO a page. AMD 56860 §8.17.2, table 67.

use sha2::{Digest, Sha384};

use crate::firmware::{Firmware, FirmwareError, SectionKind};
use crate::{Launch, LaunchError, vmsa};

const PAGE: usize = 4096;
/// Save areas have no guest-physical address; the firmware takes this one, all ones up to bit 47.
const VMSA_GPA: u64 = 0xffff_ffff_f000;

#[derive(Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// The launch digest while it grows.
#[derive(Clone)]
struct SnpDigest([u8; 48]);

impl SnpDigest {
    /// Before the first page.
    const fn new() -> Self {
        Self([0; 48])
    }

    fn extend(&mut self, kind: PageType, gpa: u64, contents: [u8; 48]) {
        let mut info = Sha384::new();
        info.update(self.0);
        info.update(contents);
        info.update(0x70_u16.to_le_bytes()); // length of this structure
        info.update([kind as u8, 0]); // page type; not an initial migration image
        info.update([0; 4]); // permissions of VMPL 3, 2, 1; reserved
        info.update(gpa.to_le_bytes());
        self.0 = info.finalize().into();
    }

    fn data(&mut self, kind: PageType, gpa: u64, page: &[u8]) {
        self.extend(kind, gpa, Sha384::digest(page).into());
    }

    fn zero(&mut self, gpa: u64, size: u32) {
        for offset in (0..size).step_by(PAGE) {
            self.extend(PageType::Zero, gpa + u64::from(offset), [0; 48]);
        }
    }
}

pub(crate) fn launch_digest(launch: &Launch<'_>) -> Result<[u8; 48], LaunchError> {
    let firmware = Firmware::parse(launch.firmware)?;
    if !launch.firmware.len().is_multiple_of(PAGE) {
        return Err(FirmwareError::NotPages(launch.firmware.len()).into());
    }
    let mut digest = SnpDigest::new();
    for (page, gpa) in launch.firmware.chunks_exact(PAGE).zip((firmware.gpa()..).step_by(PAGE)) {
        digest.data(PageType::Normal, gpa, page);
    }
    let mut hashes = hash_page(launch, &firmware)?;
    for section in firmware.sections()? {
        let gpa = u64::from(section.gpa);
        match section.kind {
            SectionKind::SecureMemory | SectionKind::SvsmCallingArea => digest.zero(gpa, section.size),
            SectionKind::Secrets => digest.extend(PageType::Secrets, gpa, [0; 48]),
            SectionKind::Cpuid => digest.extend(PageType::Cpuid, gpa, [0; 48]),
            SectionKind::KernelHashes => match hashes.take() {
                Some((page_gpa, page)) if page_gpa == gpa => digest.data(PageType::Normal, gpa, &page),
                Some(_) => return Err(LaunchError::NoKernelHashes("its area is outside the measured page")),
                None => digest.zero(gpa, section.size),
            },
        }
    }
    if hashes.is_some() {
        return Err(LaunchError::NoKernelHashes("no metadata section measures it"));
    }
    for page in vmsa::pages(&firmware, launch.vcpus, launch.cpu, launch.guest_features)? {
        digest.data(PageType::Vmsa, VMSA_GPA, &page);
    }
    Ok(digest.0)
}

/// The page that holds the hash table, zero around it, and where it is.
fn hash_page(launch: &Launch<'_>, firmware: &Firmware<'_>) -> Result<Option<(u64, [u8; PAGE])>, LaunchError> {
    let Some(kernel) = &launch.kernel else { return Ok(None) };
    let area = firmware.hash_table_area()?;
    let table = kernel.hash_table()?;
    let offset = area.base as usize % PAGE;
    let mut page = [0; PAGE];
    page.get_mut(offset..offset + table.len())
        .ok_or(LaunchError::NoKernelHashes("its area crosses a page"))?
        .copy_from_slice(&table);
    Ok(Some((u64::from(area.base) - offset as u64, page)))
}
