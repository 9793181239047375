//! ESM blobs in the verifier's terms, and the software TPM keys that the configuration trusts.

use std::path::PathBuf;

use protocols::owner::PefBlob;
use protocols::refusal::Code;
use verifier::pef::{Anchors, Enrolment, MachineKey};

use crate::broker::BrokerError;
use crate::refused::Refused;

/// Longest PEM file of an RSA key.
const MAX_PEM: u64 = 2048;

/// The software TPM keys that the configuration names, and in words.
pub(crate) fn anchors(files: &[PathBuf]) -> Result<(Anchors, Vec<String>), BrokerError> {
    let (mut anchors, mut words) = (Anchors::default(), Vec::new());
    for path in files {
        let failed = |problem: String| BrokerError::TpmKey { path: path.clone(), problem };
        let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
        if length > MAX_PEM {
            return Err(failed(format!("it has {length} bytes; no key's PEM file does")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let key = MachineKey::from_pem(&text).map_err(|error| failed(error.to_string()))?;
        if !key.is_software() {
            return Err(failed("it is a hardware TPM's key, which only an owner enrols".into()));
        }
        words.push(format!("emulated (software TPM key, {})", hex::encode(key.fingerprint())));
        anchors = anchors.with_emulated(key);
    }
    Ok((anchors, words))
}

/// What an owner's statement says, as evidence is held against it.
pub(crate) fn enrolment(statement: &PefBlob) -> Result<Enrolment, Refused> {
    let wrong = |detail: String| Refused::new(Code::Statement, detail);
    let digest = |field, text: &str| {
        let mut bytes = [0; 32];
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| wrong(format!("{field} is not a digest")))?;
        Ok::<_, Refused>(bytes)
    };
    let machine = |(index, pem): (usize, &String)| {
        MachineKey::from_pem(pem).map_err(|error| wrong(format!("machine {}: {error}", index + 1)))
    };
    Ok(Enrolment {
        repository: statement.repository.clone(),
        lineage: statement.lineage.clone(),
        blob: statement.blob.clone(),
        key: statement.key.to_bytes(),
        init_data: digest("init_data", &statement.init_data)?,
        sealed_spec: digest("spec_digest", &statement.spec_digest)?,
        machines: statement.machines.iter().enumerate().map(machine).collect::<Result<_, _>>()?,
    })
}

/// The machines' fingerprints, if all are trusted.
pub(crate) fn machines(enrolment: &Enrolment, anchors: &Anchors) -> Result<Vec<String>, Refused> {
    anchors.check(enrolment)?;
    Ok(enrolment.machines.iter().map(|machine| hex::encode(machine.fingerprint())).collect())
}
