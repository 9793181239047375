//! The table of hashes that QEMU writes for the guest firmware to check kernel, initrd and command line
//! against (`kernel-hashes=on`): QEMU target/i386/sev.c, OVMF BlobVerifierLibSevHashes.

use sha2::{Digest, Sha256};
use tee_evidence::guid::Guid;

use crate::LaunchError;

/// Length of the table with its padding, which is measured too.
pub const HASH_TABLE_LEN: usize = 176;

const TABLE: Guid = Guid::new(0x9438d606_4f22_4cc9_b479_a793d411fd21);
const COMMAND_LINE: Guid = Guid::new(0x97d02dd8_bd20_4c94_aa78_e7714d36ab2a);
const INITRD: Guid = Guid::new(0x44baf731_3a2f_4bd7_9af1_41e29169781d);
const KERNEL: Guid = Guid::new(0x4de79437_abd2_427f_b835_d5b172d2045b);
const ENTRY_LEN: usize = 16 + 2 + 32;
const TABLE_LEN: usize = 16 + 2 + 3 * ENTRY_LEN;

/// What QEMU loads with `-kernel`, `-initrd` and `-append`.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The kernel image, as in its file.
    pub kernel: &'a [u8],
    /// The initrd, as in its file; empty if there is none, which is measured as such.
    pub initrd: &'a [u8],
    /// The command line exactly as passed: every space counts.
    pub cmdline: &'a str,
}

impl Kernel<'_> {
    /// The padded table as it stands in the guest's memory.
    pub fn hash_table(&self) -> Result<[u8; HASH_TABLE_LEN], LaunchError> {
        if self.cmdline.contains('\0') {
            return Err(LaunchError::CommandLine);
        }
        let mut command_line = Sha256::new();
        command_line.update(self.cmdline);
        // The guest is given a C string, and its end is hashed with it.
        command_line.update([0]);
        let mut table = Vec::with_capacity(HASH_TABLE_LEN);
        table.extend_from_slice(&TABLE.to_efi_bytes());
        table.extend_from_slice(&(TABLE_LEN as u16).to_le_bytes());
        for (guid, hash) in [
            (COMMAND_LINE, command_line.finalize()),
            (INITRD, Sha256::digest(self.initrd)),
            (KERNEL, Sha256::digest(self.kernel)),
        ] {
            table.extend_from_slice(&guid.to_efi_bytes());
            table.extend_from_slice(&(ENTRY_LEN as u16).to_le_bytes());
            table.extend_from_slice(&hash);
        }
        let mut padded = [0; HASH_TABLE_LEN];
        padded[..TABLE_LEN].copy_from_slice(&table);
        Ok(padded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_every_space_changes_the_table() {
        let kernel = Kernel { kernel: b"k", initrd: b"i", cmdline: "a b" };
        let table = kernel.hash_table().unwrap();
        assert_eq!(table[168..], [0; 8]);
        for other in [
            Kernel { kernel: b"K", ..kernel },
            Kernel { initrd: b"", ..kernel },
            Kernel { cmdline: "a b ", ..kernel },
            Kernel { cmdline: " a b", ..kernel },
            Kernel { cmdline: "", ..kernel },
        ] {
            assert_ne!(other.hash_table().unwrap(), table);
        }
    }

    #[test]
    fn a_command_line_with_a_nul_is_refused() {
        let kernel = Kernel { kernel: b"k", initrd: b"", cmdline: "quiet\0init=/bin/sh" };
        assert_eq!(kernel.hash_table(), Err(LaunchError::CommandLine));
    }
}
