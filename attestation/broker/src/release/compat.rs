//! The compat repository: the operator's own resources for stock clients of the key broker protocol, with the
//! one rule that those know: which kinds of evidence get them. No owner has it, and no key is ever in it.

use protocols::rcar::ResourceUri;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::nothing_to_release;
use super::record::exact_verdict;
use crate::appraise::Attested;
use crate::config::Compat;
use crate::refused::Refused;
use crate::store::Tx;

/// Opens a resource for a guest whose kind of evidence the operator named; and what the audit log says of it.
pub(super) async fn grant(
    tx: &mut Tx<'_>,
    compat: &Compat,
    attested: &Attested,
    uri: &ResourceUri,
) -> Result<(Zeroizing<Vec<u8>>, Value), Refused> {
    let verdict = attested.appraised().verdict();
    if !compat.tee.iter().any(|kind| kind == verdict.tee.name()) {
        let reason = format!("evidence of kind '{}' is not in compat.tee", verdict.tee.name());
        return Err(nothing_to_release().because(reason));
    }
    let Some(content) = tx.compat_resource(&uri.to_string()).await? else {
        return Err(nothing_to_release().because("no such resource is kept"));
    };
    let detail = json!({
        "repository": uri.repository(),
        "attested_key": attested.thumbprint(),
        "verdict": exact_verdict(verdict)?,
    });
    Ok((content, detail))
}
