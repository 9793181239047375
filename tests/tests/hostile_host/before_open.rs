//! Before the sealed spec is open: only what is on the way to it.

use protocols::agent as wire;
use protocols::refusal::Code;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{answer_of, fails, refused, soon, spec};

use crate::Target;

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    checks
        .that("47: no container before there is a sandbox", async {
            fails(kata.create(&spec::container("early", &["true"])).await, &[ttrpc::Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("47: no process, no file of a process, no resources before the spec is open", async {
            let not_open = [Code::SpecNotOpen];
            refused(kata.start_exec("c", "e", spec::process(&["true"])).await, &not_open)?;
            refused(kata.write("c", "", b"x").await, &not_open)?;
            let update = wire::UpdateContainerRequest::new();
            refused(answer_of(kata.agent().update_container(soon(), &update).await), &not_open)?;
            let data = wire::GetDiagnosticDataRequest::new();
            refused(answer_of(kata.agent().get_diagnostic_data(soon(), &data).await), &not_open)?;
            Ok(())
        })
        .await;
    for (name, change) in [
        ("3: a hook directory of the guest", hooks as fn(&mut wire::CreateSandboxRequest)),
        ("47: kernel modules", modules),
    ] {
        checks
            .that(name, async {
                let mut request = wire::CreateSandboxRequest::new();
                request.sandbox_id = "sandbox".to_owned();
                change(&mut request);
                let answer = answer_of(kata.agent().create_sandbox(soon(), &request).await);
                refused(answer, &[Code::RpcDenied])
            })
            .await;
    }
}

fn hooks(request: &mut wire::CreateSandboxRequest) {
    request.guest_hook_path = "/run/kata-containers/shared/containers/hooks".to_owned();
}

fn modules(request: &mut wire::CreateSandboxRequest) {
    request.kernel_modules.push(wire::KernelModule { name: "vfio".to_owned(), ..Default::default() });
}
