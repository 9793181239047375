//! JSON patches (RFC 6902) on the policy's state: only below `/pstate`, all operations or none.

use serde_json::{Map, Value};

/// Key of `data` below which a policy keeps its state.
pub(crate) const STATE: &str = "pstate";
/// Most operations of one patch.
const MAX_OPERATIONS: usize = 256;
/// Largest state, as JSON.
const MAX_STATE: usize = 1024 * 1024;

/// The state after the patch; the state itself stays as it is when any operation fails.
pub(crate) fn apply(state: &Value, operations: &Value) -> Result<Value, &'static str> {
    let operations = operations.as_array().ok_or("they are no list")?;
    if operations.len() > MAX_OPERATIONS {
        return Err("there are too many");
    }
    let mut root = Value::Object(Map::from_iter([(STATE.to_owned(), state.clone())]));
    for operation in operations {
        one(&mut root, operation)?;
    }
    let state = root.get_mut(STATE).map(Value::take).ok_or("the state is gone")?;
    if !state.is_object() {
        return Err("the state is no object any more");
    }
    if state.to_string().len() > MAX_STATE {
        return Err("the state grows too large");
    }
    Ok(state)
}

fn one(root: &mut Value, operation: &Value) -> Result<(), &'static str> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = pointer(text("path").ok_or("one has no path")?)?;
    let value = || operation.get("value").cloned().ok_or("one has no value");
    match text("op").ok_or("one has no op")? {
        "add" => add(root, &path, value()?),
        "remove" => remove(root, &path).map(drop),
        "replace" => {
            remove(root, &path)?;
            add(root, &path, value()?)
        }
        "move" => {
            let from = pointer(text("from").ok_or("one has no from")?)?;
            if path.starts_with(&from) && path != from {
                return Err("one moves a value into itself");
            }
            let moved = remove(root, &from)?;
            add(root, &path, moved)
        }
        "copy" => {
            let from = pointer(text("from").ok_or("one has no from")?)?;
            let copied = find(root, &from).cloned().ok_or("one names a place that isn't there")?;
            add(root, &path, copied)
        }
        "test" if find(root, &path) == Some(&value()?) => Ok(()),
        "test" => Err("a test fails"),
        _ => Err("one has an unknown op"),
    }
}

/// The tokens of a pointer (RFC 6901) into the state.
fn pointer(text: &str) -> Result<Vec<String>, &'static str> {
    let rest = text.strip_prefix('/').ok_or("a path doesn't begin with /")?;
    let tokens: Vec<String> = rest.split('/').map(|t| t.replace("~1", "/").replace("~0", "~")).collect();
    match tokens.first() {
        Some(first) if first == STATE => Ok(tokens),
        _ => Err("a path leads out of /pstate"),
    }
}

fn find<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, token| match value {
        Value::Object(members) => members.get(token),
        Value::Array(items) => items.get(index(token)?),
        _ => None,
    })
}

fn parent<'a, 'p>(root: &'a mut Value, path: &'p [String]) -> Result<(&'a mut Value, &'p str), &'static str> {
    let (last, before) = path.split_last().ok_or("a path is empty")?;
    let parent = before.iter().try_fold(root, |value, token| match value {
        Value::Object(members) => members.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        _ => None,
    });
    Ok((parent.ok_or("one names a place that isn't there")?, last))
}

fn add(root: &mut Value, path: &[String], value: Value) -> Result<(), &'static str> {
    match parent(root, path)? {
        (Value::Object(members), name) => {
            members.insert(name.to_owned(), value);
        }
        (Value::Array(items), "-") => items.push(value),
        (Value::Array(items), token) => match index(token) {
            Some(at) if at <= items.len() => items.insert(at, value),
            _ => return Err("one names a place that isn't there"),
        },
        _ => return Err("one adds to a value that holds no others"),
    }
    Ok(())
}

fn remove(root: &mut Value, path: &[String]) -> Result<Value, &'static str> {
    const NOWHERE: &str = "one names a place that isn't there";
    match parent(root, path)? {
        (Value::Object(members), name) => members.remove(name).ok_or(NOWHERE),
        (Value::Array(items), token) => match index(token) {
            Some(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(NOWHERE),
        },
        _ => Err(NOWHERE),
    }
}

/// No sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    canonical.then(|| token.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_operation() {
        let state = json!({"a": 1, "list": [1, 3]});
        for (operations, after) in [
            (json!([]), json!({"a": 1, "list": [1, 3]})),
            (
                json!([{"op": "add", "path": "/pstate/b", "value": null}]),
                json!({"a": 1, "b": null, "list": [1, 3]}),
            ),
            (
                json!([{"op": "add", "path": "/pstate/list/1", "value": 2}]),
                json!({"a": 1, "list": [1, 2, 3]}),
            ),
            (
                json!([{"op": "add", "path": "/pstate/list/-", "value": 4}]),
                json!({"a": 1, "list": [1, 3, 4]}),
            ),
            (json!([{"op": "remove", "path": "/pstate/list/0"}]), json!({"a": 1, "list": [3]})),
            (json!([{"op": "replace", "path": "/pstate/a", "value": 2}]), json!({"a": 2, "list": [1, 3]})),
            (
                json!([{"op": "move", "from": "/pstate/a", "path": "/pstate/c"}]),
                json!({"c": 1, "list": [1, 3]}),
            ),
            (
                json!([{"op": "copy", "from": "/pstate/a", "path": "/pstate/c"}]),
                json!({"a": 1, "c": 1, "list": [1, 3]}),
            ),
            (json!([{"op": "test", "path": "/pstate/a", "value": 1}]), json!({"a": 1, "list": [1, 3]})),
            (
                json!([{"op": "add", "path": "/pstate/x~1y~0z", "value": 1}]),
                json!({"a": 1, "x/y~z": 1, "list": [1, 3]}),
            ),
        ] {
            assert_eq!(apply(&state, &operations).as_ref(), Ok(&after), "{operations}");
        }
    }

    #[test]
    fn a_patch_that_does_not_apply_changes_nothing() {
        let state = json!({"a": 1});
        for operations in [
            json!({}),
            json!([{"op": "add", "path": "/pstate/b", "value": 1}, {"op": "test", "path": "/pstate/a", "value": 2}]),
            json!([{"op": "add", "path": "/pstate/b"}]),
            json!([{"op": "add", "path": "/agent_policy/b", "value": 1}]),
            json!([{"op": "add", "path": "", "value": 1}]),
            json!([{"op": "add", "path": "/pstate/a/b", "value": 1}]),
            json!([{"op": "add", "path": "/pstate/b/c", "value": 1}]),
            json!([{"op": "remove", "path": "/pstate/b"}]),
            json!([{"op": "replace", "path": "/pstate/b", "value": 1}]),
            json!([{"op": "remove", "path": "/pstate"}]),
            json!([{"op": "replace", "path": "/pstate", "value": 1}]),
            json!([{"op": "move", "from": "/pstate", "path": "/pstate/a"}]),
            json!([{"op": "frob", "path": "/pstate/a"}]),
            json!([{"path": "/pstate/a"}]),
            json!([{"op": "add", "path": "/pstate/b", "value": "x".repeat(MAX_STATE)}]),
            Value::Array(vec![json!({"op": "test", "path": "/pstate/a", "value": 1}); MAX_OPERATIONS + 1]),
        ] {
            assert!(apply(&state, &operations).is_err(), "{operations:.200}");
        }
        assert_eq!(state, json!({"a": 1}));
    }
}
