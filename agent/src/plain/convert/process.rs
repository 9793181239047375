//! The process: who it is, what it runs, what it may do.

use libcontainer::oci_spec::runtime::Capability;
use protocols::oci as wire;
use serde_json::{Value, json};

use super::{MAX_ENTRIES, Notes, Result, bounded, malformed, path, text};

pub(super) fn process_value(process: &wire::Process, notes: &mut Notes) -> Result<Value> {
    for argument in bounded("args", &process.Args)? {
        text("args", argument)?;
    }
    let mut env = Vec::with_capacity(process.Env.len());
    for variable in bounded("env", &process.Env)? {
        text("env", variable)?;
        match variable.split_once('=') {
            Some((name, _)) if !name.is_empty() => env.push(variable),
            _ => notes.unless(false, "variables without a name"),
        }
    }
    let cwd = if process.Cwd.is_empty() { "/" } else { &process.Cwd };
    path("cwd", cwd)?;
    if !(-1000..=1000).contains(&process.OOMScoreAdj) {
        return Err(malformed("OOM score", "not between -1000 and 1000"));
    }
    let mut user = json!({ "uid": 0, "gid": 0 });
    if let Some(given) = process.User.as_ref() {
        user = json!({ "uid": given.UID, "gid": given.GID });
        if !given.AdditionalGids.is_empty() {
            user["additionalGids"] = json!(bounded("groups", &given.AdditionalGids)?);
        }
        notes.unless(given.Username.is_empty(), "user name");
    }
    let mut value = json!({
        "terminal": process.Terminal,
        "user": user,
        "args": process.Args,
        "env": env,
        "cwd": cwd,
        "oomScoreAdj": process.OOMScoreAdj,
    });
    // libcontainer takes any value for yes when it orders filter and capabilities.
    if process.NoNewPrivileges {
        value["noNewPrivileges"] = json!(true);
    }
    if let Some(size) = process.ConsoleSize.as_ref().filter(|size| size.Height > 0 && size.Width > 0) {
        value["consoleSize"] = json!({ "height": size.Height, "width": size.Width });
    }
    if let Some(sets) = process.Capabilities.as_ref() {
        value["capabilities"] = capabilities(sets, notes);
    }
    let limits = bounded("limits", &process.Rlimits)?.iter().map(limit).collect::<Result<Vec<_>>>()?;
    if !limits.is_empty() {
        value["rlimits"] = json!(limits);
    }
    notes.unless(process.ApparmorProfile.is_empty(), "AppArmor profile");
    notes.unless(process.SelinuxLabel.is_empty(), "SELinux label");
    Ok(value)
}

fn limit(limit: &wire::POSIXRlimit) -> Result<Value> {
    if limit.Soft > limit.Hard {
        return Err(malformed("limits", format!("{} has a soft limit above the hard one", limit.Type)));
    }
    let name = limit.Type.strip_prefix("RLIMIT_").unwrap_or(&limit.Type);
    Ok(json!({ "type": format!("RLIMIT_{name}"), "hard": limit.Hard, "soft": limit.Soft }))
}

/// Ones that this kernel's headers don't know are left out, as runc does it.
fn capabilities(sets: &wire::LinuxCapabilities, notes: &mut Notes) -> Value {
    let mut set = |names: &[String]| {
        let known = names.iter().take(MAX_ENTRIES).filter_map(|name| {
            let name = name.to_ascii_uppercase();
            let name = format!("CAP_{}", name.strip_prefix("CAP_").unwrap_or(&name));
            let known = serde_json::from_value::<Capability>(json!(name)).is_ok();
            notes.unless(known, "capabilities that nobody knows");
            known.then_some(name)
        });
        // A set: the runtime's type takes each once.
        let mut known: Vec<String> = known.collect();
        known.sort();
        known.dedup();
        json!(known)
    };
    json!({
        "bounding": set(&sets.Bounding),
        "effective": set(&sets.Effective),
        "inheritable": set(&sets.Inheritable),
        "permitted": set(&sets.Permitted),
        "ambient": set(&sets.Ambient),
    })
}
