//! An initrd with the archive in front that carries a blob. The ultravisor looks for the first file below
//! `opt/ibm/pef` and hashes what follows the archive, which ends at a multiple of 512 bytes. The same blob and
//! initrd give the same bytes.

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_644;
const PLACE: [&str; 3] = ["opt", "opt/ibm", "opt/ibm/pef"];

/// The archive with `blob` under `name`, and `initrd` after it.
pub(crate) fn attach(blob: &[u8], name: &str, initrd: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blob.len() + initrd.len() + 2048);
    for (index, path) in PLACE.iter().enumerate() {
        record(&mut out, index + 1, DIRECTORY, path, b"");
    }
    record(&mut out, PLACE.len() + 1, REGULAR, &format!("opt/ibm/pef/{name}"), blob);
    record(&mut out, 0, 0, "TRAILER!!!", b"");
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend_from_slice(initrd);
    out
}

/// One member in the `newc` format (kernel documentation, "initramfs buffer format").
fn record(out: &mut Vec<u8>, inode: usize, mode: u32, path: &str, body: &[u8]) {
    let links = 1 + usize::from(mode == DIRECTORY);
    let fields = [inode, mode as usize, 0, 0, links, 0, body.len(), 0, 0, 0, 0, path.len() + 1, 0];
    out.extend_from_slice(b"070701");
    fields.iter().for_each(|field| out.extend_from_slice(format!("{field:08x}").as_bytes()));
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initrd_starts_at_a_block_and_is_unchanged() {
        for length in [0, 1, 511, 512, 40_000] {
            let (blob, initrd) = (vec![7; length], b"initrd".repeat(100));
            let whole = attach(&blob, "pod.esm", &initrd);
            assert_eq!(whole, attach(&blob, "pod.esm", &initrd), "deterministic");
            let start = whole.len() - initrd.len();
            assert!(start.is_multiple_of(512) && whole[start..] == initrd);
            assert!(whole.starts_with(b"07070100000001000041ed"), "a directory first");
            let name = whole.windows(20).position(|window| window == b"opt/ibm/pef/pod.esm\0").unwrap();
            let body = (name + 20).next_multiple_of(4);
            assert_eq!(whole[body..body + length], blob);
        }
    }
}
