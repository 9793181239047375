//! Revocation lists: kept while they are good, renewed before they end, never rolled back, refused after.

use std::time::Duration;

use collateral::{Added, Reach, Why};
use sealpod_emulator::snp::KeyKind;

use crate::platform::{CHAIN, CRL, Cache, DAY, Platform, WAIT, now};
use crate::stand_in::{Reply, StandIn};

async fn with_list(crl: Vec<u8>) -> StandIn {
    let service = StandIn::start().await;
    service.has(&CHAIN, Platform::milan().chain(KeyKind::Vcek));
    service.has(&CRL, crl);
    service
}

#[tokio::test]
async fn a_list_outlives_the_services_outage_until_its_next_update_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let list = Platform::milan().crl(now());
    let service = with_list(list.clone()).await;
    let cache = Cache::open(dir.path(), &[service.url()]);
    assert!(cache.get(&CRL, now()).await.item.is_some());
    service.answers(&CRL, [Reply::Status(500, "")]);

    let last_second = now() + DAY * 10;
    let found = cache.get(&CRL, last_second).await;
    assert_eq!((found.item.unwrap().bytes(), found.note), (&list[..], None));
    // The same with what a new process finds in the directory.
    let again = Cache::open(dir.path(), &[service.url()]);
    assert_eq!(again.get(&CRL, last_second).await.note, None);

    for cache in [&cache, &Cache::open(dir.path(), &[service.url()])] {
        let after = last_second + DAY;
        let found = cache.get(&CRL, after).await;
        assert!(matches!(found.note.unwrap().why, Why::Unavailable(_)));
        assert_eq!(found.item.unwrap().bytes(), list, "the verifier says how stale it is");
    }
    // And when it is back: not at once, but soon.
    let newer = Platform::milan().crl(last_second);
    service.has(&CRL, newer.clone());
    let soon = last_second + DAY + Duration::from_secs(31);
    assert_eq!(cache.get(&CRL, soon).await.item.unwrap().bytes(), newer);
}

#[tokio::test]
async fn a_list_is_renewed_before_it_ends_while_the_old_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let service = with_list(Platform::milan().crl(now())).await;
    let cache = Cache::open(dir.path(), &[service.url()]);
    cache.get(&CRL, now()).await;
    // Within the hour nobody asks again.
    cache.get(&CRL, now() + Duration::from_secs(3600)).await;
    assert_eq!(service.asked(&CRL), 1);
    let newer = Platform::milan().crl(now() + DAY);
    service.has(&CRL, newer.clone());
    let later = now() + DAY;
    assert!(cache.get(&CRL, later).await.item.is_some());
    service.was_asked(&CRL, 2).await;
    // The renewal is under way or done; it is in use once it is done.
    while cache.get(&CRL, later).await.item.unwrap().bytes() != newer {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.asked(&CRL), 2);
}

#[tokio::test]
async fn an_older_list_never_takes_the_place_of_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Platform::milan().crl(now() - DAY), Platform::milan().crl(now()));
    let service = with_list(old.clone()).await;
    let cache = Cache::open(dir.path(), &[service.url()]);
    cache.collateral.add(&CHAIN, &Platform::milan().chain(KeyKind::Vcek), now()).await.unwrap();
    assert_eq!(cache.collateral.add(&CRL, &new, now()).await, Ok(Added::New));
    assert_eq!(cache.collateral.add(&CRL, &new, now()).await, Ok(Added::Same));
    assert_eq!(cache.collateral.add(&CRL, &old, now()).await, Ok(Added::Older));
    let later = now() + DAY;
    cache.get(&CRL, later).await;
    service.was_asked(&CRL, 1).await;
    assert_eq!(cache.get(&CRL, later + DAY).await.item.unwrap().bytes(), new);
    assert_eq!(Cache::open(dir.path(), &[]).get(&CRL, now()).await.item.unwrap().bytes(), new);
}

#[tokio::test]
async fn a_stale_list_of_the_services_is_told_and_not_fetched_over_and_over() {
    let dir = tempfile::tempdir().unwrap();
    let service = with_list(Platform::milan().crl(now() - DAY * 11)).await;
    let cache = Cache::open(dir.path(), &[service.url()]);
    for _ in 0..3 {
        let found = cache.get(&CRL, now()).await;
        assert!(found.item.is_some() && found.note.unwrap().detail().contains("stale"));
    }
    assert_eq!(service.asked(&CRL), 1);
}

#[tokio::test]
async fn a_list_of_another_signer_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let service = with_list(Platform::foreign().crl(now())).await;
    let cache = Cache::open(dir.path(), &[service.url()]);
    let found = cache.get(&CRL, now()).await;
    assert!(found.item.is_none());
    assert!(found.note.unwrap().detail().contains("not signed by"));
}

#[tokio::test]
async fn a_newer_list_that_is_imported_while_the_cache_is_in_use_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &[]);
    let operator = Cache::open(dir.path(), &[]);
    assert!(cache.get(&CRL, now()).await.item.is_none());
    operator.collateral.add(&CHAIN, &Platform::milan().chain(KeyKind::Vcek), now()).await.unwrap();
    operator.collateral.add(&CRL, &Platform::milan().crl(now() - DAY), now()).await.unwrap();
    let a_minute = Duration::from_secs(61);
    assert!(cache.get(&CRL, now() + a_minute).await.item.is_some());
    let newer = Platform::milan().crl(now());
    operator.collateral.add(&CRL, &newer, now()).await.unwrap();
    let later = now() + 3 * a_minute;
    while cache.collateral.get(&CRL, Reach::Cache, later, WAIT).await.item.unwrap().bytes() != newer {
        tokio::task::yield_now().await;
    }
}
