//! The owner's copies of image keys: `image-keys/<tag>` in the identity's directory (0600), byte for byte what the
//! broker keeps as `kbs:///<repository>/image-key/<tag>`: 32 random bytes, or a private key in PEM or JWK. A key is
//! made once and never replaced: whoever holds an image encrypted for it still needs it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use encrypted_image::coco::BrokerKey;
use encrypted_image::keys::{MAX_KEY_FILE, PrivateKey, SYMMETRIC_KEY};
use protocols::owner::IMAGE_KEY_KIND;
use sealed_spec::{KbsUri, Repository};
use zeroize::Zeroizing;

use crate::files::{self, Access};
use crate::identity::IdentityDir;

/// Longest tag: with a draft's ending it still is a file's name.
const MAX_TAG: usize = 128;

/// Image keys of one identity.
pub(crate) struct KeyStore {
    directory: PathBuf,
    repository: Repository,
}

/// Address of an image key of this owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ImageKeyUri(KbsUri);

/// An image key. `Debug` shows its kind only.
#[derive(Debug)]
pub(crate) struct ImageKey {
    pub(crate) uri: ImageKeyUri,
    /// What the broker keeps.
    bytes: Zeroizing<Vec<u8>>,
    key: PrivateKey,
}

impl std::fmt::Display for ImageKeyUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ImageKeyUri {
    fn tag(&self) -> &str {
        self.0.segments().2
    }

    pub(crate) fn as_kbs(&self) -> &KbsUri {
        &self.0
    }
}

impl ImageKey {
    fn parse(uri: ImageKeyUri, bytes: Zeroizing<Vec<u8>>) -> Result<Self> {
        let key = PrivateKey::parse(&bytes)?;
        Ok(Self { uri, bytes, key })
    }

    /// The bytes as the broker keeps them. A secret.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.key {
            PrivateKey::Symmetric(_) => "32-byte key",
            PrivateKey::Rsa(_) => "RSA private key",
            PrivateKey::Ec(_) => "EC private key",
        }
    }

    /// What wraps and unwraps with it, if it is a 32-byte key.
    pub(crate) fn broker_key(&self) -> Result<BrokerKey> {
        let PrivateKey::Symmetric(key) = &self.key else {
            return Err(anyhow!(
                "image key {} is a {}, which wraps nothing itself: encrypt with jwe: and its public key, and seal \
                 with --image-key",
                self.uri,
                self.kind()
            ));
        };
        BrokerKey::new(self.uri.0.as_str(), Zeroizing::new(*key.as_bytes()))
            .with_context(|| format!("image key {}: its address is none of a broker", self.uri))
    }
}

impl KeyStore {
    /// The identity's store, which may not be there yet.
    pub(crate) fn of(directory: &IdentityDir) -> Result<Self> {
        Ok(Self::at(directory.image_keys(), directory.load()?.repository))
    }

    /// The store in `directory`.
    pub(crate) fn at(directory: PathBuf, repository: Repository) -> Self {
        Self { directory, repository }
    }

    /// Whose keys they are.
    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The address of `text`: a whole one, or a tag alone.
    pub(crate) fn uri(&self, text: &str) -> Result<ImageKeyUri> {
        let repository = &self.repository;
        let whole = if text.contains('/') {
            text.to_owned()
        } else {
            format!("kbs:///{repository}/{IMAGE_KEY_KIND}/{text}")
        };
        self.own(&whole.parse()?)
    }

    /// `uri` as the address of an image key of this owner.
    pub(crate) fn own(&self, uri: &KbsUri) -> Result<ImageKeyUri> {
        let (repository, kind, tag) = uri.segments();
        ensure!(
            repository == self.repository.as_str(),
            "key {uri} is in another owner's repository; yours is '{}'",
            self.repository
        );
        ensure!(
            kind == IMAGE_KEY_KIND && tag.len() <= MAX_TAG,
            "key {uri} is not kbs:///{repository}/{IMAGE_KEY_KIND}/TAG with a tag of at most {MAX_TAG} bytes"
        );
        Ok(ImageKeyUri(uri.clone()))
    }

    fn path(&self, uri: &ImageKeyUri) -> PathBuf {
        self.directory.join(uri.tag())
    }

    /// A key, if it is here.
    pub(crate) fn find(&self, uri: &ImageKeyUri) -> Result<Option<ImageKey>> {
        let path = self.path(uri);
        let Ok(found) = std::fs::symlink_metadata(&path) else { return Ok(None) };
        ensure!(found.is_file(), "{}: not a file", path.display());
        ensure!(
            found.mode() & 0o077 == 0,
            "{}: others can read it (mode {:o}); run 'chmod 600' on it, and encrypt anew for another key what they \
             must not read",
            path.display(),
            found.mode() & 0o777
        );
        let bytes = files::read(&path, MAX_KEY_FILE)?;
        ImageKey::parse(uri.clone(), bytes).map(Some).with_context(|| format!("{}: damaged", path.display()))
    }

    /// A key that has to be here.
    pub(crate) fn get(&self, uri: &ImageKeyUri) -> Result<ImageKey> {
        self.find(uri)?.with_context(|| {
            format!(
                "image key {uri} is not in {}; make it with 'sealpod image key new {uri}', or bring a copy with \
                 'sealpod image key import'",
                self.directory.display()
            )
        })
    }

    /// Makes a key of 32 random bytes.
    pub(crate) fn create(&self, uri: &ImageKeyUri) -> Result<ImageKey> {
        let mut bytes = Zeroizing::new(vec![0; SYMMETRIC_KEY]);
        getrandom::fill(&mut bytes).context("no random bytes")?;
        self.import(uri, bytes)
    }

    /// Takes a key that was made elsewhere.
    pub(crate) fn import(&self, uri: &ImageKeyUri, bytes: Zeroizing<Vec<u8>>) -> Result<ImageKey> {
        let key = ImageKey::parse(uri.clone(), bytes)?;
        files::make_private_dir(&self.directory)?;
        let path = self.path(uri);
        ensure!(
            std::fs::symlink_metadata(&path).is_err(),
            "image key {uri} is in {} already, and keys are never replaced; take another tag",
            self.directory.display()
        );
        files::create(&path, key.bytes(), Access::Secret)?;
        Ok(key)
    }

    /// All keys, by address.
    pub(crate) fn list(&self) -> Result<Vec<ImageKey>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| self.directory.display().to_string()),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| self.directory.display().to_string())?.file_name();
            // A draft that a killed program left is no key.
            let Some(tag) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            keys.extend(self.find(&self.uri(tag)?)?);
        }
        keys.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, KeyStore) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("home/image-keys");
        (directory, KeyStore::at(path, "acme".parse().unwrap()))
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let (_directory, store) = store();
        let uri = store.uri("web.1").unwrap();
        assert_eq!(uri.to_string(), "kbs:///acme/image-key/web.1");
        assert!(store.get(&uri).unwrap_err().to_string().contains("sealpod image key new"));
        let made = store.create(&uri).unwrap();
        assert_eq!((made.bytes().len(), made.kind()), (32, "32-byte key"));
        assert_ne!(made.bytes(), [0; 32]);
        assert_eq!(store.get(&uri).unwrap().bytes(), made.bytes());
        assert!(store.create(&uri).unwrap_err().to_string().contains("never replaced"));
        assert_eq!(store.get(&uri).unwrap().bytes(), made.bytes());
        let mode = |path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(store.path(&uri)), mode(store.directory.clone())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&store.directory).unwrap().count(), 1, "no draft left");
        assert!(!format!("{made:?}").contains(&hex::encode(made.bytes())));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused() {
        let (_directory, store) = store();
        let uri = store.uri("web").unwrap();
        store.create(&uri).unwrap();
        let path = store.path(&uri);
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert!(store.get(&uri).unwrap_err().to_string().contains("others can read it (mode 640)"));
        mode(0o600);
        std::fs::write(&path, [1; 31]).unwrap();
        assert!(store.get(&uri).unwrap_err().to_string().contains("damaged"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(store.get(&uri).unwrap_err().to_string().contains("not a file"));
        assert!(store.create(&uri).is_err());
    }

    #[test]
    fn only_image_keys_of_this_owner() {
        let (_directory, store) = store();
        store.uri("kbs:///acme/image-key/web").unwrap();
        for (bad, part) in [
            ("kbs:///bank/image-key/web", "another owner's"),
            ("kbs:///acme/sealed-spec/web", "is not kbs:///acme/image-key/TAG"),
            ("kbs://host/acme/image-key/web", "kbs:///"),
            ("..", "three segments"),
            (".web", "three segments"),
            ("", "three segments"),
            (&"a".repeat(129), "at most 128"),
        ] {
            let error = store.uri(bad).unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn keys_from_elsewhere_are_checked() {
        let (_directory, store) = store();
        let import =
            |tag: &str, bytes: &[u8]| store.import(&store.uri(tag).unwrap(), Zeroizing::new(bytes.to_vec()));
        assert!(import("short", &[7; 16]).is_err());
        assert!(import("text", b"hunter2\n").is_err());
        import("raw", &[7; 32]).unwrap();
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let private = import("pem", pem.as_bytes()).unwrap();
        assert_eq!((private.kind(), private.bytes()), ("EC private key", pem.as_bytes()));
        assert!(private.broker_key().unwrap_err().to_string().contains("--image-key"));
        let listed: Vec<_> = store.list().unwrap().iter().map(|key| key.uri.to_string()).collect();
        assert_eq!(listed, ["kbs:///acme/image-key/pem", "kbs:///acme/image-key/raw"]);
    }

    #[test]
    fn an_absent_store_is_empty() {
        assert!(store().1.list().unwrap().is_empty());
    }
}
