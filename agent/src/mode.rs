//! What this VM is: each mode is visible in its measurement, and is chosen once, at boot.
//!
//! | mode | chosen by | who decides about requests |
//! |---|---|---|
//! | sealed | verified initdata with `sealpod.toml` | the sealed specification |
//! | policy | verified initdata with `policy.rego` | that policy |
//! | unsealed | `sealpod.unsealed=allow` on the measured command line | nobody: a plain Kata agent |
//!
//! Initdata that is missing or doesn't verify leaves a sealed VM that opens nothing: no failure on the
//! way leads to a mode that allows more.

use agent_resources::clock::BUILT;
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::Refusal;
use zeroize::Zeroizing;

use crate::opening::Opening;

/// The mode, with what it decides by.
pub enum Mode {
    /// The sealed specification is the policy.
    Sealed(Opening),
    /// A Rego policy that HOST_DATA binds, as CoCo's guests have it.
    Policy(Box<dyn Gatekeeper>),
    /// Everything that the host asks for.
    Unsealed,
}

/// Decides about requests by a policy, and has the way to the broker of that mode. Production:
/// [`crate::guarded::Guarded`].
#[async_trait]
pub trait Gatekeeper: Send + Sync {
    /// Why no sandbox can be made at all, as an invalid policy.
    fn failure(&self) -> Option<Refusal>;
    /// Decides about one request, by its message's name; `request` is its JSON as policies see it.
    async fn admit(&self, message: &'static str, request: String) -> Result<(), Refusal>;
    /// Puts another policy in force, if the current one allows it; an invalid one changes nothing.
    async fn replace(&self, policy: &str) -> Result<(), Refusal>;
    /// Asks the broker for a resource.
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// No time before this is believed, in seconds since the epoch.
    fn earliest(&self) -> i64 {
        BUILT
    }
    /// The resource of a credential that initdata names.
    fn named_key(&self, name: &str) -> Option<ResourceUri>;
}

impl Mode {
    /// The way to the sealed specification, in a sealed VM.
    pub fn sealed(&self) -> Option<&Opening> {
        match self {
            Self::Sealed(opening) => Some(opening),
            Self::Policy(_) | Self::Unsealed => None,
        }
    }

    /// For records: what the VM is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sealed(_) => "sealed",
            Self::Policy(_) => "policy",
            Self::Unsealed => "unsealed",
        }
    }
}
