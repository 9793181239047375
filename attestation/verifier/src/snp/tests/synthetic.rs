//! Everything that a verifier is given, made with keys of our own, so that one thing at a time can be broken.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use tee_evidence::snp::{
    CertEntry, CertKind, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo,
    Product, RawReport, RawTcb, Report, Signature, SigningKey, Tcb,
};

pub(super) use super::issue::{
    ARK, ARK_SERIAL, ASK, ASK_SERIAL, Cert, DAY, FOREIGN, List, NOW, P384, SHA384_PSS, ec_spki, extension,
    name, number, rsa_spki, text, tlv,
};
use crate::snp::{Anchors, EMULATED_OID, Evidence, Revocation, Session, SnpReference};
use crate::{Appraised, Denial, Grant, LaunchDigest, ReferenceValues, TeeKind};

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Whose chain it is to look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    Amd,
    Emulated,
}

/// Everything that a verifier is given, unbroken until a test breaks it.
pub(super) struct World {
    pub(super) whose: Whose,
    pub(super) product: Product,
    pub(super) ark: Cert,
    pub(super) ask: Cert,
    pub(super) vek: Cert,
    pub(super) lists: Vec<List>,
    pub(super) revocation: Revocation,
    pub(super) report: Report,
    pub(super) signer: EcdsaKeyPair,
    /// Roots that are trusted; none: the chain's own.
    pub(super) anchors: Option<Anchors>,
    pub(super) session: Session,
    pub(super) reference: ReferenceValues,
    pub(super) now: u64,
    pub(super) vek_kind: CertKind,
}

pub(super) fn ec_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.as_ref(), &random).unwrap()
}

pub(super) const OID_STRUCTURE: &str = "1.3.6.1.4.1.3704.1.1";
pub(super) const OID_PRODUCT: &str = "1.3.6.1.4.1.3704.1.2";
pub(super) const OID_BOOTLOADER: &str = "1.3.6.1.4.1.3704.1.3.1";
pub(super) const OID_TEE: &str = "1.3.6.1.4.1.3704.1.3.2";
pub(super) const OID_SNP: &str = "1.3.6.1.4.1.3704.1.3.3";
pub(super) const OID_MICROCODE: &str = "1.3.6.1.4.1.3704.1.3.8";
pub(super) const OID_FMC: &str = "1.3.6.1.4.1.3704.1.3.9";
pub(super) const OID_HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";
pub(super) const OID_CSP: &str = "1.3.6.1.4.1.3704.1.5";
pub(super) const OID_BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(super) const OID_KEY_USAGE: &str = "2.5.29.15";

impl World {
    pub(super) fn new(whose: Whose, product: Product, key: SigningKey, version: u32) -> Self {
        let mark = if whose == Whose::Emulated { " EMULATED" } else { "" };
        let ark_name = format!("ARK-{}{mark}", product.name());
        let (vlek, vek_name) = match key {
            SigningKey::Vcek => ("", format!("SEV-VCEK{mark}")),
            SigningKey::Vlek => ("VLEK-", format!("SEV-VLEK{mark}")),
        };
        let ask_name = format!("SEV-{vlek}{}{mark}", product.name());
        let signer = ec_key();
        let tcb = Tcb {
            fmc: (product == Product::Turin).then_some(3),
            bootloader: 4,
            tee: 5,
            snp: 24,
            microcode: 219,
        };
        let mut ark = Cert::new(&ark_name, &ark_name, rsa_spki(ARK), ARK).authority();
        let mut ask = Cert::new(&ark_name, &ask_name, rsa_spki(ASK), ARK).authority();
        ark.serial = ARK_SERIAL.into();
        ask.serial = ASK_SERIAL.into();
        let point = signer.public_key().as_ref();
        let mut vek = Cert::new(&ask_name, &vek_name, ec_spki(P384, point), ASK);
        let product_text = match (product, key) {
            (Product::Milan, SigningKey::Vcek) => "Milan-B0",
            _ => product.name(),
        };
        vek.set(OID_STRUCTURE, false, number(u8::from(product == Product::Turin)));
        vek.set(OID_PRODUCT, false, text(product_text));
        vek.set(OID_BOOTLOADER, false, number(tcb.bootloader));
        vek.set(OID_TEE, false, number(tcb.tee));
        vek.set(OID_SNP, false, number(tcb.snp));
        vek.set(OID_MICROCODE, false, number(tcb.microcode));
        if let Some(fmc) = tcb.fmc {
            vek.set(OID_FMC, false, number(fmc));
        }
        let mut chip_id = [0; 64];
        chip_id[..product.chip_id_len()].fill(0xc1);
        match key {
            SigningKey::Vcek => {
                vek.set(OID_HARDWARE_ID, false, chip_id[..product.chip_id_len()].to_vec());
            }
            SigningKey::Vlek => vek.set(OID_CSP, false, text("cloud.example")),
        }
        if whose == Whose::Emulated {
            for cert in [&mut ark, &mut ask, &mut vek] {
                cert.set(&EMULATED_OID.to_string(), true, vec![5, 0]);
            }
        }
        let (family, model) = match product {
            Product::Milan => (0x19, 1),
            Product::Genoa => (0x19, 0x11),
            Product::Turin => (0x1a, 2),
        };
        let report = Report {
            version,
            guest_svn: 2,
            policy: GuestPolicy(1 << 17),
            family_id: [1; 16],
            image_id: [2; 16],
            vmpl: 0,
            signature_algo: 1,
            current_tcb: tcb.encode(),
            platform_info: PlatformInfo(0x25),
            key_info: KeyInfo(match key {
                SigningKey::Vcek => 0,
                SigningKey::Vlek => 1 << 2,
            }),
            report_data: [3; 64],
            measurement: [4; 48],
            host_data: [5; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [6; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: tcb.encode(),
            cpuid: (version >= 3).then_some(Cpuid { family, model, stepping: 1 }),
            chip_id,
            committed_tcb: tcb.encode(),
            current_version: FirmwareVersion { major: 1, minor: 55, build: 40 },
            committed_version: FirmwareVersion { major: 1, minor: 55, build: 40 },
            launch_tcb: tcb.encode(),
            mitigations: (version >= 5).then_some(MitigationVectors::default()),
            signature: Signature { r: [0; 72], s: [0; 72] },
        };
        let tee = if whose == Whose::Amd { TeeKind::Snp } else { TeeKind::SnpEmulated };
        Self {
            whose,
            product,
            ark,
            ask,
            vek,
            lists: vec![List::new(&ark_name)],
            revocation: Revocation::Required,
            report,
            signer,
            anchors: None,
            session: Session { report_data: [3; 64], host_data: [5; 32] },
            reference: ReferenceValues {
                tee: vec![tee],
                launch_digests: vec![LaunchDigest { name: "test".into(), digest: vec![4; 48] }],
                snp: Some(SnpReference {
                    minimum_tcb: tcb,
                    vlek_csp_ids: vec!["cloud.example".into()],
                    ..Default::default()
                }),
                ..Default::default()
            },
            now: NOW,
            vek_kind: match key {
                SigningKey::Vcek => CertKind::Vcek,
                SigningKey::Vlek => CertKind::Vlek,
            },
        }
    }

    /// A Milan VCEK and a version 3 report under a root in the place of AMD's.
    pub(super) fn milan() -> Self {
        Self::new(Whose::Amd, Product::Milan, SigningKey::Vcek, 3)
    }

    pub(super) fn emulated() -> Self {
        Self::new(Whose::Emulated, Product::Milan, SigningKey::Vcek, 3)
    }

    /// The SNP section of the policy.
    pub(super) fn policy(&mut self) -> &mut SnpReference {
        self.reference.snp.as_mut().unwrap()
    }

    /// Trusts the chain's root as it is now, whatever becomes of it.
    pub(super) fn pin(&mut self) {
        self.anchors = Some(self.own_anchors());
    }

    pub(super) fn own_anchors(&self) -> Anchors {
        match self.whose {
            Whose::Amd => Anchors::pinned(self.product, &self.ark.issue()),
            Whose::Emulated => Anchors::amd().with_emulated(&self.ark.issue()).unwrap(),
        }
    }

    pub(super) fn chain(&self) -> Vec<CertEntry> {
        let certificates =
            [(CertKind::Ark, &self.ark), (CertKind::Ask, &self.ask), (self.vek_kind, &self.vek)]
                .map(|(kind, cert)| CertEntry { kind, data: cert.issue() });
        let lists = self.lists.iter().map(|list| CertEntry { kind: CertKind::Crl, data: list.issue() });
        certificates.into_iter().chain(lists).collect()
    }

    pub(super) fn signed(&self) -> RawReport {
        let mut raw = self.report.encode();
        let signature = self.signer.sign(&SystemRandom::new(), raw.signed()).unwrap();
        let signature: [u8; 96] = signature.as_ref().try_into().unwrap();
        raw.set_signature(&Signature::from_fixed(&signature));
        raw
    }

    /// As [`World::grant`], with these bytes.
    pub(super) fn appraise(&self, report: &[u8], chain: &[CertEntry]) -> Result<Appraised, Denial> {
        // PSS is randomised, so the anchor has to be made of the very certificate in the chain.
        let own = || {
            let ark = &chain.iter().find(|entry| entry.kind == CertKind::Ark).unwrap().data;
            match self.whose {
                Whose::Amd => Anchors::pinned(self.product, ark),
                Whose::Emulated => Anchors::amd().with_emulated(ark).unwrap(),
            }
        };
        Evidence::parse(report, chain)?
            .check_signature(&self.anchors.clone().unwrap_or_else(own), self.revocation, at(self.now))?
            .appraise(&self.session)
    }

    /// The whole way.
    pub(super) fn grant(&self) -> Result<Grant, Denial> {
        self.appraise(self.signed().as_bytes(), &self.chain())?.grant(&self.reference)
    }
}

/// Writes TCB components into a report's field.
pub(super) fn tcb(bootloader: u8, tee: u8, snp: u8, microcode: u8) -> RawTcb {
    Tcb { fmc: None, bootloader, tee, snp, microcode }.encode()
}
