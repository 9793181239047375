//! Configurations that are taken, and each way in which one is refused.

use super::*;

const MINIMAL: &str = "listen = \"127.0.0.1:0\"\nstate = \"s\"\nserver_names = [\"broker.example\"]\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/sealpod/broker.toml")).map_err(|error| crate::chain(&error))
}

#[test]
fn relative_paths_start_at_the_file() {
    let config =
        parse(&format!("{MINIMAL}[trust]\nemulated_roots = [\"ark.pem\", \"/x/ark.pem\"]\n")).unwrap();
    assert_eq!(config.state, Path::new("/etc/sealpod/s"));
    assert_eq!(config.trust.emulated_roots, ["/etc/sealpod/ark.pem", "/x/ark.pem"].map(PathBuf::from));
}

#[test]
fn nobody_is_asked_for_collateral_unless_named() {
    let config = parse(MINIMAL).unwrap();
    assert!(config.collateral.kds.is_empty() && !config.collateral.allow_plain_http);
    let text = format!(
        "{MINIMAL}[collateral]\ncache = \"c\"\nkds = [\"https://kdsintf.amd.com\"]\nca = \"/x/ca.pem\"\n"
    );
    let config = parse(&text).unwrap().collateral;
    assert_eq!(config.cache.as_deref(), Some(Path::new("/etc/sealpod/c")));
    assert_eq!(config.ca.as_deref(), Some(Path::new("/x/ca.pem")));
    let error = parse(&format!("{MINIMAL}[collateral]\nskip_crl = true\n")).unwrap_err();
    assert!(error.contains("skip_crl"), "{error}");
}

#[test]
fn a_fetch_never_outlasts_its_request() {
    let limits = Limits { request_seconds: 4, ..Limits::default() };
    assert_eq!(Collateral::default().wait(&limits), Duration::from_secs(3));
    assert_eq!(Collateral::default().wait(&Limits::default()), Duration::from_secs(10));
}

#[test]
fn an_unknown_key_is_refused() {
    let error = parse(&format!("{MINIMAL}skip_verification = true\n")).unwrap_err();
    assert!(error.contains("skip_verification"), "{error}");
}

#[test]
fn compat_resources_for_sample_evidence_need_its_acceptance() {
    let error = parse(&format!("{MINIMAL}[compat]\ntee = [\"sample\"]\n")).unwrap_err();
    assert!(error.contains("trust.sample"), "{error}");
    parse(&format!("{MINIMAL}[trust]\nsample = true\n[compat]\ntee = [\"sample\"]\n")).unwrap();
    let error = parse(&format!("{MINIMAL}[compat]\ntee = [\"SNP\"]\n")).unwrap_err();
    assert!(error.contains("SNP"), "{error}");
}

#[test]
fn compat_resources_are_never_for_evidence_that_any_owner_can_make() {
    for kind in ["pef", "pef-emulated"] {
        let error = parse(&format!("{MINIMAL}[compat]\ntee = [\"snp\", \"{kind}\"]\n")).unwrap_err();
        assert!(error.contains(&format!("compat.tee names \"{kind}\"")), "{error}");
    }
    let others: Vec<_> =
        TeeKind::ALL.iter().map(|kind| kind.name()).filter(|name| !name.starts_with("pef")).collect();
    parse(&format!("{MINIMAL}[trust]\nsample = true\n[compat]\ntee = {others:?}\n")).unwrap();
}

#[test]
fn a_missing_server_name_is_refused() {
    let error = parse("listen = \"127.0.0.1:0\"\nstate = \"s\"\nserver_names = []\n").unwrap_err();
    assert!(error.contains("server_names"), "{error}");
}

#[test]
fn a_server_name_that_is_none_is_refused() {
    let error = parse("listen = \"127.0.0.1:0\"\nstate = \"s\"\nserver_names = [\"a b\"]\n").unwrap_err();
    assert!(error.contains("a b"), "{error}");
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let error = parse(&format!("{MINIMAL}[limits]\nsessions = 0\n")).unwrap_err();
    assert!(error.contains("limits.sessions is 0"), "{error}");
}

#[test]
fn passports_are_of_other_brokers_once_each_and_for_known_kinds() {
    let entry = |issuer: &str, tee: &str| {
        format!("[[trust.passport]]\nissuer = \"{issuer}\"\naudience = \"a\"\nkeys = \"k\"\ntee = [{tee}]\n")
    };
    let config = parse(&format!("{MINIMAL}{}", entry("https://other.example", "\"snp\""))).unwrap();
    assert_eq!(config.trust.passport[0].keys, Path::new("/etc/sealpod/k"));
    for (more, words) in [
        (entry("https://broker.example", "\"snp\""), "another broker"),
        (entry("", "\"snp\""), "another broker"),
        (entry("o", ""), "trust.passport.tee"),
        (entry("o", "\"sample\""), "trust.passport.tee"),
        (entry("o", "\"snp\"").repeat(2), "twice"),
    ] {
        let error = parse(&format!("{MINIMAL}{more}")).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
}
