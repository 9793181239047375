//! A session for one launch: of a platform that AMD vouches for, and of a guest whose owner lets it launch there.

use std::net::IpAddr;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::owner::{PolicyTee, ReleasePolicy};
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use protocols::sev::{SessionAnswer, SessionRequest};
use verifier::TeeKind;
use verifier::sev::{ChainChecked, Collateral, FirmwareApi, Policy, STRICT, weaknesses};

use super::request::Asked;
use super::{failed, random, random_id};
use crate::broker::Broker;
use crate::refused::Refused;
use crate::release::{Claim, entitled, nothing_to_release};
use crate::sessions::share_of;

/// Opens a session.
///
/// # Errors
/// The refusal.
pub(crate) async fn open(
    broker: &Broker,
    address: IpAddr,
    request: &SessionRequest,
    now: SystemTime,
) -> Result<SessionAnswer, Refused> {
    let Asked { platform, cpu0_id, es, init_data, named } = Asked::read(request)?;
    let uri: ResourceUri = named
        .key_id
        .as_str()
        .parse()
        .map_err(|_| nothing_to_release().because("the guest's key id is no address"))?;
    let claim = Claim {
        sealed_spec: named.sealed_spec.to_string(),
        init_data: Some(format!("sha256:{}", hex::encode(init_data))),
    };
    if platform.needs_cek() {
        // AMD's service may be asked: not for whoever comes without a guest that is registered for such platforms.
        let policy = entitled(&mut broker.store().begin().await?, &claim, &uri).await?.policy;
        if policy.policy.sev.is_none() {
            return Err(not_named(&policy.policy, if es { TeeKind::SevEs } else { TeeKind::Sev }, es));
        }
    }
    let (collateral, note) = collateral(broker, platform.needs_cek(), cpu0_id.as_ref(), now).await;
    // Before the database is asked for anything: only for platforms that someone vouches for.
    let checked = platform.check_chain(broker.sev_anchors(), &collateral).map_err(|denial| {
        let refused = Refused::from(denial);
        match note.filter(|_| refused.refusal.code == Code::Collateral) {
            Some(note) => refused.because(note),
            None => refused,
        }
    })?;

    let mut tx = broker.store().begin().await?;
    let entitled = entitled(&mut tx, &claim, &uri).await?;
    let policy = guest_policy(&entitled.policy.policy, &checked, es)?;
    let chip = hex::encode(checked.chip());
    let (session, files) = checked
        .open_session(policy, init_data, *named.sealed_spec.as_bytes(), &mut random)
        .map_err(|error| failed(&error))?;
    let stored = session.to_bytes().map_err(|error| failed(&error))?;
    let id = random_id()?;
    let address = share_of(address).to_string();
    if !tx.open_launch(&id, (&uri.to_string(), &chip), &address, &stored).await? {
        return Err(Refused::new(
            Code::Overloaded,
            "too many launch sessions of this address wait for their measurement; try again when some are measured or have expired",
        ));
    }
    tx.commit().await?;
    broker.counters().launch_sessions.add();
    Ok(SessionAnswer {
        session: id,
        policy: policy.0,
        godh: BASE64_STANDARD.encode(files.godh.as_slice()),
        session_blob: BASE64_STANDARD.encode(files.session),
    })
}

/// The policy that the guest has to be launched with, if the owner's policy takes such a launch at all.
fn guest_policy(policy: &ReleasePolicy, platform: &ChainChecked, es: bool) -> Result<Policy, Refused> {
    let kind = platform.tee(es);
    let named = |tee: &PolicyTee| TeeKind::from_name(tee.name()) == Some(kind);
    let Some(sev) = policy.sev.as_ref().filter(|_| policy.tee.iter().any(named)) else {
        return Err(not_named(policy, kind, es));
    };
    let minimum = FirmwareApi { major: sev.minimum_api.major, minor: sev.minimum_api.minor };
    Ok(Policy::new(STRICT | if es { Policy::ES } else { 0 }, minimum))
}

fn not_named(policy: &ReleasePolicy, kind: TeeKind, es: bool) -> Refused {
    let allowed: Vec<_> = policy.tee.iter().map(|tee| tee.name()).collect();
    Refused::new(
        Code::TeeKind,
        format!(
            "the launch is of kind '{}'; the policy allows [{}]. It is weaker than snp, so a policy has to name it: {}",
            kind.name(),
            allowed.join(", "),
            weaknesses(es)
        ),
    )
}

/// AMD's certificates for the platform, and what is missing of them.
async fn collateral(
    broker: &Broker,
    needs_cek: bool,
    cpu0_id: Option<&[u8; 64]>,
    now: SystemTime,
) -> (Collateral, Option<String>) {
    let Some(id) = cpu0_id.filter(|_| needs_cek) else {
        let authorities = broker.collateral().sev_authorities(now, broker.collateral_wait()).await;
        let note = needs_cek.then(|| "the relay didn't say cpu0_id".to_owned());
        return (Collateral { authorities, cek: None }, note);
    };
    let collateral::Sev { cek, authorities, note } =
        broker.collateral().sev(id, now, broker.collateral_wait()).await;
    (Collateral { authorities, cek }, note.map(|note| note.to_string()))
}
