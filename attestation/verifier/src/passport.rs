//! Another broker's verdict in place of evidence: what it vouches for, in the same terms. Callers have
//! checked who says so; here is checked that it says enough. SEV-SNP only: what other kinds' evidence is worth
//! rests on what only the broker of their launch knows.

use serde::Deserialize;
use tee_evidence::snp::{GuestPolicy, PlatformInfo};

use crate::checks::Checks;
use crate::denial::refuse;
use crate::snp::{PlatformBits, PolicyBits};
use crate::verdict::hex_array;
use crate::{Appraised, Claims, Denial, SnpClaims, TeeKind, Trust, Verdict};

/// Checks that must have passed there: without them a verdict is nobody's.
const VOUCHED: &[&str] = &["signature", "report_data", "host_data"];

/// A verdict as [`Verdict`] is written. What is missing is not assumed.
#[derive(Deserialize)]
struct Wire {
    tee: String,
    trust: String,
    #[serde(flatten)]
    claims: SnpClaims,
    #[serde(deserialize_with = "hex_array")]
    init_data: [u8; 32],
    #[serde(deserialize_with = "hex_array")]
    report_data: [u8; 64],
    checks: Vec<WireCheck>,
}

#[derive(Deserialize)]
struct WireCheck {
    check: String,
    outcome: String,
}

/// Takes a verdict, as JSON, that `issuer` vouches for.
///
/// # Errors
/// What the passport doesn't vouch for.
pub fn appraise(verdict: &str, issuer: &str) -> Result<Appraised, Denial> {
    let mut checks = Checks::new(&["passport", "vouched_checks", "kind", "consistency"]);
    let wire: Wire = checks.run("passport", || match serde_json::from_str(verdict) {
        Ok(wire) => Ok((wire, issuer.to_owned())),
        Err(error) => refuse!(Evidence, "the passport doesn't vouch for all of a report's claims: {error}"),
    })?;
    checks.pass("vouched_checks", || {
        let outcome =
            |name: &str| wire.checks.iter().find(|check| check.check == name).map(|check| &check.outcome);
        if let Some(missing) =
            VOUCHED.iter().find(|name| outcome(name).is_none_or(|outcome| outcome != "passed"))
        {
            return refuse!(Evidence, "the passport's issuer doesn't vouch for the check '{missing}'");
        }
        if wire.checks.iter().any(|check| check.outcome != "passed" && check.outcome != "not_checked") {
            return refuse!(Evidence, "the passport's issuer refused the evidence itself");
        }
        Ok(VOUCHED.join(", "))
    })?;
    let tee = checks.run("kind", || {
        let genuine = wire.trust == "amd";
        match TeeKind::from_name(&wire.tee) {
            Some(tee @ TeeKind::Snp) if genuine => Ok((tee, wire.trust.clone())),
            Some(tee @ TeeKind::SnpEmulated) if !genuine => Ok((tee, wire.trust.clone())),
            _ => refuse!(
                TeeKind,
                "a passport for evidence of kind '{}' under '{}' is not taken",
                wire.tee.escape_default(),
                wire.trust.escape_default()
            ),
        }
    })?;
    checks.pass("consistency", || {
        let SnpClaims { host_data, policy, platform, platform_info, alias_check, .. } = &wire.claims;
        // What bits mean is told by the bits.
        let meant = PlatformBits::from(PlatformInfo(*platform_info));
        let same = PolicyBits::from(GuestPolicy(policy.bits)) == *policy
            && meant == *platform
            && meant.alias_check == *alias_check
            && *host_data == wire.init_data;
        if same {
            Ok("bits, init-data".to_owned())
        } else {
            refuse!(Evidence, "the passport contradicts itself")
        }
    })?;
    for check in ["certificate_chain", "revocation", "signature", "report_data", "host_data"] {
        checks.not_checked(check, format!("{issuer} vouches for it"));
    }
    Ok(Appraised::new(Verdict {
        tee,
        trust: Trust::Passport { issuer: issuer.to_owned(), root: wire.trust },
        init_data: wire.init_data,
        report_data: Some(wire.report_data),
        claims: Claims::Snp(Box::new(wire.claims)),
        checks: checks.into_records(),
    }))
}
