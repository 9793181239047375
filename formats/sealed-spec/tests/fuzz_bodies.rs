//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs
//! with a few bytes changed.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../../fuzz/bodies/sealed_spec.rs"]
mod bodies;

use proptest::prelude::*;
use sealed_spec::initdata::{BrokerPin, Initdata, SealpodConfig, Via, device};
use sealed_spec::{HeaderFields, SealedDocument, SealedSpec, SpecKey, Workload, WorkloadKind};

const MANIFEST: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"a","image":"r/a","livenessProbe":{"exec":{"command":["x"]}},"env":[{"name":"A","value":"1"}]}]}}"#;

fn document() -> SealedDocument {
    let spec: SealedSpec = serde_json::from_value(serde_json::json!({
        "version": 1,
        "pod": { "containers": [{ "name": "a", "image": "r/a" }] },
        "images": { "a": { "reference": "r/a", "digest": format!("sha256:{}", "00".repeat(32)) } },
    }))
    .unwrap();
    let fields = HeaderFields {
        key_id: "kbs:///acme/sealed-spec/web.r1.00c0ffee".parse().unwrap(),
        namespace: "default".into(),
        workload: Workload { kind: WorkloadKind::Pod, name: "web".into() },
    };
    sealed_spec::seal(&spec, &fields, &SpecKey::from_bytes(&[7; 32]).unwrap()).unwrap()
}

fn initdata() -> String {
    let document = document();
    let config = SealpodConfig {
        sealed_spec: document.digest(),
        key_id: document.header().key_id().clone(),
        broker: BrokerPin {
            url: "https://broker.example".into(),
            via: Via::Relay,
            ca: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
        },
    };
    Initdata { config, document: Some(document) }.to_toml().unwrap()
}

/// `good` with some bytes replaced, or cut off.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

fn run_all(bytes: &[u8]) {
    bodies::sealed_document(bytes);
    bodies::initdata_toml(bytes);
    bodies::initdata_device(bytes);
    bodies::manifest_split(bytes);
    bodies::sealed_log(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_documents(bytes in damaged(document().as_str().as_bytes().to_vec())) {
        bodies::sealed_document(&bytes);
    }

    #[test]
    fn damaged_initdata(bytes in damaged(initdata().into_bytes())) {
        bodies::initdata_toml(&bytes);
    }

    #[test]
    fn damaged_devices(bytes in damaged(device::encode(initdata().as_bytes()).unwrap())) {
        bodies::initdata_device(&bytes);
    }

    #[test]
    fn damaged_manifests(bytes in damaged(MANIFEST.as_bytes().to_vec())) {
        bodies::manifest_split(&bytes);
    }
}
