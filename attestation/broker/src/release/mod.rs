//! The line that decides: a key leaves only as a [`Grant`], and only [`decide`] makes one.
//!
//! Appraised evidence → the registration of exactly the sealed spec that it names → the owner's policy in
//! force → a row for the release and its audit record → the key, wrapped to the attested key.

mod queue;
mod resource;

pub(crate) use queue::Queue;

use std::sync::Arc;

use protocols::audit::Checkpoint;
use protocols::owner::{MinimumTcb, PolicyStatement, PolicyTee, Registration, ReleasePolicy, Verified};
use protocols::rcar::{JweFlattened, ResourceUri, wrap};
use protocols::refusal::Code;
use verifier::snp::Tcb;
use verifier::{LaunchDigest, ReferenceValues, SnpReference, TeeKind};

use crate::appraise::{Attested, denied};
use crate::broker::Broker;
use crate::http::Refused;
use crate::store::{Registered, Release, Standing, Tx};

/// A released key on its way out.
pub(crate) struct Released {
    pub(crate) jwe: JweFlattened,
    /// None for a resource: it isn't counted.
    pub(crate) release: Option<Release>,
    /// Where the audit log stands, if this request added to it.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Permission to release one key to one attested key. Proof that every check passed.
struct Grant<'a> {
    attested: &'a Attested,
    registered: Registered,
    policy: Arc<Verified<PolicyStatement>>,
    evidence: verifier::Grant,
}

/// Decides on, records and makes the release of `uri` to an attested session.
///
/// # Errors
/// The refusal; denials are in the audit log, and any failure of the database is a refusal.
pub(crate) async fn release(
    broker: &Broker,
    attested: Arc<Attested>,
    uri: ResourceUri,
) -> Result<Released, Refused> {
    let recorded = broker.releases().release(attested.clone(), uri).await?;
    let jwe = wrap(attested.key(), &recorded.key).map_err(|error| {
        Refused::new(Code::Internal, "the key can't be wrapped to the attested key")
            .because(error.to_string())
    })?;
    broker.counters().released.add();
    Ok(Released { jwe, release: recorded.release, checkpoint: recorded.checkpoint })
}

/// The checks, in order. Until the evidence is known to name a spec of the repository that is asked, every
/// answer is the same.
async fn decide<'a>(
    tx: &mut Tx<'_>,
    attested: &'a Attested,
    uri: &ResourceUri,
) -> Result<Grant<'a>, Refused> {
    let named = attested.sealed().map_err(|reason| nothing_to_release().because(reason))?;
    let spec = named.sealed_spec.to_string();
    let standing = tx.standing(&uri.to_string()).await?;
    let is_for_it = |standing: &Standing| standing.registered.statement().spec_digest == spec;
    // Asked whether the key exists or not, so that the answers take the same time too.
    let own = !standing.as_ref().is_some_and(is_for_it) && tx.has_spec(uri.repository(), &spec).await?;
    let Some(Standing { registered, retired, policy }) = standing else {
        return Err(nothing_to_release().because("no such key is registered"));
    };
    let Registration { lineage, revision, spec_digest, init_data, .. } = registered.statement();
    if *spec_digest != spec {
        if own {
            return Err(Refused::new(
                Code::SpecDigest,
                format!(
                    "{uri} is the key of sealed spec {spec_digest}; the guest's initdata names {spec}; ask \
                     for the key that was sealed with it"
                ),
            ));
        }
        let reason = format!("the key is for sealed spec {spec_digest}, not {spec}");
        return Err(nothing_to_release().because(reason));
    }
    // The spec's digest is only part of what the owner sealed: so are the broker and its pin.
    if init_data.is_some() && *init_data != attested.init_data() {
        return Err(Refused::new(
            Code::HostData,
            format!(
                "the guest was launched with initdata {}, the key was registered for {}; deploy the manifest as \
                 'sealpod seal' wrote it",
                attested.init_data().unwrap_or_default(),
                init_data.as_deref().unwrap_or_default()
            ),
        ));
    }
    if retired {
        return Err(Refused::new(
            Code::RevisionRetired,
            format!(
                "revision {revision} of lineage '{lineage}' was retired by its owner; deploy a later one"
            ),
        ));
    }
    let Some(policy) = policy else {
        return Err(Refused::new(
            Code::PolicyMissing,
            format!("lineage '{lineage}' has no release policy; its owner adds one with 'sealpod push'"),
        ));
    };
    if *revision < policy.policy.minimum_revision {
        return Err(Refused::new(
            Code::RevisionMinimum,
            format!(
                "revision {revision} of lineage '{lineage}' is below the policy's minimum of {}; deploy a \
                 later one",
                policy.policy.minimum_revision
            ),
        ));
    }
    let evidence = attested.appraised().grant(&reference_values(&policy.policy)?).map_err(denied)?;
    Ok(Grant { attested, registered, policy, evidence })
}

/// The one answer for keys that don't exist and keys of others.
pub(crate) fn nothing_to_release() -> Refused {
    Refused::new(
        Code::Resource,
        "there is no such key or resource for this guest; check that the pod is deployed as 'sealpod seal' \
         wrote it and that 'sealpod push' ran",
    )
}

/// The policy in the verifier's terms. What it doesn't say is not allowed.
fn reference_values(policy: &ReleasePolicy) -> Result<ReferenceValues, Refused> {
    let damaged = || Refused::new(Code::Internal, "the lineage's policy can't be applied");
    let kind = |tee: &PolicyTee| TeeKind::from_name(tee.name()).ok_or_else(damaged);
    let launch = |allowed: &protocols::owner::LaunchDigest| {
        let digest = hex::decode(&allowed.digest).map_err(|_| damaged())?;
        Ok(LaunchDigest { name: allowed.name.clone(), digest })
    };
    let snp = policy.snp.as_ref().map(|snp| {
        let MinimumTcb { bootloader, tee, snp: firmware, microcode, fmc } = snp.minimum_tcb;
        SnpReference {
            minimum_tcb: Tcb { fmc, bootloader, tee, snp: firmware, microcode },
            allow_debug: snp.allow_debug,
            allow_migrate_ma: snp.allow_migrate_ma,
            allow_smt: snp.allow_smt,
            vmpl: u32::from(snp.vmpl),
            ..SnpReference::default()
        }
    });
    Ok(ReferenceValues {
        tee: policy.tee.iter().map(kind).collect::<Result<_, _>>()?,
        launch_digests: policy.launch_digest.iter().map(launch).collect::<Result<_, Refused>>()?,
        snp,
        ..ReferenceValues::default()
    })
}
