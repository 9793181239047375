//! A guest really boots: needs QEMU, and a kernel named by `SEALPOD_TEST_KERNEL`; skipped with a word otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use launcher::{Accelerator, BootError, BootOptions, Choice, Guest, GuestManifest};

fn kernel() -> Option<PathBuf> {
    let kernel = std::env::var_os("SEALPOD_TEST_KERNEL").map(PathBuf::from);
    let qemu = std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    match kernel {
        Some(kernel) if qemu && kernel.is_file() => Some(kernel),
        _ => {
            eprintln!("skipped: needs qemu-system-x86_64 and SEALPOD_TEST_KERNEL=<bzImage>");
            None
        }
    }
}

fn manifest(kernel: &Path, directory: &Path) -> GuestManifest {
    std::fs::write(directory.join("initrd"), "not an archive").unwrap();
    std::fs::write(directory.join("firmware"), "").unwrap();
    let text = format!(
        "firmware = 'firmware'\nkernel = '{}'\ninitrd = 'initrd'\ncpu_model = 'EPYC-Milan'\nmemory_mib = 256\n\
         [platform]\nkind = 'snp'",
        kernel.display()
    );
    GuestManifest::parse(&text, directory).unwrap()
}

/// The emulated platform without its emulator: `true` says nothing and ends.
fn emulated(kernel: &Path, directory: &Path, emulator: &str) -> GuestManifest {
    let mut manifest = manifest(kernel, directory);
    manifest.platform = launcher::Platform::SnpEmulated {
        emulator: PathBuf::from(emulator),
        state: directory.join("state"),
        policy: launcher::DEFAULT_SNP_POLICY,
    };
    manifest
}

fn options(directory: &Path) -> BootOptions {
    BootOptions {
        accelerator: Choice::Fixed(Accelerator::Tcg),
        state_dir: directory.join("cache"),
        runtime_dir: Some(directory.join("run")),
        ..Default::default()
    }
}

fn left_over(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory.join("run"))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default()
}

/// A script that behaves like `sealpod-emulator serve`: says it is ready, ends with its standard input.
fn ready_emulator(directory: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join("emulator");
    std::fs::write(&path, "#!/bin/sh\necho ready\nexec cat >/dev/null\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A newc archive with the example `echo_init`, which Cargo builds with the tests, as `/init`.
fn echo_initrd(directory: &Path) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let init = std::fs::read(tests.parent().unwrap().with_file_name("examples").join("echo_init"))
        .expect("cargo test builds it; with --test, run cargo build -p launcher --example echo_init first");
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        let size = u32::try_from(data.len()).unwrap();
        let name_size = u32::try_from(name.len() + 1).unwrap();
        archive.extend(b"070701");
        for field in [0, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0] {
            archive.extend(format!("{field:08x}").bytes());
        }
        for part in [format!("{name}\0").as_bytes(), data] {
            archive.extend(part);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    };
    entry("dev", 0o040_755, (0, 0), b"");
    entry("dev/console", 0o020_600, (5, 1), b"");
    entry("init", 0o100_755, (0, 0), &init);
    entry("TRAILER!!!", 0, (0, 0), b"");
    let path = directory.join("echo");
    std::fs::write(&path, archive).unwrap();
    path
}

/// The kernel comes up, finds no `/init` and panics: `panic=-1` ends the VM, and the error shows the console.
#[tokio::test]
async fn a_guest_that_does_not_come_up_shows_its_console_and_leaves_nothing() {
    let Some(kernel) = kernel() else { return };
    let directory = tempfile::tempdir().unwrap();
    let manifest = emulated(&kernel, directory.path(), &ready_emulator(directory.path()));
    let guest = Guest::boot(&manifest, &options(directory.path())).await.unwrap();
    let pid = guest.qemu_pid();
    let error = guest.connect().await.unwrap_err();
    assert!(matches!(error, BootError::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Kernel panic"), "{text}");
    drop(guest);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(left_over(directory.path()).is_empty());
}

#[tokio::test]
async fn an_emulator_that_is_not_ready_is_an_error_that_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bzImage"), "").unwrap();
    let kernel = directory.path().join("bzImage");
    for (emulator, named) in [("true", "it ended"), ("/nonexistent/emulator", "/nonexistent/emulator")] {
        let manifest = emulated(&kernel, directory.path(), emulator);
        let error = Guest::boot(&manifest, &options(directory.path())).await.unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(left_over(directory.path()).is_empty());
    }
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_named_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("bzImage");
    std::fs::write(&kernel, "").unwrap();
    let manifest = emulated(&kernel, directory.path(), "true");
    let mut options = options(directory.path());
    options.relay_socket = Some(directory.path().join("relay.sock"));
    let error = Guest::boot(&manifest, &options).await.unwrap_err();
    assert!(matches!(error, BootError::Relay { .. }), "{error}");
    assert!(error.to_string().contains("sealpod-relay"), "{error}");
    assert!(left_over(directory.path()).is_empty());
}

#[tokio::test]
async fn a_qemu_that_is_not_installed_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("bzImage");
    std::fs::write(&kernel, "").unwrap();
    let mut manifest = emulated(&kernel, directory.path(), &ready_emulator(directory.path()));
    manifest.qemu = PathBuf::from("/nonexistent/qemu");
    let error = Guest::boot(&manifest, &options(directory.path())).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/qemu") && error.contains("is it installed"), "{error}");
    assert!(left_over(directory.path()).is_empty());
}

/// A SEV guest without anybody to launch it is refused before anything starts; with one, its words are the wrapper's,
/// and what it refuses is shown.
#[tokio::test]
async fn a_launch_that_the_relay_refuses_is_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("bzImage");
    std::fs::write(&kernel, "").unwrap();
    let mut manifest = manifest(&kernel, directory.path());
    manifest.platform = launcher::Platform::SevEmulated {
        es: true,
        emulator: PathBuf::from("sealpod-emulator"),
        state: directory.path().join("state"),
    };
    let mut options = options(directory.path());
    let error = Guest::boot(&manifest, &options).await.unwrap_err();
    assert!(matches!(error, BootError::NoSevOptions), "{error}");

    let relay = directory.path().join("relay");
    let script = "#!/bin/sh\ngrep -q sev-qemu \"$SEALPOD_RELAY_CONFIG\" && [ \"$1\" = qemu ] || exit 2\n\
                  echo \"sealpod[LAUNCH_DIGEST]: 00 is not in policy web\" >&2\nkill -9 $$\n";
    std::fs::write(&relay, script).unwrap();
    std::fs::set_permissions(&relay, std::fs::Permissions::from_mode(0o755)).unwrap();
    options.sev = Some(launcher::SevOptions {
        relay,
        broker: "https://broker.example".to_owned(),
        broker_ca: "-----BEGIN CERTIFICATE-----".to_owned(),
    });
    let guest = Guest::boot(&manifest, &options).await.unwrap();
    let error = guest.connect().await.unwrap_err();
    assert!(matches!(error, BootError::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("sealpod[LAUNCH_DIGEST]: 00 is not in policy web"), "{text}");
    drop(guest);
    assert!(left_over(directory.path()).is_empty());
}

/// Not a test: what the next one kills. Starts a child as the launcher does, says its pid, and waits.
#[test]
#[ignore = "run by a_killed_launcher_takes_its_children_along"]
fn victim() {
    let mut command = std::process::Command::new("sleep");
    command.arg("1000");
    let child = launcher::Process::spawn(command).unwrap();
    println!("\nchild {}", child.id());
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn a_killed_launcher_takes_its_children_along() {
    use std::io::{BufRead as _, BufReader};
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let child =
        lines.map(Result::unwrap).find_map(|line| line.strip_prefix("child ").map(str::to_owned)).unwrap();
    let status = PathBuf::from(format!("/proc/{child}/stat"));
    assert!(status.exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    // Gone, or a zombie that this machine's first process has not reaped yet.
    let alive = || std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z "));
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while alive() && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive());
}

/// Both directions, half-close, many at once, and nobody at a port: what ttrpc and the relay stand on.
#[tokio::test]
async fn vsock_carries_bytes() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};
    let Some(kernel) = kernel() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut manifest = emulated(&kernel, directory.path(), &ready_emulator(directory.path()));
    manifest.initrd = echo_initrd(directory.path());
    let relay = directory.path().join("relay.sock");
    let listener = UnixListener::bind(&relay).unwrap();
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        all
    });
    let options = BootOptions { relay_socket: Some(relay), ..options(directory.path()) };
    let guest = Guest::boot(&manifest, &options).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let mut stream = loop {
        let mut stream = UnixStream::connect(guest.vsock_socket()).await.unwrap();
        let _ = stream.write_all(b"CONNECT 1024\n").await;
        let mut ok = [0; "OK 1073741824\n".len()];
        if stream.read_exact(&mut ok).await.is_ok() {
            break stream;
        }
        assert!(std::time::Instant::now() < deadline, "{}", guest.console_tail(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };

    let sent: Vec<u8> =
        (0..4 * 1024 * 1024u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut received = vec![0; sent.len()];
    let (mut read, mut write) = stream.split();
    let (wrote, was_read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
    wrote.unwrap();
    was_read.unwrap();
    assert!(received == sent);

    assert_eq!(host.await.unwrap(), vec![7; 1024 * 1024]);
    while !guest.console_tail(20).contains("port 4999") {
        assert!(std::time::Instant::now() < deadline, "{}", guest.console_tail(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let console = guest.console_tail(20);
    assert!(console.contains("1048576 bytes came back"), "{console}");
    assert!(console.contains("port 4999: ECONNRESET"), "{console}");

    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = UnixStream::connect(guest.vsock_socket()).await.unwrap();
        stream.write_all(b"CONNECT 1024\n").await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        let mut ok = [0; "OK 1073741824\n".len()];
        stream.read_exact(&mut ok).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
    }
    for stream in &mut streams {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
    }
}
