//! Production's way to the key: TEE, initdata, broker. What went wrong at boot is kept and told to
//! whoever asks for a sandbox: the runtime's log is where a person looks.

use std::sync::Arc;

use agent_attest::initdata::{self, VerifiedInitdata};
use agent_attest::rcar::{self, Session, Transport};
use agent_attest::tee::{self, Tee};
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;
use sealed_spec::initdata::{PolicyInitdata, SealpodConfig};
use zeroize::Zeroizing;

use crate::opening::KeySource;

/// What the launch bound this VM to.
pub struct Attested {
    boot: Result<Boot, Refusal>,
}

struct Boot {
    tee: Arc<dyn Tee>,
    initdata: VerifiedInitdata,
    /// Resources, for which the guest attests once.
    session: Option<Session>,
}

impl Attested {
    /// Finds the TEE, and the initdata that its report vouches for. Blocks.
    pub fn boot() -> Self {
        let boot = tee::detect().and_then(|tee| {
            let initdata = initdata::load(tee.as_ref())?;
            let session = Session::new(&initdata, tee.clone())?;
            Ok(Boot { tee, initdata, session })
        });
        Self { boot }
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
        match &self.ready()?.session {
            Some(session) => session.resource(uri).await,
            None => Err(Refusal::new(
                Code::Resource,
                format!(
                    "{uri} can't be asked for: the guest's initdata names no broker (aa.toml or cdh.toml)"
                ),
            )),
        }
    }

    fn ready(&self) -> Result<&Boot, Refusal> {
        self.boot.as_ref().map_err(Clone::clone)
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
        let transport = Transport::of(boot.initdata.config()?)?;
        rcar::release_key(&boot.initdata, &boot.tee, transport).await
    }

    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.fetch(uri).await
    }
}
