//! `sealpod resource`, and `push --resource`: bytes at the broker that guests of a lineage may fetch.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocols::broker::{MAX_RESOURCE, RESOURCES_PATH, ResourceRequest};
use protocols::owner::{OwnerKey, Resource, Statement as _};
use sealed_spec::KbsUri;
use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::cli::ResourceArgs;
use crate::files;
use crate::identity::{Identity, IdentityDir};

/// Longest initdata that guests read.
const INITDATA_LIMIT: usize = 4 * 1024 * 1024;

/// `--resource FILE=kbs:///…`
#[derive(Debug, Clone)]
pub(crate) struct ResourceOption {
    pub(super) file: PathBuf,
    pub(super) uri: KbsUri,
}

impl FromStr for ResourceOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.rfind("=kbs:").ok_or("FILE=kbs:///REPOSITORY/TYPE/TAG is needed")?;
        let uri = text[at + 1..].parse().map_err(|error: sealed_spec::NameError| error.to_string())?;
        Ok(Self { file: text[..at].into(), uri })
    }
}

/// A resource, signed and ready to be sent.
pub(super) struct Signed {
    said: String,
    request: ResourceRequest,
}

impl Signed {
    /// Signs; nothing is sent. Only an image key goes without a lineage.
    pub(super) fn new(
        identity: &Identity,
        key: &OwnerKey,
        lineage: Option<&str>,
        uri: &KbsUri,
        bytes: &[u8],
        init_data: Vec<String>,
    ) -> Result<Self> {
        let repository = identity.repository.to_string();
        ensure!(
            uri.segments().0 == repository,
            "resource {uri} is not in your repository '{repository}'; the broker keeps only your own"
        );
        let sha256 = protocols::name::sha256(bytes);
        let whose = match lineage {
            Some(lineage) => format!("guests of lineage '{lineage}'"),
            None => "guests whose sealed spec names it".into(),
        };
        let said = format!("resource {uri} ({} bytes, {sha256}) is for {whose}", bytes.len());
        let lineage = lineage.map(str::to_owned);
        let statement = Resource { repository, uri: uri.to_string(), sha256, lineage, init_data };
        statement.validate().with_context(|| format!("resource {uri}"))?;
        let content = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes));
        Ok(Self { said, request: ResourceRequest { resource: key.sign_statement(&statement)?, content } })
    }

    /// The same with a file's bytes.
    pub(super) fn of_file(
        identity: &Identity,
        key: &OwnerKey,
        lineage: &str,
        option: &ResourceOption,
        init_data: Vec<String>,
    ) -> Result<Self> {
        let bytes = files::read(&option.file, MAX_RESOURCE)?;
        Self::new(identity, key, Some(lineage), &option.uri, &bytes, init_data)
    }

    /// Hands it to the broker; what to say of that.
    pub(super) fn send(&self, broker: &Broker, directory: &IdentityDir) -> Result<String> {
        let accepted = crate::block_on(broker.post(RESOURCES_PATH, &self.request))??;
        directory.keep_checkpoint(&accepted.checkpoint)?;
        Ok(self.said.clone())
    }
}

pub(crate) fn run(directory: &IdentityDir, args: &ResourceArgs) -> Result<ExitCode> {
    let identity = directory.load()?;
    let option = ResourceOption { file: args.file.clone(), uri: args.uri.clone() };
    let digests = initdata_digests(&args.initdata)?;
    let signed = Signed::of_file(&identity, &directory.key()?, args.lineage.as_str(), &option, digests)?;
    println!("{}", signed.send(&Broker::of(&identity)?, directory)?);
    println!("it never changes: another value needs another tag, and a sealing that names it");
    Ok(ExitCode::SUCCESS)
}

/// What HOST_DATA of guests with these initdata is.
pub(super) fn initdata_digests(paths: &[PathBuf]) -> Result<Vec<String>> {
    paths.iter().map(|path| Ok(protocols::name::sha256(&files::read(path, INITDATA_LIMIT)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let option: ResourceOption = "a=b.txt=kbs:///acme/secret/key".parse().unwrap();
        assert_eq!((option.file.to_str(), option.uri.as_str()), (Some("a=b.txt"), "kbs:///acme/secret/key"));
        for bad in ["key.txt", "key.txt=", "key.txt=kbs://host/a/b/c", "key.txt=kbs:///acme/key"] {
            assert!(bad.parse::<ResourceOption>().is_err(), "{bad}");
        }
    }
}
