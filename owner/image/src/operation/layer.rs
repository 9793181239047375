//! One layer's bytes, through one of the pipelines. What comes out is staged: nobody sees it yet.

use encrypted_image::authenticate::split;
use encrypted_image::{
    Authenticated, CipherError, Compression, DigestCheck, Keystream, Mac, MacCheck, PrivateOptions,
    PublicOptions, Staged,
};

use crate::document::{Descriptor, Digest};
use crate::error::{ImageError, Problem};
use crate::operation::Job;
use crate::pipeline::{Hash, Inflate, Pass, PassError, Write, run};
use crate::store::{Stage, StoreError};
use crate::tree::Image;

/// Why a layer didn't get through: what is wrong with it, or with a store.
pub(super) enum Fault {
    Store(StoreError),
    Problem(Problem),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<PassError> for Fault {
    fn from(error: PassError) -> Self {
        Self::Problem(error.into())
    }
}

impl From<CipherError> for Fault {
    fn from(error: CipherError) -> Self {
        Self::Problem(error.into())
    }
}

impl Fault {
    /// As an error about a layer of an image.
    pub(super) fn of(self, image: &Image, layer: usize) -> ImageError {
        match self {
            Self::Store(error) => error.into(),
            Self::Problem(problem) => ImageError::layer(image, layer, problem),
        }
    }

    /// As an error about a blob.
    pub(super) fn about(self, blob: &Descriptor) -> ImageError {
        match self {
            Self::Store(error) => error.into(),
            Self::Problem(problem) => ImageError::about(&blob.digest, problem),
        }
    }
}

/// An encrypted layer that waits to be published.
pub(super) struct Sealed {
    pub(super) stage: Box<dyn Stage>,
    pub(super) digest: Digest,
    pub(super) public: PublicOptions,
}

/// A decrypted layer that waits to be published, HMAC and private digest checked.
pub(super) struct Opened {
    pub(super) stage: Box<dyn Stage>,
    pub(super) digest: Digest,
    pub(super) diff_id: Digest,
}

/// Encrypts a plain layer whose digest is in `private`.
pub(super) fn seal(job: Job<'_>, layer: &Descriptor, private: &PrivateOptions) -> Result<Sealed, Fault> {
    let meter = job.observer.begin("encrypting", layer);
    let reader = job.source.open(layer)?;
    let mut stage = job.destination.stage()?;
    let (mut plain, mut digest) = (Hash::new(), Hash::new());
    let (mut keystream, mut mac) = (Cipher::new(private), MacPass(Mac::new(private.key())));
    let mut write = Write::new(&mut stage);
    run(
        reader,
        layer.size,
        &mut [&mut [&mut plain], &mut [&mut keystream, &mut mac], &mut [&mut digest, &mut write]],
        &*meter,
    )?;
    expect(layer.digest, plain.digest())?;
    Ok(Sealed { stage, digest: digest.digest(), public: PublicOptions::new(mac.0.finish()) })
}

/// Decrypts a layer, with every check that it is what was encrypted.
pub(super) fn open(
    job: Job<'_>,
    layer: &Descriptor,
    compression: Compression,
    private: &PrivateOptions,
    public: &PublicOptions,
) -> Result<Opened, Fault> {
    let meter = job.observer.begin("decrypting", layer);
    let reader = job.source.open(layer)?;
    let mut staged = Staged::new(job.destination.stage()?, private);
    let (mut checks, mut keystream) = Checks::new(private, public);
    let mut inflate = Inflate::new(compression)?;
    let mut write = Write::new(staged.unauthenticated());
    run(
        reader,
        layer.size,
        &mut [
            &mut [&mut checks.digest, &mut checks.mac],
            &mut [&mut keystream, &mut checks.plain, &mut write],
            &mut [&mut inflate],
        ],
        &*meter,
    )?;
    let proof = checks.finish(layer)?;
    let digest = Digest::from(*proof.digest());
    Ok(Opened { stage: staged.publish(&proof)?, digest, diff_id: inflate.diff_id()? })
}

/// Decrypts with one key and encrypts with another; the plain bytes are only in memory.
pub(super) fn reseal(
    job: Job<'_>,
    layer: &Descriptor,
    compression: Compression,
    old: (&PrivateOptions, &PublicOptions),
    new: &PrivateOptions,
) -> Result<(Sealed, Digest), Fault> {
    let meter = job.observer.begin("rotating", layer);
    let reader = job.source.open(layer)?;
    let mut stage = job.destination.stage()?;
    let (mut checks, mut keystream) = Checks::new(old.0, old.1);
    let mut inflate = Inflate::new(compression)?;
    let (mut again, mut mac, mut digest) = (Cipher::new(new), MacPass(Mac::new(new.key())), Hash::new());
    let mut write = Write::new(&mut stage);
    run(
        reader,
        layer.size,
        &mut [
            &mut [&mut checks.digest, &mut checks.mac],
            &mut [&mut keystream, &mut checks.plain],
            &mut [&mut inflate],
            &mut [&mut again, &mut mac, &mut digest, &mut write],
        ],
        &*meter,
    )?;
    checks.finish(layer)?;
    let sealed = Sealed { stage, digest: digest.digest(), public: PublicOptions::new(mac.0.finish()) };
    Ok((sealed, inflate.diff_id()?))
}

/// Copies a blob as it is, unless the destination has it, and says what it unpacks to where that is asked.
pub(super) fn copy(
    job: Job<'_>,
    blob: &Descriptor,
    compression: Option<Compression>,
) -> Result<Option<Digest>, Fault> {
    let there = job.destination.has(blob)?;
    if there && compression.is_none() {
        return Ok(None);
    }
    let meter = job.observer.begin(if there { "verifying" } else { "copying" }, blob);
    if !there && compression.is_none() && job.destination.transfer(job.source, blob, &*meter)? {
        return Ok(None);
    }
    let reader = job.source.open(blob)?;
    let mut stage = if there { None } else { Some(job.destination.stage()?) };
    let mut digest = Hash::new();
    let mut inflate = compression.map(Inflate::new).transpose()?;
    let mut write = stage.as_mut().map(Write::new);
    let mut writes: Vec<&mut dyn Pass> = write.iter_mut().map(|write| write as &mut dyn Pass).collect();
    let mut inflates: Vec<&mut dyn Pass> =
        inflate.iter_mut().map(|inflate| inflate as &mut dyn Pass).collect();
    run(reader, blob.size, &mut [&mut [&mut digest], &mut writes, &mut inflates], &*meter)?;
    expect(blob.digest, digest.digest())?;
    if let Some(stage) = stage {
        stage.publish(blob)?;
    }
    Ok(inflate.map(|inflate| inflate.diff_id()).transpose()?)
}

fn expect(expected: Digest, found: Digest) -> Result<(), Problem> {
    if expected == found { Ok(()) } else { Err(Problem::Digest { found }) }
}

/// Everything that is checked of an encrypted layer, apart from what it unpacks to.
struct Checks {
    digest: Hash,
    mac: Check<MacCheck>,
    plain: Check<DigestCheck>,
}

impl Checks {
    fn new(private: &PrivateOptions, public: &PublicOptions) -> (Self, Cipher) {
        let (mac, keystream, plain) = split(private, public);
        (Self { digest: Hash::new(), mac: Check(mac), plain: Check(plain) }, Cipher(keystream))
    }

    fn finish(self, layer: &Descriptor) -> Result<Authenticated, Problem> {
        expect(layer.digest, self.digest.digest())?;
        let authenticated: Result<Authenticated, CipherError> =
            self.mac.0.finish().and_then(|mac| Authenticated::join(mac, self.plain.0.finish()?));
        Ok(authenticated?)
    }
}

struct Cipher(Keystream);

impl Cipher {
    fn new(private: &PrivateOptions) -> Self {
        Self(Keystream::new(private.key(), private.nonce()))
    }
}

impl Pass for Cipher {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.apply(bytes);
        Ok(())
    }
}

struct MacPass(Mac);

impl Pass for MacPass {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.update(bytes);
        Ok(())
    }
}

struct Check<T>(T);

impl Pass for Check<MacCheck> {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.update(bytes);
        Ok(())
    }
}

impl Pass for Check<DigestCheck> {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.update(bytes);
        Ok(())
    }
}
