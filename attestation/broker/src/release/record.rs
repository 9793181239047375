//! A granted key's row and record. Nothing of it counts before the transaction is committed.

use protocols::owner::Releases;
use protocols::refusal::Code;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Grant;
use crate::refused::Refused;
use crate::store::{Bound, Release, Reservation, Tx};

/// Reserves the release of a granted key to `holder` (an attested key's thumbprint, or a launch), within the
/// policy's limit, and records it. A holder that has a release gets that one again, and whether it is new.
///
/// # Errors
/// [`Code::ReleaseLimit`] if others have had all that the policy allows.
pub(crate) async fn record(
    tx: &mut Tx<'_>,
    grant: &Grant,
    holder: &str,
) -> Result<(Zeroizing<Vec<u8>>, Release, bool), Refused> {
    let Grant { registered, policy, evidence } = grant;
    let statement = registered.statement();
    let bound = match policy.policy.releases {
        Releases::Unlimited => None,
        Releases::Once => Some(Bound { count: 1, seconds: None }),
        Releases::Window(window) => {
            Some(Bound { count: window.count.into(), seconds: Some(window.seconds.into()) })
        }
    };
    let key = tx.open_key(registered)?;
    let reserved =
        tx.reserve(&statement.key_id, &statement.spec_digest, holder, policy.serial, bound).await?;
    let Some(Reservation { release, new }) = reserved else {
        return Err(limit_reached(&policy.policy.releases));
    };
    if new {
        let detail = json!({
            "release": release.id,
            "repository": statement.repository,
            "lineage": statement.lineage,
            "revision": statement.revision,
            "spec_digest": statement.spec_digest,
            "attested_key": holder,
            "policy_serial": policy.serial,
            "launch": evidence.launch_digest_name(),
            "verdict": exact_verdict(evidence.verdict())?,
        });
        tx.record("key.released", &statement.key_id, detail).await?;
    }
    Ok((key, release, new))
}

fn limit_reached(releases: &Releases) -> Refused {
    let limit = match releases {
        Releases::Window(window) => {
            format!("{} guests within {} seconds", window.count, window.seconds)
        }
        Releases::Once | Releases::Unlimited => "one guest, once".to_owned(),
    };
    Refused::new(
        Code::ReleaseLimit,
        format!(
            "the policy releases this key to {limit}, and that was done; a guest that was started again is another \
             guest: seal again, or push a policy with a higher limit"
        ),
    )
}

/// A verdict as the audit log holds it.
///
/// # Errors
/// [`Code::Internal`].
pub(crate) fn exact_verdict(verdict: &verifier::Verdict) -> Result<Value, Refused> {
    serde_json::to_value(verdict).map(exact).map_err(|error| {
        Refused::new(Code::Internal, "the verdict can't be written").because(error.to_string())
    })
}

/// A table of checks as the audit log holds it.
pub(crate) fn table(checks: &[verifier::CheckRecord]) -> Value {
    checks
        .iter()
        .map(|record| {
            json!({ "check": record.check, "outcome": record.outcome.name(), "value": record.value })
        })
        .collect()
}

/// Numbers that JSON readers may round become strings: the audit log holds exact values only.
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) if number.as_u64().is_none_or(|number| number >= 1 << 53) => {
            Value::String(number.to_string())
        }
        Value::Array(items) => items.into_iter().map(exact).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, exact(value))).collect())
        }
        other => other,
    }
}
