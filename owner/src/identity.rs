//! The owner's identity directory: `owner.key` (0600) and `owner.pub`, `log.key` (0600, opens sealed logs), `identity.toml` (repository, pinned broker),
//! `image-keys/` (see `keystore`), `lineages.json` (last revision, policy serial and minimum revision of each lineage), `checkpoints.jsonl` (what
//! pushes brought back from the broker's audit log).

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocols::audit::Checkpoint;
use protocols::owner::OwnerKey;
use sealed_spec::Repository;
use sealed_spec::initdata::{BrokerPin, Via};
use sealed_spec::log::LogKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{self, Access};

const LIMIT: usize = 1024 * 1024;

/// Where an identity is.
#[derive(Debug, Clone)]
pub(crate) struct IdentityDir(PathBuf);

impl Default for IdentityDir {
    fn default() -> Self {
        let home = std::env::var_os("SEALPOD_IDENTITY").map(PathBuf::from).or_else(|| {
            let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            Some(
                config
                    .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?
                    .join("sealpod"),
            )
        });
        Self(home.unwrap_or_else(|| PathBuf::from(".sealpod")))
    }
}

impl fmt::Display for IdentityDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl FromStr for IdentityDir {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

/// `identity.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Repository at the broker.
    pub(crate) repository: Repository,
    /// Where this machine reaches the broker.
    pub(crate) broker_url: String,
    /// What guests get: URL, way, and the pinned certificates, which hold for this machine too.
    pub(crate) guest: BrokerPin,
}

/// What is remembered of a lineage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    revision: u64,
    serial: u64,
    minimum_revision: u64,
}

impl IdentityDir {
    /// The cache of AMD's certificates and revocation lists, which has nothing secret in it.
    pub(crate) fn collateral(&self) -> PathBuf {
        self.0.join("collateral")
    }

    /// Image keys.
    pub(crate) fn image_keys(&self) -> PathBuf {
        self.0.join("image-keys")
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.0.join("owner.key")
    }

    /// The RSA key that opens the origin lockbox of ESM blobs made here.
    pub(crate) fn origin_file(&self) -> PathBuf {
        self.0.join("esm-origin.pem")
    }

    fn settings_file(&self) -> PathBuf {
        self.0.join("identity.toml")
    }

    /// Makes a new identity. Never replaces one: the key is the owner.
    pub(crate) fn create(&self, identity: &Identity) -> Result<OwnerKey> {
        let key_file = self.key_file();
        for file in [&key_file, &self.settings_file()] {
            ensure!(
                !file.exists(),
                "{} exists: this directory has an identity already; use another --identity, or move it away",
                file.display()
            );
        }
        files::make_private_dir(&self.0)?;
        let key = OwnerKey::generate()?;
        key.save(&key_file)?;
        files::write(&self.0.join("owner.pub"), format!("{}\n", key.public()).as_bytes(), Access::Public)?;
        let text = toml::to_string_pretty(identity).context("identity can't be written as TOML")?;
        files::write(&self.settings_file(), text.as_bytes(), Access::Public)?;
        Ok(key)
    }

    /// Repository and broker.
    pub(crate) fn load(&self) -> Result<Identity> {
        let path = self.settings_file();
        if !path.exists() {
            bail!("no identity in {self}; make one with 'sealpod init', or name another with --identity");
        }
        let text = files::read_text(&path, LIMIT)?;
        let identity: Identity = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim_end()))?;
        // A file can be edited: without https and a pin, keys would go to whoever answers.
        broker_pin(&identity.broker_url, identity.guest.via, &identity.guest.ca)
            .and_then(|_| Ok(identity.guest.check()?))
            .with_context(|| path.display().to_string())?;
        Ok(identity)
    }

    /// The signing key.
    pub(crate) fn key(&self) -> Result<OwnerKey> {
        Ok(OwnerKey::load(&self.key_file())?)
    }

    /// What opens sealed logs. `None` if nothing was ever sealed with them.
    pub(crate) fn log_key(&self) -> Result<Option<LogKey>> {
        let path = self.0.join("log.key");
        if !path.exists() {
            return Ok(None);
        }
        let mode = std::fs::metadata(&path).with_context(|| path.display().to_string())?.mode();
        ensure!(
            mode & 0o077 == 0,
            "{}: others can read it (mode {:o}); run 'chmod 600' on it, and seal anew what they must not read",
            path.display(),
            mode & 0o777
        );
        let text = files::read_text(&path, 64)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim_end()).unwrap_or_default());
        let key =
            <&[u8; 32]>::try_from(bytes.as_slice()).ok().and_then(|bytes| LogKey::from_bytes(bytes).ok());
        let key = key.with_context(|| {
            format!(
                "{}: not a log key; restore it from a copy, or move it away to make a new one",
                path.display()
            )
        })?;
        Ok(Some(key))
    }

    /// What opens sealed logs, made when first needed. Never replaces one: what was sealed to it would be
    /// lost.
    pub(crate) fn log_key_or_new(&self) -> Result<LogKey> {
        if let Some(key) = self.log_key()? {
            return Ok(key);
        }
        let key = LogKey::generate()?;
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(key.to_bytes().as_slice()) + "\n");
        files::create(&self.0.join("log.key"), text.as_bytes(), Access::Secret)?;
        Ok(key)
    }

    /// The revision after the last one sealed here.
    pub(crate) fn next_revision(&self, lineage: &str) -> Result<u64> {
        Ok(self.lines()?.get(lineage).copied().unwrap_or_default().revision + 1)
    }

    /// Remembers that a revision was sealed.
    pub(crate) fn record_revision(&self, lineage: &str, revision: u64) -> Result<()> {
        self.change_line(lineage, |line| line.revision = line.revision.max(revision))
    }

    /// A policy serial above every earlier one: the time, so that a second machine with the same
    /// identity does as well, unless this one was ahead already.
    pub(crate) fn next_serial(&self, lineage: &str) -> Result<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |elapsed| elapsed.as_secs());
        Ok(now.max(self.lines()?.get(lineage).copied().unwrap_or_default().serial + 1))
    }

    /// The minimum revision of the last policy pushed here: a policy that says nothing else must not bring
    /// back what an earlier one ended.
    pub(crate) fn minimum_revision(&self, lineage: &str) -> Result<u64> {
        Ok(self.lines()?.get(lineage).copied().unwrap_or_default().minimum_revision.max(1))
    }

    /// Remembers that a policy was pushed.
    pub(crate) fn record_policy(&self, lineage: &str, serial: u64, minimum_revision: u64) -> Result<()> {
        self.change_line(lineage, |line| {
            line.serial = line.serial.max(serial);
            line.minimum_revision = minimum_revision;
        })
    }

    fn lines(&self) -> Result<BTreeMap<String, Line>> {
        let path = self.0.join("lineages.json");
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let text = files::read_text(&path, LIMIT)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; remove it and give --revision", path.display()))
    }

    fn change_line(&self, lineage: &str, change: impl FnOnce(&mut Line)) -> Result<()> {
        let mut lines = self.lines()?;
        change(lines.entry(lineage.to_owned()).or_default());
        let text = serde_json::to_string_pretty(&lines)? + "\n";
        Ok(files::write(&self.0.join("lineages.json"), text.as_bytes(), Access::Public)?)
    }

    /// Checkpoints from earlier pushes, oldest first.
    pub(crate) fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let path = self.checkpoints_file();
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = files::read_text(&path, 64 * LIMIT)?;
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), index + 1))
        };
        text.lines().enumerate().map(parse).collect()
    }

    /// Keeps a checkpoint, which must be signed by the key of all earlier ones.
    pub(crate) fn keep_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.verify().context("broker's answer")?;
        let mut kept = self.checkpoints()?;
        if let Some(first) = kept.first() {
            ensure!(
                first.key == checkpoint.key,
                "broker's audit key changed from {} to {}: it lost its state, or it is another broker; ask its operator, \
                 then move {} away",
                first.key,
                checkpoint.key,
                self.checkpoints_file().display()
            );
        }
        if kept.contains(checkpoint) {
            return Ok(());
        }
        kept.push(checkpoint.clone());
        let mut text = String::new();
        for checkpoint in &kept {
            text += &serde_json::to_string(checkpoint)?;
            text.push('\n');
        }
        Ok(files::write(&self.checkpoints_file(), text.as_bytes(), Access::Public)?)
    }

    fn checkpoints_file(&self) -> PathBuf {
        self.0.join("checkpoints.jsonl")
    }
}

/// Checks what `init` is given the way guests will.
pub(crate) fn broker_pin(url: &str, via: Via, ca: &str) -> Result<BrokerPin> {
    // The format crate holds the rules; a whole configuration is the way to ask it.
    let pin = BrokerPin { url: url.trim_end_matches('/').to_owned(), via, ca: ca.to_owned() };
    pin.check()?;
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use protocols::audit::{AuditKey, Head};

    use super::*;

    fn dir() -> (tempfile::TempDir, IdentityDir) {
        let dir = tempfile::tempdir().unwrap();
        let identity = IdentityDir(dir.path().join("id"));
        files::make_private_dir(&identity.0).unwrap();
        (dir, identity)
    }

    #[test]
    fn revisions_and_serials_only_rise() {
        let (_dir, id) = dir();
        assert_eq!(id.next_revision("web").unwrap(), 1);
        id.record_revision("web", 5).unwrap();
        id.record_revision("web", 2).unwrap();
        assert_eq!(id.next_revision("web").unwrap(), 6);
        assert_eq!(id.next_revision("db").unwrap(), 1);
        let ahead = id.next_serial("web").unwrap() + 1000;
        assert_eq!(id.minimum_revision("web").unwrap(), 1);
        id.record_policy("web", ahead, 4).unwrap();
        assert_eq!(id.next_serial("web").unwrap(), ahead + 1);
        assert_eq!(id.minimum_revision("web").unwrap(), 4);
        std::fs::write(id.path().join("lineages.json"), "{").unwrap();
        assert!(format!("{:#}", id.next_revision("web").unwrap_err()).contains("is damaged"));
    }

    #[test]
    fn the_log_key_is_made_once_and_kept_private() {
        let (_dir, id) = dir();
        assert!(id.log_key().unwrap().is_none());
        let key = id.log_key_or_new().unwrap();
        assert!(id.log_key_or_new().unwrap().recipient() == key.recipient());
        let path = id.path().join("log.key");
        let mode = |mode| {
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        mode(0o640);
        assert!(id.log_key().unwrap_err().to_string().contains("others can read it (mode 640)"));
        mode(0o600);
        std::fs::write(&path, "AAAA").unwrap();
        assert!(id.log_key_or_new().unwrap_err().to_string().contains("not a log key"));
    }

    #[test]
    fn checkpoints_are_kept_and_of_one_key() {
        let (_dir, id) = dir();
        let key = AuditKey::generate().unwrap();
        let checkpoint = Checkpoint::sign(&Head::default(), &key);
        id.keep_checkpoint(&checkpoint).unwrap();
        id.keep_checkpoint(&checkpoint).unwrap();
        assert_eq!(id.checkpoints().unwrap(), std::slice::from_ref(&checkpoint));
        let other = Checkpoint::sign(&Head::default(), &AuditKey::generate().unwrap());
        assert!(id.keep_checkpoint(&other).unwrap_err().to_string().contains("audit key changed"));
        let forged = Checkpoint { seq: 9, ..checkpoint };
        assert!(id.keep_checkpoint(&forged).is_err());
    }
}
