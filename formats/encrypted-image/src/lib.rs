//! OCI image layer encryption as ocicrypt writes it: media types, annotations, the cipher, key wrappers.
//! Pure data: no I/O. Nothing here trusts a byte that a registry sent.
