//! Which TEE this guest has. Everything that could be one is looked at: a host that offers a second is
//! refused, and one that is there but fails is never passed over for another.

use std::path::PathBuf;
use std::sync::Arc;

use protocols::refusal::{Code, Refusal};

use super::{SevSecret, Tee, TeeError, launch_secret, pef, snp};

/// Where this guest's kernel shows its TEE.
struct Places {
    snp: snp::Places,
    /// Files of `efi_secret`.
    secrets: PathBuf,
    pef: pef::Places,
}

impl Places {
    fn guest() -> Self {
        Self {
            snp: snp::Places::guest(),
            secrets: launch_secret::DIRECTORY.into(),
            pef: pef::Places::guest(),
        }
    }
}

/// The TEE of this guest.
pub fn detect() -> Result<Arc<dyn Tee>, Refusal> {
    find(&Places::guest())
}

fn find(places: &Places) -> Result<Arc<dyn Tee>, Refusal> {
    // First what has to be wiped, whatever becomes of it.
    let candidates: [Result<Option<Arc<dyn Tee>>, TeeError>; 3] = [
        SevSecret::take(&places.secrets).map(|tee| tee.map(|tee| Arc::new(tee) as Arc<dyn Tee>)),
        pef::find(&places.pef),
        snp::find(&places.snp),
    ];
    let mut found: Option<Arc<dyn Tee>> = None;
    for candidate in candidates {
        let Some(tee) = candidate.map_err(|error| error.refusal())? else { continue };
        if let Some(first) = found {
            return Err(Refusal::new(
                Code::TeeAmbiguous,
                format!(
                    "this guest has two sources of evidence, {} and {}; a secret is injected into SEV and SEV-ES guests only",
                    first.kind(),
                    tee.kind()
                ),
            ));
        }
        found = Some(tee);
    }
    found.ok_or_else(|| {
        Refusal::new(
            Code::NoTee,
            format!(
                "no {}, no report provider at {}, no injected secret at {}; start this guest as a confidential VM",
                places.snp.device.display(),
                places.snp.tsm.display(),
                places.secrets.display()
            ),
        )
    })
}

#[cfg(test)]
mod tests;
