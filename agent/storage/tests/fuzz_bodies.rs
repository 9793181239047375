//! Runs the bodies of the fuzz targets on the stable compiler: on random text, and on valid requests with a few bytes
//! changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../../fuzz/bodies/storage.rs"]
mod bodies;

use proptest::prelude::*;

const EVENT: &[u8] = b"add@/devices/pci0000:00/0000:00:02.0/virtio1/block/vda\0ACTION=add\0\
    DEVPATH=/devices/pci0000:00/0000:00:02.0/virtio1/block/vda\0SUBSYSTEM=block\0DEVNAME=vda\0SEQNUM=7\0";

const STORAGES: &[u8] = b"blk\t02/01\text4\t/run/kata-containers/c/v\tro nosuid\tencryption_key=ephemeral create_filesystem=true\n\
    scsi\t0:1\txfs\t/run/kata-containers/c/w\t\t\n\
    virtio-fs\tkataShared\tvirtiofs\t/run/kata-containers/shared/containers\tnodev\t\n\
    ephemeral\ttmpfs\ttmpfs\t/run/kata-containers/sandbox/ephemeral/e\tsize=65536k mode=1777\tfsgid=1000\n\
    ephemeral\thugetlbfs\thugetlbfs\t/run/kata-containers/sandbox/ephemeral/h\tpagesize=2M size=4194304\t\n\
    local\tlocal\tlocal\t/run/kata-containers/shared/containers/local\tmode=0777\t\n\
    overlayfs\toverlay\toverlay\t/run/kata-containers/c/rootfs\tlowerdir=/run/a:/run/b upperdir=/run/u workdir=/run/k\t\n\
    watchable-bind\t/run/kata-containers/shared/containers/watchable/x\tbind\t/run/kata-containers/watch/x\t\t\n\
    image_guest_pull\tregistry.example/x:1\toverlay\t/run/kata-containers/c/rootfs\t\timage_guest_pull={\"metadata\":{}}\n";

/// `good` with some bytes replaced, or cut off.
fn damaged(good: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::uevent(&bytes);
        bodies::storage_requests(&bytes);
    }

    #[test]
    fn damaged_events(bytes in damaged(EVENT)) {
        bodies::uevent(&bytes);
    }

    #[test]
    fn damaged_storages(bytes in damaged(STORAGES)) {
        bodies::storage_requests(&bytes);
        // One at a time, since one that is refused refuses all.
        for line in bytes.split(|byte| *byte == b'\n') {
            bodies::storage_requests(line);
        }
    }
}
