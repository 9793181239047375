//! Which roots are trusted: AMD's, pinned here by a hash of what they sign themselves, and emulated ones only where
//! the configuration of whoever verifies names their file.

use ring::digest::{SHA256, digest};
use tee_evidence::sev::{Authority, AuthorityError, Usage};

use super::SevProduct;
use super::crypto::verify_rsa;
use crate::Trust;

/// Key id of every emulated root. Nothing with it is ever trusted as AMD's.
pub const EMULATED_KEY_ID: [u8; 16] = *b"SEALPOD-EMULATED";

/// SHA-256 of header, exponent and modulus of the ARKs that AMD publishes.
const AMD_ROOTS: [(SevProduct, [u8; 32]); 5] = [
    (
        SevProduct::Naples, // key id 1bb987c359494606b174945601c9ea5b, 2048 bits
        [
            0x8e, 0xfd, 0xdc, 0xaa, 0xf8, 0x49, 0x90, 0xcf, 0x63, 0x54, 0xd9, 0x36, 0x37, 0xbe, 0x27, 0x02,
            0x20, 0xcf, 0x15, 0x79, 0x73, 0x32, 0xb3, 0xd9, 0x18, 0xc3, 0xb8, 0xcc, 0x77, 0x34, 0x9f, 0x31,
        ],
    ),
    (
        SevProduct::Rome, // key id e6002122fb58419399d15fee7b131351
        [
            0xae, 0x24, 0x56, 0xaf, 0x6c, 0x6a, 0xd2, 0x34, 0xba, 0xdd, 0x6c, 0x75, 0xe5, 0x89, 0x15, 0xbe,
            0x61, 0x56, 0x82, 0x86, 0x76, 0x60, 0x83, 0x85, 0x3b, 0xf6, 0x68, 0xe6, 0xe2, 0x39, 0x77, 0xc3,
        ],
    ),
    (
        SevProduct::Milan, // key id 94c38e4177d0479292a7ae671d083fb6
        [
            0x26, 0x3b, 0x13, 0xfd, 0x31, 0x70, 0xc6, 0xff, 0xbb, 0x0b, 0x4f, 0x01, 0xf0, 0x98, 0x48, 0xdc,
            0x08, 0xa8, 0xdc, 0x1e, 0x96, 0x37, 0xd4, 0x7e, 0x42, 0xcb, 0xe6, 0xc1, 0x35, 0xe4, 0xaf, 0x12,
        ],
    ),
    (
        SevProduct::Genoa, // key id 9f9d4a8fe761456599f6946c4c010f3a
        [
            0x97, 0x3d, 0xf6, 0x26, 0x5e, 0x1b, 0x40, 0xcf, 0x88, 0x83, 0x30, 0x5c, 0x1f, 0x6a, 0x6c, 0xd2,
            0x54, 0x97, 0x94, 0x46, 0xac, 0xb4, 0x0b, 0xd3, 0x96, 0x94, 0x6b, 0x2f, 0x19, 0xe7, 0x51, 0xe9,
        ],
    ),
    (
        SevProduct::Turin, // key id d05c3a8bde484904b49552422ceb3942
        [
            0x89, 0x32, 0x76, 0x96, 0xf8, 0x08, 0x2b, 0x20, 0xf5, 0xa5, 0x88, 0x56, 0x5a, 0xdc, 0x26, 0xd4,
            0x78, 0xe1, 0xc6, 0xd5, 0x61, 0x53, 0xc1, 0xde, 0x65, 0x6e, 0x63, 0x39, 0x6b, 0x8f, 0x8e, 0x20,
        ],
    ),
];

/// Why a file is not taken as an emulated root.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Not certificates of the right form.
    #[error("emulated SEV root: {0}")]
    Read(#[from] AuthorityError),
    /// Not exactly one root, or no signature of its own.
    #[error("emulated SEV root: the file must hold one ARK that signs itself, and its ASKs")]
    NoRoot,
    /// It does not say that it is an emulated one, so it must not be trusted as one.
    #[error(
        "emulated SEV root: its key id is not 'SEALPOD-EMULATED'; use the file that 'sealpod-emulator' wrote"
    )]
    NotMarked,
}

/// The roots that a platform may lead to.
#[derive(Debug, Clone)]
pub struct Anchors {
    amd: Vec<(SevProduct, [u8; 32])>,
    emulated: Vec<[u8; 32]>,
    /// ASKs and ARKs that came with the emulated roots, so that no cache is needed for them.
    authorities: Vec<Authority>,
}

impl Anchors {
    /// AMD's roots from Naples to Turin.
    pub fn amd() -> Self {
        Self { amd: AMD_ROOTS.to_vec(), emulated: Vec::new(), authorities: Vec::new() }
    }

    /// Also trusts an emulated root: a file in AMD's form, ASK and ARK one after the other. A platform under it is
    /// only ever of an emulated kind.
    pub fn with_emulated(mut self, bundle: &[u8]) -> Result<Self, AnchorError> {
        let authorities = Authority::parse_bundle(bundle)?;
        let mut roots = authorities.iter().filter(|authority| authority.usage() == Usage::Ark);
        let (Some(root), None) = (roots.next(), roots.next()) else { return Err(AnchorError::NoRoot) };
        if *root.key_id() != EMULATED_KEY_ID {
            return Err(AnchorError::NotMarked);
        }
        let signed = root.signature().is_some_and(|signature| verify_rsa(root, root.body(), signature));
        if !signed || root.certifying_id() != root.key_id() {
            return Err(AnchorError::NoRoot);
        }
        self.emulated.push(fingerprint(root));
        self.authorities.extend(authorities);
        Ok(self)
    }

    /// The emulated roots, for whoever has to say loudly that there are some.
    pub fn emulated(&self) -> impl Iterator<Item = Trust> {
        self.emulated.iter().map(emulated_trust)
    }

    /// Whose root this is, if anyone's.
    pub(crate) fn find(&self, root: &Authority) -> Option<(SevProduct, Trust)> {
        let found = fingerprint(root);
        // The marker decides which list counts, so no root can be in both.
        if *root.key_id() == EMULATED_KEY_ID {
            let anchor = self.emulated.iter().find(|anchor| **anchor == found)?;
            return Some((SevProduct::Emulated, emulated_trust(anchor)));
        }
        let (product, _) = self.amd.iter().find(|(_, pinned)| *pinned == found)?;
        Some((*product, Trust::Amd))
    }

    pub(crate) fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// Another root in the place of AMD's: with AMD's own, no test could break one thing in a chain.
    #[cfg(test)]
    pub(crate) fn pinned(product: SevProduct, root: &Authority) -> Self {
        Self { amd: vec![(product, fingerprint(root))], emulated: Vec::new(), authorities: Vec::new() }
    }
}

fn fingerprint(root: &Authority) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, root.body()).as_ref());
    out
}

fn emulated_trust(fingerprint: &[u8; 32]) -> Trust {
    Trust::Emulated { common_name: "emulated SEV ARK".to_owned(), fingerprint: *fingerprint }
}
