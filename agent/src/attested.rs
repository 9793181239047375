//! Production's way to the key: TEE, initdata, broker. What went wrong at boot is kept and told to
//! whoever asks for a sandbox: the runtime's log is where a person looks.

use std::sync::Arc;

use agent_attest::initdata::{self, VerifiedInitdata};
use agent_attest::rcar::{self, Transport};
use agent_attest::tee::{self, Tee};
use async_trait::async_trait;
use protocols::refusal::Refusal;
use sealed_spec::SpecKey;
use sealed_spec::initdata::SealpodConfig;

use crate::opening::KeySource;

/// What the launch bound this VM to.
pub struct Attested {
    boot: Result<Boot, Refusal>,
}

struct Boot {
    tee: Arc<dyn Tee>,
    initdata: VerifiedInitdata,
}

impl Attested {
    /// Finds the TEE, and the initdata that its report vouches for. Blocks.
    pub fn boot() -> Self {
        let boot = tee::detect().and_then(|tee| {
            let initdata = initdata::load(tee.as_ref())?;
            Ok(Boot { tee, initdata })
        });
        Self { boot }
    }

    /// Why this VM opens nothing, if so.
    pub fn failure(&self) -> Option<&Refusal> {
        self.boot.as_ref().err()
    }

    fn ready(&self) -> Result<&Boot, Refusal> {
        self.boot.as_ref().map_err(Clone::clone)
    }
}

#[async_trait]
impl KeySource for Attested {
    fn config(&self) -> Result<&SealpodConfig, Refusal> {
        self.ready().map(|boot| boot.initdata.config())
    }

    fn document(&self) -> Option<&str> {
        self.boot.as_ref().ok().and_then(|boot| boot.initdata.document())
    }

    async fn release_key(&self) -> Result<SpecKey, Refusal> {
        let boot = self.ready()?;
        let transport = Transport::of(boot.initdata.config())?;
        rcar::release_key(&boot.initdata, &boot.tee, transport).await
    }
}
