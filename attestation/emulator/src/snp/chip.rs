//! What a processor is born with: one secret, and the keys and ids that follow from it.

use crate::snp::product::{Product, Tcb};
use crate::snp::report::KeyKind;
use p384::ecdsa::SigningKey;
use sha2::{Digest, Sha384, Sha512};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a chip's secret.
pub const SECRET: usize = 48;

/// An emulated chip.
pub struct Chip {
    product: Product,
    secret: Zeroizing<[u8; SECRET]>,
}

impl fmt::Debug for Chip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Chip({})", self.product.name())
    }
}

impl Chip {
    /// The chip with this secret.
    pub fn new(product: Product, secret: [u8; SECRET]) -> Self {
        Self { product, secret: Zeroizing::new(secret) }
    }

    /// Its generation.
    pub fn product(&self) -> Product {
        self.product
    }

    /// The hardware id: 64 bytes, of which Turin uses the first 8.
    pub fn id(&self) -> [u8; 64] {
        let mut id: [u8; 64] = Sha512::new()
            .chain_update(b"sealpod emulated chip id")
            .chain_update(*self.secret)
            .finalize()
            .into();
        id[self.product.hardware_id_length()..].fill(0);
        id
    }

    /// The versioned endorsement key: the chip's own (VCEK), or one as if a cloud provider had loaded it
    /// (VLEK). As on hardware, each TCB has its own.
    pub(crate) fn signing_key(&self, kind: KeyKind, tcb: Tcb) -> SigningKey {
        let label: &[u8] = match kind {
            KeyKind::Vcek => b"sealpod emulated vcek",
            KeyKind::Vlek => b"sealpod emulated vlek",
        };
        self.elliptic_key(label, &tcb.encode(self.product))
    }

    /// A key of the platform before SNP (CEK, OCA, PEK, PDH), by its name.
    pub(crate) fn sev_key(&self, name: &str) -> SigningKey {
        self.elliptic_key(b"sealpod emulated sev ", name.as_bytes())
    }

    fn elliptic_key(&self, label: &[u8], version: &[u8]) -> SigningKey {
        let mut counter = 0_u8;
        loop {
            let mut scalar: [u8; 48] = Sha384::new()
                .chain_update(label)
                .chain_update(*self.secret)
                .chain_update(version)
                .chain_update([counter])
                .finalize()
                .into();
            let key = SigningKey::from_slice(&scalar);
            scalar.zeroize();
            // Refused for zero and for values from the group order on: one in 2^190.
            if let Ok(key) = key {
                return key;
            }
            counter = counter.wrapping_add(1);
        }
    }

    /// MSG_KEY_REQ: a key that depends on what the guest chose to mix in.
    pub(crate) fn derived_key(&self, selected: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut wide: [u8; 48] = Sha384::new()
            .chain_update(b"sealpod emulated derived key")
            .chain_update(*self.secret)
            .chain_update(selected)
            .finalize()
            .into();
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&wide[..32]);
        wide.zeroize();
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcek(chip: &Chip, tcb: Tcb) -> SigningKey {
        chip.signing_key(KeyKind::Vcek, tcb)
    }

    #[test]
    fn keys_and_ids_follow_from_the_secret() {
        let chip = Chip::new(Product::Milan, [7; SECRET]);
        let same = Chip::new(Product::Milan, [7; SECRET]);
        let other = Chip::new(Product::Milan, [8; SECRET]);
        assert_eq!(chip.id(), same.id());
        assert_ne!(chip.id(), other.id());
        let tcb = Tcb::default();
        assert_eq!(vcek(&chip, tcb).to_bytes(), vcek(&same, tcb).to_bytes());
        assert_ne!(vcek(&chip, tcb).to_bytes(), vcek(&other, tcb).to_bytes());
        assert_ne!(vcek(&chip, tcb).to_bytes(), chip.signing_key(KeyKind::Vlek, tcb).to_bytes());
        assert_ne!(vcek(&chip, tcb).to_bytes(), vcek(&chip, Tcb { snp: 1, ..tcb }).to_bytes());
    }

    #[test]
    fn a_turin_id_has_eight_bytes() {
        let id = Chip::new(Product::Turin, [7; SECRET]).id();
        assert_ne!(id[..8], [0; 8]);
        assert_eq!(id[8..], [0; 56]);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Chip::new(Product::Genoa, [7; SECRET])), "Chip(Genoa)");
    }
}
