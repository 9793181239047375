//! `sealpod measure` and what it needs.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../formats/launch-digest/tests/firmware/mod.rs"]
mod firmware;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use launch_digest::{GUEST_FEATURES_SNP, Kernel, Launch};
use serde_json::Value;
use support::{Owner, certificates};

const GUEST: &str = "firmware = \"fw\"\nkernel = \"kernel\"\ninitrd = \"initrd\"\nappend = \"quiet\"\nvcpus = 2\n\
    cpu_model = \"EPYC-Milan\"\n[platform]\nkind = \"snp-emulated\"\nemulator = \"./emulator\"\nstate = \"state\"\n";

fn owner() -> Owner {
    let owner = Owner::new(&certificates().0, 1);
    std::fs::write(owner.path("fw"), firmware::Builder::default().build()).unwrap();
    owner.write("kernel", "a kernel");
    owner.write("initrd", "an initrd");
    owner.write("guest.toml", GUEST);
    owner
}

#[test]
fn measures_what_the_manifest_names() {
    let owner = owner();
    let said = owner.good(&["measure", "--guest", "guest.toml", "-o", "measure.json", "--name", "guest-1"]);
    let firmware = firmware::Builder::default().build();
    let expected = launch_digest::snp(&Launch {
        firmware: &firmware,
        kernel: Some(Kernel { kernel: b"a kernel", initrd: b"an initrd", cmdline: "quiet" }),
        vcpus: 2,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: GUEST_FEATURES_SNP,
    })
    .unwrap();
    let written: Value = serde_json::from_str(&owner.read("measure.json")).unwrap();
    assert_eq!(written["launch_digest"], hex::encode(expected));
    assert_eq!(written["tee"], "snp-emulated");
    assert!(said.contains(&hex::encode(expected)));
    // One byte more is another guest.
    owner.write("initrd", "an initrd!");
    assert!(!owner.good(&["measure", "--guest", "guest.toml"]).contains(&hex::encode(expected)));
}

#[test]
fn each_missing_thing_is_named() {
    let owner = owner();
    let measure = |change: &dyn Fn(&Owner), part: &str| {
        change(&owner);
        let error = owner.refused(&["measure", "--guest", "guest.toml"]);
        assert!(error.contains(part), "{part}: {error}");
    };
    measure(&|owner| owner.write("guest.toml", &GUEST.replace("EPYC-Milan", "Pentium")), "'Pentium'");
    measure(
        &|owner| owner.write("guest.toml", &GUEST.replace("\"fw\"", "\"nothing\"")),
        "nothing: opening failed",
    );
    measure(&|owner| owner.write("guest.toml", "vcpus = 1"), "guest.toml");
    owner.write("guest.toml", GUEST);
    measure(&|owner| owner.write("fw", "not a firmware"), "firmware");
}

#[test]
fn sev_and_sev_es_guests_have_digests_of_their_own() {
    let owner = owner();
    let firmware = firmware::Builder::default().build();
    let launch = |vcpus| Launch {
        firmware: &firmware,
        kernel: Some(Kernel { kernel: b"a kernel", initrd: b"an initrd", cmdline: "quiet" }),
        vcpus,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: 0,
    };
    let measure = |kind: &str, vcpus: u32| -> Value {
        let table = match kind {
            "sev" | "sev-es" => format!("kind = \"{kind}\"\n"),
            _ => format!("kind = \"{kind}\"\nemulator = \"./emulator\"\nstate = \"state\"\n"),
        };
        let (before, _) = GUEST.split_once("kind").unwrap();
        let manifest = before.replace("vcpus = 2", &format!("vcpus = {vcpus}")) + &table;
        owner.write("guest.toml", &manifest);
        owner.good(&["measure", "--guest", "guest.toml", "-o", "measure.json"]);
        serde_json::from_str(&owner.read("measure.json")).unwrap()
    };
    for vcpus in [1, 2] {
        for kind in ["sev", "sev-emulated"] {
            let written = measure(kind, vcpus);
            let digest = hex::encode(launch_digest::sev(&launch(vcpus)).unwrap());
            assert_eq!(
                (written["tee"].as_str(), written["launch_digest"].as_str()),
                (Some(kind), Some(&*digest))
            );
        }
        for kind in ["sev-es", "sev-es-emulated"] {
            let written = measure(kind, vcpus);
            let digest = hex::encode(launch_digest::sev_es(&launch(vcpus)).unwrap());
            assert_eq!(
                (written["tee"].as_str(), written["launch_digest"].as_str()),
                (Some(kind), Some(&*digest))
            );
        }
    }
}
