//! What skopeo encrypts is decrypted here, and the other way round, for each wrapper that it has.

use super::workshop::Workshop;

/// Each side encrypts, the other one decrypts.
fn both_ways(shop: &Workshop, recipients: &[&str], skopeo_key: &str, own_keys: &[&str]) {
    let theirs: String = recipients.iter().map(|one| format!("--encryption-key {one} ")).collect();
    shop.sh(&format!("skopeo copy -q {theirs} oci:plain:v1 oci:theirs:v1"));
    for (at, key) in own_keys.iter().enumerate() {
        shop.good(&format!("decrypt oci:theirs:v1 oci:ours:v1-{at} {key}"));
        shop.same("plain:v1", &format!("ours:v1-{at}"));
    }
    let ours: String = recipients.iter().map(|one| format!(" -r {one}")).collect();
    shop.good(&format!("encrypt oci:plain:v1 oci:ours:enc{ours}"));
    shop.sh_fails("umoci unpack --rootless --image ours:enc bundle");
    shop.sh(&format!("skopeo copy -q {skopeo_key} oci:ours:enc oci:theirs:dec"));
    shop.same("plain:v1", "theirs:dec");
}

#[test]
fn jwe_for_rsa_and_ec() {
    let shop = Workshop::new();
    shop.rsa("rsa");
    shop.ec("ec");
    both_ways(&shop, &["jwe:rsa.pub"], "--decryption-key rsa.pem", &["-k rsa.pem"]);
    let shop = shop_with(shop);
    both_ways(&shop, &["jwe:ec.pub"], "--decryption-key ec.pem", &["-k ec.pem", "-k ec.sec1"]);
    let shop = shop_with(shop);
    let both = ["jwe:rsa.pub", "jwe:ec.pub"];
    both_ways(&shop, &both, "--decryption-key ec.pem", &["-k rsa.pem", "-k ec.pem"]);
}

/// Without what the last round made.
fn shop_with(shop: Workshop) -> Workshop {
    shop.sh("rm -rf ours theirs bundle");
    shop
}

#[test]
fn pkcs7_with_and_without_the_certificate() {
    let shop = Workshop::new();
    shop.rsa("one");
    shop.rsa("two");
    let theirs = "--decryption-key one.pem --decryption-key one.crt";
    both_ways(&shop, &["pkcs7:one.crt"], theirs, &["-k one.pem -k one.crt", "-k one.pem"]);
    let shop = shop_with(shop);
    let both = ["pkcs7:one.crt", "pkcs7:two.crt"];
    both_ways(&shop, &both, theirs, &["-k one.pem", "-k two.pem -k two.crt"]);
    let error = shop.refused("decrypt oci:theirs:v1 oci:no:v1 -k one.pem -k two.crt");
    assert!(error.contains("two.crt: the certificate is of none of the private keys"), "{error}");
}

#[test]
fn pgp_by_name() {
    let shop = Workshop::new();
    shop.sh(
        "mkdir -m 700 gnupg; gpg --batch --quiet --passphrase '' --quick-gen-key 'alice <alice@example.org>' rsa2048 default never 2>&1; \
         fingerprint=$(gpg --list-keys --with-colons alice | awk -F: '/^fpr/ {print $10; exit}'); \
         gpg --batch --quiet --passphrase '' --quick-add-key $fingerprint rsa2048 encr never 2>&1; \
         gpg --batch --export-secret-keys >secret.gpg",
    );
    both_ways(&shop, &["pgp:alice@example.org"], "--decryption-key secret.gpg", &["-k secret.gpg"]);
}

#[test]
fn several_wrappers_and_one_layer() {
    let shop = Workshop::new();
    shop.rsa("rsa");
    shop.ec("ec");
    shop.sh("skopeo copy -q --encryption-key jwe:ec.pub --encryption-key pkcs7:rsa.crt oci:plain:v1 oci:theirs:v1");
    shop.good("decrypt oci:theirs:v1 oci:ours:ec -k ec.sec1");
    shop.good("decrypt oci:theirs:v1 oci:ours:rsa -k rsa.pem");
    shop.same("plain:v1", "ours:ec");
    shop.same("plain:v1", "ours:rsa");
    shop.good("encrypt oci:plain:v1 oci:ours:last -r jwe:ec.pub --layer -1");
    let (plain, last) = (shop.layers("plain:v1"), shop.layers("ours:last"));
    assert_eq!(plain[0], last[0]);
    assert!(last[1].1.ends_with("+encrypted"), "{last:?}");
    shop.sh("skopeo copy -q --decryption-key ec.pem oci:ours:last oci:theirs:last");
    shop.same("plain:v1", "theirs:last");
}

#[test]
fn recipients_that_were_added_or_rotated() {
    let shop = Workshop::new();
    shop.rsa("rsa");
    shop.ec("ec");
    shop.sh("skopeo copy -q --encryption-key jwe:rsa.pub oci:plain:v1 oci:enc:v1");
    let before = shop.layers("enc:v1");
    shop.good("recipients add oci:enc:v1 -k rsa.pem -r jwe:ec.pub -r pkcs7:rsa.crt");
    assert_eq!(shop.layers("enc:v1"), before);
    for keys in ["rsa.pem", "ec.pem", "rsa.pem --decryption-key rsa.crt"] {
        shop.sh(&format!("rm -rf theirs; skopeo copy -q --decryption-key {keys} oci:enc:v1 oci:theirs:v1"));
        shop.same("plain:v1", "theirs:v1");
    }
    shop.good("rotate oci:enc:v1 -k ec.pem -r jwe:ec.pub");
    assert_ne!(shop.layers("enc:v1"), before);
    shop.sh_fails("skopeo copy -q --decryption-key rsa.pem oci:enc:v1 oci:no:v1");
    shop.sh("rm -rf theirs; skopeo copy -q --decryption-key ec.pem oci:enc:v1 oci:theirs:v1");
    shop.same("plain:v1", "theirs:v1");
}

#[test]
fn an_image_for_several_platforms() {
    let shop = Workshop::new();
    shop.ec("ec");
    // Two manifests, listed in an index as tools write it.
    shop.sh("skopeo copy -q oci:plain:v1 oci:multi:amd64; umoci config --image plain:v1 --architecture arm64 --tag arm64; skopeo copy -q oci:plain:arm64 oci:multi:arm64");
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(shop.path("multi/index.json")).unwrap()).unwrap();
    let entry = |at: usize, architecture: &str| {
        let mut entry = index["manifests"][at].clone();
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        entry
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [entry(0, "amd64"), entry(1, "arm64")],
    });
    std::fs::write(shop.path("list"), list.to_string()).unwrap();
    let digest = shop.sh("sha256sum list | cut -d' ' -f1").trim().to_owned();
    shop.sh(&format!("cp list multi/blobs/sha256/{digest}"));
    let entry = serde_json::json!({
        "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": list.to_string().len(),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    });
    let whole = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(shop.path("multi/index.json"), whole.to_string()).unwrap();

    shop.good("encrypt oci:multi:v1 oci:enc:v1 -r jwe:ec.pub");
    for architecture in ["amd64", "arm64"] {
        let choose = format!("--override-os linux --override-arch {architecture}");
        shop.sh(&format!(
            "skopeo {choose} copy -q --decryption-key ec.pem oci:enc:v1 oci:theirs:{architecture}"
        ));
    }
    shop.same("plain:v1", "theirs:amd64");
    shop.same("plain:arm64", "theirs:arm64");
    shop.good("check oci:enc:v1 -k ec.pem");
    shop.good("decrypt oci:enc:v1 oci:dec:v1 -k ec.pem");
    let raw = |image: &str| shop.sh(&format!("skopeo inspect --raw oci:{image} | sha256sum"));
    assert_eq!(raw("dec:v1").is_empty(), raw("multi:v1").is_empty());
}

#[test]
fn archives_that_docker_would_load() {
    let shop = Workshop::new();
    shop.ec("ec");
    shop.sh("skopeo copy -q oci:plain:v1 docker-archive:old.tar:acme/web:v1");
    shop.good("encrypt docker-archive:old.tar oci:enc:v1 -r jwe:ec.pub");
    shop.sh("skopeo copy -q --decryption-key ec.pem oci:enc:v1 oci:theirs:v1");
    shop.good("decrypt oci:enc:v1 docker-archive:new.tar:acme/web:v1 -k ec.pem");
    shop.sh("skopeo copy -q docker-archive:new.tar:acme/web:v1 oci:loaded:v1");
    let ids = |image: &str| {
        shop.sh(&format!("skopeo inspect --config oci:{image} | tr -d ' \\n' | grep -o '\"diff_ids\":[^]]*'"))
    };
    assert_eq!(ids("loaded:v1"), ids("plain:v1"));
    let error = shop.refused("decrypt oci:enc:v1 docker-archive:new.tar -k ec.pem");
    assert!(error.contains("new.tar: it is there already"), "{error}");
}
