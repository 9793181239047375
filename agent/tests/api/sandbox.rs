//! The sandbox' life.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocols::agent as wire;
use protocols::refusal::{Code, Refusal};

use crate::host::{refusal, soon, status, with_agent};

#[test]
fn a_vm_that_may_not_open_anything_is_healthy_and_says_why() {
    with_agent(Err(Refusal::new(Code::HostDataMismatch, "they differ")), |host| async move {
        host.health.check(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
        let version = host.health.version(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
        assert_eq!(version.grpc_version, "0.0.1");
        let refused = (ttrpc::Code::PERMISSION_DENIED, Some(Code::HostDataMismatch));
        assert_eq!(status(host.sandbox().await), refused);
        assert_eq!(status(host.sandbox().await), refused, "and says it again");
    });
}

#[test]
fn nothing_runs_before_there_is_a_sandbox_and_a_document() {
    with_agent(Ok(()), |host| async move {
        assert_eq!(refusal(host.create("c1", "web").await), Some(Code::SandboxState));
        let mut exec = wire::ExecProcessRequest::new();
        exec.container_id = "c1".into();
        assert_eq!(refusal(host.agent.exec_process(soon(), &exec).await), Some(Code::SpecNotOpen));
        host.sandbox().await.unwrap();
        assert_eq!(status(host.sandbox().await), (ttrpc::Code::INTERNAL, Some(Code::SandboxState)));
        host.create("sandbox", "").await.unwrap();
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SpecMissing));
        // A failed create leaves nothing behind: the next one finds the document.
        host.copy("c1-spec", &host.document).await.unwrap();
        assert_eq!(status(host.create("c1", "setup").await), (ttrpc::Code::INTERNAL, Some(Code::ImagePull)));
        assert_eq!(
            refusal(host.create("c1", "setup").await),
            Some(Code::ImagePull),
            "the slot was given back"
        );
    });
}

#[test]
fn the_pause_container_lives_until_it_is_signalled() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let mut start = wire::StartContainerRequest::new();
        start.container_id = "sandbox".into();
        host.agent.start_container(soon(), &start).await.unwrap();
        let mut read = wire::ReadStreamRequest::new();
        read.container_id = "sandbox".into();
        read.len = 8192;
        assert!(host.agent.read_stdout(soon(), &read).await.unwrap().data.is_empty());
        let mut wait = wire::WaitProcessRequest::new();
        wait.container_id = "sandbox".into();
        let waiting = tokio::spawn({
            let (agent, wait) = (host.agent.clone(), wait.clone());
            async move { agent.wait_process(soon(), &wait).await.unwrap().status }
        });
        assert_eq!(
            status(host.signal("sandbox", 1).await),
            (ttrpc::Code::PERMISSION_DENIED, Some(Code::SignalDenied))
        );
        host.signal("sandbox", 9).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 137);
        assert_eq!(status(host.signal("sandbox", 9).await).0, ttrpc::Code::NOT_FOUND);
        assert_eq!(host.agent.wait_process(soon(), &wait).await.unwrap().status, 137, "for late waiters too");
        let mut remove = wire::RemoveContainerRequest::new();
        remove.container_id = "sandbox".into();
        host.agent.remove_container(soon(), &remove).await.unwrap();
        assert_eq!(status(host.signal("sandbox", 9).await).0, ttrpc::Code::INVALID_ARGUMENT);
    });
}

#[test]
fn destroying_answers_first_and_then_ends_the_vm() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let mut wait = wire::WaitProcessRequest::new();
        wait.container_id = "sandbox".into();
        let waiting = host.agent.wait_process(soon(), &wait);
        let destroying = async {
            tokio::task::yield_now().await;
            host.agent.destroy_sandbox(soon(), &wire::DestroySandboxRequest::new()).await.unwrap();
        };
        let (waited, ()) = tokio::join!(waiting, destroying);
        assert_eq!(waited.unwrap().status, 137);
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SandboxState));
        while !host.button.0.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
