//! Expected SEV and SEV-SNP launch digests.
