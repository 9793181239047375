//! Emulated processors with their authorities, and a clock that stands where the test puts it.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use collateral::{Bounds, Collateral, Found, Key, Line, Patience, Reach, Roots, Settings};
use sealpod_emulator::snp::certificates::Endorsement;
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::crl::Revocations;
use sealpod_emulator::snp::{Authorities, Chip, KeyKind, Product, Tcb};
use tee_evidence::snp::RawTcb;
use x509_cert::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// Long enough for anything on loopback.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
pub(crate) const TCB: Tcb = Tcb { bootloader: 3, tee: 0, snp: 8, microcode: 115, fmc: 0 };
pub(crate) const MILAN: tee_evidence::snp::Product = tee_evidence::snp::Product::Milan;
pub(crate) const CHAIN: Key = Key::Chain(MILAN, Line::Vcek);
pub(crate) const CRL: Key = Key::Crl(MILAN, Line::Vcek);

/// When all of these tests begin.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// One product's authorities and what they sign.
pub(crate) struct Platform {
    pub(crate) product: Product,
    pub(crate) authorities: Authorities,
}

impl Platform {
    /// Milan's; its keys are made once a process.
    pub(crate) fn milan() -> &'static Self {
        static ONE: OnceLock<Platform> = OnceLock::new();
        ONE.get_or_init(|| Self::new(Product::Milan))
    }

    /// Others of the same names.
    pub(crate) fn foreign() -> &'static Self {
        static ONE: OnceLock<Platform> = OnceLock::new();
        ONE.get_or_init(|| Self::new(Product::Milan))
    }

    pub(crate) fn genoa() -> &'static Self {
        static ONE: OnceLock<Platform> = OnceLock::new();
        ONE.get_or_init(|| Self::new(Product::Genoa))
    }

    fn new(product: Product) -> Self {
        // Half of AMD's key length, so that the tests stay fast.
        Self { product, authorities: Authorities::generate(product, 2048, now()).unwrap() }
    }

    pub(crate) fn chain(&self, kind: KeyKind) -> Vec<u8> {
        let ask = self.authorities.issuer_of(kind).1;
        [ask, &self.authorities.ark_certificate].map(pem).concat().into_bytes()
    }

    pub(crate) fn vek(&self, kind: KeyKind, chip: u8, tcb: Tcb) -> Vec<u8> {
        let chip = self.chip(chip);
        der(&self.authorities.issuer_of(kind).0.endorse(&chip, &Endorsement::new(kind, tcb, now())).unwrap())
    }

    pub(crate) fn vcek(&self, chip: u8) -> Vec<u8> {
        self.vek(KeyKind::Vcek, chip, TCB)
    }

    pub(crate) fn chip(&self, chip: u8) -> Chip {
        Chip::new(self.product, [chip; SECRET])
    }

    /// Made then, good for ten days.
    pub(crate) fn crl(&self, this_update: SystemTime) -> Vec<u8> {
        let next_update = this_update + DAY * 10;
        let list = Revocations { this_update, next_update, revoked: Vec::new(), number: 1 };
        self.authorities.crl(&list).unwrap()
    }
}

pub(crate) fn der(certificate: &Certificate) -> Vec<u8> {
    certificate.to_der().unwrap()
}

fn pem(certificate: &Certificate) -> String {
    certificate.to_pem(LineEnding::LF).unwrap()
}

/// The key of that chip's certificate at [`TCB`].
pub(crate) fn vcek_key(chip: u8) -> Key {
    let id = Platform::milan().chip(chip).id();
    Key::vcek(MILAN, &id, RawTcb([3, 0, 0, 0, 0, 0, 8, 115])).unwrap()
}

/// A cache under test and what it told.
pub(crate) struct Cache {
    pub(crate) collateral: Arc<Collateral>,
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

impl Cache {
    pub(crate) fn open(directory: &Path, kds: &[String]) -> Self {
        Self::with(directory, kds, Roots::Any, patience())
    }

    pub(crate) fn with(directory: &Path, kds: &[String], roots: Roots, patience: Patience) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&told);
        let collateral = Collateral::open(Settings {
            directory: directory.to_owned(),
            kds: kds.to_vec(),
            ca: None,
            allow_plain: true,
            roots,
            bounds: Bounds::default(),
            patience,
            tell: Box::new(move |line| lines.lock().unwrap().push(line.to_owned())),
        });
        Self { collateral: collateral.unwrap(), told }
    }

    pub(crate) async fn get(&self, key: &Key, now: SystemTime) -> Found {
        self.collateral.get(key, Reach::Service, now, WAIT).await
    }

    pub(crate) fn told(&self) -> String {
        self.told.lock().unwrap().join("\n")
    }
}

/// No pauses to speak of.
pub(crate) fn patience() -> Patience {
    Patience {
        pauses: [Duration::from_millis(1); 2],
        connect: WAIT,
        answer: WAIT,
        longest_pause: Duration::from_secs(1),
    }
}
