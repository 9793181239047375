//! Kernel modules that the host asks for: from the guest's own `/lib/modules`, with what they depend on,
//! or by modprobe where the guest has one.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use protocols::agent as wire;

use crate::agent::Agent;
use crate::error::{Error, Result};

const MODPROBE: &str = "/sbin/modprobe";
const MAX_MODULES: usize = 64;
/// The module itself, and those that it needs.
const MAX_CHAIN: usize = 64;

/// One module, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    name: String,
    parameters: String,
}

/// Checks the host's list.
pub(super) fn check(list: &[wire::KernelModule]) -> Result<Vec<Module>> {
    if list.len() > MAX_MODULES {
        return Err(Error::Internal(format!("more than {MAX_MODULES} kernel modules")));
    }
    list.iter().map(module).collect()
}

fn module(module: &wire::KernelModule) -> Result<Module> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if module.name.is_empty() || module.name.len() > 64 || !module.name.chars().all(plain) {
        return Err(Error::Internal("a kernel module's name is made of letters, digits, '_' and '-'".into()));
    }
    let words = |text: &String| text.bytes().all(|b| b.is_ascii_graphic()) && !text.starts_with('-');
    if !module.parameters.iter().all(words) {
        return Err(Error::Internal(format!("kernel module {}: a parameter is NAME=VALUE", module.name)));
    }
    Ok(Module { name: module.name.replace('-', "_"), parameters: module.parameters.join(" ") })
}

impl Agent {
    pub(super) async fn load_modules(&self, modules: Vec<Module>) -> Result<()> {
        for module in modules {
            if is_loaded(Path::new("/sys/module"), &module.name) {
                continue;
            }
            if Path::new(MODPROBE).exists() {
                self.modprobe(&module).await?;
            } else {
                super::blocking(move || load(&module)).await?;
            }
        }
        Ok(())
    }

    async fn modprobe(&self, module: &Module) -> Result<()> {
        let mut command = Command::new(MODPROBE);
        command.arg("--").arg(&module.name).args(module.parameters.split_whitespace());
        let output = self.reaper.output(&mut command, &[]).await.map_err(Error::step("running modprobe"))?;
        if output.code != 0 {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(Error::Internal(format!("kernel module {}: {words}", module.name)));
        }
        Ok(())
    }
}

fn is_loaded(modules: &Path, name: &str) -> bool {
    modules.join(name).is_dir()
}

fn load(module: &Module) -> Result<()> {
    let release =
        nix::sys::utsname::uname().map_err(|e| Error::Internal(format!("asking for the kernel: {e}")))?;
    let directory = Path::new("/lib/modules").join(release.release());
    let files = chain(&directory, &module.name)?;
    for (at, file) in files.iter().enumerate() {
        let last = at + 1 == files.len();
        insert(file, if last { &module.parameters } else { "" })
            .map_err(|reason| Error::Internal(format!("kernel module {}: {reason}", module.name)))?;
    }
    Ok(())
}

/// Files in the order in which they are loaded: what others need comes first. Nothing for a module that is
/// part of the kernel.
fn chain(directory: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    if read("modules.builtin").lines().any(|line| stem(line) == name) {
        return Ok(Vec::new());
    }
    let table = read("modules.dep");
    // `kernel/a.ko: kernel/b.ko kernel/c.ko`: a needs b, which may need c.
    let entry = table.lines().find_map(|line| line.split_once(':').filter(|(file, _)| stem(file) == name));
    let Some((file, needed)) = entry else {
        return Err(Error::Internal(format!(
            "kernel module {name}: neither part of the kernel nor in {}",
            directory.display()
        )));
    };
    let mut seen = BTreeSet::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for file in needed.split_whitespace().rev().chain([file]).take(MAX_CHAIN) {
        if seen.insert(file) {
            files.push(directory.join(file));
        }
    }
    Ok(files)
}

/// `kernel/net/9p/9pnet-virtio.ko.xz` is `9pnet_virtio`.
fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

fn insert(file: &Path, parameters: &str) -> std::result::Result<(), String> {
    let name = file.display();
    if file.extension().is_none_or(|extension| extension != "ko") {
        return Err(format!("{name} is compressed; put it into the initrd as it is"));
    }
    let opened = File::open(file).map_err(|e| format!("opening {name}: {e}"))?;
    let parameters = CString::new(parameters).map_err(|_| "a parameter holds a NUL".to_owned())?;
    match finit_module(&opened, &parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(format!("loading {name}: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, parameters: &[&str]) -> Result<Vec<Module>> {
        let parameters = parameters.iter().map(|p| (*p).to_owned()).collect();
        check(&[wire::KernelModule { name: name.into(), parameters, ..Default::default() }])
    }

    #[test]
    fn names_and_parameters_are_checked() {
        let module = asked("i915", &["enable_ppgtt=0", "guc=1"]).unwrap().remove(0);
        assert_eq!(module, Module { name: "i915".into(), parameters: "enable_ppgtt=0 guc=1".into() });
        for name in ["", "../evil", "a b", "a/b", "a.ko", &"x".repeat(65)] {
            assert!(asked(name, &[]).is_err(), "{name}");
        }
        for parameter in ["a b", "-r", "a\n", "ä=1"] {
            assert!(asked("x", &[parameter]).is_err(), "{parameter}");
        }
        assert!(check(&vec![wire::KernelModule::new(); 65]).is_err());
    }

    #[test]
    fn what_a_module_needs_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let table = "kernel/a.ko:\nkernel/net/b-c.ko: kernel/d.ko kernel/a.ko\nkernel/d.ko: kernel/a.ko\n";
        fs::write(dir.path().join("modules.dep"), table).unwrap();
        let files = |name: &str| chain(dir.path(), name).unwrap();
        assert_eq!(
            files("b_c"),
            ["kernel/a.ko", "kernel/d.ko", "kernel/net/b-c.ko"].map(|f| dir.path().join(f))
        );
        assert!(files("ext4").is_empty());
        let error = chain(dir.path(), "none").unwrap_err().to_string();
        assert!(error.contains("kernel module none: neither part of the kernel"), "{error}");
    }

    #[test]
    fn what_is_not_a_module_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.ko");
        fs::write(&file, "not a module").unwrap();
        assert!(insert(&file, "").unwrap_err().contains("x.ko"));
        assert!(insert(&dir.path().join("x.ko.xz"), "").unwrap_err().contains("compressed"));
    }
}
