//! Power PEF from end to end: the built program makes a blob, the emulated ultravisor starts a guest with it, the
//! agent reads its file and proves itself to a real broker over TLS. And what each of them refuses.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "esm/record.rs"]
mod record;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use agent_attest::initdata;
use agent_attest::rcar::Session;
use agent_attest::tee::pef::{Chunk, EsmError, Pef, Ultravisor as Calls};
use agent_attest::tee::{Binding, Tee};
use protocols::broker::BlobRequest;
use protocols::owner::{OwnerPublicKey, PefBlob};
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;
use sealed_spec::initdata::{ANNOTATION, annotation, device};
use sealpod_broker::broker::{Broker, init, open_store};
use sealpod_broker::clock::Clock;
use sealpod_broker::config::Config;
use sealpod_broker::{log, server};
use sealpod_emulator::ultravisor::{Fault, Launched, Refusal as NotSecure, TpmKey, Ultravisor};
use serde_json::Value;
use support::{Fake, Owner, example_pod, registry};
use tee_evidence::pef::{EsmBlob, Place};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const KERNEL: &[u8] = b"a kernel as it lies in memory";
const INITRD: &[u8] = b"an initrd with the agent in it";
const APPEND: &str = "svm=on quiet";

/// A broker that serves, an owner with a sealed pod that was pushed, and a machine.
struct World {
    owner: Owner,
    tpm: TpmKey,
    runtime: Runtime,
    _stop: watch::Sender<bool>,
    _registry: Fake,
    _state: tempfile::TempDir,
}

/// The calls of one boot.
struct Boot(RefCell<Ultravisor>);

impl Calls for Boot {
    fn get_file(&mut self, name: &[u8; 64], offset: u64) -> Option<Chunk> {
        let (length, data) = self.0.get_mut().get_file(name, offset);
        Some(Chunk { length, data })
    }
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let tpm = TpmKey::generate().unwrap();
        std::fs::write(state.path().join("tpm.pem"), tpm.public_pem()).unwrap();
        let text = "listen = \"127.0.0.1:0\"\nstate = \"state\"\nserver_names = [\"127.0.0.1\"]\n\
            [trust]\nemulated_tpm_keys = [\"tpm.pem\"]\n";
        let config = Config::parse(text, &state.path().join("broker.toml")).unwrap();
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let port = runtime.block_on(async {
            init(&config).await.unwrap();
            let started = Broker::start(&config, Clock::system(), log::silent()).await.unwrap();
            let listener = server::bind(config.listen).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(server::serve(started.broker, started.tls, listener, stopped));
            port
        });
        let ca = std::fs::read_to_string(state.path().join("state/ca.pem")).unwrap();
        let (owner, registry) = (Owner::with(&ca, port, &["--via", "direct"]), registry());
        let key: OwnerPublicKey = owner.read("id/owner.pub").trim().parse().unwrap();
        runtime.block_on(async {
            let (_, store) = open_store(&config.state, Clock::system()).await.unwrap();
            store.enrol("acme", &key).await.unwrap();
            store.close().await;
        });
        owner.write("pod.yaml", &example_pod("registry.example:5000"));
        let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
        owner.good(&["seal", "pod.yaml", "--registry", &here, "--resolve-via", &here]);
        owner.write("policy.toml", "minimum_revision = 1\ntee = [\"pef-emulated\"]\n");
        owner.good(&["push", "pod-sealed.key.json", "--policy", "policy.toml"]);
        owner.write("kernel", std::str::from_utf8(KERNEL).unwrap());
        owner.write("initrd", std::str::from_utf8(INITRD).unwrap());
        owner.write("machine.pem", tpm.public_pem());
        Self { owner, tpm, runtime, _stop: stop, _registry: registry, _state: state }
    }

    /// `esm make` for these machines, and the blob's id.
    fn make(&self, output: &str, machines: &[&str]) -> String {
        let mut args = vec!["esm", "make", "pod-sealed.key.json", "--kernel", "kernel", "--initrd", "initrd"];
        args.extend(["--append", APPEND, "--output", output]);
        machines.iter().for_each(|machine| args.extend(["--machine", machine]));
        self.owner.good(&args);
        self.record(output).blob
    }

    fn record(&self, blob: &str) -> PefBlob {
        let text = self.owner.read(&format!("{blob}.json"));
        let key: OwnerPublicKey = self.owner.read("id/owner.pub").trim().parse().unwrap();
        key.verify::<PefBlob>(&serde_json::from_str::<BlobRequest>(&text).unwrap().blob).unwrap().into_inner()
    }

    fn blob(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.owner.path(name)).unwrap()
    }

    fn launch_with(&self, blob: &[u8], tpm: &TpmKey, faults: Vec<Fault>) -> Result<Boot, NotSecure> {
        let launched = Launched { kernel: KERNEL, initrd: INITRD, bootargs: APPEND.as_bytes() };
        Ultravisor::launch_with(blob, tpm, &launched, faults).map(|ultravisor| Boot(RefCell::new(ultravisor)))
    }

    fn launch(&self, blob: &str) -> Boot {
        self.launch_with(&self.blob(blob), &self.tpm, Vec::new()).unwrap()
    }

    /// What the host gives a guest as initdata: the sealed pod's, with a change.
    fn initdata(&self, change: impl Fn(String) -> String) -> PathBuf {
        let text = self.owner.read("pod-sealed.yaml");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let own = objects.iter().find_map(|object| object["metadata"]["annotations"][ANNOTATION].as_str());
        let document = change(String::from_utf8(annotation::decode(own.unwrap()).unwrap()).unwrap());
        for place in ["sys/vda", "dev"] {
            std::fs::create_dir_all(self.owner.path(place)).unwrap();
        }
        std::fs::write(self.owner.path("dev/vda"), device::encode(document.as_bytes()).unwrap()).unwrap();
        self.owner.path("")
    }

    /// What the agent does with a TEE.
    fn boot(&self, tee: Pef) -> Result<SpecKey, Refusal> {
        self.boot_with(tee, |document| document)
    }

    fn boot_with(&self, tee: Pef, change: impl Fn(String) -> String) -> Result<SpecKey, Refusal> {
        let place = self.initdata(change);
        let tee: Arc<dyn Tee> = Arc::new(tee);
        let initdata = initdata::load_from(&place.join("sys"), &place.join("dev"), tee.as_ref())?;
        let session = Session::new(&initdata, tee)?.unwrap();
        self.runtime.block_on(session.spec_key())
    }

    fn sealed_key(&self) -> Value {
        let file: Value = serde_json::from_str(&self.owner.read("pod-sealed.key.json")).unwrap();
        file["key"].clone()
    }
}

fn taken(mut boot: Boot) -> Pef {
    Pef::take(&mut boot).unwrap().unwrap()
}

fn refused(outcome: Result<SpecKey, Refusal>, code: Code) {
    let refusal = outcome.err().unwrap();
    assert_eq!(refusal.code, code, "{refusal}");
}

#[test]
fn a_guest_that_was_launched_as_its_blob_says_gets_its_key() {
    let world = World::new();
    let id = world.make("pod.esm", &["machine.pem"]);
    let shown = world.owner.good(&["esm", "show", "pod.esm"]);
    assert!(["lockbox-1", "origin", "sealpod", &id].iter().all(|word| shown.contains(word)), "{shown}");

    // As machines get it: blob in front of the initrd, the same bytes each time.
    let attach = ["esm", "attach", "pod.esm", "--initrd", "initrd", "--output"];
    for output in ["one", "two"] {
        world.owner.good(&[&attach[..], &[output]].concat());
    }
    let whole = world.blob("one");
    assert!(whole == world.blob("two") && whole.ends_with(INITRD));
    let launched = Launched { kernel: KERNEL, initrd: &whole, bootargs: APPEND.as_bytes() };
    let mut boot = Boot(RefCell::new(Ultravisor::launch_from_initrd(&world.tpm, &launched).unwrap()));
    let tee = Pef::take(&mut boot).unwrap().unwrap();
    let key = world.boot(tee).unwrap();
    assert_eq!(world.sealed_key(), key.to_base64url().as_str());
    // Nobody reads the file again: no container, and not the agent either.
    assert!(matches!(Pef::take(&mut boot), Err(EsmError::Refused(_))));
    // Nothing that is secret is in the files that go to hosts.
    let text = String::from_utf8_lossy(&whole).into_owned() + &world.owner.read("pod.esm.json");
    assert!(!text.contains("\"key_sha256\"") && !text.contains("seed"));
}

#[test]
fn the_ultravisor_starts_nothing_else_and_nowhere_else() {
    let world = World::new();
    world.make("pod.esm", &["machine.pem"]);
    let blob = world.blob("pod.esm");
    let launch = |launched: &Launched<'_>| Ultravisor::launch(&blob, &world.tpm, launched).err();
    let good = Launched { kernel: KERNEL, initrd: INITRD, bootargs: APPEND.as_bytes() };
    assert_eq!(launch(&good), None);
    assert_eq!(launch(&Launched { kernel: &[0; 64], ..good }), Some(NotSecure::Digest("the kernel")));
    assert_eq!(launch(&Launched { initrd: b"another", ..good }), Some(NotSecure::Digest("the initrd")));
    let bootargs = b"svm=on quiet sealpod.unsealed=allow";
    assert_eq!(launch(&Launched { bootargs, ..good }), Some(NotSecure::Digest("the kernel command line")));
    let elsewhere = TpmKey::generate().unwrap();
    assert!(matches!(world.launch_with(&blob, &elsewhere, vec![]).err(), Some(NotSecure::NoLockbox)));
    // Without its digests it is no blob; our own reader says so too.
    let mut tree = tee_evidence::pef::fdt::Node::parse(&blob).unwrap();
    tree.children.retain(|child| child.name != "digest");
    let without = tree.encode(&[]).unwrap();
    assert!(world.launch_with(&without, &world.tpm, vec![]).is_err() && EsmBlob::parse(&without).is_err());
}

#[test]
fn short_reads_are_legal_and_wrong_answers_are_not() {
    let world = World::new();
    world.make("pod.esm", &["machine.pem"]);
    let blob = world.blob("pod.esm");
    let take = |fault| {
        let mut boot = world.launch_with(&blob, &world.tpm, vec![fault]).unwrap();
        Pef::take(&mut boot)
    };
    assert!(take(Fault::ShortReads(1)).unwrap().is_some());
    assert!(matches!(take(Fault::Length(65)), Err(EsmError::Chunk(65))));
    assert!(matches!(take(Fault::Length(i64::MAX)), Err(EsmError::Chunk(_))));
    assert!(matches!(take(Fault::Error(-4)), Err(EsmError::Refused(-4))));
    assert!(matches!(take(Fault::Endless), Err(EsmError::Long)));
}

#[test]
fn files_that_were_swapped_or_are_of_another_blob_are_refused() {
    let world = World::new();
    world.make("pod.esm", &["machine.pem"]);
    world.make("old.esm", &["machine.pem"]);
    let mut blob = EsmBlob::parse(&world.blob("pod.esm")).unwrap();
    // Another blob's file doesn't decrypt under this one's key.
    let old = EsmBlob::parse(&world.blob("old.esm")).unwrap();
    let mut mixed = blob.clone();
    mixed.files.clone_from(&old.files);
    let launched = world.launch_with(&mixed.encode().unwrap(), &world.tpm, vec![]);
    assert!(matches!(launched.err(), Some(NotSecure::Decrypt(_))));
    // The digests under the file's name do, and the agent sees that they aren't its file.
    blob.files[0].sealed = blob.digests.clone();
    let mut boot = world.launch_with(&blob.encode().unwrap(), &world.tpm, vec![]).unwrap();
    assert!(matches!(Pef::take(&mut boot), Err(EsmError::Json { .. })));
}

#[test]
fn other_initdata_than_the_blobs_is_refused_in_the_guest() {
    let world = World::new();
    world.make("pod.esm", &["machine.pem"]);
    let evil = |document: String| document.replace("127.0.0.1", "127.0.0.2");
    refused(world.boot_with(taken(world.launch("pod.esm")), evil), Code::HostDataMismatch);
    // Nor is there evidence for another spec than the blob's.
    let tee = taken(world.launch("pod.esm"));
    assert!(tee.evidence(&Binding { report_data: &[1; 64], sealed_spec: &[1; 32] }).is_err());
}

#[test]
fn a_blob_that_was_never_enrolled_or_was_denied_gets_nothing() {
    let world = World::new();
    let mut args = vec!["esm", "make", "pod-sealed.key.json", "--kernel", "kernel", "--initrd", "initrd"];
    args.extend(["--append", APPEND, "--machine", "machine.pem", "--output", "quiet.esm", "--no-push"]);
    world.owner.good(&args);
    refused(world.boot(taken(world.launch("quiet.esm"))), Code::CertificateChain);

    let id = world.make("pod.esm", &["machine.pem"]);
    world.boot(taken(world.launch("pod.esm"))).unwrap();
    world.owner.good(&["esm", "deny", &id]);
    refused(world.boot(taken(world.launch("pod.esm"))), Code::CertificateChain);
    world.make("next.esm", &["machine.pem"]);
    world.boot(taken(world.launch("next.esm"))).unwrap();
}

#[test]
fn machines_come_and_go_and_only_the_origin_key_brings_them() {
    let world = World::new();
    let hardware = include_str!("../../attestation/verifier/testdata/pef/machine-1.pem");
    world.owner.write("hardware.pem", hardware);
    world.make("pod.esm", &["hardware.pem"]);
    assert!(world.launch_with(&world.blob("pod.esm"), &world.tpm, vec![]).is_err());
    // A real machine's blob is of kind pef, which this policy doesn't name; with the software TPM it is emulated.
    world.owner.good(&["esm", "authorize", "pod.esm", "--machine", "machine.pem"]);
    assert_eq!((world.record("pod.esm").serial, world.record("pod.esm").machines.len()), (2, 2));
    world.boot(taken(world.launch("pod.esm"))).unwrap();
    let again = world.owner.refused(&["esm", "authorize", "pod.esm", "--machine", "machine.pem"]);
    assert!(again.contains("already"), "{again}");

    let stranger = ["esm", "authorize", "pod.esm", "--machine", "machine.pem", "--origin", "other.pem"];
    world.owner.write("other.pem", &TpmKey::generate().unwrap().to_pem().unwrap());
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(world.owner.path("other.pem"), mode(0o644)).unwrap();
    assert!(world.owner.refused(&stranger).contains("read by others"));
    std::fs::set_permissions(world.owner.path("other.pem"), mode(0o600)).unwrap();
    assert!(world.owner.refused(&stranger).contains("did not make the blob"));

    world.owner.good(&["esm", "revoke", "pod.esm", "--machine", "machine.pem"]);
    assert!(world.launch_with(&world.blob("pod.esm"), &world.tpm, vec![]).is_err());
    let blob = EsmBlob::parse(&world.blob("pod.esm")).unwrap();
    assert_eq!(blob.lockboxes.iter().map(|l| l.place).collect::<Vec<_>>(), [Place::Origin, Place::Number(1)]);
    let last = world.owner.refused(&["esm", "revoke", "pod.esm", "--machine", "hardware.pem"]);
    assert!(last.contains("no machine would be left"), "{last}");
    let gone = world.owner.refused(&["esm", "revoke", "pod.esm", "--machine", "machine.pem"]);
    assert!(gone.contains("has no lockbox"), "{gone}");
}

#[test]
fn a_blob_that_was_changed_gets_no_more_machines() {
    let world = World::new();
    world.make("pod.esm", &["machine.pem"]);
    let hardware = include_str!("../../attestation/verifier/testdata/pef/machine-1.pem");
    world.owner.write("hardware.pem", hardware);
    let good = EsmBlob::parse(&world.blob("pod.esm")).unwrap();
    let refused = |blob: &EsmBlob| {
        std::fs::write(world.owner.path("pod.esm"), blob.encode().unwrap()).unwrap();
        world.owner.refused(&["esm", "authorize", "pod.esm", "--machine", "hardware.pem"])
    };
    let mut changed = good.clone();
    changed.digests.ciphertext[0] ^= 1;
    assert!(refused(&changed).contains("digests don't decrypt"));
    let mut changed = good.clone();
    changed.digests = good.files[0].sealed.clone();
    assert!(refused(&changed).contains("digests are not digests"));
    let mut changed = good.clone();
    changed.files.clear();
    assert!(refused(&changed).contains("holds other files"));
    let mut changed = good.clone();
    changed.files[0].sealed = good.digests.clone();
    assert!(refused(&changed).contains("its file is not what"));
    let mut changed = good;
    changed.lockboxes[0].encrypted_key[9] ^= 1;
    assert!(refused(&changed).contains("does not open"));
    assert_eq!(world.record("pod.esm").serial, 1, "nothing was pushed or written");
}

#[test]
fn keys_and_files_of_other_kinds_are_refused_before_anything_is_written() {
    let world = World::new();
    let make = |machine: &str, initrd: &str| {
        let files = ["--kernel", "kernel", "--initrd", initrd, "--append", APPEND, "--machine", machine];
        world
            .owner
            .refused(&[&["esm", "make", "pod-sealed.key.json"][..], &files, &["-o", "pod.esm"]].concat())
    };
    world.owner.write("p256.pem", include_str!("../../attestation/verifier/testdata/pef/p256.pem"));
    assert!(make("p256.pem", "initrd").contains("not an RSA key"));
    world.owner.write("crlf.pem", &world.tpm.public_pem().replace('\n', "\r\n"));
    assert!(make("crlf.pem", "initrd").contains("PEM"));
    assert!(!world.owner.path("pod.esm").exists() && !world.owner.path("id/esm-origin.pem").exists());
    world.make("good.esm", &["machine.pem"]);
    world.owner.good(&["esm", "attach", "good.esm", "--initrd", "initrd", "--output", "whole"]);
    assert!(make("machine.pem", "whole").contains("has a blob in front already"));
    world.owner.write("not.esm", "text");
    assert!(world.owner.refused(&["esm", "show", "not.esm"]).contains("ESM blob"));
    let mode = std::fs::metadata(world.owner.path("id/esm-origin.pem")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}
