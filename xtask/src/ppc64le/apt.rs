//! Debian's packages for another architecture, without making it one of this machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Unavailable, fresh};
use crate::run;

/// Debian's build of current Rust for its own browsers: the one that follows new versions.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";
/// Cross compiler, its C library, and what the agent links.
const C_PACKAGES: [&str; 12] = [
    "binutils-powerpc64le-linux-gnu",
    "cpp-12-powerpc64le-linux-gnu",
    "gcc-12-powerpc64le-linux-gnu",
    "gcc-12-powerpc64le-linux-gnu-base",
    "libc6-dev-ppc64el-cross",
    "libc6-ppc64el-cross",
    "libelf-dev:ppc64el",
    "libgcc-12-dev-ppc64el-cross",
    "libgcc-s1-ppc64el-cross",
    "linux-libc-dev-ppc64el-cross",
    "libseccomp-dev:ppc64el",
    "zlib1g-dev:ppc64el",
];
/// The workspace's rust-version.
const RUST_MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

/// apt with lists of its own, which knows one architecture more than the machine's.
pub(super) struct Apt {
    configuration: PathBuf,
}

impl Apt {
    pub(super) fn new(root: &Path) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                return Err(Unavailable(format!("there is no {program}")).into());
            }
        }
        fresh(root)?;
        for directory in ["lists/partial", "cache/archives/partial", "empty"] {
            fresh(&root.join(directory))?;
        }
        let status = root.join("status");
        fs::write(&status, "").context("cannot write apt's status")?;
        let configuration = root.join("apt.conf");
        let place = root.display();
        // The machine's own sources and keys, nothing else of its state.
        let text = format!(
            "Dir::State \"{place}\";\nDir::State::lists \"{place}/lists\";\n\
             Dir::State::status \"{place}/status\";\nDir::Cache \"{place}/cache\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"ppc64el\"; }};\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
        );
        fs::write(&configuration, text).context("cannot write apt's configuration")?;
        let apt = Self { configuration };
        // Some list may be missing or out of date; whether what is needed is there is seen below.
        let _ = apt.command("apt-get").args(["-qq", "update"]).stderr(Stdio::null()).status();
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).stdin(Stdio::null());
        command
    }

    /// The toolchain's packages with their versions. Both architectures' Rust must be one build.
    pub(super) fn toolchain(&self) -> Result<Vec<String>> {
        let version = self.candidate(COMPILER)?;
        let found = version.split('+').next().unwrap_or_default();
        if older(found, RUST_MINIMUM) {
            return Err(Unavailable(format!("{COMPILER} is {found}, {RUST_MINIMUM} is needed")).into());
        }
        let foreign = format!("{LIBRARY}:ppc64el");
        if self.candidate(&foreign)? != version {
            let other = self.candidate(&foreign)?;
            return Err(
                Unavailable(format!("{COMPILER} is {version}, {foreign} is {other}: not one build")).into()
            );
        }
        let mut packages: Vec<String> = C_PACKAGES.map(str::to_owned).into();
        packages.extend([COMPILER, LIBRARY, &foreign].map(|name| format!("{name}={version}")));
        let library = self.dependency(&packages[C_PACKAGES.len() + 1], "libstd-rust-web-")?;
        packages.push(self.dependency(&library, "libllvm")?);
        packages.push(library);
        Ok(packages)
    }

    fn candidate(&self, package: &str) -> Result<String> {
        let text = run::captured(self.command("apt-cache").args(["policy", package]))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        match line {
            Some(version) if version != "(none)" => Ok(version.to_owned()),
            _ => Err(Unavailable(format!("no package source has {package}")).into()),
        }
    }

    /// The one package whose name begins so, among those that `package` depends on.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let text = run::captured(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let mut names = depends.split(", ").filter_map(|entry| entry.split(' ').next());
        names
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} does not depend on a {prefix}…"))
    }

    /// Downloads `packages` and unpacks them below `into`, which is emptied first.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let archives = into.with_extension("archives");
        fresh(&archives)?;
        self.download(packages, &archives)?;
        fresh(into)?;
        for entry in fs::read_dir(&archives).context("cannot list the archives")? {
            let archive = entry.context("cannot list the archives")?.path();
            run::captured(Command::new("dpkg").arg("-x").arg(&archive).arg(into))?;
        }
        fs::remove_dir_all(&archives).context("cannot remove the archives")
    }

    fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let log = into.with_extension("log");
        let mut command = self.command("apt-get");
        command.current_dir(into).args(["-qq", "download"]).args(packages);
        run::logged(&mut command, &log).map_err(|error| Unavailable(format!("{error:#}")))?;
        if fs::read_dir(into).context("cannot list the archives")?.count() < packages.len() {
            bail!("apt-get brought fewer archives than were asked for; see {}", log.display());
        }
        Ok(())
    }
}

fn older(found: &str, wanted: &str) -> bool {
    let numbers =
        |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    numbers(found) < numbers(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(older("1.85.0", "1.95"));
        assert!(older("1.9.0", "1.95"));
        assert!(!older("1.95.0", "1.95"));
        assert!(!older("1.100.0", "1.95"));
    }
}
