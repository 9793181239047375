//! The line that decides: a key leaves only as a [`Grant`], and only [`Entitled::grant`] makes one.

use std::sync::Arc;

use protocols::owner::{PolicyStatement, Registration, Verified};
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use verifier::{Appraised, Claims};

use super::reference::reference_values;
use crate::appraise::Attested;
use crate::refused::Refused;
use crate::store::{Registered, Standing, Tx};

/// What a guest, or a launch that is to become one, is for.
pub(crate) struct Claim {
    /// `sha256:` digest of the sealed spec that its initdata names.
    pub(crate) sealed_spec: String,
    /// `sha256:` digest of that initdata.
    pub(crate) init_data: Option<String>,
}

/// A key that a guest for its sealed spec may have, if its evidence matches the policy.
pub(crate) struct Entitled {
    pub(crate) registered: Registered,
    pub(crate) policy: Arc<Verified<PolicyStatement>>,
}

/// Permission to release one key. Proof that every check passed.
pub(crate) struct Grant {
    pub(super) registered: Registered,
    pub(super) policy: Arc<Verified<PolicyStatement>>,
    pub(super) evidence: verifier::Grant,
}

impl Entitled {
    /// Holds evidence against the owner's policy.
    ///
    /// # Errors
    /// The check that failed.
    pub(crate) fn grant(self, appraised: &Appraised) -> Result<Grant, Refused> {
        let Self { registered, policy } = self;
        let evidence = appraised.grant(&reference_values(&policy)?)?;
        Ok(Grant { registered, policy, evidence })
    }
}

impl Grant {
    /// What the owner signed about the key.
    pub(crate) fn statement(&self) -> &Registration {
        self.registered.statement()
    }

    /// The evidence as it was held against the policy.
    pub(crate) fn evidence(&self) -> &verifier::Grant {
        &self.evidence
    }

    /// Which policy decided.
    pub(crate) fn policy_serial(&self) -> u64 {
        self.policy.serial
    }

    /// The evidence as it was held against the policy.
    pub(super) fn into_evidence(self) -> verifier::Grant {
        self.evidence
    }
}

/// The checks, in order, for an attested guest.
pub(super) async fn decide(
    tx: &mut Tx<'_>,
    attested: &Attested,
    uri: &ResourceUri,
) -> Result<Grant, Refused> {
    let named = attested.sealed().map_err(|reason| nothing_to_release().because(reason))?;
    let claim = Claim { sealed_spec: named.sealed_spec.to_string(), init_data: attested.init_data() };
    let entitled = entitled(tx, &claim, uri).await?;
    still_stands(tx, attested).await?;
    entitled.grant(attested.appraised())
}

/// Evidence that rests on an owner's or operator's word, which may have been taken back since the handshake.
pub(super) async fn still_stands(tx: &mut Tx<'_>, attested: &Attested) -> Result<(), Refused> {
    if let Claims::Pef(claims) = &attested.appraised().verdict().claims
        && tx.is_denied(&claims.blob).await?
    {
        return Err(Refused::new(
            Code::CertificateChain,
            format!("blob {} was denied; make another one with 'sealpod esm make'", claims.blob),
        ));
    }
    Ok(())
}

/// Everything but the evidence: is `uri` the key of the sealed spec that is claimed, and does its owner let
/// it go at all? Until the claim is known to be for a spec of the repository that is asked, every answer is
/// the same.
pub(crate) async fn entitled(tx: &mut Tx<'_>, claim: &Claim, uri: &ResourceUri) -> Result<Entitled, Refused> {
    let spec = &claim.sealed_spec;
    let standing = tx.standing(&uri.to_string()).await?;
    let is_for_it = |standing: &Standing| standing.registered.statement().spec_digest == *spec;
    // Asked whether the key exists or not, so that the answers take the same time too.
    let own = !standing.as_ref().is_some_and(is_for_it) && tx.has_spec(uri.repository(), spec).await?;
    let Some(Standing { registered, retired, policy }) = standing else {
        return Err(nothing_to_release().because("no such key is registered"));
    };
    let Registration { lineage, revision, spec_digest, init_data, .. } = registered.statement();
    if spec_digest != spec {
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
    if init_data.is_some() && *init_data != claim.init_data {
        return Err(Refused::new(
            Code::HostData,
            format!(
                "the guest was launched with initdata {}, the key was registered for {}; deploy the manifest as \
                 'sealpod seal' wrote it",
                claim.init_data.as_deref().unwrap_or("of nothing"),
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
    Ok(Entitled { registered, policy })
}

/// The one answer for keys that don't exist and keys of others.
pub(crate) fn nothing_to_release() -> Refused {
    Refused::new(
        Code::Resource,
        "there is no such key or resource for this guest; check that the pod is deployed as 'sealpod seal' \
         wrote it and that 'sealpod push' ran",
    )
}
