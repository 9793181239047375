//! A client of OCI registries (distribution-spec 1.1) that believes nothing they send: for the guest, whose
//! network is the host's, and for the owner.
//!
//! What is asked for by digest is checked against it here, except the blobs that [`Download`] hands out as
//! they come: those the caller hashes. Everything else that a registry says (sizes, redirects, upload
//! locations, token services, times to wait) is bounded and may only narrow what is done.

mod auth;
mod body;
mod client;
mod content;
mod credentials;
mod digest;
mod document;
mod download;
mod error;
mod limits;
mod origin;
mod pool;
mod proxy;
mod push;
mod reference;
mod repository;
mod resolver;
mod retry;
mod server;
mod signatures;
mod source;
mod tls;
mod transport;

pub use client::{Access, Client, Settings};
pub use content::{Content, FileContent};
pub use credentials::{AuthFile, AuthFileError};
pub use digest::{Digest, DigestError, Hasher};
pub use document::{Document, MANIFEST_TYPES};
pub use download::Download;
pub use error::RegistryError;
pub use limits::Limits;
pub use proxy::{Proxies, Proxy, ProxyError};
pub use push::Pushed;
pub use reference::{Reference, ReferenceError};
pub use repository::Repository;
pub use signatures::{Descriptor, Signature};
pub use source::{Login, Mirror, Source};
