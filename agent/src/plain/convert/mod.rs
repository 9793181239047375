//! From the wire's OCI specification (`grpc.Spec`) to the runtime's own. What the wire can't say (absent
//! numbers come as 0, capabilities without `CAP_`, the mount namespace as `mnt`) is put right here; what
//! has no meaning in this guest is left out, and named.

mod linux;
mod process;
mod resources;

use libcontainer::oci_spec::runtime::{Process, Spec};
use protocols::oci as wire;
use serde_json::{Map, Value, json};

use linux::linux_value;
use process::process_value;

/// Runtime specification that libcontainer reads.
const VERSION: &str = "1.0.2";
const MAX_NAME: usize = 4096;
/// Entries of one list, also of all its lists together where there are several.
const MAX_ENTRIES: usize = 65_536;

/// A specification, and what of the wire's is not in it.
#[derive(Debug)]
pub struct Converted<T> {
    /// For libcontainer.
    pub value: T,
    /// What was left out, for a record.
    pub left_out: Vec<String>,
}

/// Why a specification can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A part that every container has.
    #[error("the OCI specification has no {0}")]
    Missing(&'static str),
    /// A part that can't be what it says.
    #[error("the OCI specification's {part}: {reason}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Controllers that the guest's kernel has and whose absence only costs a limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Controllers {
    /// `io` or `blkio`.
    pub io: bool,
    /// `hugetlb`.
    pub hugetlb: bool,
}

type Result<T> = std::result::Result<T, ConvertError>;

/// Converts a whole specification. Namespaces for networks and processes are left to the agent.
pub fn spec(spec: &wire::Spec, controllers: Controllers) -> Result<Converted<Spec>> {
    let mut notes = Notes::default();
    let process = spec.Process.as_ref().ok_or(ConvertError::Missing("process"))?;
    let root = spec.Root.as_ref().ok_or(ConvertError::Missing("root"))?;
    let linux = spec.Linux.as_ref().ok_or(ConvertError::Missing("linux section"))?;
    text("root", &root.Path)?;
    text("host name", &spec.Hostname)?;
    let mut value = json!({
        "ociVersion": VERSION,
        "root": { "path": root.Path, "readonly": root.Readonly },
        "process": process_value(process, &mut notes)?,
        "mounts": bounded("mounts", &spec.Mounts)?.iter().map(mount).collect::<Result<Vec<_>>>()?,
        "linux": linux_value(linux, controllers, &mut notes)?,
        "annotations": spec.Annotations,
    });
    if let Some(hooks) = spec.Hooks.as_ref() {
        value["hooks"] = hooks_value(hooks)?;
    }
    notes.unless(spec.Solaris.is_none() && spec.Windows.is_none(), "other systems' sections");
    typed("structure", value).map(|value| Converted { value, left_out: notes.0 })
}

/// Converts the process of an exec.
pub fn process(process: &wire::Process) -> Result<Converted<Process>> {
    let mut notes = Notes::default();
    let value = process_value(process, &mut notes)?;
    if process.Args.is_empty() {
        return Err(malformed("args", "they are empty"));
    }
    typed("process", value).map(|value| Converted { value, left_out: notes.0 })
}

/// What was left out, once each.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn unless(&mut self, fine: bool, what: impl Into<String>) {
        let what = what.into();
        if !fine && !self.0.contains(&what) {
            self.0.push(what);
        }
    }
}

fn typed<T: serde::de::DeserializeOwned>(part: &'static str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| malformed(part, error.to_string()))
}

fn malformed(part: &'static str, reason: impl Into<String>) -> ConvertError {
    let reason: String = reason.into();
    ConvertError::Malformed { part, reason: reason.chars().filter(|c| !c.is_control()).take(300).collect() }
}

/// A string that reaches the kernel.
fn text(part: &'static str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(malformed(part, "it holds a NUL"));
    }
    Ok(())
}

fn path(part: &'static str, path: &str) -> Result<()> {
    text(part, path)?;
    if !path.starts_with('/') || path.len() > MAX_NAME {
        return Err(malformed(part, "not an absolute path of at most 4096 bytes"));
    }
    Ok(())
}

fn bounded<'a, T>(part: &'static str, list: &'a [T]) -> Result<&'a [T]> {
    match list.len() {
        0..=MAX_ENTRIES => Ok(list),
        _ => Err(malformed(part, format!("more than {MAX_ENTRIES} entries"))),
    }
}

fn mount(mount: &wire::Mount) -> Result<Value> {
    path("mount destination", &mount.destination)?;
    text("mount source", &mount.source)?;
    text("mount type", &mount.type_)?;
    for option in bounded("mount options", &mount.options)? {
        text("mount options", option)?;
    }
    let binds = |option: &String| option == "bind" || option == "rbind";
    let mut options = mount.options.clone();
    let is_bind = mount.type_ == "bind" || options.iter().any(binds);
    if is_bind {
        path("source of a bind mount", &mount.source)?;
        if !options.iter().any(binds) {
            options.push("rbind".to_owned());
        }
    }
    let kind = if is_bind { "bind" } else { &mount.type_ };
    let mut value = json!({ "destination": mount.destination, "options": options });
    for (key, text) in [("type", kind), ("source", &mount.source)] {
        if !text.is_empty() {
            value[key] = json!(text);
        }
    }
    Ok(value)
}

fn hooks_value(hooks: &wire::Hooks) -> Result<Value> {
    let list = |list: &[wire::Hook]| bounded("hooks", list)?.iter().map(hook).collect::<Result<Vec<_>>>();
    let mut value = Map::new();
    for (name, hooks) in [
        ("prestart", &hooks.Prestart),
        ("createRuntime", &hooks.CreateRuntime),
        ("createContainer", &hooks.CreateContainer),
        ("startContainer", &hooks.StartContainer),
        ("poststart", &hooks.Poststart),
        ("poststop", &hooks.Poststop),
    ] {
        let hooks = list(hooks)?;
        if !hooks.is_empty() {
            value.insert(name.to_owned(), json!(hooks));
        }
    }
    Ok(Value::Object(value))
}

fn hook(hook: &wire::Hook) -> Result<Value> {
    path("hook", &hook.Path)?;
    for word in hook.Args.iter().chain(&hook.Env) {
        text("hook", word)?;
    }
    let mut value = json!({ "path": hook.Path, "args": hook.Args, "env": hook.Env });
    if hook.Timeout > 0 {
        value["timeout"] = json!(hook.Timeout);
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
