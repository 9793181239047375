//! The kernel as it lies in memory, which is what the ultravisor hashes: what `objcopy -O binary -S` makes of an
//! ELF file. ELF-64 object file format; sections with contents, at their load addresses, zeros in between.

use anyhow::{Context as _, Result, bail, ensure};

/// Largest image in memory; a kernel's size is a 32-bit number for the ultravisor.
const LIMIT: u64 = 1 << 30;
const SECTIONS: usize = 8192;
const LOAD: u32 = 1;
const NO_BITS: u32 = 8;
const ALLOCATED: u64 = 2;

/// The flat image of a kernel: of an ELF file its sections, any other file as it is.
pub(crate) fn in_memory(file: &[u8]) -> Result<Vec<u8>> {
    if !file.starts_with(b"\x7fELF") {
        return Ok(file.to_vec());
    }
    flatten(file).context("kernel: ELF file can't be read; give the uncompressed vmlinux, or its flat binary")
}

struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    ensure!(file.get(4..6) == Some(&[2, 1]), "it is not a 64-bit little-endian one");
    let segments: Vec<Segment> = table(file, 0x20, 0x36, 56)?
        .filter(|header| u32_at(header, 0) == Some(LOAD))
        .filter_map(|header| {
            Some(Segment {
                offset: u64_at(header, 8)?,
                address: u64_at(header, 24)?,
                size: u64_at(header, 32)?,
            })
        })
        .collect();
    let mut sections = Vec::new();
    for header in table(file, 0x28, 0x3a, 64)? {
        let field = |at| u64_at(header, at).context("a section header is cut");
        let (flags, offset, size) = (field(8)?, field(24)?, field(32)?);
        let kind = u32_at(header, 4).context("a section header is cut")?;
        if flags & ALLOCATED == 0 || kind == NO_BITS || size == 0 {
            continue;
        }
        let end = offset.checked_add(size).context("a section has no end")?;
        let inside = |segment: &&Segment| {
            let most = segment.offset.saturating_add(segment.size);
            segment.offset <= offset && end <= most
        };
        let segment = segments.iter().find(inside).context("a section is in no segment")?;
        let address = segment.address.checked_add(offset - segment.offset).context("an address overflows")?;
        let range = usize::try_from(offset)?..usize::try_from(end)?;
        sections.push((address, file.get(range).context("a section lies outside the file")?));
    }
    let start =
        sections.iter().map(|(address, _)| *address).min().context("it has no sections with contents")?;
    let end = sections.iter().map(|(address, bytes)| address.saturating_add(bytes.len() as u64)).max();
    let size = end.unwrap_or(start) - start;
    ensure!(size <= LIMIT, "it takes {size} bytes of memory");
    let mut image = vec![0; usize::try_from(size)?];
    for (address, bytes) in sections {
        let at = usize::try_from(address - start)?;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    Ok(image)
}

/// The entries of a header table: its offset's place, its entry size's place, and the size that entries have.
fn table(file: &[u8], offset: usize, sizes: usize, entry: usize) -> Result<impl Iterator<Item = &[u8]>> {
    let start = usize::try_from(u64_at(file, offset).context("the file header is cut")?)?;
    let size = usize::from(u16_at(file, sizes).context("the file header is cut")?);
    let count = usize::from(u16_at(file, sizes + 2).context("the file header is cut")?);
    if size != entry || count > SECTIONS {
        bail!("it has {count} headers of {size} bytes");
    }
    let bytes = start.checked_add(count * entry).and_then(|end| file.get(start..end));
    Ok(bytes.context("a header table lies outside the file")?.chunks_exact(entry))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the system's own tool makes of it; none if it has none.
    fn objcopy(file: &[u8]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("elf"), dir.path().join("flat"));
        std::fs::write(&from, file).unwrap();
        let done = Command::new("objcopy").args(["-O", "binary", "-S"]).arg(&from).arg(&to).output().ok()?;
        assert!(done.status.success(), "{done:?}");
        Some(std::fs::read(to).unwrap())
    }

    /// An executable with two segments, a gap, and a section without contents.
    fn elf() -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[6] = 1;
        let mut put = |at: usize, size: usize, value: u64| {
            file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        for (at, size, value) in [
            (16, 2, 2),
            // x86-64: a system's own tool knows its own machine, and the rest of the format is the same.
            (18, 2, 62),
            (20, 4, 1),
            (24, 8, 0x1000),
            (0x20, 8, 64),
            (0x28, 8, 0x200),
            (0x30, 4, 2),
            (0x34, 2, 64),
            (0x36, 2, 56),
            (0x38, 2, 2),
            (0x3a, 2, 64),
            (0x3c, 2, 5),
            (0x3e, 2, 4),
        ] {
            put(at, size, value);
        }
        // Two loaded segments: file offset, virtual and load address, sizes.
        for (index, (offset, virt, load, in_file, in_memory)) in [
            (0x100u64, 0xc000_0000u64, 0x1000u64, 0x40u64, 0x40u64),
            (0x180, 0xc000_2000, 0x1100, 0x20, 0x80),
        ]
        .into_iter()
        .enumerate()
        {
            let at = 64 + index * 56;
            for (field, size, value) in [
                (0, 4, 1),
                (4, 4, 7),
                (8, 8, offset),
                (16, 8, virt),
                (24, 8, load),
                (32, 8, in_file),
                (40, 8, in_memory),
                (48, 8, 1),
            ] {
                put(at + field, size, value);
            }
        }
        // .text, .data, .bss, and the names of the sections, which are loaded nowhere.
        for (index, (name, kind, flags, virt, offset, size)) in [
            (1u64, 1u64, 6u64, 0xc000_0000u64, 0x100u64, 0x30u64),
            (7, 1, 3, 0xc000_2000, 0x180, 0x20),
            (13, 8, 3, 0xc000_2020, 0x1a0, 0x60),
            (18, 3, 0, 0, 0x1c0, 28),
        ]
        .into_iter()
        .enumerate()
        {
            let at = 0x200 + (index + 1) * 64;
            for (field, size, value) in [
                (0, 4, name),
                (4, 4, kind),
                (8, 8, flags),
                (16, 8, virt),
                (24, 8, offset),
                (32, 8, size),
                (48, 8, 1),
            ] {
                put(at + field, size, value);
            }
        }
        file[0x100..0x130].fill(0xaa);
        file[0x180..0x1a0].fill(0xbb);
        file[0x1c0..0x1dc].copy_from_slice(b"\0.text\0.data\0.bss\0.shstrtab\0");
        file
    }

    #[test]
    fn sections_lie_where_they_are_loaded() {
        let image = in_memory(&elf()).unwrap();
        let expected = [[0xaa; 0x30].as_slice(), &[0; 0xd0], &[0xbb; 0x20]].concat();
        assert_eq!(image, expected);
        match objcopy(&elf()) {
            Some(theirs) => assert_eq!(image, theirs),
            None => eprintln!("skipped: no objcopy"),
        }
    }

    #[test]
    fn a_real_program_comes_out_as_objcopy_makes_it() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        match objcopy(&file) {
            Some(theirs) => assert!(in_memory(&file).unwrap() == theirs),
            None => eprintln!("skipped: no objcopy"),
        }
    }

    #[test]
    fn other_files_stay_as_they_are() {
        assert_eq!(in_memory(b"flat").unwrap(), b"flat");
    }

    #[test]
    fn damaged_elf_files_are_refused() {
        let elf = elf();
        for end in [4, 5, 63, 0x1ff, 0x33f] {
            assert!(in_memory(&elf[..end]).is_err(), "{end}");
        }
        let changed = |at: usize, byte: u8| {
            let mut elf = elf.clone();
            elf[at] = byte;
            in_memory(&elf)
        };
        assert!(changed(4, 1).is_err(), "32 bits");
        assert!(changed(5, 2).is_err(), "big-endian");
        assert!(changed(0x36, 55).is_err(), "another entry size");
        assert!(changed(0x240 + 24 + 3, 0xff).is_err(), "a section outside its segment");
        assert!(changed(64 + 24 + 7, 0x7f).is_err(), "segments that are far apart");
    }
}
