//! Collateral: the certificates and revocation lists of AMD that evidence is verified with. A cache in a
//! directory and in memory, the key distribution service (or mirrors of it) behind it, bundles for sites
//! without a network, and the merging with what a guest's host supplies. (AMD 57230.)
//!
//! Nothing here decides whether evidence is good. Each piece is checked before it is kept: it is what was
//! asked for, and signed by what stands above it, up to a root that is accepted here. A verifier checks
//! all of it again, with dates and revocation, at each use.

mod bundle;
mod chip;
mod collateral;
mod directory;
mod http;
mod item;
mod kds;
mod key;
mod memory;
mod merge;
mod note;
mod sources;
mod table;
mod tls;
mod x509;

pub use bundle::{BundleError, Imported, MAX_BYTES, MAX_ENTRIES, Piece, identify, read, write};
pub use chip::{ChipError, vcek_of, vcek_of_report};
pub use collateral::{Added, Collateral, Found, OpenError, Reach, Settings, Sev, Tell};
pub use directory::{Bounds, DirectoryError};
pub use http::{Patience, UrlError};
pub use item::{Item, ItemError, Roots};
pub use kds::AMD_KDS;
pub use key::{Csp, Key, Line, SevProduct, show};
pub use merge::{CertificateTableError, Completed};
pub use note::{Note, Why};
pub use sources::{SourceError, gather};
pub use table::table;
pub use tls::TlsError;
pub use x509::X509Error;
