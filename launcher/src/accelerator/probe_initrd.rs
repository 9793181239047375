//! The smallest initrd that proves a working guest: one static program, assembled here, and a console.

/// What the probe prints once it runs in userspace and its timer has fired.
pub(super) const MARK: &str = "sealpod-probe: userspace\n";

const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;

/// A newc archive with `/dev/console` and `/init`.
pub(super) fn build() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, 1, "dev", 0o040_755, (0, 0), &[]);
    entry(&mut archive, 2, "dev/console", 0o020_600, (5, 1), &[]);
    entry(&mut archive, 3, "init", 0o100_755, (0, 0), &program());
    entry(&mut archive, 0, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
    let fields =
        [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// A static x86-64 ELF file: nanosleep 50 ms, write the mark, sleep again so that it drains, power off.
fn program() -> Vec<u8> {
    // Data follows the code: the pause (two 64-bit words), then the mark.
    const CALLS: usize = 4;
    const CODE: usize = CALLS * 22 + 2;
    let pause = LOAD_ADDRESS as u32 + (HEADERS + CODE) as u32;
    let mark = pause + 16;
    let calls: [[u32; 4]; CALLS] = [
        [35, pause, 0, 0],                            // nanosleep(&pause, NULL)
        [1, 1, mark, MARK.len() as u32],              // write(1, mark, length)
        [35, pause, 0, 0],                            // nanosleep(&pause, NULL)
        [169, 0xfee1_dead, 0x2812_1969, 0x4321_fedc], // reboot(MAGIC1, MAGIC2, POWER_OFF)
    ];
    let mut body = Vec::new();
    for call in calls {
        // mov eax, edi, esi, edx; syscall
        for (opcode, value) in [0xb8, 0xbf, 0xbe, 0xba].into_iter().zip(call) {
            body.push(opcode);
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(&[0x0f, 0x05]);
    }
    // Should the power not go off: jump to itself, as the end of init would be a panic.
    body.extend_from_slice(&[0xeb, 0xfe]);
    for word in [0u64, 50_000_000] {
        body.extend_from_slice(&word.to_le_bytes());
    }
    body.extend_from_slice(MARK.as_bytes());

    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [LOAD_ADDRESS + HEADERS as u64, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    let size = (HEADERS + body.len()) as u64;
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&5u32.to_le_bytes());
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&body);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program is Linux x86-64, so it can be run here: it must print the mark. Its reboot call needs a
    /// privilege, so it runs without any.
    #[test]
    fn the_program_prints_its_mark() {
        use std::io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;
        if !nix::unistd::geteuid().is_root() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("init");
            std::fs::write(&path, program()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let mut child =
                std::process::Command::new(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut text = vec![0; MARK.len()];
            child.stdout.take().unwrap().read_exact(&mut text).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(text, MARK.as_bytes());
        }
    }

    #[test]
    fn the_archive_is_aligned_newc() {
        let archive = build();
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"070701"));
        assert_eq!(archive.windows(6).filter(|window| window == b"070701").count(), 4);
    }
}
