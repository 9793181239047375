//! Scratch in a real guest, on disks that the test plays with as a hostile host would: needs QEMU, and a kernel named by
//! `SEALPOD_TEST_KERNEL`; skipped with a word otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod vm;

use vm::Vm;

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const EIO: &str = "Input/output error (os error 5)";

/// A device that claims to be set up already: dm-integrity's superblock with other parameters, and a LUKS2 header that
/// names the null cipher, over bytes that are not zero.
fn hostile(mib: usize) -> Vec<u8> {
    let mut disk = vec![0xa5; mib * MIB];
    disk[..BLOCK].fill(0);
    disk[..8].copy_from_slice(b"integrt\0");
    // version 1, tags of 4 bytes, one journal section, some sectors, no flags, 512-byte blocks
    disk[8..16].copy_from_slice(&[1, 15, 4, 0, 1, 0, 0, 0]);
    disk[16..24].copy_from_slice(&1000u64.to_le_bytes());
    disk[BLOCK..BLOCK + 6].copy_from_slice(b"LUKS\xba\xbe");
    let json = br#"{"keyslots":{},"segments":{"0":{"type":"crypt","encryption":"cipher_null-ecb"}}}"#;
    disk[2 * BLOCK..2 * BLOCK + json.len()].copy_from_slice(json);
    disk
}

#[test]
fn what_the_host_changes_is_an_error_and_nothing_else() {
    let Some(mut vm) = Vm::boot(&[hostile(64)]) else { return };
    assert_eq!(vm.ok("make /dev/vda v memory"), format!("{} in-memory=true", 64 * MIB));
    assert_eq!(vm.ok("keys"), "0");
    for block in 100..106 {
        vm.ok(&format!("write v {block} {block}"));
    }
    let block = |number: usize| number * BLOCK..(number + 1) * BLOCK;
    let before = vm.disk(0);
    assert!(before[block(100)].iter().any(|byte| *byte != 100), "clear text on the device");

    // A byte of 101; 102 and 103 swapped; 104 as it was before it was written again.
    vm.ok("write v 104 204");
    vm.change(0, |disk| {
        disk[101 * BLOCK + 77] ^= 1;
        let (a, b) = (disk[block(102)].to_vec(), disk[block(103)].to_vec());
        disk[block(102)].copy_from_slice(&b);
        disk[block(103)].copy_from_slice(&a);
        disk[block(104)].copy_from_slice(&before[block(104)]);
    });
    vm.ok("forget");
    for broken in [101, 102, 103, 104] {
        assert_eq!(vm.err(&format!("read v {broken}")), EIO, "{broken}");
    }
    for whole in [100, 105] {
        assert_eq!(vm.ok(&format!("read v {whole}")), format!("{whole} {BLOCK}"));
    }
    // What was never written can't be read, whatever the host put there; and a block can be written again.
    assert_eq!(vm.err("read v 50"), EIO);
    vm.ok("write v 101 7");
    vm.ok("forget");
    assert_eq!(vm.ok("read v 101"), format!("7 {BLOCK}"));

    // Nothing of it can be read by the next volume on the same device.
    vm.ok("close v");
    assert_eq!(vm.ok("layers"), "0");
    vm.ok("make /dev/vda w memory");
    assert_eq!(vm.err("read w 100"), EIO);
    vm.ok("close w");
}

#[test]
fn a_file_system_on_it_reads_nothing_of_the_hosts_and_survives_tampering_with_a_file() {
    let Some(mut vm) = Vm::boot(&[hostile(300)]) else { return };
    let reads = vm.ok("reads vda");
    vm.ok("make /dev/vda v memory");
    assert_eq!(vm.ok("reads vda"), reads, "something of the host's was read");
    vm.ok("format v");
    vm.ok("mount v /v");
    assert_eq!(vm.ok("ls /v"), "");
    vm.ok("create /v/one 1 8");
    vm.ok("tree /v 3000");
    vm.ok("forget");
    assert_eq!(vm.ok("cat /v/one"), format!("1 {}", 8 * MIB));
    // A block that was not written before it was read would have failed its tag.
    assert!(!vm.console().contains("INTEGRITY"), "{}", vm.console());

    let before = vm.disk(0);
    vm.ok("create /v/two 2 8");
    let after = vm.disk(0);
    let file = longest_change(&before, &after);
    assert!(file.len() >= 4 * MIB, "{file:?}");
    vm.change(0, |disk| disk[file.start + file.len() / 2] ^= 0x80);
    vm.ok("forget");
    assert_eq!(vm.err("cat /v/two"), EIO);
    assert_eq!(vm.ok("cat /v/one"), format!("1 {}", 8 * MIB));
    vm.ok("create /v/three 3 1");
    vm.change(0, |disk| disk[file.start + file.len() / 2] ^= 0x80);
    vm.ok("forget");
    assert_eq!(vm.ok("cat /v/two"), format!("2 {}", 8 * MIB));
    assert_eq!(vm.ok("cat /v/three"), format!("3 {MIB}"));

    // It is in use until it is not.
    assert!(vm.err("make /dev/vda w memory").contains("/dev/vda is in use"));
    assert!(vm.err("make /dev/nothing w auto").contains("/dev/nothing"));
    assert!(vm.err("make /dev/vda v/w auto").contains("name"));
    vm.ok("drop v");
    assert_eq!(vm.ok("cat /v/three"), format!("3 {MIB}"));
    vm.ok("umount /v");
    // The kernel removes one layer after the other.
    assert!((0..1000).any(|_| vm.ok("layers") == "0"), "something is left");
}

/// What `Tags::Device` promises and what it doesn't.
#[test]
fn tags_on_the_device_notice_all_but_an_older_block_with_its_tag() {
    let Some(mut vm) = Vm::boot(&[hostile(64)]) else { return };
    let answer = vm.ok("make /dev/vda v device");
    let (size, rest) = answer.split_once(' ').unwrap();
    assert_eq!(rest, "in-memory=false");
    let data = size.parse::<usize>().unwrap();
    assert!(data < 64 * MIB && data > 63 * MIB);
    vm.ok("format v");
    vm.ok("mount v /v");
    vm.ok("create /v/one 1 4");
    vm.ok("umount /v");

    let block = |number: usize| number * BLOCK..(number + 1) * BLOCK;
    // A block for each of the device's tag blocks, upwards: what was used last stays in the kernel's cache.
    let fill = |vm: &mut Vm| {
        for number in 1..data / BLOCK / 128 {
            vm.ok(&format!("write v {} 9", number * 128));
        }
        vm.ok("forget");
    };
    // The first tags are in memory even so: what dm-integrity leaves free behind its own structures.
    let in_memory = (256 * 1024 - (4 + 132) * 1024) / 32;
    let tag = |number: usize| data + (number - in_memory) * 32..data + (number - in_memory + 1) * 32;
    vm.ok("write v 5000 1");
    vm.ok("write v 5001 1");
    vm.ok("write v 5002 1");
    fill(&mut vm);
    let old = vm.disk(0);
    vm.ok("write v 5000 2");
    vm.ok("write v 5001 2");
    fill(&mut vm);
    vm.change(0, |disk| {
        // The whole of 5000, only the data of 5001, and the tag of 5001 for 5002.
        disk.copy_within(tag(5001), tag(5002).start);
        disk[block(5000)].copy_from_slice(&old[block(5000)]);
        disk[tag(5000)].copy_from_slice(&old[tag(5000)]);
        disk[block(5001)].copy_from_slice(&old[block(5001)]);
    });
    vm.ok("forget");
    assert_eq!(vm.ok("read v 5000"), format!("1 {BLOCK}"), "the older block with its older tag");
    assert_eq!(vm.err("read v 5001"), EIO);
    assert_eq!(vm.err("read v 5002"), EIO);
    vm.ok("close v");
    assert_eq!(vm.ok("layers"), "0");
}

/// The longest run of blocks that differ, in bytes.
fn longest_change(before: &[u8], after: &[u8]) -> std::ops::Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (number, (a, b)) in before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
        let end = (number + 1) * BLOCK;
        if a == b {
            start = end;
        } else if end - start > longest.len() {
            longest = start..end;
        }
    }
    longest
}
