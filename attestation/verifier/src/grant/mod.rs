//! The line that decides "key released or not", as far as evidence decides it: a verdict that matches
//! every reference value becomes a [`Grant`].

mod pef;
mod sev;
mod snp;

use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Claims, Denial, LaunchDigest, ReferenceValues, TeeKind, Verdict};

pub(crate) use snp::{below, show};

/// Evidence of this session that matches a policy. Whoever releases a key takes one of these.
#[derive(Debug)]
pub struct Grant {
    verdict: Verdict,
    launch_digest_name: String,
}

impl Grant {
    /// The verdict, with the policy's checks at the end of its list.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What the owner calls the guest image that this is.
    pub fn launch_digest_name(&self) -> &str {
        &self.launch_digest_name
    }

    /// What the evidence is bound to, if it was made for a session: it may be used for that one only.
    pub const fn report_data(&self) -> Option<&[u8; 64]> {
        self.verdict.report_data.as_ref()
    }

    /// Only for [`crate::Appraised::grant`].
    pub(crate) fn decide(verdict: &Verdict, reference: &ReferenceValues) -> Result<Self, Denial> {
        let made = verdict.checks.clone();
        let (checks, launch_digest_name) = match &verdict.claims {
            Claims::Snp(claims) => {
                let mut checks = Checks::after(made, snp::PLAN);
                kind(verdict, reference, &mut checks)?;
                let name = snp::decide(claims, reference, &mut checks)?;
                (checks, name)
            }
            Claims::Pef(claims) => {
                let mut checks = Checks::after(made, pef::PLAN);
                kind(verdict, reference, &mut checks)?;
                let name = pef::decide(claims, reference, &mut checks)?;
                (checks, name)
            }
            Claims::Sev(claims) => {
                let mut checks = Checks::after(made, sev::PLAN);
                kind(verdict, reference, &mut checks)?;
                let name = sev::decide(claims, reference, &mut checks)?;
                (checks, name)
            }
            Claims::Sample(_) => {
                let mut checks = Checks::after(made, &["tee_kind"]);
                kind(verdict, reference, &mut checks)?;
                return refuse!(TeeKind, "evidence of kind '{}' is never enough", verdict.tee.name());
            }
        };
        Ok(Self { verdict: Verdict { checks: checks.into_records(), ..verdict.clone() }, launch_digest_name })
    }
}

/// Is the kind of TEE one that the policy names? Sample evidence never is.
fn kind(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("tee_kind", || {
        let tee = verdict.tee;
        if tee == TeeKind::Sample || !reference.tee.contains(&tee) {
            let allowed: Vec<_> = reference.tee.iter().map(|kind| kind.name()).collect();
            let weaker = match &verdict.claims {
                Claims::Sev(claims) => {
                    format!(". It is weaker than snp, so a policy has to name it: {}", claims.weaknesses)
                }
                _ => String::new(),
            };
            return refuse!(
                TeeKind,
                "evidence is of kind '{}'; the policy allows [{}]{weaker}",
                tee.name(),
                allowed.join(", ")
            );
        }
        Ok(tee.name().to_owned())
    })
}

/// The policy's section for a kind of TEE that its list names.
fn section<'a, T>(section: Option<&'a T>, name: &str, checks: &mut Checks) -> Result<&'a T, Denial> {
    checks.run("policy_section", || match section {
        Some(section) => Ok((section, name.to_owned())),
        None => refuse!(TeeKind, "the policy names the kind of TEE but has no section [{name}] for it"),
    })
}

/// The name of the allowed launch digest that the measured one is. All bytes count, and zeros never match.
fn launch_digest(
    measured: &[u8],
    reference: &ReferenceValues,
    checks: &mut Checks,
) -> Result<String, Denial> {
    checks.run("launch_digest", || {
        let found = reference
            .launch_digests
            .iter()
            .find(|allowed| allowed.digest == measured && measured.iter().any(|&byte| byte != 0));
        let Some(LaunchDigest { name, .. }) = found else {
            return refuse!(
                LaunchDigest,
                "launch digest {} is not in the policy ({} allowed); run 'sealpod measure' on the image you deployed",
                hex::encode(measured),
                reference.launch_digests.len()
            );
        };
        Ok((name.clone(), format!("{} ({name})", hex::encode(measured))))
    })
}
