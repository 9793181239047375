//! Command line of the initrd builder.

use anyhow::{Context, Result, bail};
use clap::Parser;
use initrd::{Inputs, Manifest, build};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Builds a reproducible initrd from a manifest: the same inputs give the same bytes.
#[derive(Parser)]
#[command(name = "initrd", version)]
struct Arguments {
    /// What goes in.
    #[arg(long)]
    manifest: PathBuf,
    /// A file that the manifest names; repeat for each.
    #[arg(long = "input", value_name = "NAME=PATH", value_parser = input)]
    inputs: Vec<(String, PathBuf)>,
    /// The archive to write; an existing one is replaced only when the new one is complete.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("initrd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let text = fs::read_to_string(&arguments.manifest)
        .with_context(|| format!("reading {}", arguments.manifest.display()))?;
    let manifest = Manifest::parse(&text).with_context(|| format!("in {}", arguments.manifest.display()))?;
    let mut inputs = Inputs::new();
    for (name, path) in arguments.inputs {
        if inputs.insert(name.clone(), path).is_some() {
            bail!("initrd input {name:?} is given twice; keep one --input {name}=PATH");
        }
    }
    let archive = build(&manifest, &inputs)?;
    replace(&arguments.out, &archive).with_context(|| format!("writing {}", arguments.out.display()))?;
    println!("{} bytes, {} entries: {}", archive.len(), manifest.entries().count(), arguments.out.display());
    Ok(())
}

/// A reader of `path` sees the old file or the whole new one, also when the disk fills up.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let result = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if result.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    result
}

fn input(argument: &str) -> Result<(String, PathBuf), String> {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("expected NAME=PATH".to_owned()),
    }
}
