//! One processor as the SEV API shows it: keys that follow from the chip's secret, certificates under
//! emulated authorities, firmware version, id.

use super::certificate::{self, BODY, Curve, LENGTH, Point, SLOT, Usage, assemble, sign};
use super::faults::{Fault, PdhFault, Signed};
use crate::snp::chip::Chip;
use getrandom::SysRng;
use p384::ecdsa::SigningKey;
use rsa::RsaPrivateKey;
use rsa::rand_core::UnwrapErr;

/// The root's key id: what brokers know emulated authorities by.
pub const ARK_ID: &[u8; 16] = b"SEALPOD-EMULATED";
const ASK_ID: &[u8; 16] = b"SEALPOD-EMU-ASK\0";

/// API version of the emulated firmware.
pub const API: (u8, u8) = (1, 55);
/// Its build.
pub const BUILD: u8 = 29;

/// What AMD publishes of a platform, made once and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// ASK, then ARK, as in AMD's `ask_ark_*.cert` files.
    pub ask_ark: Vec<u8>,
    /// CEK, signed by the ASK: what AMD's key distribution service answers for the chip's id.
    pub cek: [u8; LENGTH],
}

impl Published {
    /// New authorities with keys of `bits`, 2048 or 4096; they sign `chip`'s CEK and are then forgotten.
    pub fn issue(chip: &Chip, bits: usize) -> Result<Self, rsa::Error> {
        let mut random = UnwrapErr(SysRng);
        let ark = RsaPrivateKey::new(&mut random, bits)?;
        let ask = RsaPrivateKey::new(&mut random, bits)?;
        let mut ask_ark = certificate::authority(Usage::Ask, (ASK_ID, ARK_ID), &ask, &ark);
        ask_ark.extend_from_slice(&certificate::authority(Usage::Ark, (ARK_ID, ARK_ID), &ark, &ark));
        let body = certificate::body(Usage::Cek, &Point::of(&chip.sev_key("cek")), API);
        let cek = assemble(&body, [Some(certificate::sign_by_ask(&body, &ask)), None]);
        Ok(Self { ask_ark, cek })
    }
}

/// A platform that is ready to launch guests.
pub struct Platform {
    /// API version, major and minor.
    pub api: (u8, u8),
    /// Build of the firmware.
    pub build: u8,
    /// The chip's id, 64 bytes.
    pub id: [u8; 64],
    /// The PDH's certificate, as PDH_CERT_EXPORT gives it.
    pub pdh: [u8; LENGTH],
    /// PEK, OCA and CEK, one after the other, as PDH_CERT_EXPORT gives them.
    pub chain: Vec<u8>,
    published: Published,
    keys: Keys,
}

struct Keys {
    cek: SigningKey,
    oca: SigningKey,
    pek: SigningKey,
    pdh: SigningKey,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Platform(API {}.{} build {})", self.api.0, self.api.1, self.build)
    }
}

impl Platform {
    /// The platform of `chip`, whose CEK was `published`.
    pub fn new(chip: &Chip, published: Published) -> Self {
        let keys = Keys {
            cek: chip.sev_key("cek"),
            oca: chip.sev_key("oca"),
            pek: chip.sev_key("pek"),
            pdh: chip.sev_key("pdh"),
        };
        let id = chip.id();
        let mut platform =
            Self { api: API, build: BUILD, id, pdh: [0; LENGTH], chain: Vec::new(), published, keys };
        platform.issue(&[]);
        platform
    }

    /// What AMD publishes of it.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The key that agrees on a session's secret.
    pub(crate) fn pdh_key(&self) -> &SigningKey {
        &self.keys.pdh
    }

    /// Makes the certificates, with what is wrong about them.
    pub(crate) fn issue(&mut self, faults: &[Fault]) {
        let unsigned = |which| faults.contains(&Fault::Unsigned(which));
        let Keys { cek, oca, pek, pdh } = &self.keys;

        let oca_body = certificate::body(Usage::Oca, &Point::of(oca), self.api);
        let by_oca = |body: &[u8; BODY]| sign(body, Usage::Oca, oca);
        let oca = assemble(&oca_body, [(!unsigned(Signed::Oca)).then(|| by_oca(&oca_body)), None]);

        let pek_body = certificate::body(Usage::Pek, &Point::of(pek), self.api);
        let slots: [Option<[u8; SLOT]>; 2] = match () {
            () if unsigned(Signed::Pek) => [None, None],
            () if faults.contains(&Fault::OcaOnly) => [Some(by_oca(&pek_body)), None],
            () => [Some(by_oca(&pek_body)), Some(sign(&pek_body, Usage::Cek, cek))],
        };
        let pek_certificate = assemble(&pek_body, slots);

        let point = pdh_point(Point::of(pdh), faults);
        let pdh_body = certificate::body(Usage::Pdh, &point, self.api);
        let signature = (!unsigned(Signed::Pdh)).then(|| sign(&pdh_body, Usage::Pek, pek));
        self.pdh = assemble(&pdh_body, [signature, None]);

        let mut cek = self.published.cek;
        if unsigned(Signed::Cek) {
            let mut body = [0; BODY];
            body.copy_from_slice(&cek[..BODY]);
            cek = assemble(&body, [None, None]);
        }
        self.chain = [pek_certificate, oca, cek].concat();
    }
}

fn pdh_point(mut point: Point, faults: &[Fault]) -> Point {
    for fault in faults {
        match fault {
            Fault::Pdh(PdhFault::OffCurve) => point.x[0] ^= 1,
            Fault::Pdh(PdhFault::Identity) => {
                (point.x, point.y) = ([0; certificate::COORDINATE], [0; certificate::COORDINATE]);
            }
            Fault::Pdh(PdhFault::P256) => point = p256_generator(),
            _ => {}
        }
    }
    point
}

/// A point of P-256 that everybody knows.
fn p256_generator() -> Point {
    let coordinate = |big_endian: [u8; 32]| {
        let mut out = [0; certificate::COORDINATE];
        for (place, byte) in out.iter_mut().zip(big_endian.iter().rev()) {
            *place = *byte;
        }
        out
    };
    Point {
        curve: Curve::P256,
        x: coordinate([
            0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
            0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
        ]),
        y: coordinate([
            0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
            0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
        ]),
    }
}
