//! A guest that comes back: it holds the connection key that was injected into one measured launch, and nothing but
//! that launch can hold it. So evidence made with the key carries the launch's verdict over to a session.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::CONNECT;
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Appraised, CheckRecord, Claims, Denial, SevClaims, TeeKind, Trust, Verdict};

/// What goes before what a connection key authenticates.
const CONTEXT: &[u8] = b"sealpod-sev-connection-v1";

/// A launch that was granted a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub(super) tee: TeeKind,
    pub(super) trust: Trust,
    pub(super) claims: SevClaims,
    pub(super) init_data: [u8; 32],
    pub(super) sealed_spec: [u8; 32],
    pub(super) checks: Vec<CheckRecord>,
}

/// What a guest's evidence must be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSession {
    /// Hash of this session's nonce and key, as the protocol defines it.
    pub report_data: [u8; 64],
    /// SHA-256 of the init-data that came with the evidence.
    pub init_data: [u8; 32],
    /// SHA-256 of the sealed spec that the init-data names.
    pub sealed_spec: [u8; 32],
}

impl Launched {
    /// The launch's verdict, bound to nothing or to a session.
    pub(super) fn appraised(self, report_data: Option<[u8; 64]>) -> Appraised {
        let Self { tee, trust, claims, init_data, checks, .. } = self;
        let claims = Claims::Sev(Box::new(claims));
        Appraised::new(Verdict { tee, trust, claims, init_data, report_data, checks })
    }

    /// SHA-256 of the sealed spec that the launch was for.
    pub const fn sealed_spec(&self) -> &[u8; 32] {
        &self.sealed_spec
    }

    /// Checks that whoever asks holds the launch's connection key, for this session and for the sealed spec and init-data
    /// that the launch was for. `mac` is HMAC-SHA-384 with the key over a context, the report data and the sealed spec's
    /// digest.
    ///
    /// # Errors
    /// [`Check::Binding`](crate::Check::Binding) or [`Check::HostData`](crate::Check::HostData).
    pub fn connect(
        self,
        key: &[u8; 32],
        session: &ConnectionSession,
        mac: &[u8],
    ) -> Result<Appraised, Denial> {
        let mut checks = Checks::after(self.checks.clone(), CONNECT);
        checks.pass("connection", || {
            let message = [CONTEXT, &session.report_data, &self.sealed_spec].concat();
            let key = hmac::Key::new(hmac::HMAC_SHA384, key);
            if hmac::verify(&key, &message, mac).is_err() {
                return refuse!(
                    Binding,
                    "evidence was not made with the connection's key for this session's nonce and key and the sealed \
                     spec of its launch"
                );
            }
            Ok(hex::encode(session.report_data))
        })?;
        checks.pass("sealed_spec", || {
            if !bool::from(session.sealed_spec.ct_eq(&self.sealed_spec)) {
                return refuse!(
                    HostData,
                    "init-data names sealed spec sha256:{}, but the guest was launched for sha256:{}",
                    hex::encode(session.sealed_spec),
                    hex::encode(self.sealed_spec)
                );
            }
            Ok(hex::encode(self.sealed_spec))
        })?;
        checks.pass("host_data", || {
            if !bool::from(session.init_data.ct_eq(&self.init_data)) {
                return refuse!(
                    HostData,
                    "init-data has the digest {}, but the guest was launched with {}",
                    hex::encode(session.init_data),
                    hex::encode(self.init_data)
                );
            }
            Ok(hex::encode(self.init_data))
        })?;
        let report_data = session.report_data;
        Ok(Self { checks: checks.into_records(), ..self }.appraised(Some(report_data)))
    }
}
