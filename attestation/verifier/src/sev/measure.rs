//! The platform's code over a launch, held against what the owner allows. The launch digest itself is never told:
//! it is found among the candidates, so evidence of another image is evidence of nothing.

use tee_evidence::sev::{FirmwareApi, LaunchMeasure, Measurement, Policy};

use super::claims::weaknesses;
use super::crypto::{Key, verify_mac};
use super::{ChainChecked, Launched, MEASURE, Session, SevClaims, SevPolicyBits};
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Appraised, Denial, TeeKind, Trust};

/// What the host says about the launch. Each value is part of what the platform's code covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// `query-sev`: API version of the firmware.
    pub api: FirmwareApi,
    /// `query-sev`: its build.
    pub build: u8,
    /// `query-sev`: policy of the launch.
    pub policy: Policy,
    /// `query-sev-launch-measure`.
    pub measurement: Measurement,
}

/// A launch that the platform vouches for, with the keys for the one secret that it may get.
#[derive(Debug)]
pub struct Measured {
    pub(super) tek: SilentKey,
    pub(super) tik: SilentKey,
    pub(super) measure: [u8; 32],
    pub(super) launched: Launched,
    appraised: Appraised,
}

pub(super) struct SilentKey(pub(super) Key);

impl std::fmt::Debug for SilentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Session {
    /// Checks the platform's code over the launch. The session is gone afterwards, whatever comes of it.
    ///
    /// # Errors
    /// [`Check::GuestPolicy`](crate::Check::GuestPolicy) if the launch was under another policy than the session,
    /// [`Check::LaunchDigest`](crate::Check::LaunchDigest) if the code fits none of the candidates.
    pub fn measure<'a>(
        self,
        launch: &Launch,
        candidates: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Measured, Denial> {
        let Self { tek, tik, nonce, policy, init_data, sealed_spec, product, trust, chip, checks } = self;
        let mut checks = Checks::after(checks, MEASURE);
        checks.pass("launch_policy", || {
            if launch.policy != policy {
                return refuse!(
                    GuestPolicy,
                    "guest was launched with policy {:#x}; its session is for {:#x}",
                    launch.policy.0,
                    policy.0
                );
            }
            Ok(format!("{:#x}", policy.0))
        })?;
        let Launch { api, build, measurement: Measurement { measure, mnonce }, .. } = *launch;
        let digest = checks.run("launch_measure", || {
            let mut tried = 0;
            for candidate in candidates {
                let Ok(digest) = <[u8; 32]>::try_from(candidate) else { continue };
                tried += 1;
                let message = LaunchMeasure { api, build, policy, digest, mnonce }.message();
                if digest != [0; 32] && verify_mac(&tik, &message, &measure) {
                    return Ok((digest, hex::encode(digest)));
                }
            }
            refuse!(
                LaunchDigest,
                "the platform's measurement fits none of the policy's launch digests of 32 bytes ({tried}); run \
                 'sealpod measure' with the firmware, kernel, initrd, command line and, for SEV-ES, vCPUs that you \
                 deployed"
            )
        })?;
        let es = policy.es();
        let claims = SevClaims {
            product,
            chip,
            api,
            build,
            policy: SevPolicyBits::new(policy),
            measurement: digest,
            session: nonce,
            weaknesses: weaknesses(es),
        };
        let tee = kind(&trust, es);
        let checks = checks.into_records();
        let launched = Launched { tee, trust, claims, init_data, sealed_spec, checks };
        let appraised = launched.clone().appraised(None);
        Ok(Measured { tek: SilentKey(tek), tik: SilentKey(tik), measure, launched, appraised })
    }

    /// The kind of TEE that the launch will be of.
    pub const fn tee(&self) -> TeeKind {
        kind(&self.trust, self.policy.es())
    }

    /// SHA-256 of the initdata that the launch is for.
    pub const fn init_data(&self) -> &[u8; 32] {
        &self.init_data
    }

    /// SHA-256 of the sealed spec that the launch is for.
    pub const fn sealed_spec(&self) -> &[u8; 32] {
        &self.sealed_spec
    }
}

impl ChainChecked {
    /// The kind of TEE that a launch on this platform will be of.
    pub const fn tee(&self, es: bool) -> TeeKind {
        kind(&self.trust, es)
    }
}

impl Measured {
    /// What is known about the launch, for when its guest comes back.
    pub const fn launched(&self) -> &Launched {
        &self.launched
    }

    /// The launch, for comparing with a policy.
    pub const fn appraised(&self) -> &Appraised {
        &self.appraised
    }
}

pub(super) const fn kind(trust: &Trust, es: bool) -> TeeKind {
    match (trust, es) {
        (Trust::Amd, false) => TeeKind::Sev,
        (Trust::Amd, true) => TeeKind::SevEs,
        (_, false) => TeeKind::SevEmulated,
        (_, true) => TeeKind::SevEsEmulated,
    }
}
