//! Measures pull, decryption, verification and unpacking over loopback, from a registry in another process:
//!
//! `cargo run --release -p agent-image --example pull-rate -- [--mib 256] [--layers 1] [--compression gzip]
//! [--plain] [--cores N] [--into DIRECTORY]`
//!
//! Layers hold files of a mebibyte, half random, half repeating (`--random`: all random), and are encrypted
//! for a key of the broker. Prints the rate over the unpacked bytes, and the peak of this process' memory: the
//! layers go to DIRECTORY (default: a temporary one), which is on a disk, as with the guest's layer disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' registry panics on failure"
)]

#[path = "../tests/pull/image.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod image;
#[path = "../tests/pull/registry.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod registry;
#[path = "../tests/pull/sealed.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod sealed;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use agent_image::{ImageStore, Settings};
use image::{GZIP, Image, Layer, TAR, ZSTD, pinned};
use registry::Registry;
use sealed_spec::{ImageRef, RegistrySource};

const SERVE: &str = "serve";

#[derive(Clone)]
struct Options {
    mebibytes: usize,
    layers: usize,
    compression: String,
    plain: bool,
    random: bool,
    cores: Option<usize>,
    into: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == SERVE) {
        arguments.remove(0);
        serve(&Options::read(&arguments)?)
    } else {
        measure(&Options::read(&arguments)?, &arguments)
    }
}

impl Options {
    fn read(arguments: &[String]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut options = Self {
            mebibytes: 256,
            layers: 1,
            compression: "gzip".into(),
            plain: false,
            random: false,
            cores: None,
            into: None,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--mib" => options.mebibytes = value()?.parse()?,
                "--layers" => options.layers = value()?.parse()?,
                "--compression" => options.compression = value()?.clone(),
                "--cores" => options.cores = Some(value()?.parse()?),
                "--into" => options.into = Some(value()?.into()),
                "--plain" => options.plain = true,
                "--random" => options.random = true,
                other => return Err(format!("what is {other}?").into()),
            }
        }
        Ok(options)
    }
}

/// The registry's process: says where it is and what it has, and stays until its input ends.
fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let media_type = match options.compression.as_str() {
        "tar" => TAR,
        "gzip" => GZIP,
        "zstd" => ZSTD,
        other => return Err(format!("{other}: tar, gzip or zstd").into()),
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let layers = (0..options.layers).map(|number| {
        let mebibytes = options.mebibytes / options.layers;
        let layer = Layer::new(media_type, tar(number, mebibytes, options.random, &mut state));
        if options.plain { layer } else { layer.encrypted(&[sealed::broker_key(sealed::KEY, 1)]) }
    });
    let mut image = Image::new(layers.collect());
    let (unpacked, transferred) = image
        .layers
        .iter()
        .fold((0, 0), |(tar, blob), layer| (tar + layer.tar.len(), blob + layer.blob.len()));
    let registry = Registry::start();
    let reference = image.serve(&registry);
    image.layers.clear();
    println!("{} {} {unpacked} {transferred}", registry.address, pinned(&reference));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn tar(number: usize, mebibytes: usize, random: bool, state: &mut u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::with_capacity((mebibytes + 1) << 20));
    for file in 0..mebibytes {
        let mut data = vec![0u8; 1 << 20];
        for (at, word) in data.chunks_exact_mut(8).enumerate() {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let value = if random || at % 2 == 0 { *state } else { 0x6d61_6573_2064_6e61 };
            word.copy_from_slice(&value.to_le_bytes());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, format!("layer-{number}/{file}"), &data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn measure(options: &Options, arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = Command::new(std::env::current_exe()?)
        .arg(SERVE)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(registry.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, digest, unpacked, transferred] = words[..] else {
        return Err("the registry didn't start".into());
    };
    let unpacked: f64 = unpacked.parse()?;
    if let Some(cores) = options.cores {
        // Of this process and all its threads; the registry keeps all.
        let done = Command::new("taskset")
            .args(["-apc", &format!("0-{}", cores.max(1) - 1), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status()?;
        assert!(done.success(), "taskset failed");
    }
    let temporary = tempfile::tempdir()?;
    let root = options.into.as_deref().unwrap_or(temporary.path()).join("pull-rate");
    let mut wanted = ImageRef::pinned("registry.test/team/app:1", digest.to_owned());
    if !options.plain {
        wanted.keys = vec![sealed::uri(sealed::KEY)];
    }
    // As in the agent.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let start = Instant::now();
    runtime.block_on(async {
        let store = ImageStore::new(Settings {
            registries: vec![RegistrySource::new("registry.test", format!("http://{address}"))],
            resources: sealed::Broker::holding(&[(sealed::KEY, &[1; 32])]),
            ..Settings::new(root.clone())
        })?;
        store.pull(&wanted).await
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} layer(s) of tar+{}, {}: {transferred} B transferred, {unpacked} B unpacked in {seconds:.2} s, {:.0} MB/s, peak memory {} KiB",
        options.layers,
        options.compression,
        if options.plain { "plain" } else { "encrypted" },
        unpacked / seconds / 1e6,
        peak_memory()?,
    );
    std::fs::remove_dir_all(root)?;
    drop(registry.stdin.take());
    registry.wait()?;
    Ok(())
}

/// KiB, of this process.
fn peak_memory() -> Result<u64, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}
