//! Reading. Each block lies inside the tree and none overlaps another; the structure is walked once, with a
//! stack of bounded depth, and has one form: no NOPs, properties before children.

use super::{
    BEGIN_NODE, COMPATIBLE_VERSION, END, END_NODE, FdtError, HEADER, MAGIC, MAX_BYTES, MAX_DEPTH, MAX_NAME,
    MAX_NODES, MAX_PROPERTIES, Node, PROPERTY, RESERVATIONS_END, VERSION, is_node_name, is_property_name,
};

pub(super) fn tree(bytes: &[u8]) -> Result<Node, FdtError> {
    if bytes.len() < HEADER || bytes.len() > MAX_BYTES {
        return Err(FdtError::Size(bytes.len()));
    }
    let field = |index: usize| {
        let at = index * 4;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    if field(0) != MAGIC {
        return Err(FdtError::Magic(field(0)));
    }
    if field(1) as usize != bytes.len() {
        return Err(FdtError::TotalSize { stated: field(1), found: bytes.len() });
    }
    let (version, compatible) = (field(5), field(6));
    if version != VERSION || !(COMPATIBLE_VERSION..=VERSION).contains(&compatible) {
        return Err(FdtError::Version { version, compatible });
    }
    let reservations = block(bytes, "reservation", field(4), RESERVATIONS_END, 8)?;
    let structure = block(bytes, "structure", field(2), field(9) as usize, 4)?;
    let strings = block(bytes, "strings", field(3), field(8) as usize, 1)?;
    let mut blocks = [("reservation", &reservations), ("structure", &structure), ("strings", &strings)];
    blocks.sort_by_key(|(_, range)| range.start);
    if let Some(pair) = blocks.windows(2).find(|pair| pair[0].1.end > pair[1].1.start) {
        return Err(FdtError::Block(pair[1].0));
    }
    if bytes[reservations].iter().any(|&byte| byte != 0) {
        return Err(FdtError::Reservations);
    }
    let cursor = Cursor { bytes: &bytes[structure], at: 0 };
    Walk { cursor, strings: &bytes[strings], nodes: 0, properties: 0, stack: Vec::new() }.run()
}

fn block(
    bytes: &[u8],
    name: &'static str,
    offset: u32,
    size: usize,
    align: usize,
) -> Result<std::ops::Range<usize>, FdtError> {
    let start = offset as usize;
    match start.checked_add(size) {
        Some(end) if start >= HEADER && end <= bytes.len() && start.is_multiple_of(align) => Ok(start..end),
        _ => Err(FdtError::Block(name)),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FdtError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(FdtError::Short(self.at))?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, FdtError> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(word))
    }

    /// Skips to the next multiple of four. libfdt leaves anything there when it inserts into a tree.
    fn align(&mut self) -> Result<(), FdtError> {
        self.take(self.at.next_multiple_of(4) - self.at).map(drop)
    }

    /// A name with the NUL that ends it.
    fn name(&mut self) -> Result<&'a str, FdtError> {
        let at = self.at;
        let name = text_at(self.bytes, at).ok_or(FdtError::Name(at))?;
        self.take(name.len() + 1)?;
        self.align()?;
        Ok(name)
    }
}

/// The text from `at` to the next NUL, if it is no longer than a name may be.
fn text_at(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let length = rest.iter().take(MAX_NAME + 1).position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..length]).ok()
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    strings: &'a [u8],
    nodes: usize,
    properties: usize,
    /// From the root to where the cursor is.
    stack: Vec<Node>,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Node, FdtError> {
        loop {
            let at = self.cursor.at;
            match self.cursor.u32()? {
                BEGIN_NODE => self.begin(at)?,
                PROPERTY => self.property(at)?,
                END_NODE => {
                    let wrong = FdtError::Token { token: END_NODE, at };
                    let node = self.stack.pop().ok_or(wrong)?;
                    match self.stack.last_mut() {
                        Some(parent) => parent.children.push(node),
                        None => return self.end(node),
                    }
                }
                token => return Err(FdtError::Token { token, at }),
            }
        }
    }

    /// After the root, the structure ends, and with it the block.
    fn end(mut self, root: Node) -> Result<Node, FdtError> {
        let at = self.cursor.at;
        let token = self.cursor.u32()?;
        if token != END || self.cursor.at != self.cursor.bytes.len() {
            return Err(FdtError::Token { token, at });
        }
        Ok(root)
    }

    fn begin(&mut self, at: usize) -> Result<(), FdtError> {
        let name = self.cursor.name()?;
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(FdtError::TooMany("nodes"));
        }
        if self.stack.len() == MAX_DEPTH {
            return Err(FdtError::TooMany("levels"));
        }
        match self.stack.last() {
            // The root has no name, and nothing else has none.
            None if name.is_empty() => {}
            Some(parent) if is_node_name(name) => {
                if parent.child(name).is_some() {
                    return Err(FdtError::Duplicate(name.to_owned()));
                }
            }
            _ => return Err(FdtError::Name(at)),
        }
        self.stack.push(Node::new(name));
        Ok(())
    }

    fn property(&mut self, at: usize) -> Result<(), FdtError> {
        let length = self.cursor.u32()? as usize;
        let offset = self.cursor.u32()? as usize;
        let name = text_at(self.strings, offset).filter(|name| is_property_name(name));
        let name = name.ok_or(FdtError::Name(at))?;
        let value = self.cursor.take(length)?;
        self.cursor.align()?;
        self.properties += 1;
        if self.properties > MAX_PROPERTIES {
            return Err(FdtError::TooMany("properties"));
        }
        let node = self.stack.last_mut().filter(|node| node.children.is_empty());
        let node = node.ok_or(FdtError::Token { token: PROPERTY, at })?;
        if node.property(name).is_some() {
            return Err(FdtError::Duplicate(name.to_owned()));
        }
        node.properties.push((name.to_owned(), value.to_vec()));
        Ok(())
    }
}
