//! Trees that are read and written, and everything that is refused: one thing wrong at a time.

use proptest::prelude::*;

use super::*;

fn small() -> Node {
    let child = Node::new("child").with("empty", []).with_text("text", "abc");
    Node::default().with_text("compatible", "x").with_child(child).with_child(Node::new("other"))
}

fn bytes() -> Vec<u8> {
    small().encode(&[]).unwrap()
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
}

/// A header field changed.
fn header(index: usize, word: u32) -> Result<Node, FdtError> {
    let mut bytes = bytes();
    put(&mut bytes, index * 4, word);
    Node::parse(&bytes)
}

/// A structure block of these words, with one string, `a`.
fn structure(words: &[u32]) -> Result<Node, FdtError> {
    let mut tree = vec![0; HEADER + RESERVATIONS_END];
    let strings_at = (tree.len() + words.len() * 4) as u32;
    tree.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    tree.extend(b"a\0");
    let total = tree.len() as u32;
    let structure_size = words.len() as u32 * 4;
    let fields = [MAGIC, total, 56, strings_at, 40, VERSION, COMPATIBLE_VERSION, 0, 2, structure_size];
    fields.iter().enumerate().for_each(|(index, word)| put(&mut tree, index * 4, *word));
    Node::parse(&tree)
}

/// `a` and the NULs after it.
const A: u32 = 0x6100_0000;

#[test]
fn what_is_written_reads_the_same() {
    let tree = small();
    assert_eq!(Node::parse(&bytes()), Ok(tree.clone()));
    assert_eq!(tree.child("child").unwrap().property("text"), Some(b"abc\0".as_slice()));
    assert!(tree.child("third").is_none() && tree.property("text").is_none());
    assert!(structure(&[1, 0, 3, 0, 0, 1, A, 2, 2, 9]).is_ok());
    assert!(structure(&[1, 0, 3, 1, 0, 0x6100_0001, 2, 9]).is_ok(), "libfdt doesn't clear its padding");
}

#[test]
fn a_string_inside_a_longer_one_is_shared() {
    let tree = Node::default().with("kernel-size", [1]).with("size", [2]);
    let bytes = tree.encode(&[]).unwrap();
    assert!(bytes.ends_with(b"kernel-size\0"));
    assert_eq!(Node::parse(&bytes), Ok(tree));
}

#[test]
fn a_header_that_lies_is_refused() {
    let length = bytes().len() as u32;
    assert_eq!(header(0, 0xd00d_feee), Err(FdtError::Magic(0xd00d_feee)));
    for stated in [length - 1, length + 1, 0, u32::MAX] {
        assert!(matches!(header(1, stated), Err(FdtError::TotalSize { .. })), "{stated}");
    }
    for (index, name) in [(2, "structure"), (3, "strings"), (4, "reservation")] {
        for offset in [0, 39, length, u32::MAX, u32::MAX - 15] {
            assert_eq!(header(index, offset), Err(FdtError::Block(name)), "{name} at {offset}");
        }
    }
    assert_eq!(header(2, 57), Err(FdtError::Block("structure")), "not aligned");
    assert_eq!(header(4, 44), Err(FdtError::Block("reservation")), "not aligned");
    for (index, name) in [(8, "strings"), (9, "structure")] {
        assert_eq!(header(index, u32::MAX), Err(FdtError::Block(name)));
        assert_eq!(header(index, length), Err(FdtError::Block(name)));
    }
    for version in [0, 16, 18] {
        assert!(matches!(header(5, version), Err(FdtError::Version { .. })));
    }
    assert!(matches!(header(6, 18), Err(FdtError::Version { .. })));
    assert!(matches!(header(6, 3), Err(FdtError::Version { .. })));
}

#[test]
fn blocks_that_overlap_are_refused() {
    let good = bytes();
    let structure_size = u32::from_be_bytes([good[36], good[37], good[38], good[39]]);
    assert!(matches!(header(3, 56), Err(FdtError::Block(_))), "strings inside the structure");
    assert!(matches!(header(4, 56), Err(FdtError::Block(_))), "reservations inside the structure");
    assert!(matches!(header(9, structure_size + 4), Err(FdtError::Block(_))));
}

#[test]
fn sizes_out_of_range_are_refused() {
    assert_eq!(Node::parse(&[]), Err(FdtError::Size(0)));
    assert_eq!(Node::parse(&bytes()[..39]), Err(FdtError::Size(39)));
    assert_eq!(Node::parse(&vec![0; MAX_BYTES + 1]), Err(FdtError::Size(MAX_BYTES + 1)));
    let mut longer = bytes();
    longer.push(0);
    assert!(matches!(Node::parse(&longer), Err(FdtError::TotalSize { .. })));
    let large = Node::default().with("a", vec![0; MAX_BYTES]);
    assert!(matches!(large.encode(&[]), Err(FdtError::Size(_))));
}

#[test]
fn memory_reservations_are_refused() {
    let mut bytes = bytes();
    bytes[HEADER + 15] = 1;
    assert_eq!(Node::parse(&bytes), Err(FdtError::Reservations));
}

#[test]
fn a_structure_that_breaks_its_grammar_is_refused() {
    let token = |token, at| Err(FdtError::Token { token, at });
    assert_eq!(structure(&[]), Err(FdtError::Short(0)));
    assert_eq!(structure(&[9]), token(9, 0), "no root");
    assert_eq!(structure(&[2, 9]), token(2, 0), "an end before a beginning");
    assert_eq!(structure(&[3, 0, 0, 1, 0, 2, 9]), token(3, 0), "a property outside a node");
    assert_eq!(structure(&[1, 0, 2]), Err(FdtError::Short(12)), "no end");
    assert_eq!(structure(&[1, 0, 9]), token(9, 8), "the root is open");
    assert_eq!(structure(&[1, 0, 2, 1, 0, 2, 9]), token(1, 12), "two roots");
    assert_eq!(structure(&[1, 0, 2, 9, 9]), token(9, 12), "more after the end");
    assert_eq!(structure(&[1, 0, 4, 2, 9]), token(4, 8), "a NOP");
    assert_eq!(structure(&[1, 0, 1, A, 2, 3, 0, 0, 2, 9]), token(3, 20), "a property after a child");
    assert_eq!(structure(&[1, 0, 3, u32::MAX, 0, 2, 9]), Err(FdtError::Short(20)), "a huge property");
    assert_eq!(structure(&[1, 0, 3, 400, 0, 2, 9]), Err(FdtError::Short(20)));
}

#[test]
fn malformed_and_repeated_names_are_refused() {
    assert_eq!(structure(&[1, A, 2, 9]), Err(FdtError::Name(0)), "the root has none");
    assert_eq!(structure(&[1, 0, 1, 0, 2, 2, 9]), Err(FdtError::Name(8)), "others have one");
    assert_eq!(structure(&[1, 0, 1, 0x612f_6200, 2, 2, 9]), Err(FdtError::Name(8)), "a/b");
    assert_eq!(structure(&[1, 0, 1, 0x2e2e_0000, 2, 2, 9]), Err(FdtError::Name(8)), "..");
    assert_eq!(structure(&[1, 0, 1, 0xc3a9_0000, 2, 2, 9]), Err(FdtError::Name(8)), "not ASCII");
    let long = [0x6161_6161; 8];
    let words = [[1, 0, 1].as_slice(), &long, &[0, 2, 2, 9]].concat();
    assert!(matches!(structure(&words), Err(FdtError::Name(_))), "32 letters");
    let mut fits = long;
    fits[7] = 0x6161_6100;
    assert!(structure(&[[1, 0, 1].as_slice(), &fits, &[2, 2, 9]].concat()).is_ok(), "31 letters");
    assert_eq!(structure(&[1, 0, 1, A, 2, 1, A, 2, 2, 9]), Err(FdtError::Duplicate("a".into())));
    assert_eq!(structure(&[1, 0, 3, 0, 0, 3, 0, 0, 2, 9]), Err(FdtError::Duplicate("a".into())));
    assert_eq!(structure(&[1, 0, 3, 0, 1, 2, 9]), Err(FdtError::Name(8)), "an empty name");
    assert_eq!(structure(&[1, 0, 3, 0, 2, 2, 9]), Err(FdtError::Name(8)), "outside the strings");
    assert_eq!(structure(&[1, 0, 3, 0, u32::MAX, 2, 9]), Err(FdtError::Name(8)));
}

#[test]
fn bombs_are_refused() {
    let deep =
        |levels: usize| [[1, 0].as_slice(), &[1, A].repeat(levels), &vec![2; levels + 1], &[9]].concat();
    assert!(structure(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(structure(&deep(MAX_DEPTH)), Err(FdtError::TooMany("levels")));
    assert_eq!(structure(&deep(5000)), Err(FdtError::TooMany("levels")));

    let name =
        |index: usize| u32::from_be_bytes([b'a' + (index % 26) as u8, b'a' + (index / 26) as u8, 0, 0]);
    let children = |count: usize| -> Vec<u32> {
        let nodes = (0..count).flat_map(|index| [1, name(index), 2]);
        [1, 0].into_iter().chain(nodes).chain([2, 9]).collect()
    };
    assert!(structure(&children(MAX_NODES - 1)).is_ok());
    assert_eq!(structure(&children(MAX_NODES)), Err(FdtError::TooMany("nodes")));

    let one = |index: usize| [1, name(index), 3, 0, 0, 2].into_iter();
    let many: Vec<u32> = [1, 0].into_iter().chain((0..500).flat_map(one)).chain([2, 9]).collect();
    assert!(structure(&many).is_ok());
    let crowded = |index: usize| Node::new(&format!("n{index}"));
    let mut tree = Node::default();
    for index in 0..300 {
        let node = (0..7).fold(crowded(index), |node, property| node.with(&format!("p{property}"), []));
        tree.children.push(node);
    }
    let bytes = tree.encode(&[]).unwrap();
    assert_eq!(Node::parse(&bytes), Err(FdtError::TooMany("properties")));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let encode = |root: Node| root.encode(&[]).unwrap_err();
    assert_eq!(encode(Node::new("root")), FdtError::Name(0));
    for name in ["", "1a", "a/b", "a b", "..", &"a".repeat(32)] {
        let root = Node::default().with_child(Node::new(name));
        assert!(matches!(encode(root), FdtError::Name(_)), "{name}");
    }
    assert!(matches!(encode(Node::default().with("a/b", [])), FdtError::Name(_)));
    assert_eq!(encode(Node::default().with("a", []).with("a", [])), FdtError::Duplicate("a".into()));
    let twins = Node::default().with_child(Node::new("a")).with_child(Node::new("a"));
    assert_eq!(encode(twins), FdtError::Duplicate("a".into()));
    let deep = (0..MAX_DEPTH).fold(Node::new("a"), |node, _| Node::new("a").with_child(node));
    assert_eq!(encode(Node::default().with_child(deep)), FdtError::TooMany("levels"));
}

proptest! {
    #[test]
    fn any_change_is_refused_or_read_and_written_again(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(tree) = Node::parse(&bytes) {
            prop_assert_eq!(Node::parse(&tree.encode(&[]).unwrap()), Ok(tree));
        }
    }

    #[test]
    fn every_shorter_tree_is_refused(end in 0..200usize) {
        let bytes = bytes();
        prop_assume!(end < bytes.len());
        prop_assert!(Node::parse(&bytes[..end]).is_err());
    }
}
