//! What a test runs inside a container: bytes that can be recognised, and everything that root with all
//! capabilities might try against the guest. Each attempt prints a line, `NAME: OUTCOME`, where the outcome is
//! `reached` or the error's name.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use sealpod_tests::pattern;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["pattern", length] => length.parse().map_err(io::Error::other).and_then(write_pattern),
        ["attack"] => attack(Path::new("/tmp")),
        ["unix", path] => {
            report(&format!("unix {path}"), UnixStream::connect(path).map(drop));
            Ok(())
        }
        _ => Err(io::Error::other("probe pattern LENGTH | attack | unix PATH")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_pattern(length: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut at = 0;
    while at < length {
        let piece: Vec<u8> = (at..length.min(at + 64 * 1024)).map(pattern::byte).collect();
        out.write_all(&piece)?;
        at += piece.len();
    }
    out.flush()
}

fn report<T>(name: &str, outcome: io::Result<T>) {
    let outcome = match outcome {
        Ok(_) => "reached".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => error.to_string(),
        },
    };
    println!("{name}: {outcome}");
}

/// Opens and reads a byte: some devices refuse only then.
fn read(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    file.read_exact(&mut [0])
}

fn attack(scratch: &Path) -> io::Result<()> {
    devices(scratch)?;
    sockets();
    processes();
    kernel(scratch)?;
    Ok(())
}

/// Every device that the kernel has, made anew: what `/dev` leaves out is a `mknod` away.
fn devices(scratch: &Path) -> io::Result<()> {
    for name in
        ["sev-guest", "sev", "tdx_guest", "vsock", "mem", "kmem", "port", "kmsg", "vda", "cuse", "fuse"]
    {
        let path = Path::new("/dev").join(name);
        report(&format!("open {}", path.display()), OpenOptions::new().read(true).open(path));
    }
    let harmless = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    let mut made = vec![(1, 1, "mem".to_owned()), (1, 4, "port".to_owned()), (1, 11, "kmsg".to_owned())];
    made.extend([(5, 1, "console".to_owned()), (4, 64, "ttyS0".to_owned()), (10, 183, "hwrng".to_owned())]);
    for line in fs::read_to_string("/proc/misc").unwrap_or_default().lines() {
        if let Some((minor, name)) = line.trim().split_once(' ')
            && let Ok(minor) = minor.parse()
        {
            made.push((10, minor, format!("misc-{name}")));
        }
    }
    for (major, minor, name) in made {
        if harmless.contains(&(major, minor)) {
            continue;
        }
        let path = scratch.join(format!("node-{major}-{minor}"));
        let node =
            mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(major, minor)).map_err(io::Error::from);
        let opened = node.and_then(|()| OpenOptions::new().read(true).open(&path).map(drop));
        report(&format!("device {name} ({major}, {minor})"), opened);
        let _ = fs::remove_file(path);
    }
    for entry in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(number) = fs::read_to_string(entry.path().join("dev")) else { continue };
        let Some((major, minor)) = number.trim().split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        let path = scratch.join(format!("block-{name}"));
        let node =
            mknod(&path, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(major, minor)).map_err(io::Error::from);
        report(&format!("disk {name}"), node.and_then(|()| read(&path)));
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn sockets() {
    for (cid, port) in [(1, 1024), (2, 4050), (2, 4051), (3, 1024), (u32::MAX, 1024)] {
        let made = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_NONBLOCK, None);
        let reached = made.and_then(|socket| match connect(socket.as_raw_fd(), &VsockAddr::new(cid, port)) {
            Err(Errno::EINPROGRESS) => Ok(()),
            other => other,
        });
        report(&format!("vsock {cid}:{port}"), reached.map_err(io::Error::from));
    }
    // Abstract names belong to the network namespace, which containers share with the agent.
    for line in fs::read_to_string("/proc/net/unix").unwrap_or_default().lines().skip(1) {
        if let Some(name) = line.split_whitespace().nth(7) {
            if name.starts_with('@') {
                println!("abstract socket {name}: reached");
            } else {
                report(&format!("unix {name}"), UnixStream::connect(name).map(drop));
            }
        }
    }
}

fn processes() {
    let mut agents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if program.to_string_lossy().contains("agent") || program == Path::new("/init") {
            agents.push(pid);
        }
    }
    report(
        "the agent among the processes",
        if agents.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(()) },
    );
    for pid in agents {
        report(&format!("memory of {pid}"), read(Path::new(&format!("/proc/{pid}/mem"))));
        report(&format!("root of {pid}"), fs::read_dir(format!("/proc/{pid}/root")));
        let seized = nix::sys::ptrace::attach(nix::unistd::Pid::from_raw(pid)).map_err(io::Error::from);
        report(&format!("ptrace of {pid}"), seized);
    }
    for path in
        ["/run/sealpod", "/proc/1/root/run/sealpod", "/proc/1/root/sealpod-agent", "/proc/1/root/init"]
    {
        report(path, fs::symlink_metadata(path));
    }
}

/// Files through which the kernel does what it is told, found through mounts of one's own.
fn kernel(scratch: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    for (kind, names) in [
        ("proc", ["kcore", "sys/kernel/core_pattern", "sys/kernel/modprobe", "sysrq-trigger"].as_slice()),
        ("sysfs", ["kernel/uevent_helper", "kernel/debug", "firmware/acpi/tables/data"].as_slice()),
        ("devtmpfs", ["sev-guest", "vsock", "mem", "vda", "ttyS0", "kmsg"].as_slice()),
        ("debugfs", ["sched"].as_slice()),
        ("tracefs", ["trace"].as_slice()),
        ("securityfs", ["lockdown", "coco"].as_slice()),
        ("configfs", ["tsm"].as_slice()),
        ("cgroup", ["release_agent"].as_slice()),
    ] {
        let place = scratch.join(kind);
        fs::create_dir_all(&place)?;
        let mounted = mount(Some(kind), &place, Some(kind), MsFlags::empty(), none).map_err(io::Error::from);
        if let Err(error) = mounted {
            report::<()>(&format!("mount {kind}"), Err(error));
            continue;
        }
        for name in names {
            let path = place.join(name);
            report(&format!("{kind} {name}"), open(&path));
        }
        let _ = nix::mount::umount(&place);
    }
    Ok(())
}

/// For writing where it is a file: reading these tells nothing.
fn open(path: &PathBuf) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        return fs::read_dir(path).map(drop);
    }
    let write = kind.is_file();
    let opened =
        OpenOptions::new().read(kind.is_char_device() || kind.is_block_device()).write(write).open(path)?;
    if write && path.ends_with("kernel/core_pattern") {
        // Opening is no harm where writing is refused.
        (&opened).write_all(b"|/tmp/evil\n")?;
    }
    Ok(())
}
