//! Kernel configuration fragments: one option a line, each with its reason, and the check that all of
//! them are still there after kconfig has resolved dependencies.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// One line of a fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KernelOption {
    /// `CONFIG_…`
    pub(crate) name: String,
    /// `y`, `n`, a number or a quoted string.
    pub(crate) value: String,
}

/// Reads a fragment; a line that is neither a comment nor `CONFIG_X=value  # reason` is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<KernelOption>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<KernelOption>> {
    let mut options = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (setting, reason) =
            line.split_once(" # ").with_context(|| format!("line {number}: no reason after ' # '"))?;
        if reason.trim().is_empty() {
            bail!("line {number}: the reason is empty");
        }
        let (name, value) =
            setting.trim().split_once('=').with_context(|| format!("line {number}: not NAME=value"))?;
        if !name.starts_with("CONFIG_") || value.is_empty() {
            bail!("line {number}: not CONFIG_NAME=value");
        }
        options.push(KernelOption { name: name.to_owned(), value: value.to_owned() });
    }
    Ok(options)
}

/// The fragment as kconfig reads it.
pub(crate) fn render(options: &[KernelOption]) -> String {
    options.iter().map(|o| format!("{}={}\n", o.name, o.value)).collect()
}

/// Compares the resolved `.config` with what was asked for; names every option that did not survive.
pub(crate) fn check_survived(options: &[KernelOption], resolved: &str) -> Result<()> {
    let value_of = |name: &str| {
        resolved.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or("n").to_owned()
    };
    let lost: Vec<String> = options
        .iter()
        .map(|option| (option, value_of(&option.name)))
        .filter(|(option, actual)| *actual != option.value)
        .map(|(option, actual)| format!("{}={} (is {actual})", option.name, option.value))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    bail!("options that did not survive olddefconfig: {}", lost.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str) -> KernelOption {
        KernelOption { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn every_fragment_of_the_repository_parses_and_no_option_stands_twice() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config");
        let mut seen = std::collections::BTreeSet::new();
        for name in ["base", "sev", "pef", "test"] {
            for option in read(&directory.join(format!("{name}.config"))).unwrap() {
                assert!(seen.insert(option.name.clone()), "{} stands twice", option.name);
            }
        }
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(parse("CONFIG_A=y\n").is_err());
        assert!(parse("CONFIG_A=y # \n").is_err());
        assert_eq!(parse("CONFIG_A=y  # why\n").unwrap(), [option("CONFIG_A", "y")]);
    }

    #[test]
    fn lost_options_are_named() {
        let asked = [option("CONFIG_A", "y"), option("CONFIG_B", "n"), option("CONFIG_C", "\"x\"")];
        let good = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\n";
        check_survived(&asked, good).unwrap();
        for (bad, name) in [
            ("# CONFIG_A is not set\nCONFIG_C=\"x\"\n", "CONFIG_A=y (is n)"),
            ("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"x\"\n", "CONFIG_B=n (is y)"),
            ("CONFIG_A=y\nCONFIG_C=\"z\"\n", "CONFIG_C=\"x\" (is \"z\")"),
            ("CONFIG_A_LONGER=y\nCONFIG_C=\"x\"\n", "CONFIG_A=y (is n)"),
        ] {
            assert!(check_survived(&asked, bad).unwrap_err().to_string().contains(name), "{bad}");
        }
    }
}
