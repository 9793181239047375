//! The directory that holds an emulated processor: chip, authorities, certificates.
//!
//! `ark.pem` is what a broker's configuration names to trust it. `crl.der`, `ask.pem`, `asvk.pem`, `vcek.pem`
//! and `vlek.pem` are what AMD's key distribution service would serve, for collateral caches and for people.
//! `product`, `chip.key`, `ark.key`, `ask.key` and `asvk.key` make the processor what it is.

use crate::sev::platform::Published;
use crate::snp::KeyKind;
use crate::snp::certificates::{Authorities, Authority, CertificateError, Endorsement};
use crate::snp::chip::{Chip, SECRET};
use crate::snp::crl::Revocations;
use crate::snp::product::{Product, Tcb, UnknownProduct};
use crate::ultravisor::{TpmError, TpmKey};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use x509_cert::certificate::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{DecodePem, EncodePem};
use zeroize::Zeroizing;

const FILE_MAX: u64 = 64 * 1024;

/// A processor as read from its directory.
#[derive(Debug)]
pub struct State {
    /// The chip.
    pub chip: Chip,
    /// Root and signing keys with their certificates.
    pub authorities: Authorities,
    /// The same for SEV and SEV-ES, if it was made for them.
    pub sev: Option<Published>,
    /// The TPM's key of the machine, if it was made for PEF.
    pub tpm: Option<TpmKey>,
}

/// Why a state directory can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is one already.
    #[error(
        "{0} already holds an emulated processor, whose root brokers may trust; use another directory or remove it"
    )]
    Exists(PathBuf),
    /// A file or the directory can't be used.
    #[error("{action} {path}: {source}; make a processor with `sealpod-emulator init --state DIR`")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A file's contents are not what they should be.
    #[error(
        "{path} doesn't hold {what}; the directory is damaged, make a new one with `sealpod-emulator init --state DIR`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The system's random numbers failed.
    #[error("reading random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// Keys or certificates could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TPM's key could not be made or read.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A certificate could not be encoded.
    #[error("encoding a certificate: {0}")]
    Encode(#[from] x509_cert::der::Error),
}

/// Makes a processor in `directory`, which must not hold one yet. `bits` as in [`Authorities::generate`].
pub fn initialise(
    directory: &Path,
    product: Product,
    bits: usize,
    now: SystemTime,
) -> Result<(), StateError> {
    let marker = directory.join("product");
    if marker.try_exists().map_err(|source| StateError::File {
        action: "looking for",
        path: marker.clone(),
        source,
    })? {
        return Err(StateError::Exists(directory.to_owned()));
    }
    let mut secret = Zeroizing::new([0; SECRET]);
    getrandom::fill(&mut *secret)?;
    let chip = Chip::new(product, *secret);
    let all = Authorities::generate(product, bits, now)?;
    let crl = all.crl(&Revocations::none(now))?;

    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| StateError::File {
        action: "creating",
        path: directory.to_owned(),
        source,
    })?;
    let create = |name: &str, bytes: &[u8], mode| create(directory, name, bytes, mode);
    // The marker first: of two that start at the same time, one loses before it has written anything.
    create("product", product.name().as_bytes(), 0o644)?;
    create("chip.key", Zeroizing::new(hex::encode(*secret)).as_bytes(), 0o600)?;
    for (name, key) in [("ark.key", &all.ark), ("ask.key", &all.ask), ("asvk.key", &all.asvk)] {
        create(name, key.to_pem()?.as_bytes(), 0o600)?;
    }
    let pem = |name: &str, certificate: &Certificate| {
        create(name, certificate.to_pem(LineEnding::LF)?.as_bytes(), 0o644)
    };
    pem("ark.pem", &all.ark_certificate)?;
    pem("ask.pem", &all.ask_certificate)?;
    pem("asvk.pem", &all.asvk_certificate)?;
    for (name, kind) in [("vcek.pem", KeyKind::Vcek), ("vlek.pem", KeyKind::Vlek)] {
        let endorsement = Endorsement::new(kind, Tcb::default(), now);
        pem(name, &all.issuer_of(kind).0.endorse(&chip, &endorsement)?)?;
    }
    create("crl.der", &crl, 0o644)
}

/// Lets the processor in `directory` launch SEV and SEV-ES guests: `sev-ask-ark.cert` is what a broker's
/// configuration names to trust it, `sev-cek.cert` what AMD's key distribution service would serve.
pub fn add_sev(directory: &Path, bits: usize) -> Result<(), StateError> {
    let state = State::load(directory)?;
    let published = Published::issue(&state.chip, bits).map_err(CertificateError::Generate)?;
    create(directory, ASK_ARK, &published.ask_ark, 0o644)?;
    create(directory, CEK, &published.cek, 0o644)?;
    create(directory, "cpu0-id", hex::encode(state.chip.id()).as_bytes(), 0o644)
}

/// Gives the machine in `directory` a TPM key: `tpm.pem` is what owners make ESM blobs for, and what a broker's
/// configuration names to take their proofs for emulated ones.
pub fn add_pef(directory: &Path) -> Result<(), StateError> {
    let key = TpmKey::generate()?;
    create(directory, TPM, key.to_pem()?.as_bytes(), 0o600)?;
    create(directory, "tpm.pem", key.public_pem().as_bytes(), 0o644)
}

const TPM: &str = "tpm.key";
const ASK_ARK: &str = "sev-ask-ark.cert";
const CEK: &str = "sev-cek.cert";

impl State {
    /// Reads the processor in `directory`.
    pub fn load(directory: &Path) -> Result<Self, StateError> {
        let damaged = |name: &str, what| StateError::Damaged { path: directory.join(name), what };
        let read = |name: &'static str| read(directory, name);
        let product: Product =
            read("product")?.parse().map_err(|_: UnknownProduct| damaged("product", "a product's name"))?;
        let mut secret = Zeroizing::new([0; SECRET]);
        hex::decode_to_slice(read("chip.key")?.as_bytes(), &mut *secret)
            .map_err(|_| damaged("chip.key", "48 bytes in hexadecimal"))?;
        let certificate = |name: &'static str| {
            Certificate::from_pem(read(name)?.as_bytes()).map_err(|_| damaged(name, "a certificate in PEM"))
        };
        let authority = |name: &'static str, common_name| -> Result<_, StateError> {
            Ok(Authority::from_pem(&read(name)?, common_name)?)
        };
        let [ark, ask, asvk] = Authority::names(product);
        let tpm = match read(TPM) {
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            pem => Some(TpmKey::from_pem(&pem?)?),
        };
        let sev = match read_bytes(directory, ASK_ARK) {
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            ask_ark => Some(Published {
                ask_ark: ask_ark?.to_vec(),
                cek: read_bytes(directory, CEK)?[..]
                    .try_into()
                    .map_err(|_| damaged(CEK, "a certificate of 2084 bytes"))?,
            }),
        };
        Ok(Self {
            chip: Chip::new(product, *secret),
            authorities: Authorities {
                ark: authority("ark.key", ark)?,
                ark_certificate: certificate("ark.pem")?,
                ask: authority("ask.key", ask)?,
                ask_certificate: certificate("ask.pem")?,
                asvk: authority("asvk.key", asvk)?,
                asvk_certificate: certificate("asvk.pem")?,
            },
            sev,
            tpm,
        })
    }
}

fn create(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let path = directory.join(name);
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(StateError::Exists(directory.to_owned()))
        }
        other => other.map_err(|source| StateError::File { action: "writing", path, source }),
    }
}

fn read(directory: &Path, name: &'static str) -> Result<Zeroizing<String>, StateError> {
    let bytes = read_bytes(directory, name)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| StateError::Damaged { path: directory.join(name), what: "text" })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_bytes(directory: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let path = directory.join(name);
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(&path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|source| StateError::File { action: "reading", path, source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_start_on_the_same_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("chip");
        initialise(&directory, Product::Milan, 2048, SystemTime::now()).unwrap();
        let before = fs::read(directory.join("ark.pem")).unwrap();
        let error = initialise(&directory, Product::Milan, 2048, SystemTime::now()).unwrap_err();
        assert!(matches!(error, StateError::Exists(_)), "{error}");
        assert_eq!(before, fs::read(directory.join("ark.pem")).unwrap());

        let state = State::load(&directory).unwrap();
        assert_eq!(state.chip.product(), Product::Milan);
        for name in ["chip.key", "ark.key", "ask.key", "asvk.key"] {
            assert_eq!(
                fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777,
                0o600,
                "{name}"
            );
        }
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

        fs::write(directory.join("chip.key"), "00").unwrap();
        assert!(matches!(State::load(&directory), Err(StateError::Damaged { .. })));
        fs::remove_file(directory.join("ask.key")).unwrap();
        assert!(State::load(&directory).is_err());
    }

    #[test]
    fn an_absent_directory_says_how_to_make_one() {
        let error = State::load(Path::new("/nonexistent/chip")).unwrap_err().to_string();
        assert!(error.contains("sealpod-emulator init --state"), "{error}");
    }
}
