//! OpenPGP (RFC 9580, and RFC 4880 before it) as far as image signatures need it: keyrings of version 4 keys, and
//! signed messages. Signatures by RSA from 2048 bits, Ed25519 and ECDSA on P-256 and P-384, over SHA-256, SHA-384
//! or SHA-512. Nothing is decrypted, and no trust is computed: the keyring of the policy is the trust.

mod armor;
mod certificate;
mod cursor;
mod key;
mod keyring;
mod message;
mod packet;
mod signature;
mod subpacket;

pub(crate) use armor::unarmored;
pub(crate) use keyring::Keyring;
pub(crate) use message::open;

/// How far a signer's clock may be ahead of this one, in seconds.
const CLOCK_SKEW: u64 = 300;

#[cfg(test)]
mod tests;
