//! What the commands say, and what they refuse.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::workshop::Workshop;

#[test]
fn the_way_of_the_documentation() {
    let shop = Workshop::new();
    shop.ec("alice");
    shop.rsa("bob");
    let text = shop.good("encrypt oci:plain:v1 oci:enc:v1 -r jwe:alice.pub");
    assert!(text.contains("layer 1: encrypted sha256:") && text.contains("oci:enc:v1 is sha256:"), "{text}");
    let text = shop.good("inspect oci:enc:v1");
    assert!(text.contains("jwe for 1 recipient: alg ECDH-ES+A256KW"), "{text}");
    let text = shop.good("check oci:enc:v1 -k alice.pem -k bob.pem");
    assert!(text.contains("layer 0: opened by: alice.pem"), "{text}");
    shop.good("recipients add oci:enc:v1 -k alice.pem -r pkcs7:bob.crt");
    shop.good("recipients remove oci:enc:v1 --scheme jwe");
    let error = shop.refused("decrypt oci:enc:v1 oci:dec:v1 -k alice.pem");
    assert!(error.contains("you are not authorized to use this image"), "{error}");
    assert!(!shop.path("dec").exists());
    shop.good("recipients remove oci:enc:v1 --keep jwe:bob.pub -k bob.pem");
    shop.good("rotate oci:enc:v1 --to oci:enc:v2 -k bob.pem -r jwe:alice.pub");
    shop.good("decrypt oci:enc:v2 oci:dec:v2 -k alice.sec1");
    shop.same("plain:v1", "dec:v2");
}

#[test]
fn json_for_programs() {
    let shop = Workshop::new();
    shop.ec("alice");
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let report = parse(shop.good("encrypt oci:plain:v1 oci:enc:v1 -r jwe:alice.pub --layer 0 --json -q"));
    assert_eq!(report["images"][0]["layers"][0]["done"], "encrypted");
    assert_eq!(report["images"][0]["layers"][1]["done"], "kept");
    let seen = parse(shop.good("inspect oci:enc:v1 --json"));
    assert_eq!(seen["digest"], report["digest"]);
    assert_eq!(seen["images"][0]["layers"][0]["wrapped_for"][0]["recipients"], 1);
    let found = parse(shop.good("check oci:enc:v1 -k alice.pem --json"));
    assert_eq!(
        (&found["authorised"], &found["layers"][0]["opened_by"][0]),
        (&true.into(), &"alice.pem".into())
    );
}

#[test]
fn refused_in_words_that_help() {
    let shop = Workshop::new();
    shop.ec("alice");
    shop.ec("eve");
    shop.good("encrypt oci:plain:v1 oci:enc:v1 -r jwe:alice.pub");
    for (arguments, words) in [
        ("encrypt oci:plain:v1 oci:x:v1", "no recipient: nobody could open the image; give --recipient"),
        ("encrypt oci:enc:v1 oci:x:v1 -r jwe:eve.pub", "already encrypted: layer 0 of manifest"),
        ("encrypt oci:plain:v1 oci:x:v1 -r jwe:eve.pub --layer 7", "has no layer 7: it has 2, 0 to 1"),
        ("encrypt oci:plain:v1 oci:x:v1 -r jwe:eve.pub --layer -3", "has no layer -3"),
        (
            "encrypt oci:plain:v1 oci:x:v1 -r jwe:eve.pub --platform linux/s390x",
            "no manifest for platform linux/s390x",
        ),
        ("encrypt oci:plain:v1 oci:x:v1 -r age:eve.pub", "recipient 'age:eve.pub' is none of jwe:PUBLIC_KEY"),
        ("encrypt oci:plain:v1 oci:x:v1 -r jwe:alice.pem", "private key"),
        ("encrypt oci:plain:v1 oci:x:v1 -r jwe:missing", "missing: reading failed"),
        ("encrypt oci:plain:v1 oci:x:v1 -r pkcs7:alice.pub", "alice.pub"),
        ("encrypt oci:plain:v1 oci:x:v1 -r provider:kms:a", "kms"),
        ("encrypt oci:plain:v1 oci:x:v1 -r kbs:///acme/image-key/web", "--kek FILE"),
        ("encrypt oci:plain:v7 oci:x:v1 -r jwe:eve.pub", "plain: no image 'v7' in it; it has v1"),
        ("encrypt plain:v1 oci:x:v1 -r jwe:eve.pub", "names no image"),
        ("decrypt oci:plain:v1 oci:x:v1 -k alice.pem", "not encrypted"),
        (
            "decrypt oci:enc:v1 oci:x:v1",
            "you are not authorized to use this image: no suitable key for 2 of 2",
        ),
        ("decrypt oci:enc:v1 oci:x:v1 -k eve.pem", "jwe with eve.pem: not wrapped for this key"),
        ("recipients add oci:plain:v1 -k alice.pem -r jwe:eve.pub", "not encrypted"),
        ("recipients add oci:enc:v1 -r jwe:eve.pub", "you are not authorized"),
        ("recipients add oci:enc:v1 -k alice.pem", "no recipient"),
        ("recipients remove oci:enc:v1 --scheme jwe", "nobody who could open it would be left"),
        ("recipients remove oci:enc:v1 --scheme pgp", "no layer is wrapped for pgp"),
        ("recipients remove oci:enc:v1", "--scheme"),
        ("rotate oci:enc:v1 -k alice.pem", "no recipient"),
        ("check oci:enc:v1", "no key to check"),
        ("check oci:enc:v1 -k eve.pem", "no key opens 2 of 2 layers"),
    ] {
        let error = shop.refused(arguments);
        assert!(error.contains(words), "{arguments}: {error}");
        assert!(!shop.path("x").exists(), "{arguments} wrote something");
    }
}

#[test]
fn passwords_of_keys() {
    let shop = Workshop::new();
    shop.ec("alice");
    shop.sh(
        "openssl pkcs8 -topk8 -in alice.sec1 -out locked.pem -passout pass:s3cret; echo s3cret >password",
    );
    shop.good("encrypt oci:plain:v1 oci:enc:v1 -r jwe:alice.pub");
    for key in ["locked.pem:s3cret", "locked.pem:pass=s3cret", "locked.pem:file=password"] {
        shop.good(&format!("check oci:enc:v1 -k {key}"));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod"));
    command.args(["image", "check", "oci:enc:v1", "-k", "locked.pem:fd=0"]).current_dir(shop.dir());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        shop.refused("check oci:enc:v1 -k locked.pem").contains("locked.pem: the private key is encrypted")
    );
    let error = shop.refused("check oci:enc:v1 -k locked.pem:wr0ng");
    assert!(error.contains("locked.pem: the password does not open") && !error.contains("wr0ng"), "{error}");
}

#[test]
fn a_brokers_key_at_hand() {
    let shop = Workshop::new();
    let uri = "kbs:///acme/image-key/web";
    shop.sh("head -c 32 /dev/urandom >kek; head -c 31 /dev/urandom >short");
    shop.good(&format!("encrypt oci:plain:v1 oci:enc:v1 -r {uri} --kek kek"));
    assert!(
        shop.good("inspect oci:enc:v1").contains(&format!("provider.sealpod for 1 recipient: kid {uri}"))
    );
    shop.good(&format!("check oci:enc:v1 -k {uri} --kek kek"));
    shop.good("check oci:enc:v1 -k kek");
    shop.good("decrypt oci:enc:v1 oci:dec:v1 -k kek");
    shop.same("plain:v1", "dec:v1");
    assert!(shop.refused(&format!("check oci:enc:v1 -k {uri} --kek short")).contains("31 bytes, not 32"));
    assert!(
        shop.refused("check oci:enc:v1 -k kbs:///acme/image-key/other --kek kek").contains("no key opens")
    );
}
