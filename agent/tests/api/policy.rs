//! What the host may not do, row by row, and what it may not have done.

use std::sync::atomic::Ordering;

use protocols::agent as wire;
use protocols::refusal::{Code, Refusal};
use protocols::types;
use sealpod_agent::policy::{Phase, ROWS, Rule};

use crate::host::{refusal, soon, status, with_agent};

#[test]
fn what_weakens_the_guest_is_refused_and_what_is_not_built_says_so() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let _ = host.create("c1", "setup").await;
        let denied = (ttrpc::Code::PERMISSION_DENIED, Some(Code::RpcDenied));
        assert_eq!(status(host.agent.set_policy(soon(), &wire::SetPolicyRequest::new()).await), denied);
        assert_eq!(status(host.agent.add_swap(soon(), &wire::AddSwapRequest::new()).await), denied);
        assert_eq!(status(host.agent.set_ip_tables(soon(), &wire::SetIPTablesRequest::new()).await), denied);
        let update = host.agent.update_container(soon(), &wire::UpdateContainerRequest::new()).await;
        assert_eq!(status(update).0, ttrpc::Code::INVALID_ARGUMENT, "there is no such container");
        let mut write = wire::WriteStreamRequest::new();
        write.container_id = "sandbox".into();
        assert_eq!(host.agent.write_stdin(soon(), &write).await.unwrap().len, 0, "empty data closes");
        write.data = b"x".to_vec();
        assert_eq!(refusal(host.agent.write_stdin(soon(), &write).await), Some(Code::AttachDenied));
        assert_eq!(refusal(host.copy("../../../etc/passwd", "x").await), Some(Code::CopyDenied));
        let mut clock = wire::SetGuestDateTimeRequest::new();
        clock.Sec = 1;
        assert_eq!(status(host.agent.set_guest_date_time(soon(), &clock).await).0, ttrpc::Code::INTERNAL);
        let mut interface = types::Interface::new();
        interface.name = "lo".into();
        interface.hwAddr = "00:00:00:00:00:00".into();
        let mut update = wire::UpdateInterfaceRequest::new();
        update.interface = Some(interface).into();
        assert_eq!(refusal(host.agent.update_interface(soon(), &update).await), Some(Code::NetworkDenied));
    });
}

#[test]
fn a_host_that_asked_for_what_the_spec_excludes_has_no_vm_any_more() {
    with_agent(Ok(()), |host| async move {
        host.copy("c1-spec", &host.document).await.unwrap();
        // Nobody can tell yet whether the sealed pod shares its pid namespace.
        let mut request = wire::CreateSandboxRequest::new();
        request.sandbox_id = "sandbox".into();
        request.sandbox_pidns = true;
        host.agent.create_sandbox(soon(), &request).await.unwrap();
        host.create("sandbox", "").await.unwrap();
        assert!(!host.button.0.load(Ordering::SeqCst));
        let denied = (ttrpc::Code::PERMISSION_DENIED, Some(Code::RpcDenied));
        assert_eq!(status(host.create("c1", "setup").await), denied);
        assert!(host.button.0.load(Ordering::SeqCst), "the VM ends");
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SandboxState));
    });
}

#[test]
fn each_row_of_the_table_holds_on_the_wire() {
    with_agent(Ok(()), |host| async move {
        let ask = async |phase: Phase| {
            for row in ROWS {
                // A long poll, and the ends of containers and of the VM.
                if matches!(row.rpc, "GetOOMEvent" | "DestroySandbox" | "OnlineCPUMem") {
                    continue;
                }
                let mut request = ttrpc::Request::new();
                request.service = "grpc.AgentService".into();
                request.method = row.rpc.into();
                request.timeout_nano = 5_000_000_000;
                let answer = host.client.request(request).await;
                let refused = match answer {
                    Err(ttrpc::Error::RpcStatus(status))
                        if status.code() == ttrpc::Code::PERMISSION_DENIED =>
                    {
                        assert!(!status.message().contains('\n'));
                        Refusal::parse(status.message()).map(|refusal| refusal.code)
                    }
                    _ => None,
                };
                let rule = if phase == Phase::Before { row.before } else { row.open };
                match rule {
                    Rule::Denied(code, _) => assert_eq!(refused, Some(code), "{} {phase:?}", row.rpc),
                    _ => assert!(
                        !matches!(refused, Some(Code::SpecNotOpen | Code::RpcDenied | Code::PauseDenied)),
                        "{} {phase:?}: {refused:?}",
                        row.rpc
                    ),
                }
            }
        };
        ask(Phase::Before).await;
        host.ready().await;
        let _ = host.create("c1", "setup").await;
        ask(Phase::Open).await;
    });
}
