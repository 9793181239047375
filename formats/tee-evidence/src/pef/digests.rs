//! What the ultravisor compares a launch with: SHA-512 of each part. It is the plaintext of a blob's
//! `digests-fdt`.

use super::esm::{COMPATIBLE, EsmError, array, exactly, text};
use super::fdt::Node;

/// Digests of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The five instructions of RTAS that QEMU's firmware leaves in the guest.
    pub rtas: [u8; 64],
    /// The kernel as it lies in memory: `objcopy -O binary -S vmlinux`.
    pub kernel: [u8; 64],
    /// Its size in bytes.
    pub kernel_size: u32,
    /// The initrd, without the archive in front of it that carries the blob.
    pub initrd: [u8; 64],
    /// The kernel's command line, without a NUL at its end.
    pub bootargs: [u8; 64],
}

const SHA512: &str = "SHA512";
const ORDER: [&str; 7] = ["compatible", "algorithm", "rtas", "kernel", "kernel-size", "initrd", "bootargs"];

impl Digests {
    /// Reads the plaintext of `digests-fdt`. Each digest has to be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, EsmError> {
        let root = Node::parse(bytes).map_err(EsmError::Fdt)?;
        exactly(&root, "/", &["compatible"], &["digests"])?;
        if text(&root, "compatible")? != COMPATIBLE {
            return Err(EsmError::Compatible);
        }
        let node = root.child("digests").ok_or(EsmError::Missing("digests"))?;
        exactly(node, "/digests", &ORDER[1..], &[])?;
        if text(node, "algorithm")? != SHA512 {
            return Err(EsmError::Algorithm);
        }
        Ok(Self {
            rtas: array(node, "rtas")?,
            kernel: array(node, "kernel")?,
            kernel_size: u32::from_be_bytes(array(node, "kernel-size")?),
            initrd: array(node, "initrd")?,
            bootargs: array(node, "bootargs")?,
        })
    }

    /// Writes the plaintext of `digests-fdt`.
    pub fn encode(&self) -> Result<Vec<u8>, EsmError> {
        // libfdt puts each new property in front of the others.
        let digests = Node::new("digests")
            .with("bootargs", self.bootargs)
            .with("initrd", self.initrd)
            .with("kernel-size", self.kernel_size.to_be_bytes())
            .with("kernel", self.kernel)
            .with("rtas", self.rtas)
            .with_text("algorithm", SHA512);
        let root = Node::default().with_text("compatible", COMPATIBLE).with_child(digests);
        root.encode(&ORDER).map_err(EsmError::Fdt)
    }
}
