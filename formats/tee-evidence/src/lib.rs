//! SEV-SNP evidence layouts and what report_data binds.
