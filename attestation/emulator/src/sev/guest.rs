//! One guest's launch as the firmware sees it (SEV API, chapter 6): LAUNCH_START, LAUNCH_UPDATE_DATA and
//! LAUNCH_UPDATE_VMSA, LAUNCH_MEASURE, LAUNCH_SECRET, LAUNCH_FINISH, each only in its state.

use super::crypto::{KEY, counter_mode, mac};
use super::faults::Fault;
use super::platform::Platform;
use super::session::Session;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a secret's header: flags u32, IV 16, MAC 32.
pub const SECRET_HEADER: usize = 52;
/// Longest secret.
pub const SECRET_MAX: usize = 16 * 1024;

const ES: u32 = 1 << 2;
/// Bits of a policy that mean something: flags, then the minimum API version.
const POLICY_BITS: u32 = 0xffff_003f;
const MEASURE_CONTEXT: u8 = 4;
const SECRET_CONTEXT: u8 = 1;

/// Errors of the firmware, with their numbers and the words that QEMU has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Status {
    /// The command doesn't belong into the guest's state.
    #[error("Guest state is invalid")]
    InvalidGuestState = 2,
    /// A blob has another length.
    #[error("Buffer too small")]
    InvalidLength = 4,
    /// The guest owner's certificate is none.
    #[error("Certificate is invalid")]
    InvalidCertificate = 6,
    /// The policy asks for what this platform isn't.
    #[error("Policy is not allowed")]
    PolicyFailure = 7,
    /// A MAC doesn't match.
    #[error("Bad measurement")]
    BadMeasurement = 11,
    /// An argument makes no sense.
    #[error("Invalid parameter")]
    InvalidParameter = 22,
}

/// Where a launch is, by QEMU's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Memory is being filled and measured.
    Update,
    /// Measured: secrets can come.
    Secret,
    /// It runs.
    Running,
}

impl State {
    /// As `query-sev` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "launch-update",
            Self::Secret => "launch-secret",
            Self::Running => "running",
        }
    }
}

/// A guest from LAUNCH_START on.
pub struct Guest {
    session: Session,
    policy: u32,
    api: (u8, u8),
    build: u8,
    state: State,
    digest: Sha256,
    measurement: Option<([u8; 32], [u8; KEY])>,
    secret: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Guest(policy {:#x}, {})", self.policy, self.state.name())
    }
}

impl Guest {
    /// LAUNCH_START: opens the session and compares the policy.
    pub fn start(
        platform: &Platform,
        policy: u32,
        godh: &[u8],
        session: &[u8],
        faults: &[Fault],
    ) -> Result<Self, Status> {
        let forced = faults.iter().find_map(|fault| match fault {
            Fault::Policy(policy) => Some(*policy),
            _ => None,
        });
        let effective = forced.unwrap_or(policy);
        if effective & !POLICY_BITS != 0 {
            return Err(Status::InvalidParameter);
        }
        if ((effective >> 16) as u8, (effective >> 24) as u8) > platform.api {
            return Err(Status::PolicyFailure);
        }
        let compared = forced.is_none().then_some(policy);
        let session = Session::open(session, godh, platform.pdh_key(), compared)?;
        Ok(Self {
            session,
            policy: effective,
            api: platform.api,
            build: platform.build,
            state: State::Update,
            digest: Sha256::new(),
            measurement: None,
            secret: None,
        })
    }

    /// LAUNCH_UPDATE_DATA.
    pub fn update_data(&mut self, data: &[u8]) -> Result<(), Status> {
        self.must_be(State::Update)?;
        self.digest.update(data);
        Ok(())
    }

    /// LAUNCH_UPDATE_VMSA: one virtual processor's state; SEV-ES only.
    pub fn update_processor(&mut self, page: &[u8]) -> Result<(), Status> {
        self.must_be(State::Update)?;
        if !self.is_es() {
            return Err(Status::InvalidGuestState);
        }
        self.digest.update(page);
        Ok(())
    }

    /// LAUNCH_MEASURE, once: MEASURE 32 and MNONCE 16, for this nonce.
    pub fn measure(&mut self, nonce: [u8; KEY]) -> Result<[u8; 48], Status> {
        self.must_be(State::Update)?;
        let digest = self.digest.clone().finalize();
        let measure = mac(
            &*self.session.tik,
            &[
                &[MEASURE_CONTEXT, self.api.0, self.api.1, self.build],
                &self.policy.to_le_bytes(),
                &digest,
                &nonce,
            ],
        );
        self.state = State::Secret;
        self.measurement = Some((measure, nonce));
        Ok(joined(measure, nonce))
    }

    /// What was measured, for whoever asks again.
    pub fn measurement(&self) -> Option<[u8; 48]> {
        self.measurement.map(|(measure, nonce)| joined(measure, nonce))
    }

    /// LAUNCH_SECRET: checks the packet's MAC for this launch's MEASURE and decrypts it into the guest.
    pub fn inject(&mut self, header: &[u8], ciphertext: &[u8]) -> Result<(), Status> {
        self.must_be(State::Secret)?;
        let Some((measure, _)) = self.measurement else { return Err(Status::InvalidGuestState) };
        let header: &[u8; SECRET_HEADER] = header.try_into().map_err(|_| Status::InvalidLength)?;
        let (flags, rest) = header.split_at(4);
        let (iv, claimed) = rest.split_at(KEY);
        if ciphertext.is_empty() || ciphertext.len() > SECRET_MAX || !ciphertext.len().is_multiple_of(16) {
            return Err(Status::InvalidLength);
        }
        // Bit 0 would say that the data is compressed, which no firmware takes any more.
        if flags != [0; 4] {
            return Err(Status::InvalidParameter);
        }
        let length = (ciphertext.len() as u32).to_le_bytes();
        let expected =
            mac(&*self.session.tik, &[&[SECRET_CONTEXT], flags, iv, &length, &length, ciphertext, &measure]);
        if expected[..] != *claimed {
            return Err(Status::BadMeasurement);
        }
        let mut first = [0; KEY];
        first.copy_from_slice(iv);
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        counter_mode(&self.session.tek, &first, &mut plain);
        self.secret = Some(plain);
        Ok(())
    }

    /// LAUNCH_FINISH: the guest runs, with this in its secret area.
    pub fn finish(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        if self.state == State::Running {
            return Err(Status::InvalidGuestState);
        }
        self.state = State::Running;
        Ok(self.secret.take())
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The policy that it was launched under.
    pub fn policy(&self) -> u32 {
        self.policy
    }

    /// Are its registers encrypted and measured?
    pub fn is_es(&self) -> bool {
        self.policy & ES != 0
    }

    fn must_be(&self, state: State) -> Result<(), Status> {
        if self.state == state { Ok(()) } else { Err(Status::InvalidGuestState) }
    }
}

fn joined(measure: [u8; 32], nonce: [u8; KEY]) -> [u8; 48] {
    let mut out = [0; 48];
    out[..32].copy_from_slice(&measure);
    out[32..].copy_from_slice(&nonce);
    out
}
