//! JSON Web Encryption (RFC 7516) around the private options: flattened, general and compact.
