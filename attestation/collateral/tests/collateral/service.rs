//! What the service answers, and what becomes of it: kept, refused, or missing with the next step.

use collateral::{Key, Reach, Roots, Why};
use sealpod_emulator::snp::{KeyKind, Tcb};
use std::time::Duration;
use tokio::sync::watch;

use crate::platform::{CHAIN, Cache, Platform, TCB, WAIT, now, patience, vcek_key};
use crate::stand_in::{Reply, StandIn};

/// A service that has Milan's chain and nothing else.
async fn with_chain() -> StandIn {
    let service = StandIn::start().await;
    service.has(&CHAIN, Platform::milan().chain(KeyKind::Vcek));
    service
}

#[tokio::test]
async fn a_chips_certificate_is_fetched_once_and_survives_the_process() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    let bytes = Platform::milan().vcek(1);
    service.has(&key, bytes.clone());
    let cache = Cache::open(dir.path(), &[service.url()]);
    for _ in 0..3 {
        let found = cache.get(&key, now()).await;
        assert_eq!(found.item.unwrap().bytes(), bytes);
        assert_eq!(found.note, None);
    }
    let again = Cache::open(dir.path(), &[service.url()]);
    assert!(again.get(&key, now()).await.item.is_some());
    let offline = Cache::open(dir.path(), &[]);
    assert!(offline.get(&key, now()).await.item.is_some());
    assert_eq!((service.asked(&key), service.asked(&CHAIN)), (1, 1));
    assert_eq!(cache.told() + &again.told() + &offline.told(), "");
}

/// Each answer is a well-made certificate with one thing wrong.
#[tokio::test]
async fn another_chips_tcbs_products_or_authoritys_certificate_is_not_kept() {
    let milan = Platform::milan();
    let cases: [(&str, Vec<u8>); 5] = [
        ("for another chip", milan.vcek(2)),
        ("TCB bootloader 3, tee 0, snp 7", milan.vek(KeyKind::Vcek, 1, Tcb { snp: 7, ..TCB })),
        ("for Genoa", Platform::genoa().vcek(1)),
        ("not signed by", Platform::foreign().vcek(1)),
        ("extension", milan.vek(KeyKind::Vlek, 1, TCB)),
    ];
    for (expected, bytes) in cases {
        let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
        let key = vcek_key(1);
        service.has(&key, bytes);
        let cache = Cache::open(dir.path(), &[service.url()]);
        let found = cache.get(&key, now()).await;
        assert!(found.item.is_none(), "{expected}");
        let note = found.note.unwrap();
        assert!(note.detail().contains(expected), "{expected}: {}", note.detail());
        assert!(note.to_string().contains("sealpod collateral"), "{note}");
        assert!(!note.to_string().contains("127.0.0.1"), "the guest gets no addresses: {note}");
        let offline = Cache::open(dir.path(), &[]);
        assert!(offline.get(&key, now()).await.item.is_none(), "{expected}");
    }
}

#[tokio::test]
async fn a_chain_of_another_product_line_or_root_is_not_kept() {
    let milan = Platform::milan();
    let own = |line: KeyKind| milan.chain(line);
    let fingerprint = |platform: &Platform| {
        let item = collateral::Item::check(&CHAIN, &platform.chain(KeyKind::Vcek), None, &Roots::Any);
        item.unwrap().root().unwrap().1
    };
    let pinned = || Roots::Of(vec![fingerprint(milan)]);
    let upside_down = {
        let text = String::from_utf8(own(KeyKind::Vcek)).unwrap();
        let (first, second) = text.split_at(text.rfind("-----BEGIN").unwrap());
        format!("{second}{first}").into_bytes()
    };
    for (bytes, roots, good) in [
        (own(KeyKind::Vcek), pinned(), true),
        (own(KeyKind::Vlek), pinned(), false),
        (Platform::genoa().chain(KeyKind::Vcek), Roots::Any, false),
        (Platform::foreign().chain(KeyKind::Vcek), pinned(), false),
        (upside_down, pinned(), false),
        (b"-----BEGIN CERTIFICATE-----\n".to_vec(), pinned(), false),
    ] {
        let (dir, service) = (tempfile::tempdir().unwrap(), StandIn::start().await);
        service.has(&CHAIN, bytes);
        let cache = Cache::with(dir.path(), &[service.url()], roots, patience());
        assert_eq!(cache.get(&CHAIN, now()).await.item.is_some(), good);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), usize::from(good));
    }
}

#[tokio::test]
async fn what_the_service_does_not_have_is_not_asked_for_again_at_once() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    let cache = Cache::open(dir.path(), &[service.url()]);
    for _ in 0..5 {
        let note = cache.get(&key, now()).await.note.unwrap();
        assert!(matches!(note.why, Why::NotFound(_)), "{note}");
    }
    assert_eq!(service.asked(&key), 1);
    service.has(&key, Platform::milan().vcek(1));
    assert!(cache.get(&key, now() + Duration::from_secs(29)).await.item.is_none());
    assert!(cache.get(&key, now() + Duration::from_secs(30)).await.item.is_some());
    assert_eq!(service.asked(&key), 2);
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again_as_it_wishes() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    let busy = Reply::Status(429, "retry-after: 0\r\n");
    service.answers(&key, [busy, Reply::Status(503, ""), Reply::Good(Platform::milan().vcek(1))]);
    let cache = Cache::open(dir.path(), &[service.url()]);
    assert!(cache.get(&key, now()).await.item.is_some());
    assert_eq!(service.asked(&key), 3);
}

#[tokio::test]
async fn a_service_that_asks_for_an_hour_is_left_alone() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    service.answers(&vcek_key(1), [Reply::Status(429, "retry-after: 3600\r\n")]);
    service.has(&vcek_key(2), Platform::milan().vcek(2));
    let cache = Cache::open(dir.path(), &[service.url()]);
    for key in [vcek_key(1), vcek_key(2)] {
        let note = cache.get(&key, now()).await.note.unwrap();
        assert!(matches!(note.why, Why::Unavailable(_)), "{note}");
    }
    assert_eq!((service.asked(&vcek_key(1)), service.asked(&vcek_key(2))), (1, 0));
}

#[tokio::test]
async fn garbage_endless_truncated_and_redirecting_answers_are_refused() {
    let vcek = Platform::milan().vcek(1);
    for reply in [
        Reply::Good(b"<html>login</html>".to_vec()),
        Reply::Good(Vec::new()),
        Reply::Good(vcek[..vcek.len() - 1].to_vec()),
        Reply::Good([&vcek[..], b"\0"].concat()),
        Reply::Endless,
        Reply::Truncated(vcek.clone()),
        Reply::Garbage,
        Reply::Status(302, "location: http://127.0.0.1:1/\r\n"),
        Reply::Status(500, ""),
        Reply::Status(400, ""),
    ] {
        let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
        let key = vcek_key(1);
        service.answers(&key, [reply]);
        let cache = Cache::open(dir.path(), &[service.url()]);
        let found = cache.get(&key, now()).await;
        assert!(found.item.is_none());
        assert!(matches!(found.note.unwrap().why, Why::Unavailable(_)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the chain alone");
    }
}

#[tokio::test]
async fn the_next_service_is_asked_when_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (with_chain().await, with_chain().await);
    let key = vcek_key(1);
    first.has(&key, Platform::milan().vcek(2));
    second.has(&key, Platform::milan().vcek(1));
    let cache = Cache::open(dir.path(), &["http://127.0.0.1:1".into(), first.url(), second.url()]);
    assert!(cache.get(&key, now()).await.item.is_some());
    assert_eq!((first.asked(&key), second.asked(&key)), (1, 1));
}

#[tokio::test]
async fn who_cannot_wait_is_told_and_the_fetch_goes_on() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    let (open, gate) = watch::channel(false);
    service.answers(&key, [Reply::Gated(gate, Platform::milan().vcek(1))]);
    let cache = Cache::open(dir.path(), &[service.url()]);
    let hurried = cache.collateral.get(&key, Reach::Service, now(), Duration::ZERO).await;
    assert_eq!(hurried.note.unwrap().why, Why::Slow);
    service.was_asked(&key, 1).await;
    // Another piece is not held up.
    service.has(&vcek_key(2), Platform::milan().vcek(2));
    assert!(cache.get(&vcek_key(2), now()).await.item.is_some());
    let waiting = tokio::spawn({
        let (collateral, key) = (cache.collateral.clone(), key.clone());
        async move { collateral.get(&key, Reach::Service, now(), WAIT).await }
    });
    open.send_replace(true);
    assert!(waiting.await.unwrap().item.is_some());
    assert_eq!(service.asked(&key), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_make_one_fetch() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    service.has(&key, Platform::milan().vcek(1));
    let cache = Cache::open(dir.path(), &[service.url()]);
    let asking: Vec<_> = (0..64)
        .map(|_| {
            let (collateral, key) = (cache.collateral.clone(), key.clone());
            tokio::spawn(async move { collateral.get(&key, Reach::Service, now(), WAIT).await })
        })
        .collect();
    for one in asking {
        assert!(one.await.unwrap().item.is_some());
    }
    assert_eq!((service.asked(&key), service.asked(&CHAIN)), (1, 1));
}

#[tokio::test]
async fn nobody_to_ask_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &[]);
    for key in [vcek_key(1), Key::Cek([7; 64])] {
        let note = cache.get(&key, now()).await.note.unwrap();
        assert_eq!(note.why, Why::NotCached);
        assert!(note.to_string().contains("no key distribution service is configured"), "{note}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told_ignored_and_replaced() {
    let (dir, service) = (tempfile::tempdir().unwrap(), with_chain().await);
    let key = vcek_key(1);
    service.has(&key, Platform::milan().vcek(1));
    let cache = Cache::open(dir.path(), &[service.url()]);
    assert!(cache.get(&key, now()).await.item.is_some());
    let path = dir.path().join(key.file_name());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let offline = Cache::open(dir.path(), &[]);
    let found = offline.get(&key, now()).await;
    assert!(found.item.is_none());
    assert!(matches!(found.note.unwrap().why, Why::Damaged(_)));
    assert!(offline.told().contains(&key.file_name()), "{}", offline.told());

    let again = Cache::open(dir.path(), &[service.url()]);
    assert!(again.get(&key, now()).await.item.is_some());
    assert!(again.told().contains("not used"));
    assert!(Cache::open(dir.path(), &[]).get(&key, now()).await.item.is_some(), "it is whole again");
}

#[tokio::test]
async fn a_cek_is_fetched_by_its_processors_id() {
    let (dir, service) = (tempfile::tempdir().unwrap(), StandIn::start().await);
    let mut cek = vec![0; 2084];
    cek[0] = 1;
    cek[8..12].copy_from_slice(&0x1004_u32.to_le_bytes());
    let mut pek = cek.clone();
    pek[8..12].copy_from_slice(&0x1002_u32.to_le_bytes());
    service.has(&Key::Cek([1; 64]), cek.clone());
    service.has(&Key::Cek([2; 64]), pek);
    let cache = Cache::open(dir.path(), &[service.url()]);
    let sev = cache.collateral.sev(&[1; 64], now(), WAIT).await;
    assert_eq!((sev.cek, sev.note), (Some(cek), None));
    let sev = cache.collateral.sev(&[2; 64], now(), WAIT).await;
    assert!(sev.cek.is_none() && matches!(sev.note.unwrap().why, Why::Unavailable(_)));
}
