//! What binds a VM: parsed strictly, framed exactly, bounded.

use proptest::prelude::*;

use super::*;
use crate::{HeaderFields, SealedSpec, SpecKey, Workload, WorkloadKind};

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

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
    crate::seal(&spec, &fields, &SpecKey::from_bytes(&[1; 32]).unwrap()).unwrap()
}

fn initdata(document: &SealedDocument, inline: bool) -> Initdata {
    Initdata {
        config: SealpodConfig {
            sealed_spec: document.digest(),
            key_id: document.header().key_id().clone(),
            broker: BrokerPin { url: "https://broker.example:8443".into(), via: Via::Relay, ca: CA.into() },
        },
        document: inline.then(|| document.clone()),
    }
}

fn refusal(change: impl FnOnce(String) -> String) -> String {
    let toml = initdata(&document(), true).to_toml().unwrap();
    let changed = change(toml.clone());
    assert_ne!(changed, toml, "nothing was changed");
    Initdata::parse(changed.as_bytes()).unwrap_err().to_string()
}

#[test]
fn round_trips() {
    for inline in [false, true] {
        let initdata = initdata(&document(), inline);
        let toml = initdata.to_toml().unwrap();
        assert_eq!(Initdata::parse(toml.as_bytes()).unwrap(), initdata);
        assert_eq!(initdata.to_toml().unwrap(), toml, "the same text each time");
    }
}

#[test]
fn katas_form_written_by_hand_is_read() {
    let text = format!(
        "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"sealpod.toml\" = '''\nsealed_spec = \"sha256:{}\"\nkey_id = \"kbs:///acme/sealed-spec/web.r1.00c0ffee\"\n[broker]\nurl = \"https://10.0.2.2:8443\"\nvia = \"direct\"\nca = \"\"\"\n{CA}\"\"\"\n'''\n",
        "00".repeat(32)
    );
    let initdata = Initdata::parse(text.as_bytes()).unwrap();
    assert_eq!(initdata.config.broker.via, Via::Direct);
    assert!(initdata.document.is_none());
}

#[test]
fn each_rule_refuses() {
    assert!(refusal(|t| t.replacen("0.1.0", "0.2.0", 1)).contains("version \"0.2.0\" is not supported"));
    assert!(
        refusal(|t| t.replacen("\"sha256\"", "\"sha384\"", 1))
            .contains("algorithm \"sha384\" is not supported")
    );
    assert!(refusal(|t| format!("extra = 1\n{t}")).contains("unknown field"));
    assert!(
        refusal(|t| format!("{t}\n\"policy.rego\" = \"package agent_policy\"\n"))
            .contains("entry \"policy.rego\"")
    );
    assert!(refusal(|t| t.replacen("sealpod.toml", "aa.toml", 1)).contains("no entry sealpod.toml"));
    assert!(refusal(|t| format!("{t}\n[")).contains("line"));
    // Said twice, different readers would believe different ones.
    for twice in ["version = \"0.1.0\"\n", "[data]\n"] {
        assert!(refusal(|t| t.replacen(twice, &twice.repeat(2), 1)).contains("duplicate key"), "{twice}");
    }
    let second = "sealed_spec = \"sha256:";
    assert!(
        refusal(|t| t.replacen(second, &format!("{second}{}\"\n{second}", "00".repeat(32)), 1))
            .contains("duplicate key")
    );
    assert!(refusal(|t| format!("{t}\n\"sealpod.toml\" = \"\"\n")).contains("duplicate key"));
    assert!(refusal(|t| t.replacen("url = ", "colour = 1\nurl = ", 1)).contains("unknown field"));
    assert!(refusal(|t| t.replacen("https://broker", "http://broker", 1)).contains("broker.url"));
    assert!(refusal(|t| t.replacen(":8443", ":8443/kbs", 1)).contains("broker.url"));
    assert!(refusal(|t| t.replacen("https://", "https://user:x@", 1)).contains("broker.url"));
    assert!(refusal(|t| t.replacen("\"relay\"", "\"carrier-pigeon\"", 1)).contains("unknown variant"));
    assert!(refusal(|t| t.replacen("BEGIN CERT", "BEGIN CRET", 1)).contains("broker.ca"));
    assert!(
        refusal(|t| t.replacen("web.r1.00c0ffee", "web.r2.00c0ffee", 1))
            .contains("the key id of the document")
    );
    assert!(
        refusal(|t| t.replacen("kbs:///acme/sealed-spec/", "kbs://host/acme/sealed-spec/", 1))
            .contains("resource URI")
    );
}

#[test]
fn the_inline_document_is_the_named_one() {
    let (one, two) = (document(), document());
    let mut swapped = initdata(&one, true);
    swapped.document = Some(two);
    assert!(matches!(swapped.to_toml(), Err(InitdataError::Mismatch("the digest"))));
    let toml = initdata(&one, true).to_toml().unwrap();
    let other = toml.replacen(&one.digest().to_string(), &SpecDigest::of(b"x").to_string(), 1);
    assert!(matches!(Initdata::parse(other.as_bytes()), Err(InitdataError::Mismatch("the digest"))));
    let newline = toml.replacen(one.as_str(), &format!("{}\\n", one.as_str()), 1);
    assert!(matches!(Initdata::parse(newline.as_bytes()), Err(InitdataError::Document(_))));
}

#[test]
fn bounds_and_encoding() {
    assert!(matches!(Initdata::parse(&vec![b'#'; MAX_INITDATA + 1]), Err(InitdataError::TooLong)));
    assert!(matches!(Initdata::parse(&[0xff]), Err(InitdataError::Encoding)));
    let mut long = initdata(&document(), false);
    long.config.broker.ca = CA.repeat(2000);
    assert!(long.to_toml().unwrap_err().to_string().contains("longer than 64 KiB"));
}

#[test]
fn digest_is_sha256_of_the_bytes() {
    assert_eq!(
        hex::encode(digest(b"abc")),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn device_layout() {
    let device = device::encode(b"hello").unwrap();
    assert_eq!(&device[..8], b"initdata");
    assert_eq!(device.len() % 512, 0);
    assert_eq!(&device[16..18], &[0x1f, 0x8b]);
    assert_eq!(&device[20..24], &[0; 4], "no time stamp");
    assert_eq!(device::decode(&device).unwrap(), b"hello");
    assert_eq!(device::encode(b"hello").unwrap(), device, "the same bytes each time");
    let header: [u8; 16] = device[..16].try_into().unwrap();
    let length = device::length(&header).unwrap().unwrap();
    assert!(device[length..].iter().all(|byte| *byte == 0));
}

#[test]
fn broken_devices_are_refused() {
    let good = device::encode(b"hello").unwrap();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        device::decode(&bad).unwrap_err().to_string()
    };
    assert!(with(0, b'I').contains("magic"));
    assert!(with(15, 0x80).contains("larger than any initdata"));
    assert!(with(11, 1).contains("larger than any") || with(11, 1).contains("shorter than its length"));
    assert!(
        with(8, good[8] - 1).contains("bytes after its end")
            || with(8, good[8] - 1).contains("not valid gzip")
    );
    assert!(with(8, good[8] + 1).contains("compressed data: bytes after its end"));
    assert!(with(511, 1).contains("bytes after its end"));
    assert!(with(16, 0).contains("not valid gzip"));
    let mut more = good.clone();
    more.extend_from_slice(&[0; 512]);
    assert!(device::decode(&more).unwrap_err().to_string().contains("bytes after its end"));
    assert!(device::decode(&good[..15]).unwrap_err().to_string().contains("shorter than its header"));
    assert!(device::decode(&good[..20]).unwrap_err().to_string().contains("shorter than its length"));
    assert!(device::length(b"not initdata....").is_none());
    let mut huge = *b"initdata\xff\xff\xff\xff\xff\xff\xff\xff";
    assert!(device::length(&huge).unwrap().is_err());
    huge[8..].copy_from_slice(&0u64.to_le_bytes());
    assert!(device::decode(&huge).unwrap_err().to_string().contains("not valid gzip"));
}

#[test]
fn a_bomb_is_cut_short() {
    let bomb = gzip::compress(&vec![0; MAX_INITDATA + 1]).unwrap();
    assert!(bomb.len() < 8192);
    let mut framed = b"initdata".to_vec();
    framed.extend_from_slice(&(bomb.len() as u64).to_le_bytes());
    framed.extend_from_slice(&bomb);
    framed.resize(framed.len().next_multiple_of(512), 0);
    assert!(matches!(device::decode(&framed), Err(InitdataError::TooLong)));
    assert!(matches!(device::encode(&vec![0; MAX_INITDATA + 1]), Err(InitdataError::TooLong)));
    // A second member would be a second document.
    let mut two = gzip::compress(b"one").unwrap();
    two.extend_from_slice(&gzip::compress(b"two").unwrap());
    assert!(matches!(gzip::decompress(&two), Err(InitdataError::Gzip("bytes after its end"))));
}

#[test]
fn annotations() {
    let text = annotation::encode(b"hello").unwrap();
    assert_eq!(annotation::decode(&text).unwrap(), b"hello");
    assert!(matches!(annotation::decode("###"), Err(InitdataError::Annotation(_))));
    assert!(matches!(annotation::decode(&format!("{text}\n")), Err(InitdataError::Annotation(_))));
    assert!(matches!(
        annotation::decode(&"A".repeat(annotation::MAX_ANNOTATION + 1)),
        Err(InitdataError::Annotation(_))
    ));
    let mut noise = vec![0u8; 300 * 1024];
    getrandom::fill(&mut noise).unwrap();
    assert!(
        annotation::encode(&noise)
            .unwrap_err()
            .to_string()
            .contains("put the sealed document into the ConfigMap")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_document_survives_both_ways(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert_eq!(&device::decode(&device::encode(&bytes).unwrap()).unwrap(), &bytes);
        prop_assert_eq!(&annotation::decode(&annotation::encode(&bytes).unwrap()).unwrap(), &bytes);
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1500), framed in any::<bool>()) {
        if framed {
            let mut device = b"initdata".to_vec();
            device.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            device.append(&mut bytes);
            bytes = device;
        }
        let _ = device::decode(&bytes);
        let _ = Initdata::parse(&bytes);
        let _ = annotation::decode(&String::from_utf8_lossy(&bytes));
    }
}
