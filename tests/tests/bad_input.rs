//! Mistakes and accidents, with the built programs together: a clear error, and nothing lost. What a single
//! program makes of bad input is tested beside it; here is what only the whole shows.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocols::refusal::Code;
use sealpod_tests::attempt::Stage;
use sealpod_tests::host::Running;
use sealpod_tests::installation::Installation;
use sealpod_tests::owner::Owner;
use sealpod_tests::process::Finished;
use sealpod_tests::registry::HOST;
use sealpod_tests::small_disk::SmallDisk;
use sealpod_tests::world::{World, launcher_state};
use support::{in_vm, stage};

/// What it said when it failed; it must have said it as an error, without a panic.
fn refused(command: &mut Command) -> String {
    let finished = Finished::of(command).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished.stderr
}

fn good(command: &mut Command) -> String {
    Finished::of(command).unwrap().success("the command").unwrap()
}

fn world() -> World {
    World::start(&mut |_| {}).unwrap()
}

fn inspected_yaml() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/inspected.yaml")
}

/// `sealpod seal` of the inspected pod into `output`, from a registry on this machine.
fn seal(world: &World, mut command: Command, manifest: &Path, output: &Path) -> Command {
    command.arg(manifest).arg("--output").arg(output);
    for option in ["--registry", "--resolve-via"] {
        command.arg(option).arg(format!("{HOST}={}", world.registry().location()));
    }
    command
}

#[test]
fn images_that_the_registry_does_not_have() {
    let mut world = world();
    let owner = world.enrolled_owner("acme").unwrap();
    let (manifest, output) = (world.directory().join("pod.yaml"), world.directory().join("sealed/pod.yaml"));
    fs::create_dir(world.directory().join("sealed")).unwrap();
    let text = fs::read_to_string(inspected_yaml()).unwrap();
    let sealed = |world: &World, image: &str| {
        fs::write(&manifest, text.replace("busybox:v1", image)).unwrap();
        let error = refused(&mut seal(world, owner.command("seal"), &manifest, &output));
        assert_eq!(fs::read_dir(output.parent().unwrap()).unwrap().count(), 0, "{image}: something is left");
        error
    };
    let nowhere = format!("busybox@sha256:{}", "ab".repeat(32));
    for image in ["busybox:v2", "nosuch/image:v1", &nowhere] {
        let error = sealed(&world, image);
        assert!(error.contains(image) && error.contains("has no such image or tag"), "{error}");
    }
    world.registry_mut().stop().unwrap();
    let error = sealed(&world, "busybox:v1");
    assert!(error.contains(world.registry().location().trim_start_matches("http://")), "{error}");
}

#[test]
fn a_key_that_is_not_the_repositorys_writes_nothing() {
    let world = world();
    let (directory, installation) = (world.directory().to_owned(), world.installation().clone());
    let (guest, measurement) = (world.guest_manifest("guest", None).unwrap(), directory.join("measure.json"));
    let identity =
        |home: &str| Owner::init(&installation, &directory.join(home), "acme", world.broker()).unwrap();
    let (acme, mallory) = (identity("acme"), identity("mallory"));
    acme.measure(&guest, &measurement).unwrap();
    let seal = |owner: &Owner, name: &str| {
        owner.seal(&inspected_yaml(), &directory.join(name), world.registry(), &[]).unwrap()
    };
    let (ours, theirs) = (seal(&acme, "ours.yaml"), seal(&mallory, "theirs.yaml"));
    let push = |owner: &Owner, key: &Path| {
        let mut command = owner.command("push");
        command.arg(key).arg("--measurement").arg(&measurement);
        command
    };

    let error = refused(&mut push(&acme, &ours.key));
    assert!(error.contains("sealpod[OWNER_UNKNOWN]"), "{error}");
    world.broker().enrol("acme", &acme.public_key().unwrap()).unwrap();
    // The repository has an owner now: neither another key nor another enrolment gets in.
    let error = refused(&mut push(&mallory, &theirs.key));
    assert!(error.contains("sealpod[OWNER_SIGNATURE]"), "{error}");
    let error = world.broker().enrol("acme", &mallory.public_key().unwrap()).unwrap_err().to_string();
    assert!(error.contains("belongs to another key"), "{error}");

    // A broker that is started twice goes on as one.
    let second = world.broker().start_again().unwrap();
    assert!(!second.status.success() && second.stderr.contains("in use by another"), "{second:?}");

    good(&mut push(&acme, &ours.key));
    let log = directory.join("audit.jsonl");
    world.broker().export_audit(&log).unwrap();
    good(acme.command("audit").arg("verify").arg(&log));
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("\"key.registered\"").count(), 1, "{text}");
}

#[test]
fn a_push_outlives_a_broker_that_is_away() {
    let mut world = world();
    let owner = world.enrolled_owner("acme").unwrap();
    let output = world.directory().join("sealed.yaml");
    let sealed = owner.seal(&inspected_yaml(), &output, world.registry(), &[]).unwrap();
    world.broker_mut().stop().unwrap();
    let error = refused(owner.command("push").arg(&sealed.key));
    let port = world.broker().address().port();
    assert!(
        error.contains(&format!("localhost:{port}")) && error.contains("is the broker running"),
        "{error}"
    );
    world.broker_mut().serve().unwrap();
    good(owner.command("push").arg(&sealed.key));
}

#[test]
fn doctor_tells_what_is_wrong_with_the_whole() {
    let mut world = world();
    let owner = world.enrolled_owner("acme").unwrap();
    let guest = world.guest_manifest("guest", None).unwrap();
    let doctor = |owner: &Owner| Finished::of(owner.command("doctor").arg("--guest").arg(&guest)).unwrap();
    let finished = doctor(&owner);
    assert!(finished.status.success() && !finished.stdout.contains("FAIL"), "{finished:?}");
    for found in
        ["ok    identity: repository 'acme'", "ok    broker:", "EMULATED", "ok    guest: launch digest"]
    {
        assert!(finished.stdout.contains(found), "{found:?} is missing in\n{}", finished.stdout);
    }

    // The right address with another broker's CA.
    let (other, _relay, _) = world.broker_in_between().unwrap();
    let home = world.directory().join("deceived");
    let mut command = Command::new(world.installation().binary("sealpod"));
    command.arg("--identity").arg(&home).args(["init", "--repository", "acme", "--broker"]);
    command.arg(format!("https://localhost:{}", world.broker().address().port()));
    good(command.arg("--broker-ca").arg(other.certificate_authority()));
    let mut command = Command::new(world.installation().binary("sealpod"));
    let deceived = Finished::of(command.arg("--identity").arg(&home).arg("doctor")).unwrap();
    assert!(
        !deceived.status.success() && deceived.stdout.contains("not the broker that this identity pins"),
        "{deceived:?}"
    );

    world.broker_mut().stop().unwrap();
    let alone = doctor(&owner);
    assert!(!alone.status.success(), "{alone:?}");
    assert!(
        alone.stdout.contains("FAIL  broker") && alone.stdout.contains("-> start the broker"),
        "{alone:?}"
    );
    assert!(alone.stdout.contains("ok    guest: launch digest"), "one trouble hides what is good: {alone:?}");
}

/// An archive that unpacks and holds nothing (newc: cpio's header in hexadecimal text).
fn initrd_without_init(directory: &Path) -> PathBuf {
    let name = "TRAILER!!!\0";
    let mut archive = format!("070701{}", "00000000".repeat(11));
    archive += &format!("{:08x}{}{name}", name.len(), "00000000");
    let mut bytes = archive.into_bytes();
    // The header's own length makes the name end on a multiple of four; the rest is padding to a block.
    bytes.resize(512, 0);
    let path = directory.join("nothing.img");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn guests_that_do_not_come_up() {
    let _vm = in_vm();
    let stage = stage(&[]);
    let (world, directory) = (&stage.world, stage.world.directory());
    let run = |guest: &Path| {
        let mut command = stage.owner.run(&stage.sealed, guest, &world.relay_socket());
        refused(command.arg("--state").arg(launcher_state()))
    };

    let error = run(&world.guest_manifest("missing", Some(&directory.join("missing.img"))).unwrap());
    assert!(error.contains("initrd") && error.contains("missing.img"), "{error}");

    let garbage = directory.join("garbage");
    fs::write(&garbage, [0x5a; 16 * 1024]).unwrap();
    let guest = directory.join("garbage.toml");
    let kernel = world.installation().guest_file("bzImage");
    let text = fs::read_to_string(&stage.guest).unwrap();
    fs::write(&guest, text.replace(kernel.to_str().unwrap(), garbage.to_str().unwrap())).unwrap();
    let error = run(&guest);
    assert!(error.contains("ended before its agent answered") && error.contains("qemu says:"), "{error}");

    let empty = initrd_without_init(directory);
    let error = run(&world.guest_manifest("empty", Some(&empty)).unwrap());
    assert!(
        error.contains("last lines of the guest's console") && error.contains("Kernel panic"),
        "the console is missing: {error}"
    );

    // Not even a guest: the manifest as the owner wrote it.
    let plain = Installation::repository().join("docs/examples/pod.yaml");
    let mut command = stage.owner.command("run");
    let error = refused(command.arg(plain).arg("--guest").arg(&stage.guest));
    assert!(error.contains("not sealed") && error.contains("run 'sealpod seal' first"), "{error}");
}

#[test]
fn a_full_disk_loses_nothing() {
    const FULL: &str = "No space left on device";
    let disk = SmallDisk::mount(1024).unwrap();
    let installation = Installation::find().unwrap();
    let directory = tempfile::tempdir().unwrap();

    // A broker that can't be set up leaves nothing.
    let configuration = directory.path().join("broker.toml");
    let state = disk.path().join("first");
    fs::write(
        &configuration,
        format!("listen = \"127.0.0.1:0\"\nstate = {state:?}\nserver_names = [\"localhost\"]\n"),
    )
    .unwrap();
    let init = || {
        let mut command = disk.command(&installation.binary("sealpod-broker"));
        command.arg("init").arg("--config").arg(&configuration);
        command
    };
    disk.fill().unwrap();
    let error = refused(&mut init());
    assert!(error.contains("can't be written") && error.contains(FULL), "{error}");
    assert!(disk.entries().unwrap().is_empty(), "{:?}", disk.entries());
    disk.free().unwrap();
    good(&mut init());
    fs::remove_dir_all(disk.seen(&state)).unwrap();

    // Nor does an owner's half-written manifest or key.
    let mut world = World::start_on(Some(disk), &mut |_| {}).unwrap();
    let owner = world.enrolled_owner("acme").unwrap();
    let (disk, output) =
        (world.broker().disk().unwrap(), world.broker().disk().unwrap().path().join("pod.yaml"));
    let sealing = || {
        let mut command = disk.command(&installation.binary("sealpod"));
        command.arg("--identity").arg(world.directory().join("owner-acme")).arg("seal");
        seal(&world, command, &inspected_yaml(), &output)
    };
    disk.fill().unwrap();
    let error = refused(&mut sealing());
    assert!(error.contains("pod") && error.contains(FULL), "{error}");
    assert_eq!(disk.entries().unwrap(), ["state"]);
    disk.free().unwrap();

    // A push that can't be kept is refused whole, and is the same push afterwards.
    let output = world.directory().join("pod-sealed.yaml");
    let sealed = owner.seal(&inspected_yaml(), &output, world.registry(), &[]).unwrap();
    disk.fill().unwrap();
    let error = refused(owner.command("push").arg(&sealed.key));
    assert!(error.contains("sealpod[INTERNAL]") && !error.contains("registered"), "{error}");
    assert!(world.broker().log_tail().contains("disk is full"), "{}", world.broker().log_tail());
    let log = world.directory().join("audit.jsonl");
    world.broker().export_audit(&log).unwrap();
    assert!(!fs::read_to_string(&log).unwrap().contains("key.registered"));

    // Nor does a broker start that could not keep its log.
    world.broker_mut().stop().unwrap();
    let second = world.broker().start_again().unwrap();
    assert!(!second.status.success() && second.stderr.contains("database"), "{second:?}");

    world.broker().disk().unwrap().free().unwrap();
    world.broker_mut().serve().unwrap();
    good(owner.command("push").arg(&sealed.key));
    world.broker().export_audit(&log).unwrap();
    good(owner.command("audit").arg("verify").arg(&log));
    assert_eq!(fs::read_to_string(&log).unwrap().matches("\"key.registered\"").count(), 1);
}

#[test]
fn a_full_disk_is_over_when_there_is_room_again() {
    let disk = SmallDisk::mount(1024).unwrap();
    let world = World::start_on(Some(disk), &mut |_| {}).unwrap();
    let owner = world.enrolled_owner("acme").unwrap();
    let output = world.directory().join("pod-sealed.yaml");
    let sealed = owner.seal(&inspected_yaml(), &output, world.registry(), &[]).unwrap();
    world.broker().disk().unwrap().fill().unwrap();
    refused(owner.command("push").arg(&sealed.key));
    world.broker().disk().unwrap().free().unwrap();
    good(owner.command("push").arg(&sealed.key));
}

#[tokio::test]
async fn a_guest_waits_for_a_broker_in_trouble() {
    async fn refusal(running: &mut Running) -> protocols::refusal::Refusal {
        let error = running.pod.start_sandbox().await.unwrap_err();
        error.refusal().unwrap_or_else(|| panic!("{error}\n{}", running.console())).clone()
    }
    let _vm = in_vm();
    let disk = SmallDisk::mount(1024).unwrap();
    let world = World::start_on(Some(disk), &mut |_| {}).unwrap();
    let mut stage = Stage::set_in(world, &inspected_yaml(), &[]).unwrap();
    let host = stage.honest_host().unwrap();
    stage.world.broker_mut().stop().unwrap();
    let mut running = host.boot(&stage.state()).await.unwrap();
    let away = refusal(&mut running).await;
    assert_eq!(away.code, Code::BrokerUnreachable, "{away}");

    // Through the same relay: there again, but unable to record a release, so there is none.
    stage.world.broker_mut().serve().unwrap();
    let log = stage.world.directory().join("audit.jsonl");
    let releases = |stage: &Stage| {
        stage.world.broker().export_audit(&log).unwrap();
        fs::read_to_string(&log).unwrap().matches("\"key.released\"").count()
    };
    stage.world.broker().disk().unwrap().fill().unwrap();
    let full = refusal(&mut running).await;
    assert_eq!(full.code, Code::Internal, "{full}");
    assert_eq!(releases(&stage), 0);

    stage.world.broker().disk().unwrap().free().unwrap();
    running
        .start_everything()
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", stage.world.broker().log_tail()));
    assert_eq!(releases(&stage), 1);
    running.end().await.unwrap();
}
