//! Flattened device trees, version 17: a strict reader of hostile bytes and a writer that packs as libfdt
//! does. Devicetree Specification v0.4 section 5.

mod read;
mod write;

#[cfg(test)]
mod tests;

/// Largest tree, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Deepest node; the root has depth 1.
pub const MAX_DEPTH: usize = 6;
/// Most nodes of a tree.
pub const MAX_NODES: usize = 512;
/// Most properties of a tree.
pub const MAX_PROPERTIES: usize = 2048;
/// Longest name of a node or property.
pub const MAX_NAME: usize = 31;

const MAGIC: u32 = 0xd00d_feed;
const HEADER: usize = 40;
/// One entry of zeros ends the memory reservations.
const RESERVATIONS_END: usize = 16;
const VERSION: u32 = 17;
const COMPATIBLE_VERSION: u32 = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// A node with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its name; empty for the root.
    pub name: String,
    /// Names and values, in the tree's order.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Its children, in the tree's order.
    pub children: Vec<Node>,
}

/// Why bytes are not a device tree that we read, or a tree can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FdtError {
    /// Shorter than a header, or longer than any tree has a reason to be.
    #[error("device tree has {0} bytes; a header takes {HEADER}, and {MAX_BYTES} is the most")]
    Size(usize),
    /// Not the magic number.
    #[error("not a flattened device tree: it starts with {0:#010x}")]
    Magic(u32),
    /// The header's size is not that of the bytes.
    #[error("device tree says that it has {stated} bytes, it has {found}")]
    TotalSize {
        /// What the header says.
        stated: u32,
        /// What there is.
        found: usize,
    },
    /// Another version of the format.
    #[error("device tree of version {version}, compatible with {compatible}; only {VERSION} is read")]
    Version {
        /// Version.
        version: u32,
        /// Last compatible version.
        compatible: u32,
    },
    /// A block lies outside the tree, is not aligned, or shares bytes with another.
    #[error("device tree's {0} block is outside the tree, not aligned, or overlaps another")]
    Block(&'static str),
    /// There are memory reservations, which no ESM blob has.
    #[error("device tree reserves memory")]
    Reservations,
    /// The structure block ends in the middle.
    #[error("device tree's structure ends at byte {0} in the middle of something")]
    Short(usize),
    /// A token that has no place there.
    #[error("device tree has token {token:#x} at byte {at}, where it has no place")]
    Token {
        /// Which token.
        token: u32,
        /// Where in the structure block.
        at: usize,
    },
    /// A name with other characters, too long, or without an end.
    #[error(
        "device tree has a malformed name at byte {0}: letters, digits and ,._+?#- are allowed, {MAX_NAME} at most"
    )]
    Name(usize),
    /// Two children or two properties of a node share a name.
    #[error("device tree has '{0}' twice in one node")]
    Duplicate(String),
    /// More nodes or properties, or deeper, than any tree has a reason to be.
    #[error("device tree has too many {0}")]
    TooMany(&'static str),
}

impl Node {
    /// A node without anything in it.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Reads a whole tree; its root.
    pub fn parse(bytes: &[u8]) -> Result<Self, FdtError> {
        read::tree(bytes)
    }

    /// Writes a tree with this node as its root. The strings block starts with those of `strings` that the
    /// tree uses, in that order, so that trees built in another order than they stand in come out the same.
    pub fn encode(&self, strings: &[&str]) -> Result<Vec<u8>, FdtError> {
        write::tree(self, strings)
    }

    /// The child of that name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The value of the property of that name.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    /// With a property at the end.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.properties.push((name.to_owned(), value.into()));
        self
    }

    /// With a text as property: its bytes and a NUL.
    #[must_use]
    pub fn with_text(self, name: &str, value: &str) -> Self {
        self.with(name, [value.as_bytes(), &[0]].concat())
    }

    /// With a child at the end.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }
}

/// Whether `name` may name a node: a letter, then letters, digits and `,._+-`, 31 at most.
pub fn is_node_name(name: &str) -> bool {
    let other = |b: u8| b.is_ascii_alphanumeric() || b",._+-".contains(&b);
    name.len() <= MAX_NAME
        && name.bytes().all(other)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
}

fn is_property_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b",._+?#-".contains(&b);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
}
