//! The tables of a volume's layers, and what of the kernel's own words for them is accepted.

use crate::dm::Target;

/// Bytes of a block: unit of encryption, of a tag, of the file system.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes beside each block: a random IV and HMAC-SHA-256 cut to 128 bits (RFC 4868, section 2.1.1).
pub(crate) const TAG: u64 = 16 + 16;
/// Bytes of memory before the first tag: dm-integrity's superblock (4 KiB), and its smallest journal (132 KiB), which
/// direct mode never uses. What is left over takes the first tags.
pub(crate) const HEAD: u64 = 256 * 1024;
/// Sectors of 512 bytes in a block.
const SECTORS: u64 = BLOCK / 512;
const CIPHER: &str = "capi:authenc(hmac(sha256),xts(aes))-random";

/// How a device of the host is divided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Blocks of data, from the device's start.
    pub(crate) data: u64,
    /// Blocks of tags after them.
    pub(crate) tags: u64,
}

impl Division {
    pub(crate) fn of(bytes: u64, tags_in_memory: bool) -> Division {
        let blocks = bytes / BLOCK;
        let per_block = BLOCK / TAG;
        // Block numbers of the file system have 32 bits.
        let most = u64::from(u32::MAX);
        if tags_in_memory {
            return Division { data: blocks.min(most), tags: 0 };
        }
        let data =
            (blocks / (per_block + 1) * per_block + (blocks % (per_block + 1)).saturating_sub(1)).min(most);
        Division { data, tags: data.div_ceil(per_block) }
    }
}

fn linear(start: u64, blocks: u64, device: &str, from: u64) -> Target {
    let parameters = format!("{device} {}", from * SECTORS);
    Target { start: start * SECTORS, length: blocks * SECTORS, kind: "linear", parameters }
}

/// The data's part of the host's device.
pub(crate) fn data(host: &str, division: &Division) -> Vec<Target> {
    vec![linear(0, division.data, host, 0)]
}

/// Memory for the head, then the end of the host's device for tags.
pub(crate) fn tags(memory: &str, host: &str, division: &Division) -> Vec<Target> {
    vec![linear(0, HEAD / BLOCK, memory, 0), linear(HEAD / BLOCK, division.tags, host, division.data)]
}

/// dm-integrity in direct mode without a hash of its own: room for tags beside `data`.
pub(crate) fn integrity(data: &str, tags: &str, blocks: u64) -> Vec<Target> {
    let parameters = format!(
        "{data} 0 {TAG} D 4 meta_device:{tags} block_size:{BLOCK} journal_sectors:1 buffer_sectors:{SECTORS}"
    );
    vec![Target { start: 0, length: blocks * SECTORS, kind: "integrity", parameters }]
}

/// dm-crypt as AEAD. `key` is a key's name, not the key.
pub(crate) fn crypt(key: &str, device: &str, blocks: u64) -> Vec<Target> {
    let parameters = format!("{CIPHER} {key} 0 {device} 0 2 integrity:{TAG}:aead sector_size:{BLOCK}");
    vec![Target { start: 0, length: blocks * SECTORS, kind: "crypt", parameters }]
}

/// Whether the kernel took up what it was given: word for word, but dm-integrity adds and rounds.
pub(crate) fn accepted(asked: &Target, found: &Target) -> bool {
    if asked.kind != "integrity" {
        return asked.parameters == found.parameters;
    }
    let asked: Vec<&str> = asked.parameters.split(' ').collect();
    let found: Vec<&str> = found.parameters.split(' ').collect();
    // Device, offset, tag size and mode; the number of options that follow.
    let (Some(asked_fixed), Some(found_fixed)) = (asked.get(..4), found.get(..4)) else { return false };
    let (Some(asked_options), Some(found_options)) = (asked.get(5..), found.get(5..)) else { return false };
    let told = |option: &&str| found_options.contains(option);
    let same = asked_options.iter().filter(|option| !option.starts_with("journal_sectors:")).all(told);
    let known = |option: &&str| {
        if let Some(sectors) = option.strip_prefix("journal_sectors:") {
            // It must end before the first tag.
            return sectors.parse::<u64>().is_ok_and(|sectors| (1..HEAD / 512 - SECTORS).contains(&sectors));
        }
        *option == "interleave_sectors:1" || asked_options.contains(option)
    };
    asked_fixed == found_fixed && same && found_options.iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_divided_without_overlap_and_without_waste() {
        for bytes in [8 << 20, (8 << 20) + 4095, (8 << 20) + 4096, 1 << 30, 516 * 1024, 16 << 40, 129 * 4096]
        {
            let blocks = bytes / BLOCK;
            let Division { data, tags } = Division::of(bytes, false);
            assert!(data + tags <= blocks, "{bytes}");
            assert!(tags * BLOCK >= data * TAG, "{bytes}");
            assert!(data + tags + 1 >= blocks, "{bytes}");
            assert_eq!(
                Division::of(bytes, true),
                Division { data: blocks.min(u64::from(u32::MAX)), tags: 0 }
            );
        }
    }

    #[test]
    fn only_the_asked_integrity_table_is_accepted() {
        let asked = &integrity("253:0", "7:0", 100)[0];
        let found = |parameters: &str| Target { parameters: parameters.to_owned(), ..asked.clone() };
        let good = "253:0 0 32 D 5 meta_device:7:0 block_size:4096 journal_sectors:264 interleave_sectors:1 \
                    buffer_sectors:8";
        assert!(accepted(asked, &found(good)));
        for (from, to) in [
            ("253:0 0", "253:9 0"),
            (" 0 32", " 8 32"),
            (" 32 D", " 16 D"),
            (" D ", " J "),
            ("7:0", "7:1"),
            ("block_size:4096", "block_size:512"),
            (" block_size:4096", ""),
            ("journal_sectors:264", "journal_sectors:512"),
            ("journal_sectors:264", "journal_sectors:0"),
            ("interleave_sectors:1", "interleave_sectors:32768"),
            ("buffer_sectors:8", "buffer_sectors:8 recalculate"),
            ("buffer_sectors:8", "buffer_sectors:8 allow_discards"),
            ("buffer_sectors:8", "buffer_sectors:8 internal_hash:crc32c"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(!accepted(asked, &found(&bad)), "{bad}");
        }
        assert!(!accepted(asked, &found("")));
    }

    #[test]
    fn only_the_asked_cipher_is_accepted() {
        let asked = &crypt(":96:logon:sealpod:v", "253:2", 100)[0];
        assert!(accepted(asked, asked));
        for (from, to) in [
            ("capi:authenc(hmac(sha256),xts(aes))-random", "capi:cipher_null-ecb"),
            ("-random", "-null"),
            ("logon:sealpod:v", "logon:sealpod:w"),
            ("253:2 0", "253:2 8"),
            (" integrity:32:aead", ""),
            ("sector_size:4096", "sector_size:4096 allow_discards"),
        ] {
            let parameters = asked.parameters.replacen(from, to, 1);
            assert_ne!(parameters, asked.parameters);
            assert!(!accepted(asked, &Target { parameters, ..asked.clone() }), "{to}");
        }
    }
}
