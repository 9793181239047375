//! Recipients and keys with what the identity knows of them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use encrypted_image::coco::BrokerKey;
use encrypted_image::{Keyring, Wrap};
use owner_image::access::{Key, NamedKey, Recipient, Tools, unlocks, wraps};
use owner_image::pkcs11::{Configuration, Helper};
use owner_image::provider::{self, Providers};
use zeroize::Zeroizing;

use super::options::AccessArgs;
use crate::files;
use crate::identity::IdentityDir;
use crate::keystore::KeyStore;

/// The size of a key at a broker, in bytes.
const KEK: usize = 32;

/// Where keys are looked for.
pub(super) struct Access {
    identity: IdentityDir,
    kek: Option<PathBuf>,
    providers: Option<Providers>,
    helper: Helper,
}

impl Access {
    pub(super) fn new(identity: &IdentityDir, args: &AccessArgs) -> Result<Self> {
        let executable = std::env::current_exe().context("finding this program's own directory")?;
        Ok(Self {
            identity: identity.clone(),
            kek: args.kek.clone(),
            providers: provider::configured(args.keyprovider_config.as_deref())?,
            helper: Helper::find(args.pkcs11_helper.as_deref(), &executable),
        })
    }

    fn broker_key(&self, uri: &str) -> Result<BrokerKey, String> {
        let Some(path) = &self.kek else {
            let kept =
                KeyStore::of(&self.identity).and_then(|store| store.get(&store.uri(uri)?)?.broker_key());
            return kept.map_err(|error| format!("{error:#}; or give the 32 bytes with --kek FILE"));
        };
        let bytes = files::read(path, KEK).map_err(|error| error.to_string())?;
        let key = <[u8; KEK]>::try_from(bytes.as_slice())
            .map_err(|_| format!("{}: {} bytes, not {KEK}", path.display(), bytes.len()))?;
        BrokerKey::new(uri, Zeroizing::new(key))
            .ok_or_else(|| "not a URI kbs:///REPOSITORY/image-key/TAG".to_owned())
    }

    fn with<T>(&self, use_tools: impl FnOnce(&Tools<'_>) -> T) -> T {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let variable = |name: &str| std::env::var_os(name);
        use_tools(&Tools {
            broker_key: &|uri| self.broker_key(uri),
            providers: self.providers.as_ref(),
            pkcs11: self.helper.clone(),
            modules: &|| Configuration::load(variable),
            oaep_hash: std::env::var("OCICRYPT_OAEP_HASHALG").ok(),
            now: now.map_or(0, |now| now.as_secs()),
        })
    }

    /// What wraps for them; what should be known of them is said.
    pub(super) fn recipients(&self, recipients: &[Recipient]) -> Result<Vec<Box<dyn Wrap>>> {
        let found = self.with(|tools| wraps(recipients, tools))?;
        for warning in &found.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(found.wraps)
    }

    /// Each key by itself.
    pub(super) fn named(&self, keys: &[Key]) -> Result<Vec<NamedKey>> {
        Ok(self.with(|tools| unlocks(keys, tools))?)
    }

    /// All keys together.
    pub(super) fn keyring(&self, keys: &[Key]) -> Result<Keyring> {
        let named = self.named(keys)?;
        Ok(Keyring::new(named.into_iter().flat_map(|key| key.unwraps).collect()))
    }
}
