//! The policy mode's initdata: what CoCo's tools write is read, and nothing that protects is dropped.

use super::super::{Algorithm, Bound, InitdataError};
use super::*;

const CERT: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn document(algorithm: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!("version = \"0.1.0\"\nalgorithm = \"{algorithm}\"\n[data]\n");
    for (name, content) in entries {
        text.push_str(&format!("\"{name}\" = '''\n{content}'''\n"));
    }
    text
}

fn parse(entries: &[(&str, &str)]) -> Result<PolicyInitdata, InitdataError> {
    match Bound::parse(document("sha256", entries).as_bytes(), Algorithm::Sha256)? {
        Bound::Policy(initdata) => Ok(initdata),
        Bound::Sealed(_) => panic!("not sealed"),
    }
}

const POLICY: (&str, &str) = (POLICY_ENTRY, "package agent_policy\n");

#[test]
fn a_document_of_coco_is_read_whole() {
    let attester = format!(
        "[token_configs.coco_as]\nurl = 'http://as:8080'\n[token_configs.kbs]\nurl = 'https://kbs.example:8080'\ncert = \"\"\"\n{CERT}\"\"\"\n[eventlog_config]\nenable_eventlog = true\n"
    );
    let hub = format!(
        "socket = 'unix:///run/confidential-containers/cdh.sock'\nfuture = 1\n[kbc]\nname = 'cc_kbc'\nurl = 'https://kbs.example:8080/'\nkbs_cert = \"\"\"\n{CERT}\"\"\"\n[[credentials]]\nresource_uri = 'kbs:///default/keys/sealed'\npath = '/run/confidential-containers/cdh/sealed-secret/signer'\n[image]\nmax_concurrent_layer_downloads_per_image = 3\nauthenticated_registry_credentials_uri = 'kbs:///default/credential/test'\nextra_root_certificates = [\"x\"]\n"
    );
    let initdata = parse(&[POLICY, ("aa.toml", &attester), ("cdh.toml", &hub), ("other", "x")]).unwrap();
    assert_eq!(initdata.policy, POLICY.1);
    let broker = initdata.broker.unwrap();
    assert_eq!((broker.url.as_str(), broker.ca.as_deref()), ("https://kbs.example:8080", Some(CERT)));
    assert!(broker.is_authenticated());
    assert_eq!(initdata.credentials["signer"], "kbs:///default/keys/sealed");
    assert_eq!(initdata.registry_credentials.as_deref(), Some("kbs:///default/credential/test"));
    assert_eq!(initdata.registry_certificates, ["x"]);
    assert_eq!(
        initdata.ignored,
        [
            "other",
            "aa.toml eventlog_config",
            "cdh.toml future",
            "aa.toml token_configs.coco_as",
            "cdh.toml image.max_concurrent_layer_downloads_per_image"
        ]
    );
    assert_eq!(parse(&[POLICY]).unwrap().broker, None, "a policy needs no broker");
}

#[test]
fn plain_http_is_taken_and_told_apart() {
    let hub = "[kbc]\nname = 'cc_kbc'\nurl = 'http://10.0.0.1:8080'\n";
    let broker = parse(&[POLICY, ("cdh.toml", hub)]).unwrap().broker.unwrap();
    assert!(!broker.is_authenticated());
}

#[test]
fn each_thing_that_protects_and_cannot_is_refused_by_name() {
    let cert = format!("kbs_cert = \"\"\"\n{CERT}\"\"\"\n");
    for (entry, content, named) in [
        ("cdh.toml", "[image]\nimage_security_policy_uri = 'kbs:///a/b/c'\n".to_owned(), "image_security_policy_uri"),
        ("cdh.toml", "[image]\nimage_security_policy = '{}'\n".to_owned(), "image_security_policy"),
        ("cdh.toml", "[image]\nsigstore_config_uri = 'kbs:///a/b/c'\n".to_owned(), "sigstore_config_uri"),
        ("cdh.toml", "[kbc]\nname = 'offline_fs_kbc'\n".to_owned(), "offline_fs_kbc"),
        ("cdh.toml", "[kbc]\nname = 'cc_kbc'\nurl = 'https://a'\n".to_owned(), "kbc.kbs_cert"),
        ("cdh.toml", format!("[kbc]\nname = 'cc_kbc'\nurl = 'http://a'\n{cert}"), "kbc.kbs_cert"),
        ("cdh.toml", format!("[kbc]\nname = 'cc_kbc'\nurl = 'https://a/path'\n{cert}"), "url"),
        ("cdh.toml", "[kbc]\nname = 'cc_kbc'\nurl = 'https://a'\nkbs_cert = 'x'\n".to_owned(), "kbc.kbs_cert"),
        ("cdh.toml", "[[credentials]]\nresource_uri = 'a'\npath = '/x/k'\n[[credentials]]\nresource_uri = 'b'\npath = '/y/k'\n".to_owned(), "credentials"),
        ("aa.toml", "[token_configs.kbs]\nurl = 'https://a'\n".to_owned(), "token_configs.kbs.cert"),
        ("aa.toml", "[token_configs.kbs]\ncert = 'x'\n".to_owned(), "token_configs.kbs"),
        ("aa.toml", "[token_configs\n".to_owned(), "aa.toml"),
    ] {
        let error = parse(&[POLICY, (entry, &content)]).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains(entry) && error.lines().count() == 1, "{content}: {error}");
    }
    let two = [
        POLICY,
        ("aa.toml", "[token_configs.kbs]\nurl = 'http://a'\n"),
        ("cdh.toml", "[kbc]\nname = 'cc_kbc'\nurl = 'http://b'\n"),
    ];
    assert!(parse(&two).unwrap_err().to_string().contains("two brokers"));
}

#[test]
fn the_mode_is_what_the_entries_say() {
    let parse =
        |entries: &[(&str, &str)]| Bound::parse(document("sha256", entries).as_bytes(), Algorithm::Sha256);
    assert!(matches!(parse(&[("aa.toml", "")]), Err(InitdataError::NoConfig)));
    assert!(matches!(parse(&[]), Err(InitdataError::NoConfig)));
    // A broken sealed document never becomes one of the policy mode.
    assert!(matches!(
        parse(&[POLICY, ("sealpod.toml", "x")]),
        Err(InitdataError::Entry(_) | InitdataError::Config(_))
    ));
}

#[test]
fn the_algorithm_is_the_one_that_binds() {
    for (name, algorithm) in [
        ("sha256", Algorithm::Sha256),
        ("sha384", Algorithm::Sha384),
        ("sha512", Algorithm::Sha512),
        ("SHA-512", Algorithm::Sha512),
    ] {
        let text = document(name, &[POLICY]);
        let host_data: [u8; 32] = algorithm.digest(text.as_bytes())[..32].try_into().unwrap();
        assert_eq!(Algorithm::binding(text.as_bytes(), &host_data), Some(algorithm));
        assert_eq!(Algorithm::binding(format!("{text}\n").as_bytes(), &host_data), None);
        assert!(matches!(Bound::parse(text.as_bytes(), algorithm), Ok(Bound::Policy(_))), "{name}");
        let other = if algorithm == Algorithm::Sha256 { Algorithm::Sha384 } else { Algorithm::Sha256 };
        assert!(matches!(Bound::parse(text.as_bytes(), other), Err(InitdataError::Binding { .. })), "{name}");
    }
    for unknown in ["md5", "sha3-256", ""] {
        let text = document(unknown, &[POLICY]);
        assert!(Bound::parse(text.as_bytes(), Algorithm::Sha256).is_err(), "{unknown}");
    }
    let version = document("sha256", &[POLICY]).replace("0.1.0", "0.2.0");
    assert!(matches!(Bound::parse(version.as_bytes(), Algorithm::Sha256), Err(InitdataError::Version(_))));
    // A sealed pod is bound by SHA-256 alone.
    let sealed = document("sha384", &[("sealpod.toml", "")]);
    assert!(matches!(Bound::parse(sealed.as_bytes(), Algorithm::Sha384), Err(InitdataError::Algorithm(_))));
}
