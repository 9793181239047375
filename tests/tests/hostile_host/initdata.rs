//! What can only be tried with a guest of its own: initdata that is absent, fails, lies or is a bomb, and an image
//! that is one.

use std::path::Path;

use anyhow::Context;
use launcher::DEFAULT_APPEND;
use protocols::refusal::Code;
use sealed_spec::initdata;
use sealpod_tests::disk;
use sealpod_tests::image::Extra;

use crate::support::{in_vm, inspected};
use crate::{stage, world};

const MAGIC: &[u8] = b"initdata";

#[tokio::test]
async fn no_device_where_the_launch_names_one() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    host.host_data = Some(initdata::digest(&host.initdata));
    host.device = Some(Vec::new());
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::InitdataMissing);
}

#[tokio::test]
async fn a_device_that_fails_where_the_launch_names_one() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    host.host_data = Some(initdata::digest(&host.initdata));
    host.device = Some(Vec::new());
    let failing = stage.world.directory().join("failing.img");
    disk::blank(&failing, 1 << 20).unwrap();
    host.disks.push(launcher::Disk { unreadable: true, ..launcher::Disk::new(failing) });
    let refusal = host.refusal(&stage.state()).await.unwrap();
    assert!(matches!(refusal.code, Code::InitdataMissing | Code::InitdataInvalid), "{refusal}");
}

#[tokio::test]
async fn a_length_that_no_device_has() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    let mut device = MAGIC.to_vec();
    device.extend((u64::MAX - 7).to_le_bytes());
    device.resize(4096, 0);
    host.device = Some(device);
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::InitdataInvalid);
}

#[tokio::test]
async fn initdata_that_is_a_bomb() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'#'), 256 << 20), &mut gzip).unwrap();
    let packed = gzip.finish().unwrap();
    let mut device = MAGIC.to_vec();
    device.extend((packed.len() as u64).to_le_bytes());
    device.extend(&packed);
    device.resize(device.len().next_multiple_of(512), 0);
    host.device = Some(device);
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::InitdataInvalid);
}

const TWO: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: bombed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: registry.example/probe:v1
      command: [\"/bin/sleep\", \"1000000\"]
      livenessProbe: {exec: {command: [\"/bin/echo\", \"alive\"]}}
    - name: bomb
      image: registry.example/bomb:v1
      command: [\"/bin/sleep\", \"1000000\"]
";

#[tokio::test]
async fn an_image_that_unpacks_to_more_than_the_guest_has() {
    let _vm = in_vm();
    let world = world();
    world.registry().push("bomb", &Extra { zeros: 600 << 20, ..Extra::default() }).unwrap();
    let manifest = world.directory().join("bombed.yaml");
    std::fs::write(&manifest, TWO).unwrap();
    let stage = stage(world, Path::new(&manifest), &["--grant-logs", "clear"], DEFAULT_APPEND);
    let host = stage.honest_host().unwrap();
    let mut running = host.boot(&stage.state()).await.unwrap();
    running.pod.start_sandbox().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    let [main, bomb] = host.pod.containers.as_slice() else { panic!("the pod has two containers") };
    let main = running.pod.start_container(main).await.unwrap();
    let error = running.pod.start_container(bomb).await.unwrap_err();
    let refusal = error.refusal().with_context(|| error.to_string()).unwrap();
    assert!(matches!(refusal.code, Code::ImageUnpack | Code::ImagePull), "{refusal}");
    let probe = ["/sealpod", "probe", "main/liveness"].map(str::to_owned);
    let outcome = running.pod.exec("main", &probe).await.unwrap().wait().await.unwrap();
    assert_eq!(outcome.stdout, b"alive\n", "{outcome:?}\n{}", running.console());
    assert!(!main.ended());
}
