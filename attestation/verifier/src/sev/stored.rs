//! Sessions and launches as bytes, for a store between the requests of one launch. The bytes hold transport keys:
//! whoever stores them seals them, and whoever reads them back vouches that they are the ones that were stored.

use serde::{Deserialize, Serialize};
use tee_evidence::sev::{FirmwareApi, Policy};
use zeroize::{Zeroize, Zeroizing};

use super::claims::weaknesses;
use super::crypto::Key;
use super::{CHAIN, CONNECT, Launched, MEASURE, Session, SevClaims, SevPolicyBits, SevProduct, measure};
use crate::{CheckRecord, Outcome, Trust};

/// Room for a stored session, so that writing one leaves no copies behind.
const ROOM: usize = 8 * 1024;
const VERSION: u32 = 1;

/// Why bytes are not what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored SEV session or launch can't be read")]
pub struct StoredError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSession {
    version: u32,
    tek: [u8; 16],
    tik: [u8; 16],
    nonce: [u8; 16],
    policy: u32,
    platform: StoredPlatform,
}

impl Drop for StoredSession {
    fn drop(&mut self) {
        self.tek.zeroize();
        self.tik.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLaunch {
    version: u32,
    session: [u8; 16],
    api: (u8, u8),
    build: u8,
    policy: u32,
    measurement: [u8; 32],
    platform: StoredPlatform,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPlatform {
    init_data: [u8; 32],
    sealed_spec: [u8; 32],
    product: SevProduct,
    /// The emulated root; none is AMD.
    emulated: Option<(String, [u8; 32])>,
    chip: [u8; 32],
    /// Checks that were made: name, whether it passed or was left out, value.
    checks: Vec<(String, bool, String)>,
}

impl Session {
    /// The session as bytes. They hold its keys.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, StoredError> {
        let Self { tek, tik, nonce, policy, init_data, sealed_spec, product, trust, chip, checks } = self;
        let platform = StoredPlatform::new((init_data, sealed_spec), *product, trust, chip, checks);
        let (tek, tik) = (**tek, **tik);
        let stored = StoredSession { version: VERSION, tek, tik, nonce: *nonce, policy: policy.0, platform };
        write(&stored)
    }

    /// Reads [`Session::to_bytes`] back.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoredError> {
        let stored: StoredSession = serde_json::from_slice(bytes).map_err(|_| StoredError)?;
        if stored.version != VERSION {
            return Err(StoredError);
        }
        let platform = &stored.platform;
        Ok(Self {
            tek: Key::new(stored.tek),
            tik: Key::new(stored.tik),
            nonce: stored.nonce,
            policy: Policy(stored.policy),
            init_data: platform.init_data,
            sealed_spec: platform.sealed_spec,
            product: platform.product,
            trust: platform.trust()?,
            chip: platform.chip,
            checks: platform.checks()?,
        })
    }
}

impl Launched {
    /// The launch as bytes.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, StoredError> {
        let Self { trust, claims, init_data, sealed_spec, checks, .. } = self;
        let SevClaims { product, chip, api, build, policy, measurement, session, .. } = claims;
        write(&StoredLaunch {
            version: VERSION,
            session: *session,
            api: (api.major, api.minor),
            build: *build,
            policy: policy.bits,
            measurement: *measurement,
            platform: StoredPlatform::new((init_data, sealed_spec), *product, trust, chip, checks),
        })
    }

    /// Reads [`Launched::to_bytes`] back.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoredError> {
        let stored: StoredLaunch = serde_json::from_slice(bytes).map_err(|_| StoredError)?;
        if stored.version != VERSION {
            return Err(StoredError);
        }
        let StoredLaunch { session, api: (major, minor), build, policy, measurement, platform, .. } = stored;
        let (trust, policy) = (platform.trust()?, Policy(policy));
        Ok(Self {
            tee: measure::kind(&trust, policy.es()),
            claims: SevClaims {
                product: platform.product,
                chip: platform.chip,
                api: FirmwareApi { major, minor },
                build,
                policy: SevPolicyBits::new(policy),
                measurement,
                session,
                weaknesses: weaknesses(policy.es()),
            },
            init_data: platform.init_data,
            sealed_spec: platform.sealed_spec,
            checks: platform.checks()?,
            trust,
        })
    }
}

impl StoredPlatform {
    fn new(
        (init_data, sealed_spec): (&[u8; 32], &[u8; 32]),
        product: SevProduct,
        trust: &Trust,
        chip: &[u8; 32],
        checks: &[CheckRecord],
    ) -> Self {
        let emulated = match trust {
            Trust::Emulated { common_name, fingerprint } => Some((common_name.clone(), *fingerprint)),
            _ => None,
        };
        let record =
            |made: &CheckRecord| (made.check.to_owned(), made.outcome == Outcome::Passed, made.value.clone());
        let checks = checks.iter().map(record).collect();
        Self { init_data: *init_data, sealed_spec: *sealed_spec, product, emulated, chip: *chip, checks }
    }

    /// A root that isn't AMD's never reads as AMD's, whatever else was stored.
    fn trust(&self) -> Result<Trust, StoredError> {
        match (&self.emulated, self.product) {
            (Some((common_name, fingerprint)), SevProduct::Emulated) => {
                Ok(Trust::Emulated { common_name: common_name.clone(), fingerprint: *fingerprint })
            }
            (None, product) if product != SevProduct::Emulated => Ok(Trust::Amd),
            _ => Err(StoredError),
        }
    }

    fn checks(&self) -> Result<Vec<CheckRecord>, StoredError> {
        let known = || [CHAIN, MEASURE, CONNECT, &["revocation"]].into_iter().flatten();
        let record = |(name, passed, value): &(String, bool, String)| {
            let check = known().find(|known| *known == name).copied().ok_or(StoredError)?;
            let outcome = if *passed { Outcome::Passed } else { Outcome::NotChecked };
            Ok(CheckRecord { check, outcome, value: value.clone() })
        };
        self.checks.iter().map(record).collect()
    }
}

fn write(stored: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoredError> {
    let mut out = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *out, stored).map_err(|_| StoredError)?;
    Ok(out)
}
