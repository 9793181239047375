//! Key files in a directory, read as the tests of keys need them.

use std::path::Path;

use encrypted_image::keys::{KeyError, PrivateKey, PublicKey};

use super::{openssl, read};

pub(crate) fn private(dir: &Path, name: &str) -> Result<PublicKey, KeyError> {
    PrivateKey::parse(&read(dir, name)).map(|key| key.public().unwrap())
}

pub(crate) fn public(dir: &Path, name: &str) -> Result<PublicKey, KeyError> {
    PublicKey::parse(&read(dir, name))
}

pub(crate) fn error<T>(result: Result<T, KeyError>) -> KeyError {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(error) => error,
    }
}

/// Runs openssl once a line.
pub(crate) fn make(dir: &Path, lines: &str) {
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| drop(openssl(dir, line)));
}
