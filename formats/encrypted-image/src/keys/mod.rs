//! Keys of recipients and of those who open: PEM, DER, JWK, certificates.
