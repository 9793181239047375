//! Storages and devices of containers and the sandbox.

use anyhow::{Result, ensure};
use protocols::agent as wire;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, Kata, answer_of, fails, soon, spec, unique};
use ttrpc::Code;

use crate::containers::printed;
use crate::{Bench, MAIN};

fn storage(driver: &str, source: &str, kind: &str, options: &[&str], at: &str) -> wire::Storage {
    wire::Storage {
        driver: driver.to_owned(),
        source: source.to_owned(),
        fstype: kind.to_owned(),
        options: spec::strings(options),
        mount_point: at.to_owned(),
        ..Default::default()
    }
}

/// What `script` prints in a container that has `storage` at /mnt.
async fn with(kata: &Kata, storage: wire::Storage, script: &str) -> Result<String> {
    printed(kata, script, |request| {
        let at = storage.mount_point.clone();
        request.storages.push(storage);
        request.OCI.mut_or_insert_default().Mounts.push(spec::mount("/mnt", &at, "bind", &["rbind", "rw"]));
    })
    .await
}

fn at(name: &str) -> String {
    format!("/run/kata-containers/sandbox/storage/{}", unique(name))
}

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    drivers(checks, bench).await;
    missing(checks, bench.kata()).await;
    devices(checks, bench).await;
    volumes(checks, bench).await;
}

async fn drivers(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    checks
        .that("CreateContainer accepts a blk volume, and what was written stays", async {
            let volume = |at: String| storage("blk", &bench.volume, "ext4", &[], &at);
            with(kata, volume(at("blk")), "echo kept > /mnt/file").await?;
            let text = with(kata, volume(at("blk")), "cat /mnt/file; grep ' /mnt ' /proc/mounts").await?;
            ensure!(text.starts_with("kept\n") && text.contains(" ext4 rw"), "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts a scsi volume", async {
            let source = format!("0:{}", bench.scsi);
            let text =
                with(kata, storage("scsi", &source, "ext4", &[], &at("scsi")), "grep ' /mnt ' /proc/mounts")
                    .await?;
            ensure!(text.contains("/dev/sd") && text.contains(" ext4 "), "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts an ephemeral volume with every option kept", async {
            let options = ["size=1048576", "noexec", "nodev", "nosuid", "mode=0700"];
            let text = with(
                kata,
                storage("ephemeral", "tmpfs", "tmpfs", &options, &at("ephemeral")),
                "grep ' /mnt ' /proc/mounts; dd if=/dev/zero of=/mnt/big bs=1M count=3; ls -l /mnt/big; stat -c %a /mnt",
            )
            .await?;
            let line = text.lines().next().unwrap_or_default();
            for option in ["nosuid", "nodev", "noexec", "size=1024k"] {
                ensure!(line.contains(option), "{option} is missing in {line}");
            }
            ensure!(text.contains(" 1048576 ") && text.ends_with("700"), "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateSandbox accepts the shm that the runtime asked for, with its size and options", async {
            let text = kata.exec(MAIN, &["grep", " /dev/shm ", "/proc/mounts"]).await?.good()?;
            for option in ["nosuid", "nodev", "noexec", "size=65536k"] {
                ensure!(text.contains(option), "{option} is missing in {text}");
            }
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts a local volume that two containers share", async {
            let place = at("local");
            let local = || storage("local", "local", "local", &["mode=0777"], &place);
            kata.create(&{
                let mut request =
                    spec::container("first", &["/bin/sh", "-c", "echo shared > /mnt/file; sleep 1000"]);
                request.storages.push(local());
                request.OCI.mut_or_insert_default().Mounts.push(spec::mount(
                    "/mnt",
                    &place,
                    "bind",
                    &["rbind"],
                ));
                request
            })
            .await?;
            kata.start("first").await?;
            let text = with(kata, local(), "while ! cat /mnt/file 2>/dev/null; do sleep 0.1; done").await?;
            ensure!(text == "shared", "{text}");
            // Someone still has it after another is gone.
            kata.exec("first", &["cat", "/mnt/file"]).await?.good()?;
            Ok(kata.remove("first").await?)
        })
        .await;
    checks
        .that("CreateContainer accepts an overlay of directories", async {
            let lower = format!("{}/{}", spec::SHARED, unique("lower"));
            let request = crate::files::file(&format!("{lower}/below"), 0o100_644, b"below");
            answer_of(kata.agent().copy_file(soon(), &request).await)?;
            let place = at("overlay");
            let mut overlay = storage("overlayfs", "overlay", "overlay", &[], &place);
            overlay.options =
                vec![format!("lowerdir={lower}"), "io.katacontainers.fs-opt.overlay-rw".to_owned()];
            let text = with(kata, overlay, "cat /mnt/below; echo above > /mnt/above; ls /mnt").await?;
            ensure!(text == "belowabove\nbelow", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts a watchable volume and follows its changes", async {
            let source = format!("{}/{}", spec::SHARED, unique("watched"));
            let put = async |text: &[u8]| {
                let request = crate::files::file(&format!("{source}/key"), 0o100_644, text);
                answer_of(kata.agent().copy_file(soon(), &request).await)
            };
            put(b"one").await?;
            let place = at("watchable");
            let mut request =
                spec::container("watcher", &["/bin/sh", "-c", "until grep two /mnt/key; do sleep 0.2; done"]);
            request.storages.push(storage("watchable-bind", &source, "bind", &["bind", "ro"], &place));
            request.OCI.mut_or_insert_default().Mounts.push(spec::mount("/mnt", &place, "bind", &["rbind"]));
            kata.create(&request).await?;
            kata.start("watcher").await?;
            ensure!(kata.exec("watcher", &["cat", "/mnt/key"]).await?.good()? == "one");
            put(b"two").await?;
            kata.follow("watcher", "").await?.good()?;
            Ok(kata.remove("watcher").await?)
        })
        .await;
}

async fn missing(checks: &mut Checks, kata: &Kata) {
    let create = async |storage: wire::Storage| {
        let mut request = spec::container(&unique("missing"), &["true"]);
        request.storages.push(storage);
        kata.create(&request).await
    };
    let no = [Code::INTERNAL, Code::INVALID_ARGUMENT];
    checks
        .that("CreateContainer refuses a disk that never comes, and names it", async {
            let failure = fails(create(storage("blk", "1e", "ext4", &[], &at("nothing"))).await, &no)?;
            ensure!(failure.message.to_lowercase().contains("1e"), "{failure}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses storage drivers that it doesn't know, and names them", async {
            let failure = fails(create(storage("floppy", "a", "ext4", &[], &at("nothing"))).await, &no)?;
            ensure!(failure.message.contains("floppy"), "{failure}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses a virtio-fs tag that isn't there", async {
            fails(create(storage("virtio-fs", "kataShared", "virtiofs", &[], &at("nothing"))).await, &no)?;
            Ok(())
        })
        .await;
    checks
        .that(
            "CreateContainer refuses a pull of an image that nobody has, answers, and does so again",
            async {
                for _ in 0..2 {
                    let mut pull =
                        storage("image_guest_pull", "127.0.0.1:9/nothing:v1", "overlay", &[], &at("pull"));
                    pull.driver_options = vec![r#"image_guest_pull={"metadata":{}}"#.to_owned()];
                    fails(create(pull).await, &no)?;
                }
                Ok(())
            },
        )
        .await;
    checks
        .that("CreateContainer refuses, and leaves no mounts of what it made on the way", async {
            let mounts = async || -> Result<usize> {
                let text = kata.exec("inspector", &["grep", "-c", "", "/mnt/1/mounts"]).await?.good()?;
                Ok(text.parse()?)
            };
            let mut request = spec::container("inspector", &["sleep", "1000"]);
            request.OCI.mut_or_insert_default().Mounts.push(spec::mount(
                "/mnt",
                "/proc",
                "bind",
                &["rbind", "ro"],
            ));
            kata.create(&request).await?;
            kata.start("inspector").await?;
            let before = mounts().await?;
            for _ in 0..3 {
                fails(create(storage("floppy", "a", "ext4", &[], &at("nothing"))).await, &no)?;
            }
            let after = mounts().await?;
            kata.remove("inspector").await?;
            ensure!(before == after, "{before} mounts became {after}");
            Ok(())
        })
        .await;
}

async fn devices(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    let device = |at: &str| wire::Device {
        id: "d".to_owned(),
        type_: "blk".to_owned(),
        vm_path: String::new(),
        container_path: "/dev/disk".to_owned(),
        options: vec![at.to_owned()],
        ..Default::default()
    };
    let linux_device = || protocols::oci::LinuxDevice {
        Path: "/dev/disk".to_owned(),
        Type: "b".to_owned(),
        Major: 9,
        Minor: 9,
        FileMode: 0o660,
        ..Default::default()
    };
    checks
        .that("CreateContainer accepts a block device, numbered as the guest numbers it", async {
            let place = bench.blank.clone();
            let text = printed(
                kata,
                "dd if=/dev/disk bs=4k count=1 2>/dev/null | wc -c; ls -l /dev/disk",
                |request| {
                    let mut wanted = device(&place);
                    wanted.id.clone_from(&place);
                    request.devices.push(wanted);
                    let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
                    linux.Devices.push(linux_device());
                    linux.Resources.mut_or_insert_default().Devices.push(protocols::oci::LinuxDeviceCgroup {
                        Allow: true,
                        Type: "b".to_owned(),
                        Major: 9,
                        Minor: 9,
                        Access: "rwm".to_owned(),
                        ..Default::default()
                    });
                },
            )
            .await?;
            ensure!(text.starts_with("4096\n") && !text.contains("9,   9"), "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses a device of an unknown kind", async {
            let mut request = spec::container(&unique("device"), &["true"]);
            request.devices.push(wire::Device { type_: "floppy".to_owned(), ..device("a") });
            fails(kata.create(&request).await, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

async fn volumes(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    let stats = async |path: &str| -> Answer<protocols::csi::VolumeStatsResponse> {
        let mut request = wire::VolumeStatsRequest::new();
        request.volume_guest_path = path.to_owned();
        answer_of(kata.agent().get_volume_stats(soon(), &request).await)
    };
    checks
        .that("GetVolumeStats accepts and tells bytes and inodes", async {
            let answer = stats(spec::SHM).await?;
            let usage = |unit: i32| answer.usage.iter().find(|one| one.unit.value() == unit);
            let (bytes, inodes) = (usage(1), usage(2));
            let total = bytes.map(|bytes| bytes.total);
            ensure!(total == Some(67_108_864), "{answer:?}");
            ensure!(inodes.is_some_and(|inodes| inodes.total > 0), "{answer:?}");
            Ok(())
        })
        .await;
    checks
        .that("GetVolumeStats refuses a path that isn't there: INTERNAL", async {
            fails(stats("/run/kata-containers/nothing").await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    let resize = async |path: &str, size: u64| {
        let mut request = wire::ResizeVolumeRequest::new();
        (request.volume_guest_path, request.size) = (path.to_owned(), size);
        answer_of(kata.agent().resize_volume(soon(), &request).await).map(drop)
    };
    checks
        .that("ResizeVolume accepts the size of a disk that has grown", async {
            let place = at("growing");
            let mut request = spec::container("growing", &["sleep", "1000"]);
            request.storages.push(storage("blk", &bench.growing, "ext4", &[], &place));
            request.OCI.mut_or_insert_default().Mounts.push(spec::mount(
                "/mnt",
                &place,
                "bind",
                &["rbind", "rw"],
            ));
            kata.create(&request).await?;
            kata.start("growing").await?;
            resize(&place, 16 << 20).await?;
            let total =
                stats(&place).await?.usage.iter().find(|one| one.unit.value() == 1).map(|one| one.total);
            ensure!(total.is_some_and(|total| total > 12 << 20), "{total:?}");
            Ok(kata.remove("growing").await?)
        })
        .await;
    checks
        .that("ResizeVolume refuses paths that are no volumes", async {
            for path in ["/", "/run/kata-containers/nothing", spec::SHM] {
                let answer = resize(path, 1 << 30).await;
                fails(answer, &[Code::INVALID_ARGUMENT, Code::INTERNAL, Code::UNIMPLEMENTED])?;
            }
            Ok(())
        })
        .await;
    checks
        .that("UpdateEphemeralMounts accepts a new size", async {
            let mut request = wire::UpdateEphemeralMountsRequest::new();
            let mut shm = spec::shm();
            shm.options =
                spec::strings(&["noexec", "nosuid", "nodev", "mode=1777", "size=33554432", "remount"]);
            request.storages = vec![shm];
            answer_of(kata.agent().update_ephemeral_mounts(soon(), &request).await)?;
            ensure!(stats(spec::SHM).await?.usage.iter().any(|one| one.total == 33_554_432));
            Ok(())
        })
        .await;
    checks
        .that("UpdateEphemeralMounts refuses what isn't ephemeral", async {
            let mut request = wire::UpdateEphemeralMountsRequest::new();
            request.storages = vec![storage("blk", "10", "ext4", &[], &at("disk"))];
            let answer = answer_of(kata.agent().update_ephemeral_mounts(soon(), &request).await);
            fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("RemoveStaleVirtiofsShareMounts accepts", async {
            let request = wire::RemoveStaleVirtiofsShareMountsRequest::new();
            answer_of(kata.agent().remove_stale_virtiofs_share_mounts(soon(), &request).await)?;
            Ok(())
        })
        .await;
}
