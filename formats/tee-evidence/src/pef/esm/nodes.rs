//! Nodes with exactly the parts that they are to have.

use super::EsmError;
use crate::pef::fdt::Node;

/// These properties and children, each of them and nothing else.
pub(in crate::pef) fn exactly(
    node: &Node,
    place: &str,
    properties: &[&'static str],
    children: &[&'static str],
) -> Result<(), EsmError> {
    let unexpected = |name: &str| EsmError::Unexpected { name: name.to_owned(), place: place.to_owned() };
    if let Some((name, _)) = node.properties.iter().find(|(name, _)| !properties.contains(&name.as_str())) {
        return Err(unexpected(name));
    }
    if let Some(child) = node.children.iter().find(|child| !children.contains(&child.name.as_str())) {
        return Err(unexpected(&child.name));
    }
    if let Some(name) = properties.iter().find(|name| node.property(name).is_none()) {
        return Err(EsmError::Missing(name));
    }
    match children.iter().find(|name| node.child(name).is_none()) {
        Some(name) => Err(EsmError::Missing(name)),
        None => Ok(()),
    }
}

/// A property that is text with a NUL at its end, and no other.
pub(in crate::pef) fn text<'a>(node: &'a Node, name: &'static str) -> Result<&'a str, EsmError> {
    let value = node.property(name).ok_or(EsmError::Missing(name))?;
    let text = value.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
    text.filter(|text| !text.contains('\0')).ok_or(EsmError::Text(name))
}

pub(in crate::pef) fn array<const N: usize>(node: &Node, name: &'static str) -> Result<[u8; N], EsmError> {
    let value = node.property(name).ok_or(EsmError::Missing(name))?;
    value.try_into().map_err(|_| EsmError::Length { name, expected: N, found: value.len() })
}
