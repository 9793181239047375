//! Production's way to the key: TEE, initdata, broker. What went wrong at boot is kept and told to
//! whoever asks for a sandbox: the runtime's log is where a person looks.

use std::sync::Arc;
use std::time::Duration;

use agent_attest::initdata::{self, VerifiedInitdata};
use agent_attest::rcar::Session;
use agent_attest::tee::{self, Tee};
use agent_resources::clock::{self, BUILT, LATEST};
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;
use sealed_spec::initdata::{PolicyInitdata, SealpodConfig};
use slog::{Logger, info};
use zeroize::Zeroizing;

use crate::opening::KeySource;

/// Each ends some ten seconds after the last, if the broker isn't there.
const CONFIRM_ATTEMPTS: u32 = 5;
const CONFIRM_PAUSE: Duration = Duration::from_secs(2);

/// What the launch bound this VM to.
pub struct Attested {
    boot: Result<Boot, Refusal>,
    log: Logger,
}

struct Boot {
    tee: Arc<dyn Tee>,
    initdata: VerifiedInitdata,
    /// The guest at its broker, where it attests once for everything.
    session: Option<Session>,
}

impl Attested {
    /// Finds the TEE, and the initdata that it vouches for. Blocks.
    pub fn boot(log: Logger) -> Self {
        let boot = tee::detect().and_then(|tee| {
            let initdata = initdata::load(tee.as_ref())?;
            let session = Session::new(&initdata, tee.clone())?;
            Ok(Boot { tee, initdata, session })
        });
        Self { boot, log }
    }

    /// Why this VM opens nothing, if so.
    pub fn failure(&self) -> Option<&Refusal> {
        self.boot.as_ref().err()
    }

    /// The policy that the launch bound this VM to, if it is one.
    pub fn policy(&self) -> Option<&PolicyInitdata> {
        self.boot.as_ref().ok().and_then(|boot| boot.initdata.policy())
    }

    /// Asks the broker for a resource.
    pub async fn fetch(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let boot = self.ready()?;
        if boot.tee.spec_key().is_some() {
            return Err(Refusal::new(
                Code::Resource,
                format!(
                    "{uri} can't be asked for: this guest was launched with an offline bundle, which holds the spec key and nothing to attest with (policy: sev.secret)"
                ),
            ));
        }
        let Some(session) = &boot.session else {
            return Err(Refusal::new(
                Code::Resource,
                format!(
                    "{uri} can't be asked for: the guest's initdata names no broker (aa.toml or cdh.toml)"
                ),
            ));
        };
        let fetched = session.resource(uri).await;
        self.raise_clock(session);
        fetched
    }

    /// No time before this is believed, in seconds since the epoch.
    pub fn earliest(&self) -> i64 {
        let session = self.boot.as_ref().ok().and_then(|boot| boot.session.as_ref());
        session.and_then(Session::broker_time).filter(|time| *time <= LATEST).unwrap_or(BUILT).max(BUILT)
    }

    fn ready(&self) -> Result<&Boot, Refusal> {
        self.boot.as_ref().map_err(Clone::clone)
    }

    /// The host's clock, by which certificates and tokens expire, is not before the broker's.
    fn raise_clock(&self, session: &Session) {
        let Some(time) = session.broker_time() else { return };
        match clock::raise_clock_to(time) {
            Ok(false) => {}
            Ok(true) => info!(self.log, # "host", "the machine's clock was before the broker's"),
            Err(error) => info!(self.log, # "host", "the broker's time is not used";
                "reason" => error.to_string()),
        }
    }
}

#[async_trait]
impl KeySource for Attested {
    fn config(&self) -> Result<&SealpodConfig, Refusal> {
        self.ready()?.initdata.config()
    }

    fn document(&self) -> Option<&str> {
        self.boot.as_ref().ok().and_then(|boot| boot.initdata.document())
    }

    async fn release_key(&self) -> Result<SpecKey, Refusal> {
        let boot = self.ready()?;
        boot.initdata.config()?;
        if let Some(key) = boot.tee.spec_key() {
            return Ok(key);
        }
        let session = boot.session.as_ref();
        let session = session.ok_or_else(|| Refusal::new(Code::Internal, "no broker to ask for the key"))?;
        let key = session.spec_key().await;
        self.raise_clock(session);
        key
    }

    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.fetch(uri).await
    }

    async fn confirm(&self) {
        let Ok(Boot { tee, session: Some(session), .. }) = &self.boot else { return };
        // Nothing was released to a guest that brought its key along.
        if tee.spec_key().is_some() {
            return;
        }
        let mut attempt = 1;
        while let Err(refusal) = session.confirm().await {
            let worth_a_try = matches!(refusal.code, Code::BrokerUnreachable | Code::Overloaded);
            if !worth_a_try || attempt == CONFIRM_ATTEMPTS {
                // The broker counts the release in any case.
                info!(self.log, # "host", "the broker doesn't know that the key arrived";
                    "reason" => refusal.to_string());
                return;
            }
            attempt += 1;
            tokio::time::sleep(CONFIRM_PAUSE).await;
        }
    }

    fn earliest(&self) -> i64 {
        Self::earliest(self)
    }
}
