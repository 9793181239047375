//! Names and paths, both ways.

use proptest::prelude::*;

use super::*;

fn milan() -> Key {
    let mut id = [0xab; 64];
    id[0] = 1;
    Key::vcek(Product::Milan, &id, RawTcb([3, 0, 0, 0, 0, 0, 8, 115])).unwrap()
}

fn turin() -> Key {
    let mut id = [0; 64];
    id[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    Key::vcek(Product::Turin, &id, RawTcb([9, 1, 2, 3, 0, 0, 0, 80])).unwrap()
}

fn all() -> Vec<Key> {
    let csp = Csp::new("a cloud/..").unwrap();
    let vlek = Key::Vlek { product: Product::Genoa, csp, tcb: [1, 1, 0, 0, 0, 0, 1, 1] };
    let mut keys = vec![milan(), turin(), vlek, Key::Cek([7; 64])];
    for line in Line::ALL {
        keys.extend(Product::ALL.map(|product| Key::Chain(product, line)));
        keys.extend(Product::ALL.map(|product| Key::Crl(product, line)));
    }
    keys.extend(SevProduct::ALL.map(Key::SevChain));
    keys
}

#[test]
fn names_come_back_as_they_were() {
    for key in all() {
        let name = key.file_name();
        assert_eq!(Key::from_file_name(&name), Some(key), "{name}");
        assert!(name.len() < 200 && !name.contains('/') && !name.starts_with('.'), "{name}");
    }
}

#[test]
fn paths_are_amds() {
    assert_eq!(
        milan().kds_path().unwrap(),
        format!("/vcek/v1/Milan/01{}?blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115", "ab".repeat(63))
    );
    assert_eq!(
        turin().kds_path().unwrap(),
        "/vcek/v1/Turin/0102030405060708?fmcSPL=9&blSPL=1&teeSPL=2&snpSPL=3&ucodeSPL=80"
    );
    assert_eq!(Key::Chain(Product::Genoa, Line::Vlek).kds_path().unwrap(), "/vlek/v1/Genoa/cert_chain");
    assert_eq!(Key::Crl(Product::Milan, Line::Vcek).kds_path().unwrap(), "/vcek/v1/Milan/crl");
    for key in all() {
        let Some(path) = key.kds_path() else { continue };
        let (path, query) = path.split_once('?').map_or((path.as_str(), None), |(p, q)| (p, Some(q)));
        assert_eq!(Key::from_kds_path(path, query), Some(key), "{path}");
    }
}

#[test]
fn parameters_stand_in_any_order_once_and_bounded() {
    let path = format!("/vcek/v1/Milan/01{}", "ab".repeat(63));
    let read = |query: &str| Key::from_kds_path(&path, Some(query));
    assert_eq!(read("ucodeSPL=115&snpSPL=08&teeSPL=00&blSPL=03"), Some(milan()));
    for query in [
        "",
        "blSPL=3&teeSPL=0&snpSPL=8",
        "blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115&blSPL=3",
        "blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=256",
        "blSPL=+3&teeSPL=0&snpSPL=8&ucodeSPL=115",
        "blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=0115",
        "blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115&fmcSPL=1",
        "blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115&x=1",
    ] {
        assert_eq!(read(query), None, "{query}");
    }
    assert_eq!(
        Key::from_kds_path("/vcek/v1/Turin/0102030405060708", Some("blSPL=1&teeSPL=2&snpSPL=3&ucodeSPL=80")),
        None
    );
    assert_eq!(Key::from_kds_path("/vcek/v1/Milan/crl", Some("x=1")), None);
    assert_eq!(Key::from_kds_path("/vcek/v1/Milan/../Genoa/crl", None), None);
}

#[test]
fn chips_without_an_id_and_foreign_layouts_have_no_key() {
    let tcb = RawTcb([3, 0, 0, 0, 0, 0, 8, 115]);
    assert_eq!(Key::vcek(Product::Milan, &[0; 64], tcb), None);
    assert_eq!(Key::vcek(Product::Turin, &[1; 64], tcb), None, "a long id is not Turin's");
    assert_eq!(Key::vcek(Product::Milan, &[1; 64], RawTcb([3, 0, 1, 0, 0, 0, 8, 115])), None);
}

#[test]
fn other_names_are_none() {
    let name = milan().file_name();
    for other in [
        name.to_uppercase(),
        name.replace(".der", ".pem"),
        name.replace("Milan", "Rome"),
        name.replace("Milan", "Turin"),
        format!("../{name}"),
        format!("{name}.tmp"),
        "crl-Milan.der".into(),
        "cek-00.cert".into(),
        "vlek-Milan-00-0101000000000101.der".into(),
        String::new(),
    ] {
        assert_eq!(Key::from_file_name(&other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn arbitrary_texts_never_panic(text in ".{0,300}", query in ".{0,300}") {
        let _ = Key::from_file_name(&text);
        let _ = Key::from_kds_path(&text, Some(&query));
        let _ = Key::from_kds_path(&format!("/vcek/v1/Milan/{text}"), Some(&query));
    }
}
