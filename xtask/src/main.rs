//! Build tasks: `kernel` builds (or finds) the guest kernel, `guest` assembles what a guest boots from, `fuzz` runs a
//! fuzz target, `pkcs11` builds the program that loads token libraries, `ppc64le` builds the agent for Power.

mod fragment;
mod fuzz;
mod guest;
mod kernel;
mod pkcs11;
mod ppc64le;
mod run;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Sealpod's build tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the guest kernel, unless one with the same inputs is in the cache; prints its path
    Kernel {
        /// Kernel source: a directory or a tar archive [default: newest /usr/src/linux-source-*.tar.*]
        #[arg(long, env = "KERNEL_SRC")]
        source: Option<PathBuf>,
        /// Which kernel: `sev` is production, `sev-test` can also serve an emulated /dev/sev-guest
        #[arg(long, default_value = "sev-test")]
        flavour: kernel::Flavour,
        /// Only check that every option survives kconfig; compile nothing
        #[arg(long)]
        check: bool,
    },
    /// Assemble kernel, initrds and the emulated firmware under target/guest
    Guest,
    /// Run a fuzz target for a while; fuzz/README.md lists them
    Fuzz {
        /// The target
        target: String,
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Build sealpod-pkcs11, linked dynamically, beside the release build of sealpod; prints its path
    Pkcs11,
    /// Build the agent for powerpc64le with Debian's cross toolchain, fetched into the cache; prints its path
    Ppc64le {
        /// Only type-check it
        #[arg(long)]
        check: bool,
        /// Boot the part that talks to the ultravisor in QEMU instead
        #[arg(long, conflicts_with = "check")]
        boot: bool,
        /// Say so and succeed where the toolchain can't be had
        #[arg(long)]
        if_available: bool,
    },
}

fn main() -> Result<()> {
    let root = workspace_root()?;
    match Arguments::parse().task {
        Task::Kernel { source, flavour, check: true } => {
            kernel::check(&root, source.as_deref(), flavour)?;
            println!("every option of {flavour:?} survives");
        }
        Task::Kernel { source, flavour, check: false } => {
            let image = kernel::build(&root, source.as_deref(), flavour)?;
            println!("{}", image.display());
        }
        Task::Fuzz { target, seconds } => fuzz::run(&root, &target, seconds)?,
        Task::Ppc64le { check, boot, if_available } => {
            let done = match (check, boot) {
                (_, true) => ppc64le::boot(&root),
                (true, false) => ppc64le::run(&root, ppc64le::Goal::Check),
                (false, false) => ppc64le::run(&root, ppc64le::Goal::Build),
            };
            match done {
                Ok(done) => println!("{done}"),
                Err(error) if if_available && error.is::<ppc64le::Unavailable>() => {
                    println!("skipped: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
        Task::Pkcs11 => println!("{}", pkcs11::build(&root)?.display()),
        Task::Guest => {
            let bundle = guest::assemble(&root)?;
            println!("{}", bundle.display());
        }
    }
    Ok(())
}

/// The checkout that this program was built from.
fn workspace_root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).context("xtask is not inside a workspace")
}
