//! That a proof comes from both checks of one layer only, and lets only that layer out of its stage.

use super::*;
use crate::cipher::Encryptor;

fn sealed(plain: &[u8]) -> (PrivateOptions, PublicOptions, Vec<u8>) {
    let private = PrivateOptions::generate(Sha256::digest(plain).into()).unwrap();
    let mut encryptor = Encryptor::new(private.key(), private.nonce());
    let mut bytes = plain.to_vec();
    encryptor.update(&mut bytes);
    (private, PublicOptions::new(encryptor.finish()), bytes)
}

fn passed(plain: &[u8]) -> (PrivateOptions, MacPassed, DigestPassed) {
    let (private, public, encrypted) = sealed(plain);
    let (mut mac, mut keystream, mut digest) = split(&private, &public);
    mac.update(&encrypted);
    let mut bytes = encrypted;
    keystream.apply(&mut bytes);
    digest.update(&bytes);
    (private, mac.finish().unwrap(), digest.finish().unwrap())
}

#[test]
fn both_checks_of_a_layer_make_a_proof() {
    let (private, mac, digest) = passed(b"one");
    let proof = Authenticated::join(mac, digest).unwrap();
    assert_eq!((proof.digest(), proof.length()), (private.digest(), 3));
    assert_eq!(Staged::new("stage", &private).publish(&proof), Ok("stage"));
}

#[test]
fn checks_of_two_layers_make_none() {
    let (_, mac, _) = passed(b"one");
    let (_, _, digest) = passed(b"two");
    assert_eq!(Authenticated::join(mac, digest).unwrap_err(), CipherError::Mixed);
    // The same plain text under another key is another layer, too.
    let (_, mac, _) = passed(b"one");
    let (_, _, digest) = passed(b"one");
    assert_eq!(Authenticated::join(mac, digest).unwrap_err(), CipherError::Mixed);
}

#[test]
fn checks_over_different_lengths_make_none() {
    let (_, mac, mut digest) = passed(b"one");
    digest.0.length += 1;
    assert_eq!(Authenticated::join(mac, digest).unwrap_err(), CipherError::Mixed);
}

#[test]
fn a_check_that_saw_nothing_fails() {
    let (private, public, _) = sealed(b"one");
    let (mac, _, digest) = split(&private, &public);
    assert_eq!(mac.finish().unwrap_err(), CipherError::Hmac);
    assert_eq!(digest.finish().unwrap_err(), CipherError::Digest);
}

#[test]
fn another_layers_proof_publishes_nothing() {
    struct Removed<'a>(&'a std::cell::Cell<bool>);
    impl Drop for Removed<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let removed = std::cell::Cell::new(false);
    let (private, ..) = sealed(b"one");
    let (_, mac, digest) = passed(b"two");
    let proof = Authenticated::join(mac, digest).unwrap();
    assert!(Staged::new(Removed(&removed), &private).publish(&proof).is_err());
    assert!(removed.get(), "the stage outlived the refusal");
}
