//! The documentation's table of fields is the code's, and its example pod can be sealed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sealed_spec::fields::{Sources, TABLE, split, split_with};

const BEGIN: &str =
    "<!-- fields: begin (held equal to the code by a test; SEALPOD_UPDATE_DOCS=1 writes it) -->\n";
const END: &str = "<!-- fields: end -->";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_table_is_the_codes() {
    let path = docs().join("sealed-pod.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let mut table = String::from("| field | treatment | why |\n|---|---|---|\n");
    for row in TABLE {
        writeln!(
            table,
            "| `{}` | {} | {} |",
            row.path,
            row.treatment.as_str(),
            row.reason.replace('|', "\\|")
        )
        .unwrap();
    }
    if std::env::var_os("SEALPOD_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, table, "run this test with SEALPOD_UPDATE_DOCS=1");
}

#[test]
fn the_example_pod_is_split() {
    let text = std::fs::read_to_string(docs().join("examples/pod.yaml")).unwrap();
    let split = split(serde_saphyr::from_str(&text).unwrap()).unwrap();
    let public = split.public.to_string();
    for secret in [
        "correct horse",
        "DATABASE_PASSWORD",
        "Truffles",
        "busybox",
        "runAsUser",
        "/desk",
        "registry.example",
    ] {
        assert!(text.contains(secret) && !public.contains(secret), "{secret}");
    }
    assert!(public.contains("api/liveness"));
}

#[test]
fn the_example_shop_is_split() {
    let read = |name: &str| std::fs::read_to_string(docs().join("examples").join(name)).unwrap();
    let mut sources = Sources::default();
    for object in serde_saphyr::from_multiple::<serde_json::Value>(&read("shop-secrets.yaml")).unwrap() {
        assert!(sources.objects.add(&object).unwrap());
    }
    sources.host_mounts.insert(("web".into(), "/etc/prices".into()));
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let text = read("shop.yaml");
    let split = split_with(serde_saphyr::from_str_with_options(&text, options).unwrap(), &sources).unwrap();
    let public = split.public.to_string();
    for secret in [
        "correct horse",
        "DATABASE_PASSWORD",
        "COUNTRY",
        "busybox",
        "httpd",
        "/etc/database",
        "/bin/date",
        "kubectl debug",
    ] {
        assert!(!public.contains(secret), "{secret}");
    }
    for needed in ["/etc/prices", "POD_IP", "shareProcessNamespace", "\"restartPolicy\":\"Always\""] {
        assert!(public.contains(needed), "{needed}");
    }
    assert!(split.pod.is_sidecar("proxy"));
}
