//! Resources: released to whom the key of their own sealed spec would be, if it is of the resource's lineage;
//! image keys, if the owner's registration of that spec names them. And to guests under a policy whose initdata
//! the owner listed, if the lineage's release policy takes them.

use protocols::owner::{IMAGE_KEY_KIND, Registration, Resource};
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::decide::{decide, nothing_to_release, still_stands};
use super::record::exact_verdict;
use super::reference::reference_values;
use crate::appraise::Attested;
use crate::refused::Refused;
use crate::store::{Kept, Tx};

/// Decides, and opens the resource; and what the audit log says of it.
pub(super) async fn grant(
    tx: &mut Tx<'_>,
    attested: &Attested,
    uri: &ResourceUri,
) -> Result<(Zeroizing<Vec<u8>>, Value), Refused> {
    let Some(kept) = tx.kept(&uri.to_string()).await? else {
        return Err(nothing_to_release().because("no such resource is kept"));
    };
    let Resource { repository, lineage, .. } = kept.statement().clone();
    let evidence = match attested.sealed() {
        Ok(named) => {
            let key: ResourceUri = named
                .key_id
                .as_str()
                .parse()
                .map_err(|_| nothing_to_release().because("the guest's key id is no address"))?;
            // Another owner's guests learn nothing, not even why.
            if key.repository() != repository {
                return Err(nothing_to_release().because("the guest is of another repository"));
            }
            let grant = decide(tx, attested, &key).await?;
            is_for(kept.statement(), uri, grant.statement())
                .map_err(|reason| nothing_to_release().because(reason))?;
            grant.into_evidence()
        }
        Err(_) => under_policy(tx, attested, &kept).await?,
    };
    let content = tx.open_kept(&kept)?;
    let detail = json!({
        "repository": repository,
        "lineage": lineage,
        "attested_key": attested.thumbprint(),
        "init_data": attested.init_data(),
        "launch": evidence.launch_digest_name(),
        "verdict": exact_verdict(evidence.verdict())?,
    });
    Ok((content, detail))
}

/// Whether a resource is for guests for the sealed spec that `own` registers; else why not.
fn is_for(resource: &Resource, uri: &ResourceUri, own: &Registration) -> Result<(), String> {
    if own.repository != resource.repository {
        return Err("the guest is of another repository".into());
    }
    if uri.kind() == IMAGE_KEY_KIND {
        // An image is used by any number of lineages; who runs it was said when they were sealed.
        let named = own.image_keys.contains(&resource.uri);
        return if named {
            Ok(())
        } else {
            Err("the guest's sealed spec doesn't name that image key".into())
        };
    }
    if resource.lineage.as_deref() != Some(own.lineage.as_str()) {
        return Err(format!("the guest is of lineage '{}'", own.lineage));
    }
    Ok(())
}

/// A guest without a sealed spec, by its initdata.
async fn under_policy(tx: &mut Tx<'_>, attested: &Attested, kept: &Kept) -> Result<verifier::Grant, Refused> {
    let Resource { lineage, init_data, .. } = kept.statement();
    let listed = attested.init_data().is_some_and(|own| init_data.contains(&own));
    if !listed {
        return Err(nothing_to_release().because("the guest's initdata is not one that the resource lists"));
    }
    let Some(lineage) = lineage else {
        return Err(nothing_to_release().because("the resource is of no lineage, so no policy covers it"));
    };
    let Some(policy) = tx.policy_for(kept, lineage).await? else {
        return Err(Refused::new(
            Code::PolicyMissing,
            format!("lineage '{lineage}' has no release policy; its owner adds one with 'sealpod push'"),
        ));
    };
    still_stands(tx, attested).await?;
    Ok(attested.appraised().grant(&reference_values(&policy)?)?)
}
