//! The decision on a launch: the platform's measurement against the owner's policy, by the same rules and with the same
//! records as every release. Only then is there a secret.

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::owner::SevSecret;
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use protocols::sev::{
    CONNECTION_KEY, LaunchKey, LaunchSecret, MeasurementAnswer, MeasurementRequest, SECRET_GUID,
    SECRET_VERSION,
};
use serde_json::json;
use verifier::sev::{Guid, Measured, SecretEntry, Session};
use zeroize::Zeroizing;

use super::{failed, random, random_id, request};
use crate::broker::Broker;
use crate::refused::Refused;
use crate::release::{Claim, Grant, entitled, exact_verdict, nothing_to_release, record};
use crate::store::{Release, Tx};

/// Decides on a launch. Its session is used up, whatever comes of it.
///
/// # Errors
/// The refusal.
pub(crate) async fn measure(
    broker: &Broker,
    asked: &MeasurementRequest,
) -> Result<MeasurementAnswer, Refused> {
    let launch = request::launch(asked)?;
    let id = request::id(&asked.session).ok_or_else(no_session)?;
    let (session, key_id) = take(broker, id).await?;

    let uri: ResourceUri =
        key_id.parse().map_err(|_| nothing_to_release().because("the session's key id is no address"))?;
    let sealed_spec = format!("sha256:{}", hex::encode(session.sealed_spec()));
    let init_data = format!("sha256:{}", hex::encode(session.init_data()));
    let claim = Claim { sealed_spec, init_data: Some(init_data) };
    let mut tx = broker.store().begin().await?;
    // Asked again: the owner may have changed its mind since the session.
    let entitled = entitled(&mut tx, &claim, &uri).await?;
    let policy = entitled.policy.clone();
    let Some(sev) = &policy.policy.sev else {
        return Err(Refused::new(Code::TeeKind, "the policy in force has no section for SEV any more"));
    };
    let digests: Vec<_> =
        policy.policy.launch_digest.iter().filter_map(|allowed| hex::decode(&allowed.digest).ok()).collect();
    let measured = session.measure(&launch, digests.iter().map(Vec::as_slice))?;
    let grant = entitled.grant(measured.appraised())?;
    let (answer, release) = secret(&mut tx, id, claim, sev.secret, measured, &grant).await?;
    tx.checkpoint().await?;
    tx.commit().await?;
    match release {
        Some(release) => {
            broker.counters().released.add();
            broker.journal().delivered(release);
        }
        None => broker.counters().launched.add(),
    }
    Ok(answer)
}

/// Takes the session, in a transaction of its own: nothing that fails later brings it back.
async fn take(broker: &Broker, id: &str) -> Result<(Session, String), Refused> {
    let mut tx = broker.store().begin().await?;
    let stored = tx.take_launch(id).await?.ok_or_else(no_session)?;
    tx.commit().await?;
    let session = Session::from_bytes(&stored.secret).map_err(|error| failed(&error))?;
    Ok((session, stored.key_id))
}

fn no_session() -> Refused {
    Refused::new(
        Code::LaunchSession,
        "there is no such launch session, it has expired, or its launch was measured before; launch the guest again",
    )
}

/// Makes the packet and the records of it.
async fn secret(
    tx: &mut Tx<'_>,
    session: &str,
    claim: Claim,
    kind: SevSecret,
    measured: Measured,
    grant: &Grant,
) -> Result<(MeasurementAnswer, Option<Release>), Refused> {
    let (key, release) = match kind {
        SevSecret::Bundle => {
            let (key, release, _) = record(tx, grant, &format!("sev:{session}")).await?;
            (LaunchKey::Bundle { key: BASE64_STANDARD.encode(&*key) }, Some(release))
        }
        SevSecret::Connection => {
            let mut key = Zeroizing::new([0; CONNECTION_KEY]);
            random(key.as_mut_slice()).map_err(|error| failed(&error))?;
            let id = random_id()?;
            let stored = super::connection::stored(&key, measured.launched())?;
            let key_id = &grant.statement().key_id;
            tx.add_connection(&id, key_id, &stored).await?;
            let detail = json!({
                "connection": id,
                "session": session,
                "repository": grant.statement().repository,
                "lineage": grant.statement().lineage,
                "revision": grant.statement().revision,
                "spec_digest": grant.statement().spec_digest,
                "policy_serial": grant.policy_serial(),
                "launch": grant.evidence().launch_digest_name(),
                "verdict": exact_verdict(grant.evidence().verdict())?,
            });
            tx.record("launch.granted", key_id, detail).await?;
            (LaunchKey::Connection { id, key: BASE64_STANDARD.encode(key.as_slice()) }, None)
        }
    };
    let Claim { sealed_spec, init_data } = claim;
    let secret =
        LaunchSecret { version: SECRET_VERSION, init_data: init_data.unwrap_or_default(), sealed_spec, key };
    let mut text = Zeroizing::new(Vec::with_capacity(1024));
    serde_json::to_writer(&mut *text, &secret).map_err(|error| failed(&error))?;
    let guid = Guid::parse(SECRET_GUID).unwrap_or(Guid::ZERO);
    let entries = [SecretEntry { guid, data: &text }];
    let (packet, _) =
        measured.seal(grant.evidence(), &entries, &mut random).map_err(|error| failed(&error))?;
    let answer = MeasurementAnswer {
        packet_header: BASE64_STANDARD.encode(packet.header),
        secret: BASE64_STANDARD.encode(&packet.data),
    };
    Ok((answer, release))
}
