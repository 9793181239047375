//! Making containers: which, in which order, and again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocols::agent as wire;
use protocols::refusal::Code;

use crate::host::{refusal, soon, status, with_agent};

#[test]
fn the_host_can_make_no_container_of_its_own() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        assert_eq!(
            status(host.create("c1", "miner").await),
            (ttrpc::Code::PERMISSION_DENIED, Some(Code::ContainerUnknown))
        );
        assert_eq!(refusal(host.create("c1", "web").await), Some(Code::SlotOrder));
        assert_eq!(refusal(host.create("sandbox", "").await), Some(Code::ContainerDuplicate));
        assert_eq!(status(host.create("../c1", "web").await).0, ttrpc::Code::INVALID_ARGUMENT);
        let mut unnamed = wire::CreateContainerRequest::new();
        unnamed.container_id = "c1".into();
        let unnamed = host.agent.create_container(soon(), &unnamed).await;
        assert_eq!(refusal(unnamed), Some(Code::ContainerUnknown));
    });
}

#[test]
fn a_stuck_pull_blocks_nobody_else() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        host.pulls.held.store(true, Ordering::SeqCst);
        let stuck = host.create("c1", "setup");
        let others = async {
            host.pulls.one_waits().await;
            host.health.check(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
            host.signal("sandbox", 15).await.unwrap();
            host.pulls.held.store(false, Ordering::SeqCst);
        };
        let (stuck, ()) = tokio::join!(stuck, others);
        assert_eq!(refusal(stuck), Some(Code::ImagePull));
    });
}

#[test]
fn a_retry_under_a_new_id_takes_over_from_the_first_try() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        host.pulls.held.store(true, Ordering::SeqCst);
        let first = host.create("c1", "setup");
        let second = async {
            host.pulls.one_waits().await;
            let second = host.create("c2", "setup");
            let release = async {
                while host.pulls.waiting.load(Ordering::SeqCst) < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                host.pulls.held.store(false, Ordering::SeqCst);
            };
            tokio::join!(second, release).0
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(refusal(first), Some(Code::SlotBusy));
        assert_eq!(refusal(second), Some(Code::ImagePull), "it had the slot to itself");
        assert_eq!(
            refusal(host.create("c1", "setup").await),
            Some(Code::ImagePull),
            "nothing is left of either"
        );
    });
}
