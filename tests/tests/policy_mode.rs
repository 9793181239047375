//! The policy mode: a guest that initdata with `policy.rego` binds, as Confidential Containers launch them, driven
//! by requests that the policy allows and denies; an invalid policy; policies in place of policies; volumes on the
//! host's disks that are encrypted as CoCo's default has it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use anyhow::{Context, Result, ensure};
use launcher::pod::{HostileKnobs, Pod};
use launcher::{Disk, GuestManifest};
use protocols::agent as wire;
use protocols::refusal::Code;
use sealed_spec::initdata;
use sealpod_tests::checks::Checks;
use sealpod_tests::disk;
use sealpod_tests::host::{Host, Running};
use sealpod_tests::kata::{Answer, InitExec, Kata, answer_of, fails, refused, soon, spec, unique};
use sealpod_tests::world::{World, launcher_state};
use support::in_vm;

const POLICY: &str = include_str!("../testdata/policy.rego");
const SANDBOX: &str = "sandbox";
/// What must never be readable on the host's disk.
const SECRET: &[u8] = b"the owner was here";

fn initdata_with(policy: &str) -> Vec<u8> {
    format!("version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"policy.rego\" = '''\n{policy}'''\n")
        .into_bytes()
}

/// A guest of the policy mode: root disk at the first place, the host's scratch at the second.
fn host(world: &World, policy: &str) -> Host {
    let guest = world.guest_manifest("guest", None).unwrap();
    let (root, scratch) = (world.directory().join("root.img"), world.directory().join("scratch.img"));
    disk::root(&root, &[]).unwrap();
    // Something that a container would take for a file system with a file, if it were mounted as it comes.
    disk::empty(&scratch, 64 << 20).unwrap();
    Host {
        pod: Pod::default(),
        initdata: initdata_with(policy),
        device: None,
        disks: vec![Disk { read_only: true, ..Disk::new(root) }, Disk::new(scratch)],
        host_data: None,
        guest: GuestManifest::load(&guest).unwrap(),
        relay: world.relay_socket(),
        knobs: HostileKnobs::default(),
    }
}

async fn boot(host: &Host) -> (Running, Kata) {
    let running = host.boot(&launcher_state()).await.unwrap();
    let kata = Kata::new(running.pod.client().clone(), InitExec::Empty);
    (running, kata)
}

async fn set_policy(kata: &Kata, policy: &str) -> Answer<()> {
    let mut request = wire::SetPolicyRequest::new();
    request.policy = policy.to_owned();
    answer_of(kata.agent().set_policy(soon(), &request).await).map(drop)
}

async fn copy(kata: &Kata, path: &str, mode: u32, data: &[u8]) -> Answer<()> {
    let mut request = wire::CopyFileRequest::new();
    request.path = format!("{}/{path}", spec::SHARED);
    request.file_size = data.len() as i64;
    request.file_mode = mode;
    request.dir_mode = 0o750;
    request.data = data.to_vec();
    answer_of(kata.agent().copy_file(soon(), &request).await).map(drop)
}

#[tokio::test]
async fn the_policy_that_the_launch_bound_decides() {
    let _vm = in_vm();
    let world = World::start(&mut |_| {}).unwrap();
    let host = host(&world, POLICY);
    let (running, kata) = boot(&host).await;
    let mut checks = Checks::default();
    let denied = [Code::PolicyDenied];

    checks
        .that("what the policy allows works: sandbox, pause, a container, an exec", async {
            kata.sandbox(SANDBOX).await?;
            kata.create(&spec::pause(SANDBOX)).await?;
            kata.start(SANDBOX).await?;
            kata.create(&spec::container("main", &["sleep", "1000000"])).await?;
            kata.start("main").await?;
            ensure!(kata.exec("main", &["echo", "granted"]).await?.good()? == "granted");
            Ok(())
        })
        .await;
    checks
        .that("a container of other arguments, of another user, with hooks", async {
            refused(kata.create(&spec::container("sh", &["sh"])).await, &denied)?;
            let mut user = spec::container("user", &["sleep", "1000000"]);
            let oci = user.OCI.mut_or_insert_default();
            oci.Process.mut_or_insert_default().User.mut_or_insert_default().UID = 1000;
            refused(kata.create(&user).await, &denied)?;
            let mut hooks = spec::container("hooks", &["sleep", "1000000"]);
            let hook = protocols::oci::Hook { Path: "/bin/sh".to_owned(), ..Default::default() };
            let hooks_of = hooks.OCI.mut_or_insert_default().Hooks.mut_or_insert_default();
            hooks_of.Prestart.push(hook);
            refused(kata.create(&hooks).await, &denied)
        })
        .await;
    checks
        .that("an exec and an input that aren't allowed", async {
            for command in [["echo", "other"].as_slice(), &["sh"], &[]] {
                let answer = kata.start_exec("main", &unique("exec"), spec::process(command)).await;
                refused(answer, &denied)?;
            }
            refused(kata.write("main", "", b"x").await, &denied)
        })
        .await;
    checks
        .that("files by path and kind", async {
            copy(&kata, "allowed/file", 0o100_644, b"x").await?;
            refused(copy(&kata, "other/file", 0o100_644, b"x").await, &denied)?;
            refused(copy(&kata, "allowed/link", 0o120_777, b"/etc").await, &denied)
        })
        .await;
    checks.that("requests that the policy doesn't name", unnamed(&kata)).await;
    checks.that("policies in place of the policy", successors(&kata)).await;
    checks.that("a volume on the host's disk is encrypted", volume(&kata)).await;

    let console = running.console();
    checks
        .that("and nothing of it is on the disk", async {
            drop(running);
            let disk = std::fs::read(&host.disks[1].path).context("the host's disk")?;
            let found = disk.windows(SECRET.len()).any(|window| window == SECRET);
            ensure!(!found, "the host reads what the container wrote");
            ensure!(disk.iter().any(|&byte| byte != 0), "nothing was written to the disk");
            Ok(())
        })
        .await;
    checks.finish(&console).unwrap();
}

async fn unnamed(kata: &Kata) -> Result<()> {
    let denied = [Code::PolicyDenied];
    let swap = wire::AddSwapPathRequest::new();
    refused(answer_of(kata.agent().add_swap_path(soon(), &swap).await), &denied)?;
    let update = wire::UpdateContainerRequest::new();
    refused(answer_of(kata.agent().update_container(soon(), &update).await), &denied)?;
    let tables = wire::SetIPTablesRequest::new();
    refused(answer_of(kata.agent().set_ip_tables(soon(), &tables).await), &denied)
}

/// The policy in force decides; one that is invalid changes nothing.
async fn successors(kata: &Kata) -> Result<()> {
    let denied = [Code::PolicyDenied];
    let everything =
        POLICY.replace("default ExecProcessRequest := false", "default ExecProcessRequest := true");
    refused(set_policy(kata, &everything).await, &denied).context("one without the mark")?;
    let invalid = "# successor\npackage agent_policy\nExecProcessRequest := {{{\n";
    let failure = fails(
        set_policy(kata, invalid).await,
        &[ttrpc::Code::INVALID_ARGUMENT, ttrpc::Code::PERMISSION_DENIED],
    )?;
    ensure!(failure.refusal().is_none_or(|code| code == Code::PolicyInvalid), "{failure}");
    // The engine is not empty: it still allows and denies as before.
    ensure!(kata.exec("main", &["echo", "granted"]).await?.good()? == "granted");
    refused(kata.start_exec("main", &unique("exec"), spec::process(&["echo", "other"])).await, &denied)?;

    set_policy(kata, &format!("# successor\n{everything}")).await.context("a valid successor")?;
    ensure!(kata.exec("main", &["echo", "other"]).await?.good()? == "other");
    Ok(())
}

/// `emptydir_mode=block-encrypted`: the host's disk is scratch under a key that the guest makes and forgets.
async fn volume(kata: &Kata) -> Result<()> {
    let at = "/run/kata-containers/sandbox/storage/scratch".to_owned();
    let mut request = spec::container(
        "writer",
        &["/bin/sh", "-c", "cat /mnt/*; echo the owner was here > /mnt/file; cat /mnt/file"],
    );
    request.storages.push(wire::Storage {
        driver: "blk".to_owned(),
        driver_options: spec::strings(&["encryption_key=ephemeral", "create_filesystem"]),
        source: Disk::pci_path(1),
        fstype: "ext4".to_owned(),
        mount_point: at.clone(),
        ..Default::default()
    });
    request.OCI.mut_or_insert_default().Mounts.push(spec::mount("/mnt", &at, "bind", &["rbind", "rw"]));
    let text = kata.run(&request).await?.good()?;
    ensure!(text.as_bytes() == SECRET, "{text}");
    Ok(())
}

async fn refusal_of_the_sandbox(policy: &str) -> (Option<ttrpc::Code>, Option<Code>) {
    let _vm = in_vm();
    let world = World::start(&mut |_| {}).unwrap();
    let (running, kata) = boot(&host(&world, policy)).await;
    let failure = kata.sandbox(SANDBOX).await.expect_err(&running.console());
    let container = kata.create(&spec::pause(SANDBOX)).await;
    assert!(container.is_err(), "a container was made");
    (failure.code, failure.refusal())
}

#[tokio::test]
async fn an_invalid_policy_refuses_the_sandbox() {
    let refusal = refusal_of_the_sandbox("package agent_policy\ndefault CreateSandboxRequest := {{{\n").await;
    assert_eq!(refusal, (Some(ttrpc::Code::PERMISSION_DENIED), Some(Code::PolicyInvalid)));
}

#[tokio::test]
async fn a_policy_that_allows_nothing_refuses_the_sandbox() {
    let refusal = refusal_of_the_sandbox("package agent_policy\n").await;
    assert_eq!(refusal, (Some(ttrpc::Code::PERMISSION_DENIED), Some(Code::PolicyDenied)));
}

#[tokio::test]
async fn another_policy_than_the_launch_bound() {
    let _vm = in_vm();
    let world = World::start(&mut |_| {}).unwrap();
    let mut host = host(&world, POLICY);
    host.host_data = Some(initdata::digest(&initdata_with("package agent_policy\n")));
    let (running, kata) = boot(&host).await;
    let failure = kata.sandbox(SANDBOX).await.expect_err(&running.console());
    assert_eq!(failure.refusal(), Some(Code::HostDataMismatch), "{failure}");
}
