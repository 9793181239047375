//! Sites without a network: out of one cache, into another, and evidence verified from that alone; and
//! bundles that nobody exported.

use collateral::{BundleError, Key, gather, identify, read, table, write};
use sealpod_emulator::snp::KeyKind;
use tee_evidence::snp::CertKind;

use crate::merge::Guest;
use crate::platform::{CHAIN, CRL, Cache, DAY, Platform, WAIT, now, vcek_key};
use crate::stand_in::StandIn;

#[tokio::test]
async fn what_one_site_exports_verifies_evidence_at_another() {
    let guest = Guest::new(Platform::milan(), 1);
    let service = StandIn::start().await;
    service.has(&CHAIN, Platform::milan().chain(KeyKind::Vcek));
    service.has(&guest.key(), guest.entry(CertKind::Vcek));
    service.has(&CRL, Platform::milan().crl(now()));
    let dir = tempfile::tempdir().unwrap();
    let here = Cache::open(&dir.path().join("here"), &[service.url()]);
    here.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    let (bundle, notes) = here.collateral.export(now()).await.unwrap();
    assert_eq!(notes, []);
    assert_eq!(here.collateral.export(now()).await.unwrap().0, bundle, "the same bytes each time");
    let file = dir.path().join("collateral.tar");
    std::fs::write(&file, &bundle).unwrap();

    let there = Cache::open(&dir.path().join("there"), &[]);
    let before = there.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    assert!(guest.verify(&before, now()).is_err());
    let imported = there.collateral.import(&gather(&file).unwrap(), now()).await;
    assert_eq!((imported.new, imported.same, imported.refused.len()), (3, 0, 0));
    let completed = there.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    guest.verify(&completed, now()).unwrap();
    let again = there.collateral.import(&gather(&file).unwrap(), now()).await;
    assert_eq!((again.new, again.same), (0, 3));

    let (pieces, _) = there.collateral.pieces(now() + DAY * 5).await.unwrap();
    let shown = table(&pieces, now() + DAY * 5);
    assert!(shown.contains("fresh for 5 more days only; revokes 0"), "{shown}");
    assert!(shown.contains("root 'ARK-EMULATED Milan'"), "{shown}");
}

#[tokio::test]
async fn pieces_that_fail_their_check_are_left_out_and_named() {
    let milan = Platform::milan();
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &[]);
    let pieces = [
        (vcek_key(1), milan.vcek(2)),
        (vcek_key(2), milan.vcek(2)),
        (CRL, Platform::foreign().crl(now())),
        (CHAIN, milan.chain(KeyKind::Vcek)),
    ];
    let imported = cache.collateral.import(&pieces, now()).await;
    assert_eq!(imported.new, 2);
    let refused: Vec<_> = imported.refused.iter().map(|note| note.key.clone()).collect();
    assert_eq!(refused, [vcek_key(1), CRL]);
    // Without its chain nothing can be checked.
    let bare = Cache::open(&dir.path().join("bare"), &[]);
    let imported = bare.collateral.import(&pieces[1..2], now()).await;
    assert!(imported.refused[0].to_string().contains("without the ASK and ARK of Milan"));
}

#[test]
fn single_certificates_are_told_by_what_they_say() {
    let milan = Platform::milan();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some.crt");
    for (bytes, key) in [
        (milan.vcek(1), vcek_key(1)),
        (milan.chain(KeyKind::Vcek), CHAIN),
        (milan.chain(KeyKind::Vlek), Key::Chain(crate::platform::MILAN, collateral::Line::Vlek)),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(gather(&file).unwrap(), [(key, bytes)]);
    }
    let vlek = identify(&milan.vek(KeyKind::Vlek, 1, crate::platform::TCB)).unwrap();
    assert!(matches!(vlek, Key::Vlek { .. }), "{vlek}");
    std::fs::write(&file, "no certificate").unwrap();
    assert!(gather(&file).unwrap_err().to_string().contains("neither a bundle"));
    assert!(gather(dir.path()).unwrap_err().to_string().contains("no file"));
    std::fs::write(dir.path().join("ask_ark_milan.cert"), [0; 3200]).unwrap();
    assert_eq!(gather(dir.path()).unwrap()[0].0, Key::SevChain(collateral::SevProduct::Milan));
    std::fs::write(dir.path().join("ask_ark_milan.cert"), [0; 3201]).unwrap();
    assert!(gather(dir.path()).unwrap_err().to_string().contains("more than"));
}

/// A bundle as `write` makes it, with one header changed.
fn changed(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bundle = write([(&CRL, &b"list"[..])]).unwrap();
    change(&mut bundle[..512]);
    // The checksum counts itself as spaces.
    bundle[148..156].fill(b' ');
    let sum: u32 = bundle[..512].iter().map(|byte| u32::from(*byte)).sum();
    bundle[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bundle
}

#[test]
fn bundles_that_nobody_exported_are_refused_whole() {
    let name = |name: &'static str| {
        move |header: &mut [u8]| {
            header[..100].fill(0);
            header[..name.len()].copy_from_slice(name.as_bytes());
        }
    };
    assert!(read(&changed(|_| {})).is_ok());
    for bad in ["/etc/passwd", "../crl-Milan-vcek.der", "./crl-Milan-vcek.der", "a/crl-Milan-vcek.der", "x"] {
        assert!(matches!(read(&changed(name(bad))), Err(BundleError::Name(_))), "{bad}");
    }
    for kind in [b'1', b'2', b'3', b'5', b'6'] {
        assert!(matches!(read(&changed(|header| header[156] = kind)), Err(BundleError::Entry(_))), "{kind}");
    }
    let long = |header: &mut [u8]| header[124..136].copy_from_slice(b"77777777777\0");
    assert!(matches!(read(&changed(long)), Err(BundleError::Entry(_) | BundleError::Tar(_))));
    let one = write([(&CRL, &b"list"[..])]).unwrap();
    let twice = [&one[..1024], &one[..]].concat();
    assert!(matches!(read(&twice), Err(BundleError::Twice(_))));
    assert!(read(&one[..514]).is_err(), "cut off");
    assert!(matches!(read(&[]), Err(BundleError::Empty)));
    assert!(matches!(read(&[0; 1024]), Err(BundleError::Empty)));
    assert!(read(&[1; 1024]).is_err());
    assert!(matches!(write([]), Err(BundleError::Empty)));
    assert!(matches!(read(&vec![0; collateral::MAX_BYTES + 1]), Err(BundleError::Length)));
}
