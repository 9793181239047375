//! JSON read without its liberties: a key that is there twice is an error at any depth, and whoever takes an
//! object apart has to take all of it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::PolicyError;

/// The one value in `text`.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice::<Strict>(text).map(|value| value.0).map_err(|error| error.to_string())
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} is there twice")));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

/// An object of a policy that is being taken apart.
pub(crate) struct Object {
    pub(crate) at: String,
    members: Map<String, Value>,
}

impl Object {
    pub(crate) fn new(at: String, value: Value) -> Result<Self, PolicyError> {
        match value {
            Value::Object(members) => Ok(Self { at, members }),
            other => {
                Err(PolicyError::Value { at, problem: format!("it is {}, not an object", kind(&other)) })
            }
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.members.remove(key)
    }

    /// A string, if the member is there.
    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>, PolicyError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a string", &other)),
        }
    }

    /// A list of strings with at least one, if the member is there.
    pub(crate) fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>, PolicyError> {
        let items = match self.take(key) {
            None => return Ok(None),
            Some(Value::Array(items)) if !items.is_empty() => items,
            Some(other) => return Err(self.wrong(key, "a list of strings with at least one", &other)),
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::String(text) => texts.push(text),
                other => return Err(self.wrong(key, "a list of strings", &other)),
            }
        }
        Ok(Some(texts))
    }

    pub(crate) fn required(&mut self, key: &'static str) -> Result<String, PolicyError> {
        let at = self.at.clone();
        self.string(key)?.ok_or(PolicyError::Missing { at, key })
    }

    /// What is left, in the order of their names.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        self.members.into_iter()
    }

    /// Ends it: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), PolicyError> {
        match self.members.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(PolicyError::UnknownKey { at: self.at, key }),
        }
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> PolicyError {
        let problem = format!("{key:?} is {}; it must be {wanted}", kind(found));
        PolicyError::Value { at: self.at.clone(), problem }
    }
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_there_once_at_any_depth() {
        assert!(parse(br#"{"a":1,"b":{"a":2}}"#).is_ok());
        for twice in [r#"{"a":1,"a":1}"#, r#"{"b":{"a":1,"\u0061":2}}"#, r#"[{"x":[{"a":null,"a":null}]}]"#] {
            let error = parse(twice.as_bytes()).unwrap_err();
            assert!(error.contains("key \"a\" is there twice"), "{twice}: {error}");
        }
        for bad in ["", "{} {}", "{\"a\":1,}", "nul", "{\"a\" 1}", "\u{feff}{}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(parse(&deep).is_err());
    }
}
