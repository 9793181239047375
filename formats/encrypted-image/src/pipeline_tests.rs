//! Whole layers both ways, what is refused, and that a refusal takes the stage with it.

use std::cell::Cell;

use super::*;
use crate::cipher::{Decryptor, Encryptor};

/// Gives a few bytes at a time, as a network does, interrupted now and then.
struct Dribble<'a> {
    bytes: &'a [u8],
    step: usize,
    reads: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.step.min(self.bytes.len()).min(buffer.len());
        buffer[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
        Ok(len)
    }
}

struct Stage<'a> {
    bytes: Vec<u8>,
    fails: bool,
    dropped: &'a Cell<bool>,
}

impl Write for Stage<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = bytes.len().min(1000);
        self.bytes.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.dropped.set(true);
    }
}

fn layer(len: usize) -> (Vec<u8>, PrivateOptions) {
    let plain: Vec<u8> = (0..len).map(|at| (at.wrapping_mul(31) >> 3).to_le_bytes()[0]).collect();
    let private = PrivateOptions::generate(Sha256::digest(&plain).into()).unwrap();
    (plain, private)
}

fn encrypted(plain: &[u8], private: &PrivateOptions) -> Encrypted<Vec<u8>> {
    encrypt(plain, Vec::new(), private).unwrap()
}

#[test]
fn both_ways_at_every_edge_of_a_chunk() {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNKS * CHUNK, 3 * CHUNKS * CHUNK + 7] {
        let (plain, private) = layer(len);
        let sealed = encrypted(&plain, &private);
        assert_eq!(sealed.length, len as u64);
        assert_eq!(sealed.encrypted_digest, <[u8; 32]>::from(Sha256::digest(&sealed.stage)));
        let reader = Dribble { bytes: &sealed.stage, step: 100_003, reads: 0 };
        let opened = decrypt(reader, Vec::new(), &private, &sealed.public).unwrap();
        assert!(opened.stage == plain, "{len}");
        assert_eq!(opened.encrypted_digest, sealed.encrypted_digest);
        assert_eq!((opened.proof.length(), opened.proof.digest()), (len as u64, private.digest()));
    }
}

#[test]
fn the_same_as_on_one_thread() {
    let (plain, private) = layer(CHUNK + 100);
    let sealed = encrypted(&plain, &private);
    let mut bytes = plain.clone();
    let mut encryptor = Encryptor::new(private.key(), private.nonce());
    encryptor.update(&mut bytes);
    assert!(bytes == sealed.stage);
    assert_eq!(encryptor.finish(), sealed.public.hmac);
    let mut decryptor = Decryptor::new(&private, &sealed.public);
    decryptor.update(&mut bytes);
    assert!(decryptor.finish().is_ok() && bytes == plain);
}

#[test]
fn changed_layers_are_refused_and_their_stage_is_gone() {
    let (plain, private) = layer(CHUNK + 100);
    let sealed = encrypted(&plain, &private);
    let refused = |bytes: &[u8], private: &PrivateOptions, public: &PublicOptions| {
        let dropped = Cell::new(false);
        let stage = Stage { bytes: Vec::new(), fails: false, dropped: &dropped };
        let error = decrypt(bytes, stage, private, public).map(drop).unwrap_err();
        assert!(dropped.get(), "the stage outlived the refusal");
        error
    };
    for at in [0, CHUNK, CHUNK + 99] {
        let mut bytes = sealed.stage.clone();
        bytes[at] ^= 1;
        assert!(matches!(
            refused(&bytes, &private, &sealed.public),
            PipelineError::Refused(CipherError::Hmac)
        ));
    }
    let cut = &sealed.stage[..CHUNK];
    assert!(matches!(refused(cut, &private, &sealed.public), PipelineError::Refused(CipherError::Hmac)));
    let other = private.clone().with_digest([0; 32]);
    let error = refused(&sealed.stage, &other, &sealed.public);
    assert!(matches!(error, PipelineError::Refused(CipherError::Digest)));
}

#[test]
fn a_source_with_another_digest_is_not_encrypted() {
    let (plain, private) = layer(100);
    let error = encrypt(&plain[1..], Vec::new(), &private).unwrap_err();
    assert!(matches!(error, PipelineError::Source));
}

#[test]
fn readers_and_stages_that_fail() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let (plain, private) = layer(CHUNK * 20);
    let read = encrypt(plain.as_slice().chain(Broken), Vec::new(), &private).unwrap_err();
    assert!(matches!(read, PipelineError::Read(_)), "{read}");
    let dropped = Cell::new(false);
    let stage = Stage { bytes: Vec::new(), fails: true, dropped: &dropped };
    let write =
        decrypt(plain.as_slice(), stage, &private, &PublicOptions::new([0; 32])).map(drop).unwrap_err();
    assert!(matches!(write, PipelineError::Write(_)), "{write}");
    assert!(dropped.get());
}
