//! From a signature by a blob's key to a verdict.

use ring::signature::{ED25519, UnparsedPublicKey};
use subtle::ConstantTimeEq;

use super::{Anchors, MachineKey, PefClaims};
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Appraised, Check, Claims, Denial, TeeKind, Trust, Verdict};

/// What a blob's key signs starts with this.
const CONTEXT: &[u8] = b"sealpod-pef-v1";
const PLAN: &[&str] =
    &["evidence_layout", "blob_enrolled", "machines", "signature", "report_data", "init_data", "sealed_spec"];

/// What the owner enrolled: signed by the owner, kept by the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Who enrolled it.
    pub repository: String,
    /// Whose guests it is for.
    pub lineage: String,
    /// Which blob.
    pub blob: String,
    /// The Ed25519 public key whose seed is in the blob.
    pub key: [u8; 32],
    /// SHA-256 of the initdata in the blob.
    pub init_data: [u8; 32],
    /// SHA-256 of the sealed spec in the blob.
    pub sealed_spec: [u8; 32],
    /// Machines that can open the blob.
    pub machines: Vec<MachineKey>,
}

/// What evidence must be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Hash of this session's nonce and key, as the protocol defines it.
    pub report_data: [u8; 64],
    /// SHA-256 of the initdata that came with the evidence.
    pub init_data: [u8; 32],
    /// SHA-256 of the sealed spec that this initdata names.
    pub sealed_spec: [u8; 32],
}

/// A signature by somebody. Nothing in it is trusted.
#[derive(Debug)]
pub struct Evidence {
    blob: String,
    signature: [u8; 64],
    checks: Checks,
}

/// A signature of this session by the key of an enrolled blob.
#[derive(Debug)]
pub struct SignatureChecked {
    enrolment: Enrolment,
    trust: Trust,
    report_data: [u8; 64],
    checks: Checks,
}

impl Evidence {
    /// Takes a blob's id, 32 hexadecimal digits, and an Ed25519 signature of 64 bytes.
    ///
    /// # Errors
    /// If they have other forms.
    pub fn parse(blob: &str, signature: &[u8]) -> Result<Self, Denial> {
        let mut checks = Checks::new(PLAN);
        let signature = checks.run("evidence_layout", || {
            if !is_blob(blob) {
                return refuse!(
                    Evidence,
                    "evidence names its blob by something else than 32 hexadecimal digits"
                );
            }
            match signature.try_into() {
                Ok(signature) => Ok((signature, format!("blob {blob}"))),
                Err(_) => {
                    refuse!(Evidence, "evidence has a signature of {} bytes instead of 64", signature.len())
                }
            }
        })?;
        Ok(Self { blob: blob.to_owned(), signature, checks })
    }

    /// The blob that the evidence claims to be from: says which enrolment to look up, nothing more.
    pub fn claimed_blob(&self) -> &str {
        &self.blob
    }

    /// Checks that the enrolled blob's key signed this session, and that only trusted machines can open the
    /// blob. `None` if nobody enrolled it.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn check_signature(
        self,
        enrolment: Option<Enrolment>,
        anchors: &Anchors,
        session: &Session,
    ) -> Result<SignatureChecked, Denial> {
        let Self { blob, signature, mut checks } = self;
        let enrolment = checks.run("blob_enrolled", || match enrolment {
            Some(enrolment) if enrolment.blob == blob => {
                let value = format!("by its owner, for {} machine(s)", enrolment.machines.len());
                Ok((enrolment, value))
            }
            _ => refuse!(
                CertificateChain,
                "blob {blob} is not enrolled here, or was denied; 'sealpod esm make --push' enrols one"
            ),
        })?;
        let trust = checks
            .run("machines", || anchors.check(&enrolment).map(|trust| (trust.clone(), trust.to_string())))?;
        checks.pass("signature", || {
            let message = [CONTEXT, &session.report_data, &session.sealed_spec, blob.as_bytes()].concat();
            UnparsedPublicKey::new(&ED25519, &enrolment.key).verify(&message, &signature).map_err(|_| {
                let detail = format!(
                    "evidence is not signed by the key of blob {blob} for this session's nonce, key and sealed spec"
                );
                Denial::new(Check::Signature, detail)
            })?;
            Ok("Ed25519 by the blob's key".to_owned())
        })?;
        checks.pass("report_data", || Ok(hex::encode(session.report_data)))?;
        Ok(SignatureChecked { enrolment, trust, report_data: session.report_data, checks })
    }
}

impl SignatureChecked {
    /// Checks that the guest was launched for this session's initdata and sealed spec, and says what PEF
    /// leaves open.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn appraise(self, session: &Session) -> Result<Appraised, Denial> {
        let Self { enrolment, trust, report_data, mut checks } = self;
        // A session other than the one whose signature was checked.
        if report_data != session.report_data {
            return refuse!(Binding, "evidence was checked for another session");
        }
        checks.pass("init_data", || {
            if !bool::from(enrolment.init_data.ct_eq(&session.init_data)) {
                return refuse!(
                    HostData,
                    "initdata has the digest {}, but blob {} is for {}",
                    hex::encode(session.init_data),
                    enrolment.blob,
                    hex::encode(enrolment.init_data)
                );
            }
            Ok(hex::encode(session.init_data))
        })?;
        checks.pass("sealed_spec", || {
            if !bool::from(enrolment.sealed_spec.ct_eq(&session.sealed_spec)) {
                return refuse!(
                    HostData,
                    "initdata names the sealed spec {}, but blob {} is for {}",
                    hex::encode(session.sealed_spec),
                    enrolment.blob,
                    hex::encode(enrolment.sealed_spec)
                );
            }
            Ok(hex::encode(session.sealed_spec))
        })?;
        for (check, why) in NOT_CHECKED {
            checks.not_checked(check, *why);
        }
        let tee = if matches!(trust, Trust::Emulated { .. }) { TeeKind::PefEmulated } else { TeeKind::Pef };
        let claims = PefClaims {
            repository: enrolment.repository,
            lineage: enrolment.lineage,
            blob: enrolment.blob,
            sealed_spec: enrolment.sealed_spec,
            machines: enrolment.machines.iter().map(|machine| *machine.fingerprint()).collect(),
        };
        Ok(Appraised::new(Verdict {
            tee,
            trust,
            claims: Claims::Pef(Box::new(claims)),
            init_data: enrolment.init_data,
            report_data: Some(report_data),
            checks: checks.into_records(),
        }))
    }
}

/// What PEF has no means for.
const NOT_CHECKED: &[(&str, &str)] = &[
    (
        "quote",
        "PEF has none: the proof is that the guest holds a key from a blob that its machines alone open",
    ),
    (
        "launch_digest",
        "the ultravisor compared kernel, initrd and command line with the blob; nobody else can",
    ),
    ("firmware", "nothing says which version of the ultravisor runs, or that it is a recent one"),
    ("machine", "it is one of those that the blob is for; which one can't be told"),
    ("instance", "a blob can start any number of guests, again and again; nothing tells them apart"),
];

fn is_blob(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
