//! CMS enveloped data (RFC 5652) around the private options, in ocicrypt's encoding and in DER.
