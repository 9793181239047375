//! Key files become part of the policy when it is sealed: a guest has none of the owner's files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::policy::DOCKER;
use crate::{MAX_POLICY, Policy, PolicyError, json, openpgp};

/// The policy in `text` with the contents of its key files in place of their names, and without transports that
/// can't apply. `read` is given each file's name as the policy has it. The result is a policy that stands alone.
///
/// # Errors
/// When `text` is no policy, a file can't be read, or what it holds isn't a key.
pub fn inline_key_files(
    text: &[u8],
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<Value, PolicyError> {
    Policy::parse(text)?;
    let mut policy = json::parse(text).map_err(PolicyError::Json)?;
    if let Some(transports) = policy.get_mut("transports").and_then(Value::as_object_mut) {
        transports.retain(|transport, _| transport == DOCKER);
        let scopes = transports.values_mut().filter_map(Value::as_object_mut);
        for (scope, list) in scopes.flat_map(|scopes| scopes.iter_mut()) {
            inline_list(&format!("transports.{DOCKER}[{scope:?}]"), list, read)?;
        }
    }
    if let Some(list) = policy.get_mut("default") {
        inline_list("default", list, read)?;
    }
    if policy.to_string().len() > MAX_POLICY {
        return Err(PolicyError::TooLarge);
    }
    Policy::from_value(policy.clone())?;
    Ok(policy)
}

fn inline_list(
    at: &str,
    list: &mut Value,
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<(), PolicyError> {
    let requirements = list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
    for (index, requirement) in requirements.enumerate() {
        let at = format!("{at}[{index}]");
        let files = files(requirement);
        if files.is_empty() {
            continue;
        }
        let mut contents = Vec::with_capacity(files.len());
        for path in files {
            let content =
                read(&path).map_err(|reason| PolicyError::KeyFile { at: at.clone(), path, reason })?;
            contents.push(content);
        }
        if requirement.get("type").and_then(Value::as_str) == Some("signedBy") {
            // One ring of all files; armour has to go, for a ring may have only one.
            let mut ring = Vec::new();
            for content in &contents {
                let binary = openpgp::unarmored(content);
                ring.extend(binary.map_err(|problem| PolicyError::Key { at: at.clone(), problem })?.iter());
            }
            requirement.insert("keyData".into(), STANDARD.encode(ring).into());
        } else {
            let keys: Vec<String> = contents.iter().map(|content| STANDARD.encode(content)).collect();
            match <[String; 1]>::try_from(keys) {
                Ok([key]) => requirement.insert("keyData".into(), key.into()),
                Err(keys) => requirement.insert("keyDatas".into(), keys.into()),
            };
        }
    }
    Ok(())
}

/// Takes the members that name files.
fn files(requirement: &mut Map<String, Value>) -> Vec<String> {
    let one = requirement.remove("keyPath").into_iter();
    let several = match requirement.remove("keyPaths") {
        Some(Value::Array(paths)) => paths,
        _ => Vec::new(),
    };
    one.chain(several).filter_map(|path| path.as_str().map(str::to_owned)).collect()
}
