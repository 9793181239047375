//! Wire types: what crosses a boundary between Sealpod's programs, or between them and Kata's.
//!
//! | module | wire |
//! |---|---|
//! | [`agent`], [`health`], [`oci`], [`types`], [`csi`] | the Kata agent's ttrpc API |
//! | [`cdh`], [`hypervisor`] | confidential data hub, remote hypervisor |
//! | [`rcar`] | the key broker protocol between guest and broker |
//! | [`sev`] | launches of SEV and SEV-ES guests: host's relay and broker, broker and guest |
//! | [`pef`] | Power PEF guests in the key broker protocol |
//! | [`owner`], [`broker`] | what owners sign, and how they hand it to the broker |
//! | [`audit`] | the broker's audit chain |
//! | [`refusal`] | the codes that every refusal carries |

pub mod audit;
pub mod broker;
pub mod canonical;
mod generated;
pub mod name;
pub mod owner;
pub mod pef;
pub mod ports;
pub mod rcar;
pub mod refusal;
pub mod sev;
mod signing;

pub use generated::confidential_data_hub as cdh;
pub use generated::confidential_data_hub_ttrpc as cdh_ttrpc;
pub use generated::remote as hypervisor;
pub use generated::remote_ttrpc as hypervisor_ttrpc;
pub use generated::{agent, agent_ttrpc, csi, empty, health, health_ttrpc, oci, types};
