//! Blobs as svm-tools' library writes them (`testdata/pef`: the same calls, with other bytes for secrets), and
//! what is refused.

use super::*;
use crate::pef::Digests;
use crate::pef::fdt::FdtError;

const BLOB: &[u8] = include_bytes!("../../../testdata/pef/blob.dtb");
const DIGESTS: &[u8] = include_bytes!("../../../testdata/pef/digests.dtb");

fn tree() -> Node {
    Node::parse(BLOB).unwrap()
}

/// The blob with one change to its tree.
fn changed(change: impl FnOnce(&mut Node)) -> Result<EsmBlob, EsmError> {
    let mut tree = tree();
    change(&mut tree);
    EsmBlob::parse(&tree.encode(&[]).unwrap())
}

fn at<'a>(node: &'a mut Node, path: &[&str]) -> &'a mut Node {
    path.iter().fold(node, |node, name| node.children.iter_mut().find(|child| child.name == *name).unwrap())
}

fn set(node: &mut Node, name: &str, value: &[u8]) {
    node.properties.iter_mut().find(|(own, _)| own == name).unwrap().1 = value.to_vec();
}

/// The blob with one change to the tree of its files.
fn files_changed(change: impl FnOnce(&mut Node)) -> Result<EsmBlob, EsmError> {
    changed(|root| {
        let file = at(root, &["file"]);
        let mut files = Node::parse(file.property("files-fdt").unwrap()).unwrap();
        change(&mut files);
        set(file, "files-fdt", &files.encode(&[]).unwrap());
    })
}

/// libfdt leaves old bytes in the padding of values that it moves; ours is zero.
fn same_but_padding(ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    let differences: Vec<_> = (0..ours.len()).filter(|at| ours[*at] != theirs[*at]).collect();
    assert!(differences.len() < 32 && differences.iter().all(|at| ours[*at] == 0), "{differences:?}");
}

#[test]
fn a_blob_is_read_and_written_byte_for_byte_as_svm_tools_library_does() {
    let blob = EsmBlob::parse(BLOB).unwrap();
    assert_eq!(
        blob.lockboxes.iter().map(|l| l.place).collect::<Vec<_>>(),
        [Place::Origin, Place::Number(1), Place::Number(2)]
    );
    assert_eq!(blob.lockboxes[1].comment, "machine 1");
    assert_eq!(blob.lockbox(&[0xa2; 32]).unwrap().encrypted_key, [0x13; 256]);
    assert_eq!(blob.lockbox(&[0xa3; 32]), None);
    assert_eq!(blob.next_place(), Place::Number(3));
    assert_eq!(
        blob.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["sealpod", "second,file+2"]
    );
    assert_eq!(blob.files[0].sealed.ciphertext, b"ciphertext of one");
    assert_eq!(blob.digests.ciphertext, DIGESTS.iter().rev().copied().collect::<Vec<_>>());
    same_but_padding(&blob.encode().unwrap(), BLOB);
}

#[test]
fn digests_are_read_and_written_byte_for_byte() {
    let digests = Digests::parse(DIGESTS).unwrap();
    assert_eq!(digests.kernel_size, 0x0102_0304);
    same_but_padding(&digests.encode().unwrap(), DIGESTS);
    let mut tree = Node::parse(DIGESTS).unwrap();
    for missing in ["rtas", "kernel", "kernel-size", "initrd", "bootargs", "algorithm"] {
        let mut tree = tree.clone();
        at(&mut tree, &["digests"]).properties.retain(|(name, _)| name != missing);
        let refused = Digests::parse(&tree.encode(&[]).unwrap());
        assert!(matches!(refused, Err(EsmError::Missing(name)) if name == missing), "{refused:?}");
    }
    set(at(&mut tree, &["digests"]), "initrd", &[0; 63]);
    let refused = Digests::parse(&tree.encode(&[]).unwrap());
    assert_eq!(refused, Err(EsmError::Length { name: "initrd", expected: 64, found: 63 }));
}

#[test]
fn a_node_that_is_removed_is_missed() {
    for missing in ["lockboxes", "digest", "file"] {
        let refused = changed(|root| root.children.retain(|child| child.name != missing));
        assert_eq!(refused, Err(EsmError::Missing(missing)));
    }
    let refused = changed(|root| at(root, &["digest"]).children.clear());
    assert_eq!(refused, Err(EsmError::Missing("digests-fdt")));
    let refused = changed(|root| at(root, &["file"]).properties.clear());
    assert_eq!(refused, Err(EsmError::Missing("files-fdt")));
    let refused = changed(|root| at(root, &["lockboxes"]).children.retain(|l| l.name != "origin-lockbox"));
    assert_eq!(refused, Err(EsmError::Missing("origin-lockbox")));
    for missing in ["mac", "iv", "ciphertext", "algorithm", "untrusted-comment"] {
        let refused = changed(|root| {
            at(root, &["digest", "digests-fdt"]).properties.retain(|(name, _)| name != missing);
        });
        assert_eq!(refused, Err(EsmError::Missing(missing)));
    }
}

#[test]
fn parts_that_nobody_knows_are_refused() {
    let more = |path: &[&str]| {
        let refused = changed(|root| at(root, path).properties.push(("more".into(), vec![])));
        assert!(matches!(&refused, Err(EsmError::Unexpected { name, .. }) if name == "more"), "{refused:?}");
        let refused = changed(|root| at(root, path).children.push(Node::new("more")));
        let lockbox = matches!(&refused, Err(EsmError::LockboxName(name)) if name == "more");
        let other = matches!(&refused, Err(EsmError::Unexpected { name, .. }) if name == "more");
        assert!(lockbox || other, "{path:?}: {refused:?}");
    };
    more(&[]);
    more(&["lockboxes"]);
    more(&["lockboxes", "lockbox-1"]);
    more(&["lockboxes", "lockbox-1", "pubkey-fingerprint"]);
    more(&["digest"]);
    more(&["digest", "digests-fdt"]);
    more(&["file"]);
}

#[test]
fn values_of_other_forms_are_refused() {
    let wrong = |path: &[&str], name: &str, value: &[u8]| {
        changed(|root| set(at(root, path), name, value)).unwrap_err()
    };
    let lockbox = ["lockboxes", "lockbox-1"];
    let length = |name, expected, found| EsmError::Length { name, expected, found };
    assert_eq!(wrong(&[], "compatible", b"ibm,esm"), EsmError::Text("compatible"));
    assert_eq!(wrong(&[], "compatible", b"ibm,esm\0\0"), EsmError::Text("compatible"));
    assert_eq!(wrong(&[], "compatible", b"ibm,esm2\0"), EsmError::Compatible);
    assert_eq!(wrong(&lockbox, "encrypted-symkey", &[0; 255]), length("encrypted-symkey", 256, 255));
    assert_eq!(wrong(&lockbox, "untrusted-comment", b"a\nb\0"), EsmError::Text("untrusted-comment"));
    assert_eq!(
        wrong(&lockbox, "untrusted-comment", &[b"a".repeat(129).as_slice(), &[0]].concat()),
        EsmError::Text("untrusted-comment")
    );
    let key = ["lockboxes", "lockbox-1", "pubkey-fingerprint"];
    assert_eq!(wrong(&key, "algorithm", b"SHA1\0"), EsmError::Algorithm);
    assert_eq!(wrong(&key, "hash", &[0; 20]), length("hash", 32, 20));
    let digests = ["digest", "digests-fdt"];
    assert_eq!(wrong(&digests, "algorithm", b"AES128-GCM\0"), EsmError::Algorithm);
    assert_eq!(wrong(&digests, "iv", &[0; 12]), length("iv", 16, 12));
    assert_eq!(wrong(&digests, "mac", &[0; 8]), length("mac", 16, 8));
    assert!(matches!(wrong(&digests, "ciphertext", &[0; MAX_FILE + 1]), EsmError::TooLong { .. }));
}

#[test]
fn lockboxes_are_one_a_key_and_one_a_number() {
    let rename = |name: &str| changed(|root| at(root, &["lockboxes", "lockbox-2"]).name = name.to_owned());
    for name in ["lockbox-0", "lockbox-02", "lockbox-", "lockbox-x", "lockbox-4294967296", "lockbox"] {
        assert_eq!(rename(name), Err(EsmError::LockboxName(name.to_owned())));
    }
    assert_eq!(rename("lockbox-77").unwrap().next_place(), Place::Number(78));
    let refused = changed(|root| {
        let key = at(root, &["lockboxes", "lockbox-2", "pubkey-fingerprint"]);
        set(key, "hash", &[0xa1; 32]);
    });
    assert_eq!(refused, Err(EsmError::DuplicateKey("a1".repeat(32))));

    let mut blob = EsmBlob::parse(BLOB).unwrap();
    let twin = Lockbox { fingerprint: [9; 32], ..blob.lockboxes[2].clone() };
    blob.lockboxes.push(twin.clone());
    assert_eq!(blob.encode(), Err(EsmError::LockboxName("lockbox-2".into())));
    blob.lockboxes.truncate(1);
    for number in 1..=MAX_LOCKBOXES as u32 {
        let mut fingerprint = [9; 32];
        fingerprint[0] = number as u8;
        blob.lockboxes.push(Lockbox { place: Place::Number(number), fingerprint, ..twin.clone() });
    }
    assert_eq!(blob.encode(), Err(EsmError::TooMany("lockboxes")));
    blob.lockboxes.pop();
    assert_eq!(EsmBlob::parse(&blob.encode().unwrap()).unwrap(), blob, "as many as there may be");
}

#[test]
fn file_names_have_one_form() {
    let longest = format!("a{}", "b".repeat(30));
    for good in ["a", "sealpod", "A0,._+-", longest.as_str()] {
        let name: FileName = good.parse().unwrap();
        assert_eq!(name.padded()[..good.len()], *good.as_bytes());
        assert!(name.padded()[good.len()..].iter().all(|byte| *byte == 0));
    }
    let long = format!("a{}", "b".repeat(31));
    for bad in ["", "1a", "_a", "a/b", "../a", "a b", "a\0", "a\n", "é", "a@1", long.as_str()] {
        assert!(matches!(bad.parse::<FileName>(), Err(EsmError::FileName(_))), "{bad:?}");
    }
}

#[test]
fn files_that_break_a_rule_are_refused() {
    let refused = files_changed(|root| set(root, "compatible", b"ibm,esm\0"));
    assert_eq!(refused, Err(EsmError::Compatible));
    let refused = files_changed(|root| at(root, &["files"]).properties.push(("more".into(), vec![])));
    assert!(matches!(refused, Err(EsmError::Unexpected { .. })));
    let refused = files_changed(|root| set(at(root, &["files", "sealpod"]), "iv", &[0; 15]));
    assert!(matches!(refused, Err(EsmError::Length { name: "iv", .. })));
    let refused = changed(|root| set(at(root, &["file"]), "files-fdt", b"bytes"));
    assert_eq!(refused, Err(EsmError::Files(FdtError::Size(5))));
    let refused = changed(|root| set(at(root, &["file"]), "files-fdt", &vec![0; MAX_FILES_TREE + 1]));
    assert!(matches!(refused, Err(EsmError::TooLong { .. })));
    // The same name twice, as bytes: no writer makes that.
    let mut bytes = BLOB.to_vec();
    let at = BLOB.windows(13).position(|window| window == b"second,file+2").unwrap();
    bytes[at..at + 13].copy_from_slice(b"sealpod\0\0\0\0\0\0");
    assert!(EsmBlob::parse(&bytes).is_err());

    let mut blob = EsmBlob::parse(BLOB).unwrap();
    blob.files.push(blob.files[0].clone());
    assert_eq!(blob.encode(), Err(EsmError::Files(FdtError::Duplicate("sealpod".into()))));
    blob.files.clear();
    for index in 0..=MAX_FILES {
        let sealed = blob.digests.clone();
        blob.files.push(EsmFile { name: format!("f{index}").parse().unwrap(), sealed });
    }
    assert_eq!(blob.encode(), Err(EsmError::TooMany("files")));
}
