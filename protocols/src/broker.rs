//! The broker's HTTP interface for owners, beside the key broker protocol. Errors are
//! [`KbsError`](crate::rcar::KbsError) bodies whose detail is a refusal line.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::Checkpoint;

/// `POST`: a key with its registration.
pub const REGISTRATIONS_PATH: &str = "/sealpod/v1/registrations";
/// `POST`: a policy.
pub const POLICIES_PATH: &str = "/sealpod/v1/policies";
/// `POST`: a retirement.
pub const RETIREMENTS_PATH: &str = "/sealpod/v1/retirements";
/// `POST`: a resource with its statement.
pub const RESOURCES_PATH: &str = "/sealpod/v1/resources";
/// `POST`: an ESM blob's enrolment.
pub const BLOBS_PATH: &str = "/sealpod/v1/blobs";
/// `POST`: the end of an ESM blob.
pub const BLOB_DENIALS_PATH: &str = "/sealpod/v1/blob-denials";
/// `POST`, by a guest with its session: the key arrived and opened the sealed spec.
pub const CONFIRM_PATH: &str = "/sealpod/v1/confirmations";
/// Largest resource, in bytes.
pub const MAX_RESOURCE: usize = 256 * 1024;
/// `GET`: is the broker up, and whom does it trust.
pub const HEALTH_PATH: &str = "/sealpod/v1/health";

/// A registration and the key it is for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationRequest {
    /// Signed [`Registration`](crate::owner::Registration).
    pub registration: String,
    /// The spec key: base64url of 32 bytes. A secret.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for RegistrationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationRequest")
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

/// A resource and what its owner says of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceRequest {
    /// Signed [`Resource`](crate::owner::Resource).
    pub resource: String,
    /// The bytes, base64url, at most [`MAX_RESOURCE`]. A secret.
    pub content: Zeroizing<String>,
}

impl fmt::Debug for ResourceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceRequest").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// A policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// Signed [`PolicyStatement`](crate::owner::PolicyStatement).
    pub policy: String,
}

/// A retirement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetirementRequest {
    /// Signed [`Retirement`](crate::owner::Retirement).
    pub retirement: String,
}

/// An ESM blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRequest {
    /// Signed [`PefBlob`](crate::owner::PefBlob).
    pub blob: String,
}

/// The end of an ESM blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobDenialRequest {
    /// Signed [`BlobDenial`](crate::owner::BlobDenial).
    pub denial: String,
}

/// What a guest confirms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The key's address.
    pub uri: String,
}

/// The answer to each of these: where the audit log stands after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Signed position in the audit log; keep it to catch a log that was rewritten.
    pub checkpoint: Checkpoint,
}

/// The answer on [`HEALTH_PATH`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The broker's version.
    pub version: String,
    /// Roots that evidence may lead to: `amd`, and each configured emulated root by name and fingerprint.
    pub trust: Vec<String>,
}
