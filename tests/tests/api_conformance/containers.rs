//! Containers: create, start, remove, and that they are what their specification says.

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::oci::{POSIXRlimit, User};
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Kata, fails, spec, unique};
use ttrpc::Code;

use crate::{Bench, MAIN};

/// What a container prints that runs `script`, its request changed by `change`.
pub(crate) async fn printed(
    kata: &Kata,
    script: &str,
    change: impl FnOnce(&mut wire::CreateContainerRequest),
) -> Result<String> {
    let mut request = spec::container(&unique("c"), &["/bin/sh", "-c", script]);
    change(&mut request);
    kata.run(&request).await?.good()
}

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    life(checks, kata).await;
    specification(checks, kata).await;
    namespaces(checks, kata).await;
}

async fn life(checks: &mut Checks, kata: &Kata) {
    checks
        .that("CreateContainer accepts, and nothing runs before StartContainer", async {
            let mut request = spec::container("held", &["/bin/touch", "/mnt/ran"]);
            request.OCI.mut_or_insert_default().Mounts.push(spec::mount(
                "/mnt",
                spec::SHM,
                "bind",
                &["rbind"],
            ));
            kata.create(&request).await?;
            let before = kata.exec(MAIN, &["test", "-e", "/dev/shm/ran"]).await?;
            ensure!(before.status == 1, "it ran before it was started");
            kata.start("held").await?;
            kata.follow("held", "").await?.good()?;
            kata.remove("held").await?;
            kata.exec(MAIN, &["test", "-e", "/dev/shm/ran"]).await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that("StartContainer accepts a created container", async {
            ensure!(printed(kata, "echo started", |_| ()).await? == "started");
            Ok(())
        })
        .await;
    checks
        .that("StartContainer refuses a container that isn't there", async {
            fails(kata.start("nobody").await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses ids that are paths", async {
            for id in ["../escape", "a/b", "", "."] {
                let mut request = spec::container("plain", &["true"]);
                request.container_id = id.to_owned();
                fails(kata.create(&request).await, &[Code::INVALID_ARGUMENT, Code::INTERNAL])?;
            }
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses a request without a specification", async {
            let mut request = spec::container("unspecified", &["true"]);
            request.OCI = MessageField::none();
            fails(kata.create(&request).await, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses a program that isn't there, and its id can be used again", async {
            let mut request = spec::container("again", &["/bin/nothing"]);
            if kata.create(&request).await.is_ok() {
                fails(kata.start("again").await, &[Code::INTERNAL])?;
                kata.remove("again").await?;
            }
            request = spec::container("again", &["/bin/true"]);
            kata.run(&request).await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that("RemoveContainer accepts a container that was never started", async {
            kata.create(&spec::container("unstarted", &["true"])).await?;
            Ok(kata.remove("unstarted").await?)
        })
        .await;
    checks
        .that("RemoveContainer accepts a running container, and ends it", async {
            kata.create(&spec::container("running", &["sleep", "1000"])).await?;
            kata.start("running").await?;
            Ok(kata.remove("running").await?)
        })
        .await;
    checks
        .that("RemoveContainer refuses a container that isn't there", async {
            fails(kata.remove("nobody").await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts an id again after RemoveContainer", async {
            for round in 0..3 {
                let text = round.to_string();
                let ended = kata.run(&spec::container("same", &["echo", &text])).await?;
                ensure!(ended.good()? == text);
            }
            Ok(())
        })
        .await;
}

async fn specification(checks: &mut Checks, kata: &Kata) {
    checks
        .that("CreateContainer accepts env, cwd and arguments", async {
            let text = printed(kata, "echo $COLOUR; pwd; hostname", |request| {
                let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
                process.Env.push("COLOUR=blue sky".to_owned());
                process.Cwd = "/etc".to_owned();
            })
            .await?;
            ensure!(text == "blue sky\n/etc\npod", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts user and groups", async {
            let text = printed(kata, "id -u; id -g; id -G", |request| {
                let user = User { UID: 1000, GID: 1000, AdditionalGids: vec![2000], ..Default::default() };
                request.OCI.mut_or_insert_default().Process.mut_or_insert_default().User =
                    MessageField::some(user);
            })
            .await?;
            ensure!(text == "1000\n1000\n1000 2000", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts capabilities as named, and no others", async {
            let script = "grep -E '^(CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status";
            let text = printed(kata, script, |request| {
                let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
                process.Capabilities = MessageField::some(spec::capabilities(&["CHOWN", "SYS_ADMIN"]));
            })
            .await?;
            let squeezed: Vec<String> = text.lines().map(|line| line.split_whitespace().collect()).collect();
            let set = format!("{:016x}", 1 | 1 << 21);
            let wanted = [format!("CapEff:{set}"), format!("CapBnd:{set}"), "NoNewPrivs:1".to_owned()];
            ensure!(wanted.iter().all(|line| squeezed.contains(line)), "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts rlimits", async {
            let text = printed(kata, "ulimit -n; ulimit -Hn", |request| {
                let limit = POSIXRlimit {
                    Type: "RLIMIT_NOFILE".to_owned(),
                    Hard: 333,
                    Soft: 222,
                    ..Default::default()
                };
                request.OCI.mut_or_insert_default().Process.mut_or_insert_default().Rlimits.push(limit);
            })
            .await?;
            ensure!(text == "222\n333", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts masked and read-only paths and a read-only root", async {
            let script = "cat /proc/keys; echo other > /proc/sys/kernel/hostname; touch /file; echo x > /tmp/file; cat /tmp/file";
            let ended = kata.run(&spec::container("masked", &["/bin/sh", "-c", script])).await?;
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            ensure!(ended.text() == "x", "{ended:?}");
            ensure!(errors.matches("Read-only file system").count() == 2, "{errors}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts devices that every container has, and no others", async {
            let text = printed(kata, "ls /dev", |_| ()).await?;
            for name in
                ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "ptmx", "fd", "stdin"]
            {
                ensure!(text.lines().any(|line| line == name), "{name} is missing in {text}");
            }
            for name in ["vda", "vsock", "sev", "kmsg", "mem", "ttyS0", "console"] {
                ensure!(!text.lines().any(|line| line.starts_with(name)), "{name} is in {text}");
            }
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts sysctls of the pod's namespaces", async {
            let text = printed(kata, "cat /proc/sys/kernel/shm_rmid_forced", |request| {
                let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
                linux.Sysctl.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
            })
            .await?;
            ensure!(text == "1", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts an OOM score", async {
            let text = printed(kata, "cat /proc/self/oom_score_adj", |request| {
                request.OCI.mut_or_insert_default().Process.mut_or_insert_default().OOMScoreAdj = 777;
            })
            .await?;
            ensure!(text == "777", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts a seccomp profile, and it holds", async {
            let ended = {
                let mut request = spec::container("filtered", &["/bin/sh", "-c", "mkdir /tmp/x"]);
                let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
                let denied = protocols::oci::LinuxSyscall {
                    Names: spec::strings(&["mkdir", "mkdirat"]),
                    Action: "SCMP_ACT_ERRNO".to_owned(),
                    ..Default::default()
                };
                linux.Seccomp = MessageField::some(protocols::oci::LinuxSeccomp {
                    DefaultAction: "SCMP_ACT_ALLOW".to_owned(),
                    Architectures: spec::strings(&["SCMP_ARCH_X86_64"]),
                    Syscalls: vec![denied],
                    ..Default::default()
                });
                kata.run(&request).await?
            };
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            ensure!(ended.status == 1 && errors.contains("not permitted"), "{ended:?}");
            Ok(())
        })
        .await;
}

async fn namespaces(checks: &mut Checks, kata: &Kata) {
    checks
        .that("CreateContainer accepts: containers share ipc and uts, not pids and mounts", async {
            let script = "for kind in ipc uts net pid mnt; do stat -L -c %i /proc/self/ns/$kind; done";
            let (one, other) = (printed(kata, script, |_| ()).await?, printed(kata, script, |_| ()).await?);
            let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
            ensure!(one.len() == 5 && other.len() == 5, "{one:?} {other:?}");
            ensure!(one[..3] == other[..3], "ipc, uts or net differ: {one:?} {other:?}");
            let main = kata.exec(MAIN, &["/bin/sh", "-c", script]).await?.good()?;
            let main: Vec<&str> = main.lines().collect();
            ensure!(main[..3] == one[..3], "ipc, uts or net differ: {main:?} {one:?}");
            ensure!(main[3] != one[3] && main[4] != one[4], "pid or mnt is shared: {main:?} {one:?}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts: a container sees its own processes alone", async {
            let text = printed(kata, "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; true", |_| ()).await?;
            let mut lines = text.lines();
            let count: usize = lines.next().unwrap_or_default().parse()?;
            ensure!(count <= 4, "{count} processes");
            ensure!(lines.next() == Some("sh"), "{text}");
            Ok(())
        })
        .await;
}
