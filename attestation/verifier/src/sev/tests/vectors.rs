//! Real platforms' chains under AMD's roots, and published measurements.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tee_evidence::sev::Authority;

use super::super::crypto::{self, Key};
use super::*;
use crate::{Check, Trust};

fn root() -> Option<PathBuf> {
    let root = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from)
        .join("sev-legacy");
    if !root.is_dir() {
        println!("skipped: no vectors");
        return None;
    }
    Some(root)
}

fn authorities(root: &Path, product: &str) -> Vec<u8> {
    let read = |name: &str| std::fs::read(root.join("builtin-ark-ask").join(product).join(name)).unwrap();
    [read("ask.cert"), read("ark.cert")].concat()
}

fn platform(root: &Path, product: &str) -> (Platform, Vec<u8>) {
    let read = |name: &str| std::fs::read(root.join(product).join(format!("{name}.cert"))).unwrap();
    let cek = read("cek");
    (Platform::parse(&read("pdh"), &[read("pek"), read("oca"), cek.clone()].concat()).unwrap(), cek)
}

#[test]
fn real_platforms_are_accepted_under_amds_roots() {
    let Some(root) = root() else { return };
    for (product, expected) in [("naples", SevProduct::Naples), ("rome", SevProduct::Rome)] {
        let all = ["turin", "genoa", "milan", "rome", "naples"].map(|name| authorities(&root, name));
        let collateral = Collateral { authorities: all.to_vec(), cek: None };
        let checked = platform(&root, product).0.check_chain(&Anchors::amd(), &collateral).unwrap();
        assert_eq!((checked.trust, checked.product), (Trust::Amd, expected));
    }
}

/// As AMD publishes it: without its own signature.
#[test]
fn the_published_naples_root_is_enough() {
    let Some(root) = root() else { return };
    let ask = std::fs::read(root.join("builtin-ark-ask/naples/ask.cert")).unwrap();
    let ark = std::fs::read(root.join("naples/ark.cert.bad")).unwrap();
    let collateral = Collateral { authorities: vec![[ask, ark].concat()], cek: None };
    assert!(platform(&root, "naples").0.check_chain(&Anchors::amd(), &collateral).is_ok());
}

#[test]
fn a_real_exported_cek_is_completed_from_the_cache() {
    let Some(root) = root() else { return };
    let read = |name: &str| std::fs::read(root.join("rome").join(format!("{name}.cert"))).unwrap();
    let mut exported = read("cek");
    exported[1044..].fill(0);
    let parse =
        || Platform::parse(&read("pdh"), &[read("pek"), read("oca"), exported.clone()].concat()).unwrap();
    let bundles = vec![authorities(&root, "rome")];
    let with = |cek| Collateral { authorities: bundles.clone(), cek };
    assert!(parse().check_chain(&Anchors::amd(), &with(Some(read("cek")))).is_ok());
    let denial = parse().check_chain(&Anchors::amd(), &with(None)).unwrap_err();
    assert_eq!(denial.check, Check::Collateral);
    let naples = std::fs::read(root.join("naples/cek.cert")).unwrap();
    let denial = parse().check_chain(&Anchors::amd(), &with(Some(naples))).unwrap_err();
    assert_eq!(denial.check, Check::Collateral);
}

#[test]
fn another_products_authorities_are_refused() {
    let Some(root) = root() else { return };
    for (product, other) in [("naples", "rome"), ("rome", "naples"), ("rome", "milan"), ("rome", "genoa")] {
        let collateral = Collateral { authorities: vec![authorities(&root, other)], cek: None };
        let denial = platform(&root, product).0.check_chain(&Anchors::amd(), &collateral).unwrap_err();
        assert_eq!(denial.check, Check::CertificateChain, "{denial}");
    }
}

#[test]
fn the_pinned_roots_are_amds() {
    let Some(root) = root() else { return };
    for (name, product) in [
        ("naples", SevProduct::Naples),
        ("rome", SevProduct::Rome),
        ("milan", SevProduct::Milan),
        ("genoa", SevProduct::Genoa),
        ("turin", SevProduct::Turin),
    ] {
        let bundle = Authority::parse_bundle(&authorities(&root, name)).unwrap();
        assert_eq!(Anchors::amd().find(&bundle[1]), Some((product, Trust::Amd)));
        assert_eq!(Anchors::amd().find(&bundle[0]), None);
        for signed in &bundle {
            let signature = signed.signature().unwrap();
            assert!(crypto::verify_rsa(&bundle[1], signed.body(), signature), "{name}");
        }
    }
}

fn session(tik: [u8; 16], policy: u32) -> Session {
    let Started { session, .. } = start(0);
    Session { tik: Key::new(tik), policy: Policy(policy), ..session }
}

fn says(api: (u8, u8), build: u8, policy: u32, value: &[u8]) -> Launch {
    Launch {
        api: FirmwareApi { major: api.0, minor: api.1 },
        build,
        policy: Policy(policy),
        measurement: Measurement::parse(value).unwrap(),
    }
}

/// API version, build, policy, launch digest, and what LAUNCH_MEASURE gave.
type Case<'a> = ((u8, u8), u8, u32, Vec<u8>, &'a str);

#[test]
fn published_measurements_are_accepted() {
    let Some(root) = root() else { return };
    let read = |name: &str| std::fs::read(root.join("sevctl").join(name)).unwrap();
    let firmware = read("OVMF.amdsev.fd_trimmed_edk2-ovmf-20220126gitbb1bba3d77-4.el9");
    let (kernel, initrd) = (read("measurement/vmlinuz-fake"), read("measurement/initrd-fake"));
    let kernel = launch_digest::Kernel {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: "foo bar baz fake kernel=cmdline",
    };
    let launch = |kernel| launch_digest::Launch {
        firmware: &firmware,
        kernel,
        vcpus: 1,
        cpu: "EPYC-v4".parse().unwrap(),
        guest_features: 0,
    };
    let es = [firmware.clone(), read("vmsa0.bin"), read("vmsa1.bin").repeat(3)].concat();
    let cases: [Case<'_>; 4] = [
        (
            (1, 40),
            40,
            3,
            STANDARD.decode("xkvRAfyaSizgonxAjZIAkR8TmolUabBKQKb6KJCDDSM=").unwrap(),
            "lswbxWxI9gckya16JQvdFtpYmNO4b+3inAPpqsgoBI7DE/q1EcIWsVBbGy6pkDxA",
        ),
        (
            (1, 40),
            40,
            3,
            launch_digest::sev(&launch(None)).unwrap().to_vec(),
            "oMDewIouJSpbpNRHj7Mk3p08H2dPZQdsZMU14qIymBnDE/q1EcIWsVBbGy6pkDxA",
        ),
        (
            (1, 40),
            40,
            3,
            launch_digest::sev(&launch(Some(kernel))).unwrap().to_vec(),
            "h3auYbWQnVW7EGLWN4Hf9SN0oEYMPU2sK4bLnefWPwvDE/q1EcIWsVBbGy6pkDxA",
        ),
        (
            (1, 49),
            6,
            5,
            Sha256::digest(es).to_vec(),
            "/o0nzDKE5XgtVnUZWPhUea/WZYrTKLExR7KCwuMdbActvpWfXTFk21KMZIAAhQny",
        ),
    ];
    let tik: [u8; 16] = read("measurement/tik1.bin").try_into().unwrap();
    let digests: Vec<_> = cases.iter().map(|case| case.3.as_slice()).collect();
    for (api, build, policy, digest, value) in &cases {
        let launch = says(*api, *build, *policy, &STANDARD.decode(value).unwrap());
        let measured = session(tik, *policy).measure(&launch, digests.iter().copied()).unwrap();
        assert_eq!(measured.appraised().verdict().launch_digest(), Some(digest.as_slice()));
        let others = digests.iter().copied().filter(|other| *other != digest.as_slice());
        assert!(session(tik, *policy).measure(&launch, others).is_err());
    }
}

/// AMD's own tool; with another policy, the code is another.
#[test]
fn sev_tools_measurement_is_accepted() {
    let tik = hex::decode("66320db73158a35a255d051758e95ed4").unwrap().try_into().unwrap();
    let value = hex::decode(
        "6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea4fbe0bedbad6c86ae8f68971d103e554",
    )
    .unwrap();
    let nothing = Sha256::digest([]);
    let accepted = |policy| {
        session(tik, policy).measure(&says((0, 18), 15, policy, &value), [nothing.as_slice()]).is_ok()
    };
    assert!(accepted(0));
    assert!(!accepted(1));
}
