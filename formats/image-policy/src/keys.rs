//! The keys of a requirement: in the policy itself, or in files that sealing has to read in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::PolicyError;
use crate::json::Object;

/// Where the keys of one requirement are.
#[derive(Clone, Debug)]
pub(crate) enum Keys<T> {
    /// Read.
    Here(T),
    /// In these files, which a guest doesn't have.
    Files(Vec<String>),
}

/// The members of a requirement that name keys; exactly one is there.
pub(crate) enum KeyMembers {
    Data(Vec<Vec<u8>>),
    Files(Vec<String>),
}

/// Takes one of `keyPath`, `keyPaths`, `keyData` and, for `several`, `keyDatas`.
pub(crate) fn members(object: &mut Object, several: bool) -> Result<KeyMembers, PolicyError> {
    let mut found = Vec::new();
    if let Some(path) = object.string("keyPath")? {
        found.push(KeyMembers::Files(vec![path]));
    }
    if let Some(paths) = object.strings("keyPaths")? {
        found.push(KeyMembers::Files(paths));
    }
    if let Some(data) = object.string("keyData")? {
        found.push(KeyMembers::Data(vec![decode(object, "keyData", &data)?]));
    }
    if several && let Some(datas) = object.strings("keyDatas")? {
        let datas: Result<_, _> = datas.iter().map(|data| decode(object, "keyDatas", data)).collect();
        found.push(KeyMembers::Data(datas?));
    }
    let names =
        if several { "keyPath, keyPaths, keyData and keyDatas" } else { "keyPath, keyPaths and keyData" };
    match (found.pop(), found.is_empty()) {
        (Some(keys), true) => Ok(keys),
        _ => Err(PolicyError::Value {
            at: object.at.clone(),
            problem: format!("exactly one of {names} is needed"),
        }),
    }
}

fn decode(object: &Object, key: &str, text: &str) -> Result<Vec<u8>, PolicyError> {
    // Line ends come with base64 tools and mean nothing.
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).map_err(|_| PolicyError::Value {
        at: object.at.clone(),
        problem: format!("{key:?} is not standard base64"),
    })
}
