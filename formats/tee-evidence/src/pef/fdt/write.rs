//! Writing, packed as libfdt's `fdt_pack` leaves a tree: header, an empty list of reservations, structure,
//! strings. A string that another one ends with is not written again.

use super::{
    BEGIN_NODE, COMPATIBLE_VERSION, END, END_NODE, FdtError, HEADER, MAGIC, MAX_BYTES, MAX_DEPTH, Node,
    PROPERTY, RESERVATIONS_END, VERSION, is_node_name, is_property_name,
};

pub(super) fn tree(root: &Node, strings: &[&str]) -> Result<Vec<u8>, FdtError> {
    let mut writer = Writer { structure: Vec::new(), strings: Vec::new() };
    for string in strings {
        if uses(root, string) {
            writer.string(string);
        }
    }
    writer.node(root, 1)?;
    writer.word(END);
    let Writer { structure, strings } = writer;

    let structure_at = HEADER + RESERVATIONS_END;
    let strings_at = structure_at + structure.len();
    let total = strings_at + strings.len();
    if total > MAX_BYTES {
        return Err(FdtError::Size(total));
    }
    let header = [
        MAGIC,
        total as u32, // all below MAX_BYTES
        structure_at as u32,
        strings_at as u32,
        HEADER as u32,
        VERSION,
        COMPATIBLE_VERSION,
        0,
        strings.len() as u32,
        structure.len() as u32,
    ];
    let mut out = Vec::with_capacity(total);
    out.extend(header.iter().flat_map(|word| word.to_be_bytes()));
    out.extend([0; RESERVATIONS_END]);
    out.extend(structure);
    out.extend(strings);
    Ok(out)
}

fn uses(node: &Node, name: &str) -> bool {
    node.property(name).is_some() || node.children.iter().any(|child| uses(child, name))
}

struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn align(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn node(&mut self, node: &Node, depth: usize) -> Result<(), FdtError> {
        let at = self.structure.len();
        let root = depth == 1;
        if !(root && node.name.is_empty() || !root && is_node_name(&node.name)) {
            return Err(FdtError::Name(at));
        }
        if depth > MAX_DEPTH {
            return Err(FdtError::TooMany("levels"));
        }
        self.word(BEGIN_NODE);
        self.structure.extend(node.name.as_bytes());
        self.structure.push(0);
        self.align();
        for (index, (name, value)) in node.properties.iter().enumerate() {
            if !is_property_name(name) {
                return Err(FdtError::Name(at));
            }
            if node.properties[..index].iter().any(|(other, _)| other == name) {
                return Err(FdtError::Duplicate(name.clone()));
            }
            let length = u32::try_from(value.len()).map_err(|_| FdtError::Size(value.len()))?;
            let offset = self.string(name);
            self.word(PROPERTY);
            self.word(length);
            self.word(offset);
            self.structure.extend(value);
            self.align();
        }
        for (index, child) in node.children.iter().enumerate() {
            if node.children[..index].iter().any(|other| other.name == child.name) {
                return Err(FdtError::Duplicate(child.name.clone()));
            }
            self.node(child, depth + 1)?;
        }
        self.word(END_NODE);
        Ok(())
    }

    /// Where the string stands, which is also inside a longer one that ends with it.
    fn string(&mut self, name: &str) -> u32 {
        let bytes = [name.as_bytes(), &[0]].concat();
        let found = self.strings.windows(bytes.len()).position(|window| window == bytes);
        let at = found.unwrap_or_else(|| {
            self.strings.extend(&bytes);
            self.strings.len() - bytes.len()
        });
        at as u32 // names are short and few: checked against MAX_BYTES at the end
    }
}
