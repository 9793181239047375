//! Statements signed, verified, and refused.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn registration() -> Registration {
    Registration {
        repository: "team-a".into(),
        lineage: "web".into(),
        revision: 3,
        spec_digest: name::sha256(b"spec"),
        key_id: "kbs:///team-a/sealed-spec/web.r3.0a1b2c3d".into(),
        key_sha256: name::sha256(b"key"),
        namespace: "default".into(),
        workload_kind: "Pod".into(),
        workload_name: "web".into(),
        images: vec![name::sha256(b"image")],
        init_data: Some(name::sha256(b"initdata")),
        image_keys: Vec::new(),
    }
}

fn policy() -> ReleasePolicy {
    ReleasePolicy {
        minimum_revision: 1,
        tee: vec![PolicyTee::Snp, PolicyTee::SnpEmulated],
        launch_digest: vec![LaunchDigest { name: "guest-1.0".into(), digest: "ab".repeat(48) }],
        snp: Some(SnpPolicy::new(MinimumTcb { bootloader: 3, tee: 0, snp: 8, microcode: 115, fmc: None })),
        sev: None,
        pef: None,
        releases: Releases::Unlimited,
    }
}

/// Signs any header and payload, well formed or not.
fn sign_raw(key: &OwnerKey, header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())))
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"team-a","typ":"sealpod-registration"}"#;

#[test]
fn round_trips() {
    let key = OwnerKey::generate().unwrap();
    let jws = key.sign_statement(&registration()).unwrap();
    assert_eq!(claimed_repository(&jws).unwrap(), "team-a");
    let verified: Verified<Registration> = key.public().verify(&jws).unwrap();
    assert_eq!(*verified, registration());
    assert_eq!(verified.jws(), jws);

    let statement =
        PolicyStatement { repository: "team-a".into(), lineage: "web".into(), serial: 2, policy: policy() };
    let jws = key.sign_statement(&statement).unwrap();
    assert_eq!(*key.public().verify::<PolicyStatement>(&jws).unwrap(), statement);

    let statement = Retirement { repository: "team-a".into(), lineage: "web".into(), revision: 3 };
    let jws = key.sign_statement(&statement).unwrap();
    assert_eq!(*key.public().verify::<Retirement>(&jws).unwrap(), statement);
}

#[test]
fn refuses_another_key_and_any_changed_part() {
    let (key, other) = (OwnerKey::generate().unwrap(), OwnerKey::generate().unwrap());
    let jws = key.sign_statement(&registration()).unwrap();
    assert!(
        matches!(other.public().verify::<Registration>(&jws), Err(StatementError::Signature(r)) if r == "team-a")
    );

    let (input, signature) = jws.rsplit_once('.').unwrap();
    let (header, _) = input.split_once('.').unwrap();
    let changed =
        Registration { revision: 4, key_id: registration().key_id.replace("r3", "r4"), ..registration() };
    let payload = URL_SAFE_NO_PAD.encode(canonical::to_string(&changed).unwrap());
    let forged = format!("{header}.{payload}.{signature}");
    assert!(matches!(key.public().verify::<Registration>(&forged), Err(StatementError::Signature(_))));
}

#[test]
fn refuses_a_statement_of_another_kind_or_repository() {
    let key = OwnerKey::generate().unwrap();
    let public = key.public();
    let retirement = Retirement { repository: "team-a".into(), lineage: "web".into(), revision: 3 };
    let payload = canonical::to_string(&retirement).unwrap();
    // A retirement's fields under a registration's header.
    assert!(matches!(
        public.verify::<Retirement>(&sign_raw(&key, HEADER, &payload)),
        Err(StatementError::Header("sealpod-retirement"))
    ));
    // One repository in the header, another in the payload.
    let header = r#"{"alg":"EdDSA","kid":"team-b","typ":"sealpod-retirement"}"#;
    assert!(matches!(
        public.verify::<Retirement>(&sign_raw(&key, header, &payload)),
        Err(StatementError::Header(_))
    ));
}

#[test]
fn refuses_every_second_form() {
    let key = OwnerKey::generate().unwrap();
    let public = key.public();
    let payload = canonical::to_string(&registration()).unwrap();
    let good = sign_raw(&key, HEADER, &payload);
    public.verify::<Registration>(&good).unwrap();
    for header in [
        r#"{"alg":"none","kid":"team-a","typ":"sealpod-registration"}"#,
        r#"{"kid":"team-a","alg":"EdDSA","typ":"sealpod-registration"}"#,
        r#"{"alg":"EdDSA", "kid":"team-a","typ":"sealpod-registration"}"#,
        r#"{"alg":"EdDSA","jwk":{},"kid":"team-a","typ":"sealpod-registration"}"#,
        r#"{"alg":"EdDSA","kid":"../x","typ":"sealpod-registration"}"#,
    ] {
        assert!(public.verify::<Registration>(&sign_raw(&key, header, &payload)).is_err(), "{header}");
    }
    let mut extra: Value = serde_json::from_str(&payload).unwrap();
    extra["extra"] = json!(1);
    for payload in [
        payload.replace(',', ", "),
        extra.to_string(),
        payload.replace("\"revision\":3", "\"revision\":3.0"),
        payload.replace("\"revision\":3", "\"revision\":3,\"revision\":3"),
        payload.replace("team-a\",\"revision", "te\\u0061m-a\",\"revision"),
    ] {
        assert!(public.verify::<Registration>(&sign_raw(&key, HEADER, &payload)).is_err(), "{payload}");
    }
    for bad in
        [format!("{good}="), format!("{good}\n"), good.replacen('.', "..", 1), String::new(), "a.b".into()]
    {
        assert!(public.verify::<Registration>(&bad).is_err());
    }
    assert!(matches!(
        public.verify::<Registration>(&"a".repeat(MAX_STATEMENT + 1)),
        Err(StatementError::TooLong)
    ));
}

fn registration_with(image_keys: &[&str]) -> Registration {
    let image_keys = image_keys.iter().map(|&key| key.to_owned()).collect();
    Registration { image_keys, ..registration() }
}

#[test]
fn registration_values() {
    let refused = |change: fn(&mut Registration)| {
        let mut statement = registration();
        change(&mut statement);
        statement.validate().unwrap_err()
    };
    refused(|r| r.repository = "Team".into());
    refused(|r| r.lineage = "..".into());
    refused(|r| r.revision = 0);
    refused(|r| r.revision = 1 << 53);
    refused(|r| r.spec_digest = r.spec_digest.to_uppercase());
    refused(|r| r.key_sha256 = "00".repeat(32));
    refused(|r| r.init_data = Some("00".repeat(32)));
    refused(|r| r.images = vec![name::sha256(b"image"); 257]);
    refused(|r| r.images = vec!["busybox:latest".into()]);
    refused(|r| r.namespace = "a b".into());
    refused(|r| r.workload_name.clear());
    registration_with(&["kbs:///team-a/image-key/a", "kbs:///team-a/key/b"]).validate().unwrap();
    for image_keys in [
        &["kbs:///team-b/image-key/a"][..],
        &["kbs:///team-a/sealed-spec/web.r3.0a1b2c3d"],
        &["kbs:///team-a/image-key/"],
        &["kbs:///team-a/image-key/b", "kbs:///team-a/image-key/a"],
        &["kbs:///team-a/image-key/a", "kbs:///team-a/image-key/a"],
    ] {
        assert!(registration_with(image_keys).validate().is_err(), "{image_keys:?}");
    }
    let many: Vec<_> = (0..257).map(|n| format!("kbs:///team-a/image-key/{n:03}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    registration_with(&many[..256]).validate().unwrap();
    assert!(registration_with(&many).validate().is_err());
    for key_id in [
        "kbs:///team-b/sealed-spec/web.r3.0a1b2c3d",
        "kbs:///team-a/other/web.r3.0a1b2c3d",
        "kbs:///team-a/sealed-spec/web.r2.0a1b2c3d",
        "kbs:///team-a/sealed-spec/web.r3.0a1b2c3",
        "kbs:///team-a/sealed-spec/web.r3.0A1B2C3D",
        "kbs://broker/team-a/sealed-spec/web.r3.0a1b2c3d",
    ] {
        let statement = Registration { key_id: key_id.into(), ..registration() };
        assert!(statement.validate().is_err(), "{key_id}");
    }
}

#[test]
fn policy_toml_round_trip_and_defaults() {
    let digest = "ab".repeat(48);
    let text = format!(
        "minimum_revision = 1\ntee = ['snp', 'snp-emulated']\n\
         [[launch_digest]]\nname = 'guest-1.0'\ndigest = '{digest}'\n\
         [snp]\nminimum_tcb = {{ bootloader = 3, tee = 0, snp = 8, microcode = 115 }}\n"
    );
    let read = ReleasePolicy::from_toml(&text).unwrap();
    assert_eq!(read, policy());
    assert_eq!(ReleasePolicy::from_toml(&read.to_toml().unwrap()).unwrap(), read);
    for (from, to) in [
        ("minimum_revision", "minimum_revison"),
        ("'snp', ", "'sample', "),
        ("microcode = 115", "microcode = 256"),
        ("microcode = 115", "microcode = -1"),
        (", microcode = 115", ""),
        ("[snp]", "[snp]\nvmpl = 4"),
        ("[snp]", "[snp]\nallow = true"),
        ("'snp', 'snp-emulated'", ""),
        (digest.as_str(), &"AB".repeat(48)),
        (digest.as_str(), &"0".repeat(96)),
        (digest.as_str(), "ab"),
        ("minimum_revision = 1", "minimum_revision = 0"),
        ("minimum_revision = 1", "minimum_revision = 1\nreleases = 'twice'"),
        ("minimum_revision = 1", "minimum_revision = 1\nreleases = { count = 0, seconds = 1 }"),
        ("minimum_revision = 1", "minimum_revision = 1\nreleases = { count = 1, seconds = 1, x = 1 }"),
        ("'snp', 'snp-emulated'", "'pef'"),
        ("'snp', ", "'sev', "),
        ("[snp]", "[pef]\nallow_limited_releases = true\n[snp]"),
        ("[snp]", "[snp]\nminimum_guest_svn = 1"),
        ("[snp]", "[snp]\nid_key_digests = ['ab']"),
        ("[snp]", "[snp]\ndenied_products = ['rome']"),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text);
        assert!(ReleasePolicy::from_toml(&bad).is_err(), "{bad}");
    }
}

#[test]
fn policy_lists() {
    let refused = |change: fn(&mut ReleasePolicy)| {
        let mut policy = policy();
        change(&mut policy);
        policy.validate().unwrap_err()
    };
    refused(|p| p.tee.clear());
    refused(|p| p.tee.push(PolicyTee::Snp));
    refused(|p| p.launch_digest.clear());
    refused(|p| p.launch_digest.push(p.launch_digest[0].clone()));
    refused(|p| p.launch_digest[0].name = "a b".into());
    refused(|p| p.launch_digest = vec![p.launch_digest[0].clone(); 257]);
}

#[test]
fn policies_of_other_tees() {
    let sev = format!(
        "minimum_revision = 1\ntee = ['sev-es']\nreleases = 'once'\n\
         [[launch_digest]]\nname = 'guest-1.0'\ndigest = '{}'\n[sev]\nminimum_api = '1.51'\n",
        "ab".repeat(32)
    );
    let read = ReleasePolicy::from_toml(&sev).unwrap();
    assert_eq!(read.sev.as_ref().map(|sev| sev.secret), Some(SevSecret::Connection));
    assert_eq!(ReleasePolicy::from_toml(&read.to_toml().unwrap()).unwrap(), read);
    for (from, to) in [
        ("'1.51'", "'1.051'"),
        ("'1.51'", "1.51"),
        (&*"ab".repeat(32), &*"ab".repeat(48)),
        ("[sev]", "[snp]"),
        ("'1.51'", "'1.51'\ndenied_chips = ['00']"),
        ("'1.51'", "'1.51'\ndenied_products = ['emulated']"),
        ("'sev-es'", "'sev-es', 'snp'"),
    ] {
        let bad = sev.replace(from, to);
        assert_ne!(bad, sev);
        assert!(ReleasePolicy::from_toml(&bad).is_err(), "{bad}");
    }

    let pef = "minimum_revision = 1\ntee = ['pef']\n";
    let limited = format!("{pef}releases = {{ count = 2, seconds = 60 }}\n");
    ReleasePolicy::from_toml(pef).unwrap();
    assert!(ReleasePolicy::from_toml(&limited).is_err());
    ReleasePolicy::from_toml(&format!("{limited}[pef]\nallow_limited_releases = true\n")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_change_of_a_character_goes_through(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.=-]") {
        let key = OwnerKey::generate().unwrap();
        let jws = key.sign_statement(&registration()).unwrap();
        let at = at.index(jws.len());
        let changed = format!("{}{with}{}", &jws[..at], &jws[at + 1..]);
        prop_assert_eq!(key.public().verify::<Registration>(&changed).is_ok(), changed == jws);
    }

    #[test]
    fn any_text_is_refused_quietly(text in any::<String>()) {
        let key = OwnerKey::generate().unwrap().public();
        prop_assert!(key.verify::<Retirement>(&text).is_err());
    }
}
