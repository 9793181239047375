//! What a TEE hands out as evidence, as bytes and as types: SEV-SNP reports, certificate tables and
//! the JSON form in which the key broker protocol carries them. Pure data: nothing here trusts,
//! verifies or measures. Formats: AMD 56860 (SNP firmware ABI), GHCB 56421 (certificate table).

pub mod guid;
pub mod reader;
pub mod snp;
