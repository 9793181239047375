//! The line that decides "key released or not", as far as evidence decides it: a verdict that matches
//! every reference value becomes a [`Grant`]. facts: order of checks 8 to 10.

use tee_evidence::snp::{SigningKey, Tcb};

use crate::denial::refuse;
use crate::{CheckRecord, Denial, LaunchDigest, Outcome, ReferenceValues, Verdict};

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

    /// What the evidence is bound to: the session that it may be used for, and no other.
    pub const fn report_data(&self) -> &[u8; 64] {
        &self.verdict.report_data
    }

    /// Only for [`crate::snp::Appraised::grant`].
    pub(crate) fn decide(verdict: &Verdict, reference: &ReferenceValues) -> Result<Self, Denial> {
        let mut checks = Checks(Vec::new());
        kind(verdict, reference, &mut checks)?;
        tcb(verdict, reference, &mut checks)?;
        policy(verdict, reference, &mut checks)?;
        vmpl(verdict, reference, &mut checks)?;
        let name = launch_digest(verdict, reference, &mut checks)?;
        identity(verdict, reference, &mut checks)?;
        let mut verdict = verdict.clone();
        verdict.checks.extend(checks.0);
        Ok(Self { verdict, launch_digest_name: name })
    }
}

struct Checks(Vec<CheckRecord>);

impl Checks {
    fn passed(&mut self, check: &'static str, value: impl Into<String>) {
        self.0.push(CheckRecord { check, outcome: Outcome::Passed, value: value.into() });
    }
}

fn kind(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    let tee = verdict.tee.name();
    if !reference.tee.contains(&verdict.tee) {
        let allowed: Vec<_> = reference.tee.iter().map(|kind| kind.name()).collect();
        return refuse!(TeeKind, "evidence is of kind '{tee}'; the policy allows [{}]", allowed.join(", "));
    }
    let product = verdict.product;
    if reference.denied_products.contains(&product) {
        return refuse!(TeeKind, "processors of the product {} are not trusted any more", product.name());
    }
    checks.passed("tee_kind", tee);
    // A masked chip id could be any chip's.
    let masked = verdict.chip_id == [0; 64];
    if reference.denied_chips.contains(&verdict.chip_id) || (masked && !reference.denied_chips.is_empty()) {
        return refuse!(CertificateChain, "chip {} is denied or hides its id", hex::encode(verdict.chip_id));
    }
    if verdict.signing_key == SigningKey::Vlek {
        match &verdict.csp_id {
            Some(csp) if reference.vlek_csp_ids.contains(csp) => checks.passed("csp_id", csp),
            csp => {
                let csp = csp.as_deref().unwrap_or("nobody");
                return refuse!(
                    CertificateChain,
                    "report is signed by a VLEK of '{csp}', which the policy doesn't list"
                );
            }
        }
    }
    Ok(())
}

fn tcb(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    let minimum = reference.minimum_tcb;
    let tcb = verdict.tcb;
    for (which, found) in [("reported", tcb.reported), ("committed", tcb.committed), ("launch", tcb.launch)] {
        if let Some((component, found, minimum)) = below(found, minimum) {
            return refuse!(Tcb, "{which} TCB has {component} {found}, below the policy's minimum {minimum}");
        }
    }
    checks.passed("minimum_tcb", show(minimum));
    if reference.require_alias_check {
        if !verdict.alias_check {
            return refuse!(Tcb, "platform has not checked its memory for aliases (CVE-2024-21944)");
        }
        checks.passed("alias_check", "done");
    }
    Ok(())
}

/// The first component that is below its minimum: its name, what it is, and the minimum. A TCB is never
/// compared as one number.
pub(crate) fn below(found: Tcb, minimum: Tcb) -> Option<(&'static str, u8, u8)> {
    let fmc = found.fmc.zip(minimum.fmc).map(|(found, minimum)| ("fmc", found, minimum));
    [
        ("bootloader", found.bootloader, minimum.bootloader),
        ("tee", found.tee, minimum.tee),
        ("snp", found.snp, minimum.snp),
        ("microcode", found.microcode, minimum.microcode),
    ]
    .into_iter()
    .chain(fmc)
    .find(|(_, found, minimum)| found < minimum)
}

/// A TCB for people.
pub(crate) fn show(tcb: Tcb) -> String {
    let Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
    let fmc = fmc.map(|fmc| format!("fmc {fmc}, ")).unwrap_or_default();
    format!("{fmc}bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
}

fn policy(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    let policy = verdict.policy;
    for (set, allowed, what) in [
        (policy.debug, reference.allow_debug, "debugging"),
        (policy.migrate_ma, reference.allow_migrate_ma, "export by a migration agent"),
        (policy.smt, reference.allow_smt, "SMT"),
    ] {
        if set && !allowed {
            return refuse!(
                GuestPolicy,
                "guest was launched with policy {:#x}, which permits {what}; the release policy doesn't",
                policy.bits
            );
        }
    }
    checks.passed("guest_policy", format!("{:#x}", policy.bits));
    Ok(())
}

fn vmpl(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    if verdict.vmpl != reference.vmpl {
        return refuse!(
            Vmpl,
            "report was asked for at VMPL {}; the policy expects {}",
            verdict.vmpl,
            reference.vmpl
        );
    }
    checks.passed("vmpl", verdict.vmpl.to_string());
    Ok(())
}

fn launch_digest(
    verdict: &Verdict,
    reference: &ReferenceValues,
    checks: &mut Checks,
) -> Result<String, Denial> {
    let found = reference
        .launch_digests
        .iter()
        .find(|allowed| allowed.digest == verdict.measurement && allowed.digest != [0; 48]);
    let Some(LaunchDigest { name, .. }) = found else {
        return refuse!(
            LaunchDigest,
            "launch digest {} is not in the policy ({} allowed); run 'sealpod measure' on the image you deployed",
            hex::encode(verdict.measurement),
            reference.launch_digests.len()
        );
    };
    checks.passed("launch_digest", format!("{} ({name})", hex::encode(verdict.measurement)));
    Ok(name.clone())
}

fn identity(verdict: &Verdict, reference: &ReferenceValues, checks: &mut Checks) -> Result<(), Denial> {
    let author = verdict.author_key_digest;
    let by_id_key = reference.id_key_digests.contains(&verdict.id_key_digest);
    if !reference.id_key_digests.is_empty() {
        if !by_id_key || verdict.id_key_digest == [0; 48] {
            return refuse!(GuestPolicy, "ID block is not signed by a key that the policy lists");
        }
        checks.passed("id_key", hex::encode(verdict.id_key_digest));
    }
    if !reference.author_key_digests.is_empty() {
        match author {
            Some(digest) if digest != [0; 48] && reference.author_key_digests.contains(&digest) => {
                checks.passed("author_key", hex::encode(digest));
            }
            _ => {
                return refuse!(
                    GuestPolicy,
                    "ID key is not certified by an author key that the policy lists"
                );
            }
        }
    }
    if reference.minimum_guest_svn > 0 {
        // Without a signed ID block the host picks the SVN.
        if reference.id_key_digests.is_empty() && reference.author_key_digests.is_empty() {
            return refuse!(
                GuestPolicy,
                "the policy has a minimum guest SVN but lists no key for the ID block that carries it"
            );
        }
        if verdict.guest_svn < reference.minimum_guest_svn {
            return refuse!(
                GuestPolicy,
                "guest SVN {} is below the policy's minimum {}",
                verdict.guest_svn,
                reference.minimum_guest_svn
            );
        }
        checks.passed("guest_svn", verdict.guest_svn.to_string());
    }
    Ok(())
}
