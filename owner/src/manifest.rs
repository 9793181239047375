//! Kubernetes manifests as YAML: read strictly, with line and column in errors; written readable, and
//! the same each time.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::files;

/// Longest manifest: what an API server takes.
const LIMIT: usize = 3 * 1024 * 1024;

/// Reads a file that holds one object.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let text = files::read_text(path, LIMIT)?;
    parse(&text).map_err(|error| anyhow!("{}:{error}", path.display()))
}

/// Reads a file that holds any number of objects, lists of them taken apart.
pub(crate) fn read_all(path: &Path) -> Result<Vec<Value>> {
    let text = files::read_text(path, LIMIT)?;
    let documents: Vec<Value> = documents(&text).map_err(|error| anyhow!("{}:{error}", path.display()))?;
    let mut objects = Vec::new();
    for document in documents {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if document.get("kind").is_some_and(|kind| kind == "List") => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(document),
        }
    }
    Ok(objects)
}

/// One document of a known layout; errors start with `line:column: `.
pub(crate) fn parse_as<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    let mut documents = documents(text)?.into_iter();
    let document = documents.next().context("1:1: nothing in it")?;
    let more = documents.count();
    ensure!(more == 0, " it holds {} documents; one is needed", more + 1);
    Ok(document)
}

/// One object; errors start with `line:column: `.
pub(crate) fn parse(text: &str) -> Result<Value> {
    let documents: Vec<Value> = documents(text)?;
    let mut objects = documents.into_iter().filter(|document| !document.is_null());
    let object = objects.next().context("1:1: no Kubernetes object in it")?;
    let more = objects.count();
    if more > 0 {
        bail!(" it holds {} objects; seal one workload at a time, each in a file of its own", more + 1);
    }
    Ok(object)
}

fn documents<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    let options = serde_saphyr::options! {
        // Kubernetes reads YAML 1.1's numbers.
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| place(&error))
}

fn place(error: &serde_saphyr::Error) -> anyhow::Error {
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or("not YAML");
    match error.location() {
        Some(location) => {
            let again = format!(" at line {}, column {}", location.line(), location.column());
            let message = message.strip_suffix(&again).unwrap_or(message);
            anyhow!("{}:{}: {message}", location.line(), location.column())
        }
        None => anyhow!(" {message}"),
    }
}

/// Several objects as one file of YAML documents.
pub(crate) fn write(objects: &[Value]) -> Result<String> {
    let options = serde_saphyr::ser_options! {
        // Annotation and sealed document are one line each: folding them would only hide that.
        prefer_block_scalars: false,
    };
    serde_saphyr::to_string_multiple_with_options(objects, options)
        .context("manifest can't be written as YAML")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_have_line_and_column() {
        for (text, start) in [
            ("a: 1\nb: [1, 2\n", "2:4: unclosed bracket '['"),
            ("a: 1\n\tb: 2\n", "1:4: "),
            ("a: 1\na: 2\n", "2:1"),
            ("a: !secret x\n", "1:"),
            ("a: *nothing\n", "1:"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }

    #[test]
    fn one_object_only() {
        assert_eq!(parse("---\na: yes\n---\n").unwrap(), json!({ "a": true }));
        assert!(parse("a: 1\n---\nb: 2\n").unwrap_err().to_string().contains("2 objects"));
        assert!(parse("# nothing\n").unwrap_err().to_string().contains("no Kubernetes object"));
        // Anchors are a common way to write things once.
        assert_eq!(parse("a: &x {b: 1}\nc: *x\n").unwrap(), json!({ "a": { "b": 1 }, "c": { "b": 1 } }));
    }

    #[test]
    fn text_stays_text() {
        let values = json!({ "a": "yes", "b": "1", "c": "1.0", "d": "null", "e": "", "f": "0x1", "g": " x", "h": "a: b", "i": "~", "j": "2026-11-21", "k": "line\nline\n", "l": "1_000", "m": "012" });
        let text = write(std::slice::from_ref(&values)).unwrap();
        assert_eq!(parse(&text).unwrap(), values, "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::btree_map("[ -~]{1,12}", "\\PC{0,30}", 0..6), number in any::<i64>()) {
            let value = json!({ "pairs": pairs, "number": number, "list": [{ "x": true, "y": [] }, {}] });
            let text = write(std::slice::from_ref(&value)).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), value, "{}", text);
        }
    }
}
