//! The record beside a blob: nothing of it is used that this owner didn't sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocols::broker::BlobRequest;
use protocols::owner::{OwnerKey, PefBlob};
use serde_json::Value;

use super::{World, taken};

#[test]
fn a_record_that_this_owner_did_not_sign_is_used_for_nothing() {
    let world = World::new();
    let hardware = include_str!("../../../attestation/verifier/testdata/pef/machine-1.pem");
    world.owner.write("hardware.pem", hardware);
    world.make("pod.esm", &["machine.pem", "hardware.pem"]);
    world.make("old.esm", &["machine.pem"]);
    let (good, blob) = (world.owner.read("pod.esm.json"), world.blob("pod.esm"));
    let statement = world.record("pod.esm");
    let refused = |record: &str, why: &str| {
        world.owner.write("pod.esm.json", record);
        for change in ["authorize", "revoke"] {
            let said = world.owner.refused(&["esm", change, "pod.esm", "--machine", "hardware.pem"]);
            assert!(said.contains(why) && said.contains("pod.esm"), "{change}: {said}");
            assert!(said.contains("restore your own copy") || said.contains("--identity"), "{said}");
        }
        assert!(world.owner.good(&["esm", "show", "pod.esm"]).contains("can't be used"));
        assert!(world.owner.read("pod.esm.json") == record && world.blob("pod.esm") == blob);
    };

    // One value changed, header and signature as they were.
    let jws = serde_json::from_str::<BlobRequest>(&good).unwrap().blob;
    let parts: Vec<&str> = jws.split('.').collect();
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let own = OwnerKey::generate().unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    for (field, value) in [
        ("blob", "0".repeat(32)),
        ("key", own.public().to_string()),
        ("spec_digest", digest.clone()),
        ("init_data", digest),
        ("lineage", "another".to_owned()),
    ] {
        let mut changed = payload.clone();
        assert!(changed[field].is_string());
        changed[field] = value.into();
        let middle = URL_SAFE_NO_PAD.encode(changed.to_string());
        let record = BlobRequest { blob: format!("{}.{middle}.{}", parts[0], parts[2]) };
        refused(&serde_json::to_string(&record).unwrap(), "not signed by this identity");
    }
    // The same words by another owner, by this one for another repository, by nobody.
    let signed = |key: &OwnerKey, statement: &PefBlob| {
        serde_json::to_string(&BlobRequest { blob: key.sign_statement(statement).unwrap() }).unwrap()
    };
    refused(&signed(&own, &statement), "not signed by this identity");
    let key = OwnerKey::load(&world.owner.path("id/owner.key")).unwrap();
    let elsewhere = PefBlob { repository: "other".into(), ..statement.clone() };
    refused(&signed(&key, &elsewhere), "speaks for repository 'other'");
    refused(&payload.to_string(), "not the signed record");

    // This owner's record of another blob.
    world.owner.write("pod.esm.json", &world.owner.read("old.esm.json"));
    let said = world.owner.refused(&["esm", "authorize", "pod.esm", "--machine", "hardware.pem"]);
    assert!(said.contains("another blob id"), "{said}");
    let said = world.owner.refused(&["esm", "revoke", "pod.esm", "--machine", "hardware.pem"]);
    assert!(said.contains("doesn't list machine"), "{said}");

    // The broker heard of none of it: the next serial is free.
    world.owner.write("pod.esm.json", &good);
    world.owner.good(&["esm", "revoke", "pod.esm", "--machine", "hardware.pem"]);
    assert_eq!(
        world.record("pod.esm"),
        PefBlob { serial: 2, machines: vec![statement.machines[0].clone()], ..statement }
    );
    world.boot(taken(world.launch("pod.esm"))).unwrap();
}
