//! SEV-SNP against a policy: facts of the platform (chip, TCB), of the launch (policy, image, ID block) and
//! of the request (privilege level).

use tee_evidence::snp::{SigningKey, Tcb};

use super::{launch_digest, section};
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Denial, ReferenceValues, SnpClaims, SnpReference};

/// The checks that every policy makes.
pub(super) const PLAN: &[&str] = &[
    "tee_kind",
    "policy_section",
    "product_allowed",
    "chip",
    "minimum_tcb",
    "guest_policy",
    "vmpl",
    "launch_digest",
];

/// The name of the launch digest.
pub(super) fn decide(
    claims: &SnpClaims,
    reference: &ReferenceValues,
    checks: &mut Checks,
) -> Result<String, Denial> {
    let policy = section(reference.snp.as_ref(), "snp", checks)?;
    platform(claims, policy, checks)?;
    tcb(claims, policy, checks)?;
    guest_policy(claims, policy, checks)?;
    vmpl(claims, policy, checks)?;
    let name = launch_digest(&claims.measurement, reference, checks)?;
    identity(claims, policy, checks)?;
    Ok(name)
}

fn platform(claims: &SnpClaims, reference: &SnpReference, checks: &mut Checks) -> Result<(), Denial> {
    let product = claims.product;
    checks.pass("product_allowed", || {
        if reference.denied_products.contains(&product) {
            return refuse!(TeeKind, "processors of the product {} are not trusted any more", product.name());
        }
        if reference.denied_lines.contains(&claims.line) {
            return refuse!(
                TeeKind,
                "processors of the line {} are not trusted any more",
                claims.line.name()
            );
        }
        Ok(format!("{} ({})", product.name(), claims.line.name()))
    })?;
    checks.pass("chip", || {
        let masked = claims.chip_id == [0; 64];
        // A masked chip id could be any chip's.
        if reference.denied_chips.contains(&claims.chip_id) || (masked && !reference.denied_chips.is_empty())
        {
            return refuse!(
                CertificateChain,
                "chip {} is denied or hides its id",
                hex::encode(claims.chip_id)
            );
        }
        Ok(if masked { "hidden".to_owned() } else { hex::encode(claims.chip_id) })
    })?;
    if claims.signing_key != SigningKey::Vlek {
        return Ok(());
    }
    checks.pass("csp_id", || match &claims.csp_id {
        Some(csp) if reference.vlek_csp_ids.contains(csp) => Ok(csp.clone()),
        csp => {
            let csp = csp.as_deref().unwrap_or("nobody");
            refuse!(CertificateChain, "report is signed by a VLEK of '{csp}', which the policy doesn't list")
        }
    })
}

fn tcb(claims: &SnpClaims, reference: &SnpReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("minimum_tcb", || {
        let Some((minimum, whose)) = reference.minimum(claims.line) else {
            return refuse!(
                Tcb,
                "the policy has TCB minima for other processors, none for {}; add them to snp.products",
                claims.line.name()
            );
        };
        let tcb = claims.tcb;
        for (which, found) in
            [("reported", tcb.reported), ("committed", tcb.committed), ("launch", tcb.launch)]
        {
            if let Some((component, found, minimum)) = below(found, minimum) {
                return refuse!(
                    Tcb,
                    "{which} TCB has {component} {found}, below the policy's minimum {minimum}"
                );
            }
        }
        Ok(format!("{} ({whose})", show(minimum)))
    })?;
    if reference.require_alias_check {
        checks.pass("alias_check", || {
            if !claims.alias_check {
                return refuse!(Tcb, "platform has not checked its memory for aliases (CVE-2024-21944)");
            }
            Ok("done".to_owned())
        })?;
    }
    let required = reference.required_mitigations;
    if required != 0 {
        checks.pass("mitigations", || {
            let Some(found) = claims.mitigations else {
                return refuse!(
                    Tcb,
                    "report of version {} has no mitigation vectors; the policy requires {required:#x}",
                    claims.report_version
                );
            };
            for (which, found) in [("launch", found.launch), ("current", found.current)] {
                if found & required != required {
                    return refuse!(
                        Tcb,
                        "{which} mitigation vector {found:#x} lacks bits that the policy requires ({required:#x})"
                    );
                }
            }
            Ok(format!("{required:#x}"))
        })?;
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

fn guest_policy(claims: &SnpClaims, reference: &SnpReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("guest_policy", || {
        let policy = claims.policy;
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
        for (required, demanded, what) in [
            (reference.require_single_socket, policy.single_socket, "a single socket"),
            (reference.require_ciphertext_hiding, policy.ciphertext_hiding, "ciphertext hiding"),
            (reference.require_rapl_disabled, policy.rapl_disabled, "power readings to be off"),
        ] {
            if required && !demanded {
                return refuse!(
                    GuestPolicy,
                    "guest was launched with policy {:#x}, which doesn't demand {what}; the release policy does",
                    policy.bits
                );
            }
        }
        Ok(format!("{:#x}", policy.bits))
    })
}

fn vmpl(claims: &SnpClaims, reference: &SnpReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("vmpl", || {
        if claims.vmpl != reference.vmpl {
            return refuse!(
                Vmpl,
                "report was asked for at VMPL {}; the policy expects {}",
                claims.vmpl,
                reference.vmpl
            );
        }
        Ok(claims.vmpl.to_string())
    })
}

fn identity(claims: &SnpClaims, reference: &SnpReference, checks: &mut Checks) -> Result<(), Denial> {
    if !reference.id_key_digests.is_empty() {
        checks.pass("id_key", || {
            let digest = claims.id_key_digest;
            if digest == [0; 48] || !reference.id_key_digests.contains(&digest) {
                return refuse!(GuestPolicy, "ID block is not signed by a key that the policy lists");
            }
            Ok(hex::encode(digest))
        })?;
    }
    if !reference.author_key_digests.is_empty() {
        checks.pass("author_key", || match claims.author_key_digest {
            Some(digest) if digest != [0; 48] && reference.author_key_digests.contains(&digest) => {
                Ok(hex::encode(digest))
            }
            _ => {
                refuse!(GuestPolicy, "ID key is not certified by an author key that the policy lists")
            }
        })?;
    }
    if reference.minimum_guest_svn > 0 {
        checks.pass("guest_svn", || {
            // Without a signed ID block the host picks the SVN.
            if reference.id_key_digests.is_empty() && reference.author_key_digests.is_empty() {
                return refuse!(
                    GuestPolicy,
                    "the policy has a minimum guest SVN but lists no key for the ID block that carries it"
                );
            }
            if claims.guest_svn < reference.minimum_guest_svn {
                return refuse!(
                    GuestPolicy,
                    "guest SVN {} is below the policy's minimum {}",
                    claims.guest_svn,
                    reference.minimum_guest_svn
                );
            }
            Ok(claims.guest_svn.to_string())
        })?;
    }
    Ok(())
}
