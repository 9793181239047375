//! Reproducible initrd builder.
