//! Keys with few releases, and what guests confirm.

use std::time::Duration;

use axum::http::StatusCode;
use protocols::broker::CONFIRM_PATH;
use protocols::owner::{ReleaseWindow, Releases};
use protocols::refusal::Code;
use sealpod_broker::broker::{Broker, open_store};
use sealpod_broker::clock::Clock;
use sealpod_broker::store::ReleaseCounts;
use serde_json::json;

use crate::support::{Answer, Pushed, World, policy, policy_statement, post};

async fn limited(releases: Releases) -> (World, Pushed) {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let mut limited = policy();
    limited.releases = releases;
    let answer = world.set_policy(policy_statement(&world.owner, 2, limited)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (world, pushed)
}

fn is_refused(answer: &Answer) -> bool {
    answer.status == StatusCode::FORBIDDEN && answer.code() == Code::ReleaseLimit
}

#[tokio::test]
async fn a_key_with_one_release_goes_to_one_guest() {
    let (world, pushed) = limited(Releases::Once).await;
    let (first, second) = (pushed.guest(), pushed.guest());
    assert_eq!(world.ask(&first, pushed.key_id()).await.open(&first), pushed.key);
    assert!(is_refused(&world.ask(&second, pushed.key_id()).await));
    // The same guest again is the same release, in a new session too.
    assert_eq!(world.ask(&first, pushed.key_id()).await.open(&first), pushed.key);
    let events = world.events().await;
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((of("key.released"), of("release.denied")), (1, 1));
    let denied = events.iter().find(|event| event["event"] == "release.denied").unwrap();
    assert_eq!(denied["detail"]["code"], "RELEASE_LIMIT");
}

#[tokio::test]
async fn a_key_with_one_release_raced_by_many_goes_to_one() {
    let (world, pushed) = limited(Releases::Once).await;
    let guests: Vec<_> = (0..6).map(|_| pushed.guest()).collect();
    let mut cookies = Vec::new();
    for guest in &guests {
        cookies.push(world.handshake(guest).await);
    }
    let answers =
        futures::future::join_all(cookies.iter().map(|cookie| world.resource(cookie, pushed.key_id()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1);
    assert_eq!(answers.iter().filter(|answer| is_refused(answer)).count(), 5);
}

#[tokio::test]
async fn a_window_slides() {
    let (world, pushed) = limited(Releases::Window(ReleaseWindow { count: 2, seconds: 3600 })).await;
    let guests: Vec<_> = (0..4).map(|_| pushed.guest()).collect();
    for guest in &guests[..2] {
        assert_eq!(world.ask(guest, pushed.key_id()).await.open(guest), pushed.key);
    }
    assert!(is_refused(&world.ask(&guests[2], pushed.key_id()).await));
    world.wait(Duration::from_secs(3602));
    for guest in [&guests[0], &guests[2], &guests[3]] {
        assert_eq!(world.ask(guest, pushed.key_id()).await.open(guest), pushed.key);
    }
    let late = pushed.guest();
    assert!(is_refused(&world.ask(&late, pushed.key_id()).await));
}

#[tokio::test]
async fn a_limit_survives_a_restart() {
    let (world, pushed) = limited(Releases::Once).await;
    let first = pushed.guest();
    assert_eq!(world.ask(&first, pushed.key_id()).await.open(&first), pushed.key);
    let world = world.restart().await;
    let second = pushed.guest();
    assert!(is_refused(&world.ask(&second, pushed.key_id()).await));
    assert_eq!(world.ask(&first, pushed.key_id()).await.open(&first), pushed.key);
}

#[tokio::test]
async fn a_release_that_was_removed_from_the_database_stops_the_broker() {
    use sqlx::Executor;
    let (world, pushed) = limited(Releases::Once).await;
    let first = pushed.guest();
    assert_eq!(world.ask(&first, pushed.key_id()).await.open(&first), pushed.key);
    world.database().await.execute("DELETE FROM releases").await.unwrap();
    let (dir, config) = world.stop().await;
    let refused = Broker::start(&config, Clock::system(), sealpod_broker::log::silent()).await.err().unwrap();
    assert!(refused.to_string().contains("a release of"), "{refused}");
    drop(dir);
}

#[tokio::test]
async fn a_guest_confirms_its_own_release_and_no_others() {
    let (world, pushed) = limited(Releases::Once).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    let confirm = |cookie: String, uri: String| {
        let world = &world;
        async move { world.send(post(CONFIRM_PATH, &json!({ "uri": uri }), &[("cookie", &cookie)])).await }
    };
    // Nothing was released yet.
    let early = confirm(cookie.clone(), pushed.key_id().to_owned()).await;
    assert_eq!((early.status, early.code()), (StatusCode::FORBIDDEN, Code::Resource));
    assert_eq!(world.resource(&cookie, pushed.key_id()).await.status, StatusCode::OK);
    let other = world.handshake(&pushed.guest()).await;
    assert_eq!(confirm(other, pushed.key_id().to_owned()).await.code(), Code::Resource);
    let nobody = "kbs-session-id=00000000000000000000000000000000".to_owned();
    assert_eq!(confirm(nobody, pushed.key_id().to_owned()).await.code(), Code::Session);
    assert_eq!(confirm(cookie.clone(), "http://x".to_owned()).await.code(), Code::Resource);
    for _ in 0..2 {
        assert_eq!(confirm(cookie.clone(), pushed.key_id().to_owned()).await.status, StatusCode::NO_CONTENT);
    }
    let events = world.events().await;
    assert_eq!(events.iter().filter(|event| event["event"] == "release.confirmed").count(), 1);
    let (dir, config) = world.stop().await;
    let (_, store) = open_store(&config.state, Clock::system()).await.unwrap();
    let counts = store.release_counts().await.unwrap();
    // A delivery that is marked later doesn't take the confirmation back.
    assert_eq!(counts, ReleaseCounts { reserved: 0, delivered: 0, confirmed: 1 });
    drop(dir);
}
