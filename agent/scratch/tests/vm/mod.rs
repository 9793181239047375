//! A guest whose first process is the example `scratch_init`, told what to do over its second serial port.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const MANIFEST: &str = "
[[file]]
path = '/init'
mode = 0o755
input = 'init'
[[directory]]
path = '/dev'
mode = 0o755
[[node]]
path = '/dev/console'
mode = 0o600
kind = 'char'
major = 5
minor = 1
[[directory]]
path = '/proc'
mode = 0o555
[[directory]]
path = '/sys'
mode = 0o555
";

/// A running guest; dropping it ends it.
pub(crate) struct Vm {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Vm {
    /// With the disks `/dev/vda`, …; none when this machine can't.
    pub(crate) fn boot(disks: &[Vec<u8>]) -> Option<Vm> {
        let kernel =
            std::env::var_os("SEALPOD_TEST_KERNEL").map(PathBuf::from).filter(|kernel| kernel.is_file());
        let qemu = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
        let (Some(kernel), true) = (kernel, qemu) else {
            eprintln!("skipped: needs qemu-system-x86_64 and SEALPOD_TEST_KERNEL=<bzImage>");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd(directory.path()));
        command.args(["-append", "console=ttyS0 quiet no_timer_check panic=-1"]);
        command.arg("-serial").arg(format!("file:{}", directory.path().join("console").display()));
        command.args(["-serial", "stdio"]);
        for (number, content) in disks.iter().enumerate() {
            let path = directory.path().join(format!("disk{number}"));
            std::fs::write(&path, content).unwrap();
            command.arg("-drive").arg(format!("if=none,id=d{number},format=raw,file={}", path.display()));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=d{number},serial=scratch{number}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut vm = Vm { child, stdin, stdout, directory };
        assert_eq!(vm.answer(), "ready");
        Some(vm)
    }

    /// The next line that is an answer; the terminal also repeats what it is told.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                panic!("the guest ended; its console:\n{}", self.console());
            }
            if let Some(answer) = line.trim_end().strip_prefix("= ") {
                return answer.to_owned();
            }
        }
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        self.answer()
    }

    /// What came of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let answer = self.tell(command);
        let text = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{command}: {answer}"));
        text.trim().to_owned()
    }

    /// Why a command failed.
    #[track_caller]
    pub(crate) fn err(&mut self, command: &str) -> String {
        let answer = self.tell(command);
        answer.strip_prefix("err ").unwrap_or_else(|| panic!("{command} succeeded: {answer}")).to_owned()
    }

    /// What the kernel said.
    pub(crate) fn console(&self) -> String {
        let console = std::fs::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }

    /// What the host's side of a disk holds now.
    pub(crate) fn disk(&self, number: usize) -> Vec<u8> {
        std::fs::read(self.directory.path().join(format!("disk{number}"))).unwrap()
    }

    /// Changes a disk behind the guest's back.
    pub(crate) fn change(&self, number: usize, change: impl FnOnce(&mut [u8])) {
        let before = self.disk(number);
        let mut after = before.clone();
        change(&mut after);
        let file =
            File::options().write(true).open(self.directory.path().join(format!("disk{number}"))).unwrap();
        let blocks = before.chunks(4096).zip(after.chunks(4096));
        for (at, (_, new)) in blocks.enumerate().filter(|(_, (old, new))| old != new) {
            file.write_all_at(new, at as u64 * 4096).unwrap();
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the guest's console:\n{}", self.console());
        }
    }
}

fn initrd(directory: &Path) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let init = tests.parent().unwrap().with_file_name("examples").join("scratch_init");
    assert!(init.is_file(), "run cargo build -p agent-scratch --example scratch_init first");
    let manifest = initrd::Manifest::parse(MANIFEST).unwrap();
    let archive = initrd::build(&manifest, &initrd::Inputs::from([("init".to_owned(), init)])).unwrap();
    let path = directory.join("initrd");
    std::fs::write(&path, archive).unwrap();
    path
}
