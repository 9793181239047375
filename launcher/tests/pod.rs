//! The driver against a small agent of the test's own: the order of requests, what is in them, and what becomes of
//! refusals. The socket speaks the vsock multiplexer's handshake.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fake_agent;

use std::collections::BTreeMap;
use std::time::Duration;

use fake_agent::{FakeAgent, Script};
use launcher::pod::{Container, HostileKnobs, Pod, PodError, PodRun, Volume, VolumeMount};
use protocols::refusal::{Code, Refusal};

fn pod() -> Pod {
    let document = VolumeMount {
        volume: "sealed".to_owned(),
        path: "/sealpod".to_owned(),
        read_only: true,
        ..Default::default()
    };
    let container = |name: &str| Container {
        name: name.to_owned(),
        image: "sealpod.invalid/placeholder".to_owned(),
        args: vec!["/sealpod".to_owned()],
        mounts: vec![document.clone()],
        ..Default::default()
    };
    let files = BTreeMap::from([("sealed-spec.jwe".to_owned(), b"aaa..bbb.ccc".to_vec())]);
    Pod {
        name: "web".to_owned(),
        namespace: "prod".to_owned(),
        uid: "7b1c".to_owned(),
        init_containers: vec![container("setup"), container("warm")],
        containers: vec![container("nginx"), container("sidecar")],
        volumes: BTreeMap::from([("sealed".to_owned(), Volume::Files(files))]),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_runtimes_order() {
    let agent = FakeAgent::start(Script::default()).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    let sandbox = run.sandbox_id().to_owned();
    let outcomes = run.run().await.unwrap();
    run.destroy().await.unwrap();
    let names: Vec<&str> = outcomes.iter().map(|one| one.container.as_str()).collect();
    assert_eq!(names, ["setup", "warm", "nginx", "sidecar"]);
    assert!(outcomes.iter().all(|one| one.exit_code == 0 && one.stdout == b"hello from the container\n"));

    let calls = agent.calls();
    let order: Vec<&str> =
        calls.iter().map(String::as_str).filter(|call| !call.starts_with("copy")).collect();
    let start = [
        "check",
        "update_interface eth0 52:54:00:5e:a1:0d 10.0.2.15/24",
        "add_arp_neighbors 10.0.2.2",
        "update_routes 10.0.2.0/24 via ;  via 10.0.2.2",
        "create_sandbox web",
        "get_guest_details",
        "create sandbox",
        "start sandbox",
        "create container setup",
        "start setup",
        "wait setup",
        "remove setup",
        "create container warm",
        "start warm",
        "wait warm",
        "remove warm",
        "create container nginx",
        "start nginx",
    ];
    // The pause container's wait comes when the scheduler pleases.
    let order: Vec<&str> = order.into_iter().filter(|call| *call != "wait sandbox").collect();
    assert_eq!(order[..start.len()], start);
    assert_eq!(order.last(), Some(&"destroy_sandbox"));
    assert!(agent.requests().iter().filter(|one| one.container_id == sandbox).count() == 1);
}

#[tokio::test]
async fn config_maps_come_with_the_kubelets_links() {
    let agent = FakeAgent::start(Script::default()).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    run.run().await.unwrap();
    let requests = agent.requests();
    let nginx = requests.iter().find(|one| agent.name_of(&one.container_id) == "nginx").unwrap();
    let mount = nginx.OCI.Mounts.iter().find(|mount| mount.destination == "/sealpod").unwrap();
    assert!(mount.source.starts_with("/run/kata-containers/shared/containers/"));
    assert_eq!(mount.options, ["rbind", "rprivate", "ro"]);
    let files = agent.files();
    let name = "sealed-spec.jwe";
    let (mode, target) = &files[&format!("{}/{name}", mount.source)];
    assert_eq!((*mode & 0o170_000, target.as_slice()), (0o120_000, format!("..data/{name}").as_bytes()));
    let (mode, generation) = &files[&format!("{}/..data", mount.source)];
    assert_eq!(*mode & 0o170_000, 0o120_000);
    let generation = String::from_utf8(generation.clone()).unwrap();
    let (mode, data) = &files[&format!("{}/{generation}/{name}", mount.source)];
    assert_eq!((*mode, data.as_slice()), (0o100_644, b"aaa..bbb.ccc".as_slice()));
    for standard in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log", "/dev/shm"] {
        assert!(nginx.OCI.Mounts.iter().any(|mount| mount.destination == standard), "{standard}");
    }
}

#[tokio::test]
async fn large_files_go_in_chunks() {
    let agent = FakeAgent::start(Script::default()).await;
    let mut pod = pod();
    let big: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
    pod.volumes.insert("sealed".to_owned(), Volume::Files(BTreeMap::from([("big".to_owned(), big.clone())])));
    pod.init_containers.clear();
    pod.containers.truncate(1);
    PodRun::new(agent.connect().await, pod).unwrap().run().await.unwrap();
    assert!(agent.files().values().any(|(_, data)| *data == big));
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let refusal = Refusal::new(Code::SpecDigestMismatch, "none of 1 documents has the digest");
    let script = Script { refuse_create_sandbox: Some(refusal.clone()), ..Default::default() };
    let agent = FakeAgent::start(script).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    let error = run.run().await.unwrap_err();
    assert_eq!(error.refusal(), Some(&refusal));
    assert!(error.to_string().contains("sealpod[SPEC_DIGEST_MISMATCH]"), "{error}");
    run.destroy().await.unwrap();
}

#[tokio::test]
async fn a_failed_init_container_stops_the_pod() {
    let script = Script { exit_codes: BTreeMap::from([("setup".to_owned(), 3)]), ..Default::default() };
    let agent = FakeAgent::start(script).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    let error = run.run().await.unwrap_err();
    let PodError::Init(outcome) = &error else { panic!("{error}") };
    assert_eq!((outcome.container.as_str(), outcome.exit_code), ("setup", 3));
    assert!(!agent.calls().iter().any(|call| call == "create container warm"));
    run.destroy().await.unwrap();
}

#[tokio::test]
async fn a_create_that_is_still_pulling_is_tried_again_with_a_new_id() {
    let script = Script { pulling: 2, ..Default::default() };
    let agent = FakeAgent::start(script).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    run.run().await.unwrap();
    let tries: Vec<_> = agent.requests();
    let setup: Vec<&str> = tries
        .iter()
        .filter(|one| {
            one.OCI.Annotations.get("io.kubernetes.cri.container-name").is_some_and(|name| name == "setup")
        })
        .map(|one| one.container_id.as_str())
        .collect();
    assert_eq!(setup.len(), 3);
    assert!(setup[0] != setup[1] && setup[1] != setup[2]);
}

#[tokio::test]
async fn a_create_that_never_ends_is_given_up() {
    let script = Script { pulling: usize::MAX, ..Default::default() };
    let agent = FakeAgent::start(script).await;
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap();
    let error = run.run().await.unwrap_err();
    assert!(error.to_string().contains("pulling 43 %"), "{error}");
}

#[tokio::test]
async fn what_a_hostile_host_adds_is_in_the_request() {
    let agent = FakeAgent::start(Script::default()).await;
    let knobs = HostileKnobs {
        extra_env: vec!["LD_PRELOAD=/evil.so".to_owned()],
        extra_mount: Some(("/etc/evil".to_owned(), BTreeMap::from([("rc".to_owned(), b"evil".to_vec())]))),
        args: Some(vec!["/bin/evil".to_owned()]),
        extra_containers: vec![Container { name: "miner".to_owned(), ..Default::default() }],
        replaced_files: BTreeMap::from([("sealed-spec.jwe".to_owned(), b"tampered".to_vec())]),
        ..Default::default()
    };
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap().with_knobs(knobs);
    run.run().await.unwrap();
    let requests = agent.requests();
    let nginx = requests.iter().find(|one| agent.name_of(&one.container_id) == "nginx").unwrap();
    assert!(nginx.OCI.Process.Env.contains(&"LD_PRELOAD=/evil.so".to_owned()));
    assert_eq!(nginx.OCI.Process.Args, ["/bin/evil"]);
    assert!(nginx.OCI.Mounts.iter().any(|mount| mount.destination == "/etc/evil"));
    assert!(agent.calls().contains(&"create container miner".to_owned()));
    assert!(agent.files().values().any(|(_, data)| data == b"tampered"));
    assert!(!agent.files().values().any(|(_, data)| data == b"aaa..bbb.ccc"));
}

#[tokio::test]
async fn exec_signals_and_stop() {
    let script = Script { sleeps: vec!["nginx".to_owned()], ..Default::default() };
    let agent = FakeAgent::start(script).await;
    let mut pod = pod();
    pod.init_containers.clear();
    pod.containers.truncate(1);
    let mut run = PodRun::new(agent.connect().await, pod).unwrap();
    run.start_sandbox().await.unwrap();
    let running = run.start_containers().await.unwrap();
    assert!(!running[0].ended());
    let probe = ["/sealpod", "probe", "nginx/liveness"].map(str::to_owned);
    let outcome = run.exec("nginx", &probe).await.unwrap().wait().await.unwrap();
    assert_eq!(outcome.exit_code, 0);
    assert!(agent.calls().contains(&"exec nginx /sealpod probe nginx/liveness".to_owned()));
    assert!(matches!(run.exec("other", &probe).await, Err(PodError::Invalid { .. })));
    assert_eq!(run.out_of_memory(), ["greedy"]);
    let outcomes = run.stop(running, Duration::from_secs(20)).await.unwrap();
    assert_eq!(outcomes[0].exit_code, 143);
    run.destroy().await.unwrap();
    assert_eq!(agent.calls().last().map(String::as_str), Some("destroy_sandbox"));
}

#[tokio::test]
async fn output_is_delivered_as_it_comes() {
    let agent = FakeAgent::start(Script::default()).await;
    let (output, mut received) = tokio::sync::mpsc::channel(64);
    let mut run = PodRun::new(agent.connect().await, pod()).unwrap().with_output(output);
    run.run().await.unwrap();
    drop(run);
    let mut from = Vec::new();
    while let Some(piece) = received.recv().await {
        from.push(piece.container);
    }
    from.dedup();
    assert!(from.starts_with(&["setup".to_owned(), "warm".to_owned()]), "{from:?}");
}
