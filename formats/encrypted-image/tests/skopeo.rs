//! Both ways with skopeo: what it encrypts we open, what we encrypt it opens, for JWE and PKCS7, one recipient
//! and several.

#![allow(clippy::unwrap_used, reason = "a test")]

mod peers;

use encrypted_image::jwe::{JweUnwrap, JweWrap, RsaOaep};
use encrypted_image::keys::{Certificate, PrivateKey, PublicKey};
use encrypted_image::pkcs7::{Pkcs7Unwrap, Pkcs7Wrap};
use encrypted_image::{Unwrap, Wrap};
use peers::Bench;

fn private(bench: &Bench, name: &str) -> PrivateKey {
    PrivateKey::parse(&bench.read(&format!("{name}.pem"))).unwrap()
}

fn public(bench: &Bench, name: &str) -> PublicKey {
    PublicKey::parse(&bench.read(&format!("{name}.pub"))).unwrap()
}

fn certificate(bench: &Bench, name: &str) -> Certificate {
    Certificate::parse(&bench.read(&format!("{name}.crt"))).unwrap()
}

fn jwe(bench: &Bench, name: &str) -> Vec<Box<dyn Unwrap>> {
    vec![Box::new(JweUnwrap::new(name, private(bench, name)))]
}

#[test]
fn jwe_that_skopeo_writes() {
    let bench = Bench::new();
    bench.rsa("rsa");
    bench.theirs_opens(&["jwe:rsa.pub"], jwe(&bench, "rsa"));
    for curve in ["P-256", "P-384", "P-521"] {
        bench.ec(curve, curve);
        bench.theirs_opens(&[&format!("jwe:{curve}.pub")], jwe(&bench, curve));
    }
    // Several recipients: each opens.
    for name in ["rsa", "P-256", "P-384"] {
        bench.theirs_opens(&["jwe:rsa.pub", "jwe:P-256.pub", "jwe:P-384.pub"], jwe(&bench, name));
    }
}

#[test]
fn jwe_that_skopeo_reads() {
    let bench = Bench::new();
    bench.rsa("rsa");
    bench.rsa("other");
    let mut all = vec![public(&bench, "rsa")];
    for curve in ["P-256", "P-384", "P-521"] {
        bench.ec(curve, curve);
        all.push(public(&bench, curve));
        bench.encrypt(curve, &[&JweWrap::new(vec![public(&bench, curve)]).unwrap()]);
        assert!(bench.skopeo_decrypts(curve, &[&format!("{curve}.pem")]));
    }
    let rsa = || JweWrap::new(vec![public(&bench, "rsa")]).unwrap();
    bench.encrypt("oaep", &[&rsa()]);
    bench.encrypt("oaep-256", &[&rsa().rsa_oaep(RsaOaep::Sha256)]);
    assert!(bench.skopeo_decrypts("oaep", &["rsa.pem"]));
    assert!(bench.skopeo_decrypts("oaep-256", &["rsa.pem"]));
    assert!(!bench.skopeo_decrypts("oaep", &["other.pem"]));

    bench.encrypt("all", &[&JweWrap::new(all).unwrap()]);
    for key in ["rsa.pem", "P-256.pem", "P-384.pem", "P-521.pem"] {
        assert!(bench.skopeo_decrypts("all", &[key]), "{key}");
    }
    assert!(!bench.skopeo_decrypts("all", &["other.pem"]));
}

#[test]
fn pkcs7_that_skopeo_writes() {
    let bench = Bench::new();
    bench.rsa("one");
    bench.rsa("two");
    let named = |name: &str| -> Vec<Box<dyn Unwrap>> {
        let unwrap = Pkcs7Unwrap::new(name, private(&bench, name));
        vec![Box::new(unwrap.with_certificate(certificate(&bench, name)).unwrap())]
    };
    let bare = |name: &str| -> Vec<Box<dyn Unwrap>> {
        vec![Box::new(Pkcs7Unwrap::new(name, private(&bench, name)))]
    };
    bench.theirs_opens(&["pkcs7:one.crt"], named("one"));
    bench.theirs_opens(&["pkcs7:one.crt"], bare("one"));
    for name in ["one", "two"] {
        bench.theirs_opens(&["pkcs7:one.crt", "pkcs7:two.crt"], named(name));
        bench.theirs_opens(&["pkcs7:one.crt", "pkcs7:two.crt"], bare(name));
    }
    // Two schemes on one layer.
    bench.theirs_opens(&["jwe:one.pub", "pkcs7:two.crt"], jwe(&bench, "one"));
    bench.theirs_opens(&["jwe:one.pub", "pkcs7:two.crt"], named("two"));
}

#[test]
fn pkcs7_that_skopeo_reads() {
    let bench = Bench::new();
    bench.rsa("one");
    bench.rsa("two");
    let wrap = Pkcs7Wrap::new(vec![certificate(&bench, "one")]).unwrap();
    bench.encrypt("single", &[&wrap as &dyn Wrap]);
    assert!(bench.skopeo_decrypts("single", &["one.pem", "one.crt"]));
    assert!(!bench.skopeo_decrypts("single", &["two.pem", "two.crt"]));

    let wrap = Pkcs7Wrap::new(vec![certificate(&bench, "one"), certificate(&bench, "two")]).unwrap();
    let jwe = JweWrap::new(vec![public(&bench, "two")]).unwrap();
    bench.encrypt("several", &[&wrap, &jwe]);
    assert!(bench.skopeo_decrypts("several", &["one.pem", "one.crt"]));
    assert!(bench.skopeo_decrypts("several", &["two.pem", "two.crt"]));
    assert!(bench.skopeo_decrypts("several", &["two.pem"]));
}
