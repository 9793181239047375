//! A provider that is a program.

use encrypted_image::{Keyring, Scheme, Unwrap as _, UnwrapError, WrappedKey};
use owner_image::provider::{Operation, Providers};
use serde_json::{Value, json};

use crate::peer::{
    WRAPPED, both_directions, configured, expected, file, refusal, unwrap, unwrapped, wrap, wrapped,
};

fn shell(directory: &tempfile::TempDir, script: &str) -> Providers {
    configured(directory.path(), &json!({ "cmd": { "path": "/bin/sh", "args": ["-c", script] } }))
}

/// Keeps what it is asked, says what a file holds.
fn scripted(directory: &tempfile::TempDir) -> Providers {
    let (request, reply) = (file(directory, "request"), file(directory, "reply"));
    shell(directory, &format!("cat >{}; cat {}", request.display(), reply.display()))
}

#[test]
fn both_directions_in_each_spelling() {
    let directory = tempfile::tempdir().unwrap();
    let providers = scripted(&directory);
    both_directions(
        &providers,
        |reply| std::fs::write(file(&directory, "reply"), reply).unwrap(),
        || {
            vec![
                serde_json::from_slice::<Value>(&std::fs::read(file(&directory, "request")).unwrap())
                    .unwrap(),
            ]
        },
    );
}

#[test]
fn a_program_that_fails_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    // Its answer would be good; its exit status says that it isn't.
    std::fs::write(file(&directory, "reply"), wrapped(&json!("eA=="))).unwrap();
    let reply = file(&directory, "reply").display().to_string();
    let providers = shell(&directory, &format!("cat {reply}; echo 'token is locked' >&2; exit 4"));
    for operation in [Operation::Wrap, Operation::Unwrap] {
        let error = refusal(&providers, operation);
        assert!(error.contains("exit status: 4: token is locked"), "{error}");
    }
}

#[test]
fn a_program_that_never_reads_is_judged_by_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(file(&directory, "reply"), wrapped(&json!(WRAPPED))).unwrap();
    let reply = file(&directory, "reply").display().to_string();
    assert_eq!(wrap(&shell(&directory, &format!("cat {reply}"))).unwrap(), WRAPPED);
}

#[test]
fn an_annotation_of_another_provider_is_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    let providers = scripted(&directory);
    let unwrapper = providers.unwrapper("acme", Vec::new()).unwrap();
    for scheme in [Scheme::Jwe, Scheme::Provider("sealpod".into()), Scheme::Provider("ACME".into())] {
        assert!(!unwrapper.opens(&scheme));
        let refused = unwrapper.unwrap(&WrappedKey { scheme, blob: b"{}".to_vec() });
        assert!(matches!(refused, Err(UnwrapError::NotRecipient)));
    }
    assert!(!file(&directory, "request").exists());
    assert!(format!("{:?}", Keyring::new(vec![Box::new(unwrapper)])).contains("key provider 'acme'"));
}

#[test]
fn a_packet_for_another_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let uri = "kbs:///acme/image-key/web";
    let path = file(&directory, "providers.json");
    let reply = file(&directory, "reply");
    let entry = json!({ "cmd": { "path": "/bin/cat", "args": [reply] } });
    let names = json!({ "key-providers": { "sealpod": entry, "attestation-agent": entry } });
    std::fs::write(&path, names.to_string()).unwrap();
    let providers = Providers::load(&path).unwrap();
    let packet = |kid: &str| {
        let packet = json!({ "version": "0.1.0", "kid": kid, "wrapped_data": "eHh4eHh4eHh4eHh4eHh4eHh4", "provider": "kbs",
            "iv": "MDEyMzQ1Njc4OTAx", "wrap_type": "A256GCM", "provider_settings": {}, "annotations": {} });
        std::fs::write(&reply, wrapped(&json!(packet.to_string().as_bytes()))).unwrap();
    };
    let wrap = |name: &str| {
        use encrypted_image::Wrap as _;
        providers.wrapper(name, vec![uri.into()]).unwrap().wrap(&crate::peer::options())
    };
    packet(uri);
    wrap("sealpod").unwrap();
    wrap("attestation-agent").unwrap();
    packet("kbs:///acme/image-key/other");
    assert!(wrap("sealpod").unwrap_err().to_string().contains("not for kbs:///acme/image-key/web"));
    std::fs::write(&reply, wrapped(&json!(WRAPPED))).unwrap();
    for name in ["sealpod", "attestation-agent"] {
        assert!(wrap(name).unwrap_err().to_string().contains("expected JSON"), "{name}");
    }
}

#[test]
fn it_can_be_asked_from_within_a_runtime() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(file(&directory, "reply"), unwrapped(&json!(crate::peer::options().to_json().to_vec())))
        .unwrap();
    let providers = scripted(&directory);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { unwrap(&providers).unwrap() });
    let asked: Value = serde_json::from_slice(&std::fs::read(file(&directory, "request")).unwrap()).unwrap();
    assert_eq!(asked, expected(Operation::Unwrap));
}
