//! The guest kernel: `allnoconfig` plus our fragments, built once and cached outside the checkout by the
//! hash of everything that goes into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::fragment::{self, KernelOption};
use crate::run;

/// Raised whenever the commands below change what they produce.
const RECIPE: &str = "1";

/// Which fragments go on top of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flavour {
    /// Production, AMD SEV.
    Sev,
    /// As `sev`, and CUSE for the emulated `/dev/sev-guest`.
    SevTest,
    /// Production, Power PEF; needs a powerpc64le cross compiler.
    Pef,
}

impl Flavour {
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Sev => &["base", "sev"],
            Self::SevTest => &["base", "sev", "test"],
            Self::Pef => &["base", "pef"],
        }
    }

    /// Arguments that every `make` of the kernel gets, its image target, and where that lands.
    fn make(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Sev | Self::SevTest => (&["ARCH=x86_64"], "bzImage", "arch/x86/boot/bzImage"),
            Self::Pef => (&["ARCH=powerpc", "CROSS_COMPILE=powerpc64le-linux-gnu-"], "vmlinux", "vmlinux"),
        }
    }
}

/// Resolves the configuration of `flavour` without compiling: every option must survive.
pub(crate) fn check(root: &Path, source: Option<&Path>, flavour: Flavour) -> Result<()> {
    let options = options(root, flavour)?;
    let source = chosen_source(source)?;
    let work = cache_directory()?.join(format!("check-{flavour:?}.{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let checked =
        Tree::unpack(&work, &source, flavour, &work.join("log")).and_then(|tree| tree.configure(&options));
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    checked
}

/// Returns the kernel image for `flavour`, building it when the cache doesn't hold it.
pub(crate) fn build(root: &Path, source: Option<&Path>, flavour: Flavour) -> Result<PathBuf> {
    let options = options(root, flavour)?;
    let source = chosen_source(source)?;
    let key = cache_key(&options, &source, flavour)?;
    let home = cache_directory()?;
    let image = home.join(format!("kernel-{key}"));
    if image.is_file() {
        return Ok(image);
    }
    eprintln!("building the guest kernel from {} (once; about five minutes on two cores)", source.display());
    let work = home.join(format!("build-{key}.{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let log = image.with_extension("log");
    let built = compile(&work, &source, &options, flavour, &image, &log);
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    built.map(|()| image)
}

fn options(root: &Path, flavour: Flavour) -> Result<Vec<KernelOption>> {
    let mut all = Vec::new();
    for name in flavour.fragments() {
        all.extend(fragment::read(&root.join("kernel-config").join(format!("{name}.config")))?);
    }
    // Where an option stands changes nothing, so it must not change the cache key either.
    all.sort();
    Ok(all)
}

fn chosen_source(source: Option<&Path>) -> Result<PathBuf> {
    source.map_or_else(|| packaged_source(Path::new("/usr/src")), |path| Ok(path.to_owned()))
}

/// The newest packaged source archive.
fn packaged_source(directory: &Path) -> Result<PathBuf> {
    let mut archives: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                name.starts_with("linux-source-") && (name.ends_with(".tar.xz") || name.ends_with(".tar.bz2"))
            })
        })
        .collect();
    archives.sort();
    archives.pop().with_context(|| {
        format!("no linux-source archive in {}: install linux-source, or set KERNEL_SRC", directory.display())
    })
}

/// Hash of the recipe, the options, the compiler and the source (an archive by content, a directory by path
/// and time of its Makefile: who points at a directory knows when it changed).
fn cache_key(options: &[KernelOption], source: &Path, flavour: Flavour) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    hash.update(format!("{flavour:?}\n{}", fragment::render(options)));
    hash.update(run::captured(Command::new("gcc").arg("-dumpfullversion"))?);
    if source.is_dir() {
        let makefile = source.join("Makefile");
        let changed = fs::metadata(&makefile)
            .and_then(|metadata| metadata.modified())
            .with_context(|| format!("{} is not a kernel source", source.display()))?;
        hash.update(format!("{}{changed:?}", source.display()));
    } else {
        let mut file = fs::File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
        std::io::copy(&mut file, &mut HashWriter(&mut hash))
            .with_context(|| format!("cannot read {}", source.display()))?;
    }
    Ok(hex::encode(&hash.finalize()[..12]))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `$SEALPOD_CACHE`, else the user's cache directory.
pub(crate) fn cache_directory() -> Result<PathBuf> {
    let directory = if let Some(chosen) = std::env::var_os("SEALPOD_CACHE") {
        PathBuf::from(chosen)
    } else if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(cache).join("sealpod")
    } else if let Some(home) = std::env::var_os("HOME") {
        PathBuf::from(home).join(".cache/sealpod")
    } else {
        bail!("neither SEALPOD_CACHE nor HOME is set");
    };
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn compile(
    work: &Path,
    source: &Path,
    options: &[KernelOption],
    flavour: Flavour,
    image: &Path,
    log: &Path,
) -> Result<()> {
    let tree = Tree::unpack(work, source, flavour, log)?;
    tree.configure(options)?;
    let (_, target, product) = flavour.make();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    run::logged(tree.make().arg(format!("-j{jobs}")).arg(target), log)?;
    let staged = image.with_extension("part");
    fs::copy(tree.output.join(product), &staged).context("cannot copy the kernel image")?;
    fs::rename(&staged, image).context("cannot publish the kernel image")
}

/// A kernel source and where it is built.
struct Tree<'a> {
    source: PathBuf,
    output: PathBuf,
    flavour: Flavour,
    log: &'a Path,
}

impl<'a> Tree<'a> {
    /// Unpacks an archive below `work`; a directory is used where it is.
    fn unpack(work: &Path, source: &Path, flavour: Flavour, log: &'a Path) -> Result<Self> {
        let output = work.join("out");
        fs::create_dir_all(&output).context("cannot make the output directory")?;
        if source.is_dir() {
            return Ok(Self { source: source.to_owned(), output, flavour, log });
        }
        let tree = work.join("source");
        fs::create_dir_all(&tree).context("cannot make the source directory")?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(source).arg("-C").arg(&tree).arg("--strip-components=1");
        run::logged(&mut tar, log)?;
        Ok(Self { source: tree, output, flavour, log })
    }

    fn make(&self) -> Command {
        let mut command = Command::new("make");
        command.arg("-C").arg(&self.source).arg(format!("O={}", self.output.display()));
        command.args(self.flavour.make().0);
        // The same inputs give the same image.
        command.env("KBUILD_BUILD_TIMESTAMP", "@0").env("KBUILD_BUILD_USER", "sealpod");
        command.env("KBUILD_BUILD_HOST", "sealpod").env("KBUILD_BUILD_VERSION", "1");
        command
    }

    /// `allnoconfig` plus `options`, all of which must still be there after kconfig has resolved dependencies.
    fn configure(&self, options: &[KernelOption]) -> Result<()> {
        let wanted = self.output.join("sealpod.fragment");
        fs::write(&wanted, fragment::render(options)).context("cannot write the fragment")?;
        run::logged(self.make().env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig"), self.log)?;
        run::logged(self.make().arg("olddefconfig"), self.log)?;
        let resolved =
            fs::read_to_string(self.output.join(".config")).context("cannot read the resolved .config")?;
        fragment::check_survived(options, &resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_packaged_archive_is_chosen() {
        let directory = tempfile::tempdir().unwrap();
        assert!(packaged_source(directory.path()).unwrap_err().to_string().contains("install linux-source"));
        for name in ["linux-source-6.1.tar.xz", "linux-source-6.8.0.tar.bz2", "linux-headers-7"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let found = packaged_source(directory.path()).unwrap();
        assert!(found.ends_with("linux-source-6.8.0.tar.bz2"));
    }

    #[test]
    fn the_cache_key_follows_options_flavour_and_source() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("a.tar.xz");
        fs::write(&archive, "one").unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sev = options(root, Flavour::Sev).unwrap();
        let key = |options: &[KernelOption], flavour| cache_key(options, &archive, flavour).unwrap();
        let first = key(&sev, Flavour::Sev);
        assert_eq!(first, key(&sev, Flavour::Sev));
        assert_ne!(first, key(&sev[1..], Flavour::Sev));
        assert_ne!(first, key(&sev, Flavour::SevTest));
        fs::write(&archive, "two").unwrap();
        assert_ne!(first, key(&sev, Flavour::Sev));
    }

    #[test]
    fn cuse_is_only_in_the_test_flavour() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let has = |flavour| options(root, flavour).unwrap().iter().any(|o| o.name == "CONFIG_CUSE");
        assert!(has(Flavour::SevTest));
        assert!(!has(Flavour::Sev) && !has(Flavour::Pef));
    }
}
