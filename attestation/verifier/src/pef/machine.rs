//! Machines, by the RSA-2048 public key of their TPM. A machine's key has the exponent 65537; the emulator's
//! software TPM has 257, and is trusted only where the configuration names its key.

use ring::digest::{SHA256, digest};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, DecodePem, EncodePem, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::Enrolment;
use crate::denial::refuse;
use crate::{Denial, Trust};

/// PKCS #1 `rsaEncryption`.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const MODULUS: usize = 256;
/// 65537.
const HARDWARE: &[u8] = &[1, 0, 1];
/// 257, which no TPM makes.
const SOFTWARE: &[u8] = &[1, 1];
const MAX_PEM: usize = 2048;

/// Why a text is no machine's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Not PEM of a public key, or not in the one form whose hash is the fingerprint.
    #[error("not the PEM text of a public key as 'openssl pkey -pubin' writes it, line end included")]
    Pem,
    /// Not RSA-2048.
    #[error("not an RSA key of 2048 bits")]
    Rsa,
    /// An exponent that neither TPMs nor the emulator have.
    #[error("an RSA key with an exponent other than 65537")]
    Exponent,
}

/// The public key of a machine's TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineKey {
    fingerprint: [u8; 32],
    software: bool,
}

impl MachineKey {
    /// Reads a key in PEM.
    ///
    /// # Errors
    /// If it is none, or has another form than the one that is hashed.
    pub fn from_pem(text: &str) -> Result<Self, MachineError> {
        if text.len() > MAX_PEM {
            return Err(MachineError::Pem);
        }
        let key = SubjectPublicKeyInfoOwned::from_pem(text).map_err(|_| MachineError::Pem)?;
        // One key has one fingerprint.
        if key.to_pem(LineEnding::LF).map_err(|_| MachineError::Pem)? != text {
            return Err(MachineError::Pem);
        }
        let bits = key.subject_public_key.as_bytes().ok_or(MachineError::Rsa)?;
        let (modulus, exponent) = parts(bits).map_err(|_| MachineError::Rsa)?;
        let top_and_odd = modulus.first().is_some_and(|byte| *byte >= 0x80)
            && modulus.last().is_some_and(|byte| byte % 2 == 1);
        if key.algorithm.oid != RSA || modulus.len() != MODULUS || !top_and_odd {
            return Err(MachineError::Rsa);
        }
        let software = match exponent {
            HARDWARE => false,
            SOFTWARE => true,
            _ => return Err(MachineError::Exponent),
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Ok(Self { fingerprint, software })
    }

    /// SHA-256 of the PEM text, as the blob's lockbox has it.
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Is it a key that an emulator made?
    pub const fn is_software(&self) -> bool {
        self.software
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn parts(bits: &[u8]) -> x509_cert::der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(bits)?;
    let parts = reader.sequence(|reader| {
        Ok::<_, x509_cert::der::Error>((
            UintRef::decode(reader)?.as_bytes(),
            UintRef::decode(reader)?.as_bytes(),
        ))
    })?;
    reader.finish()?;
    Ok(parts)
}

/// Software TPM keys that the configuration names. Machines' own keys are trusted by the owner's signature
/// alone.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    emulated: Vec<MachineKey>,
}

impl Anchors {
    /// Trusts a software TPM's key as well.
    #[must_use]
    pub fn with_emulated(mut self, key: MachineKey) -> Self {
        self.emulated.push(key);
        self
    }

    /// The software TPM keys.
    pub fn emulated(&self) -> &[MachineKey] {
        &self.emulated
    }

    /// Whose word counts for a blob: it is as good as the worst machine that opens it.
    ///
    /// # Errors
    /// If it can be opened by no machine, or by a software TPM that isn't trusted.
    pub fn check(&self, enrolment: &Enrolment) -> Result<Trust, Denial> {
        if enrolment.machines.is_empty() {
            return refuse!(CertificateChain, "no machine can open blob {}", enrolment.blob);
        }
        let mut worst = Trust::Enrolled { machines: enrolment.machines.len() };
        for machine in enrolment.machines.iter().filter(|machine| machine.is_software()) {
            let fingerprint = *machine.fingerprint();
            if !self.emulated.contains(machine) {
                return refuse!(
                    CertificateChain,
                    "blob {} can be opened by the software TPM key {}, which is not trusted here",
                    enrolment.blob,
                    hex::encode(fingerprint)
                );
            }
            worst = Trust::Emulated { common_name: "software TPM key".to_owned(), fingerprint };
        }
        Ok(worst)
    }
}
