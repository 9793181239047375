//! The statements themselves.

use serde::{Deserialize, Serialize};

use super::{ReleasePolicy, Statement, StatementError};
use crate::name;
use crate::rcar::ResourceUri;

/// Numbers have to survive every JSON reader.
const MAX_NUMBER: u64 = (1 << 53) - 1;
const MAX_IMAGES: usize = 256;
const MAX_INIT_DATA: usize = 64;
const MAX_IMAGE_KEYS: usize = 256;
/// Type of the addresses that spec keys have.
pub const KEY_KIND: &str = "sealed-spec";
/// Type of the addresses that image keys have.
pub const IMAGE_KEY_KIND: &str = "image-key";

/// One sealing: this spec, this key, this revision of a lineage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The owner.
    pub repository: String,
    /// What later revisions share.
    pub lineage: String,
    /// 1 and up.
    pub revision: u64,
    /// `sha256:` digest of the sealed document.
    pub spec_digest: String,
    /// `kbs:///<repository>/sealed-spec/<lineage>.r<revision>.<8 hex digits>`.
    pub key_id: String,
    /// `sha256:` digest of the key's 32 bytes.
    pub key_sha256: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kind, for example `Deployment`.
    pub workload_kind: String,
    /// Name of the workload.
    pub workload_name: String,
    /// `sha256:` digests of the images' manifests; images that run by signed tags have none.
    pub images: Vec<String>,
    /// `sha256:` digest of the initdata that the pods are launched with. It pins the broker too: with other
    /// initdata that names the same spec, a host could give the guest a broker of its own. Without this,
    /// the spec's digest alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_data: Option<String>,
    /// Addresses of the keys of its encrypted images, sorted: image keys go to guests for specs that name
    /// them here, and to no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_keys: Vec<String>,
}

impl Statement for Registration {
    const TYPE: &str = "sealpod-registration";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        line(&self.repository, &self.lineage)?;
        number("revision", self.revision)?;
        name::digest(&self.spec_digest)?;
        name::digest(&self.key_sha256)?;
        self.init_data.as_deref().map_or(Ok(()), name::digest)?;
        let uri: ResourceUri = self.key_id.parse().map_err(StatementError::KeyId)?;
        let expected = format!("{}/sealed-spec/{}.r{}.", self.repository, self.lineage, self.revision);
        let place = uri.to_string();
        let suffix = place.strip_prefix("kbs:///").and_then(|path| path.strip_prefix(&expected));
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !suffix.is_some_and(|suffix| suffix.len() == 8 && suffix.bytes().all(hex)) {
            return Err(StatementError::KeyPlace { key_id: place, expected });
        }
        text("namespace", &self.namespace, 63)?;
        text("workload_kind", &self.workload_kind, 63)?;
        text("workload_name", &self.workload_name, 253)?;
        if self.images.len() > MAX_IMAGES {
            return Err(StatementError::Value { field: "images", problem: "must name at most 256 digests" });
        }
        self.images.iter().try_for_each(|digest| name::digest(digest))?;
        self.validate_image_keys()
    }
}

impl Registration {
    fn validate_image_keys(&self) -> Result<(), StatementError> {
        let refuse = |problem| Err(StatementError::Value { field: "image_keys", problem });
        if self.image_keys.len() > MAX_IMAGE_KEYS {
            return refuse("must name at most 256 addresses");
        }
        if !self.image_keys.is_sorted_by(|earlier, later| earlier < later) {
            return refuse("must be sorted, each address once");
        }
        for key in &self.image_keys {
            let uri: ResourceUri = key.parse().map_err(StatementError::KeyId)?;
            if uri.repository() != self.repository {
                return refuse("must be below the owner's repository");
            }
            if uri.kind() == KEY_KIND {
                return refuse("must not be of the type that holds spec keys");
            }
        }
        Ok(())
    }
}

/// Bytes for guests of a lineage: what containers ask the broker for. Created once, never replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The owner.
    pub repository: String,
    /// `kbs:///<repository>/<type>/<tag>`; any type but `sealed-spec`, which holds keys.
    pub uri: String,
    /// `sha256:` digest of the bytes.
    pub sha256: String,
    /// Whose guests get it: those that would get the key of their own revision of this lineage. Its policy
    /// is also what guests under a policy are held against. An image key may go without: guests get it whose
    /// own registration names it, of whichever lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// `sha256:` digests of the initdata of guests under a policy (`policy.rego`) that get it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_data: Vec<String>,
}

impl Statement for Resource {
    const TYPE: &str = "sealpod-resource";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        name::repository(&self.repository)?;
        self.lineage.as_deref().map_or(Ok(()), name::lineage)?;
        name::digest(&self.sha256)?;
        let uri: ResourceUri = self.uri.parse().map_err(StatementError::KeyId)?;
        if self.lineage.is_none() && (uri.kind() != IMAGE_KEY_KIND || !self.init_data.is_empty()) {
            return Err(StatementError::Value {
                field: "lineage",
                problem: "must be named, but for an image key that no initdata is listed for",
            });
        }
        if uri.repository() != self.repository {
            return Err(StatementError::Value {
                field: "uri",
                problem: "must be below the owner's repository",
            });
        }
        if uri.kind() == KEY_KIND {
            return Err(StatementError::Value {
                field: "uri",
                problem: "must not be of the type that holds keys",
            });
        }
        if self.init_data.len() > MAX_INIT_DATA {
            return Err(StatementError::Value {
                field: "init_data",
                problem: "must name at most 64 digests",
            });
        }
        self.init_data.iter().try_for_each(|digest| Ok(name::digest(digest)?))
    }
}

/// Who may have a lineage's keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyStatement {
    /// The owner.
    pub repository: String,
    /// Whose policy it is.
    pub lineage: String,
    /// Each policy of a lineage has a higher one than the last.
    pub serial: u64,
    /// The policy.
    pub policy: ReleasePolicy,
}

impl Statement for PolicyStatement {
    const TYPE: &str = "sealpod-policy";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        line(&self.repository, &self.lineage)?;
        number("serial", self.serial)?;
        self.policy.validate()
    }
}

/// The end of a revision: its key is not released again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// The owner.
    pub repository: String,
    /// The lineage.
    pub lineage: String,
    /// The revision that ends.
    pub revision: u64,
}

impl Statement for Retirement {
    const TYPE: &str = "sealpod-retirement";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        line(&self.repository, &self.lineage)?;
        number("revision", self.revision)
    }
}

pub(super) fn line(repository: &str, lineage: &str) -> Result<(), StatementError> {
    name::repository(repository)?;
    Ok(name::lineage(lineage)?)
}

pub(super) fn number(field: &'static str, value: u64) -> Result<(), StatementError> {
    match value {
        0 => Err(StatementError::Value { field, problem: "must be at least 1" }),
        1..=MAX_NUMBER => Ok(()),
        _ => Err(StatementError::Value { field, problem: "must be below 2^53" }),
    }
}

/// Kubernetes' own names; only printable ASCII without spaces can stand in one.
fn text(field: &'static str, value: &str, longest: usize) -> Result<(), StatementError> {
    let printable = value.bytes().all(|b| b.is_ascii_graphic());
    if value.is_empty() || value.len() > longest || !printable {
        return Err(StatementError::Value { field, problem: "must be a Kubernetes name" });
    }
    Ok(())
}
