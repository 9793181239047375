//! Flattened device trees (Devicetree Specification 0.4, chapter 5), read with bounds on everything.

/// A blob and the trees inside it are far smaller.
const BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 8;
const NODES_MAX: usize = 1024;
const MAGIC: u32 = 0xd00d_feed;
const HEADER: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// A node with what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) properties: Vec<(String, Vec<u8>)>,
    pub(super) children: Vec<Self>,
}

/// Bytes that are not a device tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a flattened device tree: {0}")]
pub struct FdtError(&'static str);

impl Node {
    /// Reads a tree; what stands behind its own length is not looked at.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FdtError> {
        let word = |at: usize| bytes.get(at..at + 4).map(be32).ok_or(FdtError("shorter than its header"));
        if word(0)? != MAGIC {
            return Err(FdtError("another magic number"));
        }
        let total = word(4)? as usize;
        if !(HEADER..=BYTES_MAX).contains(&total) || total > bytes.len() {
            return Err(FdtError("its length is not that of the bytes"));
        }
        if word(20)? < 16 || word(24)? > 17 {
            return Err(FdtError("another version than 16 or 17"));
        }
        let bytes = &bytes[..total];
        let strings = bytes.get(word(12)? as usize..).ok_or(FdtError("strings outside of it"))?;
        let structure = bytes.get(word(8)? as usize..).ok_or(FdtError("structure outside of it"))?;
        Reader { structure, at: 0, strings, nodes: 0 }.root()
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        found.next().filter(|_| found.next().is_none())
    }

    pub(super) fn property(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.properties.iter().filter(|(other, _)| other == name);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| &value[..])
    }

    /// A property that is one string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.property(name)?.strip_suffix(&[0])?).ok()
    }
}

struct Reader<'a> {
    structure: &'a [u8],
    at: usize,
    strings: &'a [u8],
    nodes: usize,
}

impl Reader<'_> {
    fn root(mut self) -> Result<Node, FdtError> {
        if self.token()? != BEGIN_NODE {
            return Err(FdtError("it doesn't begin with a node"));
        }
        let root = self.node(0)?;
        if self.token()? == END { Ok(root) } else { Err(FdtError("something follows the root")) }
    }

    fn node(&mut self, depth: usize) -> Result<Node, FdtError> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(FdtError("too many nodes, one inside the other or altogether"));
        }
        let rest = self.structure.get(self.at..).unwrap_or_default();
        let name = string(rest).ok_or(FdtError("a node's name has no end"))?;
        self.at += name.len() + 1;
        let mut node = Node { name, ..Node::default() };
        loop {
            match self.token()? {
                BEGIN_NODE => node.children.push(self.node(depth + 1)?),
                END_NODE => return Ok(node),
                PROPERTY => node.properties.push(self.property()?),
                _ => return Err(FdtError("an unknown token")),
            }
        }
    }

    fn property(&mut self) -> Result<(String, Vec<u8>), FdtError> {
        let length = self.word()? as usize;
        let name = self.word()? as usize;
        let name = self.strings.get(name..).and_then(string).ok_or(FdtError("a property has no name"))?;
        let end = self.at.checked_add(length).ok_or(FdtError("a property is longer than the tree"))?;
        let value = self.structure.get(self.at..end).ok_or(FdtError("a property is longer than the tree"))?;
        self.at = end;
        Ok((name, value.to_vec()))
    }

    /// The next token that isn't a NOP.
    fn token(&mut self) -> Result<u32, FdtError> {
        self.at = self.at.next_multiple_of(4);
        loop {
            match self.word()? {
                NOP => {}
                token => return Ok(token),
            }
        }
    }

    fn word(&mut self) -> Result<u32, FdtError> {
        let word = self.structure.get(self.at..self.at + 4).map(be32).ok_or(FdtError("it has no end"))?;
        self.at += 4;
        Ok(word)
    }
}

fn string(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `/{ a = "x"; n { }; }`
    fn tree() -> Vec<u8> {
        let structure: Vec<u8> = [1, 0, 3, 2, 0, 0x7800_0000, 1, 0x6e00_0000, 2, 4, 2, 9]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect();
        let strings = b"a\0";
        let (at, strings_at) = (40 + 16, 40 + 16 + structure.len());
        let total = strings_at + strings.len();
        let header =
            [MAGIC, total as u32, at as u32, strings_at as u32, 40, 17, 16, 0, 2, structure.len() as u32];
        let mut out: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&structure);
        out.extend_from_slice(strings);
        out
    }

    #[test]
    fn nodes_and_properties_are_read() {
        let root = Node::read(&tree()).unwrap();
        assert_eq!(root.text("a"), Some("x"));
        assert_eq!(root.child("n"), Some(&Node { name: "n".into(), ..Node::default() }));
        assert!(root.child("m").is_none() && root.property("b").is_none());
    }

    #[test]
    fn trees_that_end_early_or_lie_are_refused() {
        let good = tree();
        for length in 0..good.len() {
            assert!(Node::read(&good[..length]).is_err(), "{length}");
        }
        for (at, value) in
            [(0, 0), (4, 0xff), (8, 0xff), (12, 0xff), (20, 0xff), (59, 9), (67, 0xff), (71, 9)]
        {
            let mut bytes = good.clone();
            bytes[at] = value;
            if at == 20 {
                bytes[20..24].fill(0);
            }
            assert!(Node::read(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn what_stands_twice_counts_as_absent() {
        let twice = Node {
            properties: vec![("a".into(), vec![1]), ("a".into(), vec![2])],
            children: vec![Node { name: "n".into(), ..Node::default() }; 2],
            ..Node::default()
        };
        assert!(twice.property("a").is_none() && twice.child("n").is_none());
    }

    proptest! {
        #[test]
        fn changed_trees_never_panic(changes in proptest::collection::vec((0..106_usize, any::<u8>()), 1..6)) {
            let mut bytes = tree();
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = Node::read(&bytes);
        }
    }
}
