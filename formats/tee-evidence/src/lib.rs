//! What a TEE hands out as evidence, as bytes and as types: SEV-SNP reports, certificate tables and
//! the JSON form in which the key broker protocol carries them; SEV and SEV-ES certificates, sessions and launch
//! messages. Pure data: nothing here trusts, verifies or measures. Formats: AMD 56860 (SNP firmware ABI), GHCB
//! 56421 (certificate table), AMD 55766 (SEV API). Power PEF: device trees and ESM blobs.

pub mod guid;
pub mod pef;
pub mod reader;
pub mod sev;
pub mod snp;
