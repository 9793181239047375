//! `sealpod image key`.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{resources, world};

const URI: &str = "kbs:///acme/image-key/web";

#[test]
fn made_kept_and_pushed() {
    let (owner, broker) = world();
    let said = owner.good(&["image", "key", "new", "web", "--push"]);
    let key = std::fs::read(owner.path("id/image-keys/web")).unwrap();
    let mode = std::fs::metadata(owner.path("id/image-keys/web")).unwrap().permissions().mode();
    assert_eq!((key.len(), mode & 0o777), (32, 0o600));
    owner.good(&["image", "key", "push", URI]);

    // Pushed twice: the same statement, of no lineage, for guests whose spec names it.
    let pushed = resources(&owner, &broker);
    assert_eq!(pushed.len(), 2);
    let (statement, content) = &pushed[0];
    assert_eq!((statement.uri.as_str(), statement.lineage.as_deref()), (URI, None));
    assert_eq!(URL_SAFE_NO_PAD.decode(content).unwrap(), key);
    assert_eq!(statement.jws(), pushed[1].0.jws());

    let listed = owner.good(&["image", "key", "list"]);
    assert_eq!(listed, format!("{URI}  32-byte key\n"));
    for text in [said, listed] {
        assert!(
            !text.contains(&hex::encode(&key)) && !text.contains(&URL_SAFE_NO_PAD.encode(&key)),
            "{text}"
        );
    }
    assert!(owner.refused(&["image", "key", "new", URI]).contains("never replaced"));
    assert_eq!(std::fs::read(owner.path("id/image-keys/web")).unwrap(), key);
}

#[test]
fn brought_from_elsewhere() {
    let (owner, broker) = world();
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    owner.write("key.pem", &pem);
    owner.good(&["image", "key", "import", "jwe", "key.pem"]);
    assert!(owner.good(&["image", "key", "list"]).contains("EC private key"));
    owner.write("initdata.toml", "version = '0.1.0'");
    owner.good(&["image", "key", "push", "jwe", "--lineage", "shop.web", "--initdata", "initdata.toml"]);
    let (statement, _) = &resources(&owner, &broker)[0];
    assert_eq!(statement.lineage.as_deref(), Some("shop.web"));
    assert_eq!(statement.init_data, [protocols::name::sha256(b"version = '0.1.0'")]);

    owner.write("text", "hunter2");
    assert!(owner.refused(&["image", "key", "import", "text", "text"]).contains("text: "));
    assert!(owner.refused(&["image", "key", "push", "none"]).contains("sealpod image key new"));
    assert!(owner.refused(&["image", "key", "new", "kbs:///bank/image-key/x"]).contains("another owner's"));
}
