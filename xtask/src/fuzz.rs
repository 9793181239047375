//! Builds a fuzz target with coverage instrumentation on the stable compiler, and runs it for a while.

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

/// What `cargo fuzz` passes, as far as the stable compiler takes it. Sanitizers need a nightly one; the parsers are
/// safe Rust, so panics and failed assertions are what there is to find.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";
/// Bytes of an input.
const LONGEST: u32 = 8192;

/// Runs `target` for `seconds`; its corpus stays in `fuzz/corpus`, what it found in `fuzz/artifacts`.
pub(crate) fn run(root: &Path, target: &str, seconds: u32) -> Result<()> {
    let fuzz = root.join("fuzz");
    if !fuzz.join("fuzz_targets").join(format!("{target}.rs")).is_file() {
        bail!("there is no fuzz target {target:?}; fuzz/README.md lists them");
    }
    let directory = fuzz.join("target");
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(&fuzz).args(["build", "--release", "--bin", target]);
    if target.starts_with("agent_") {
        build.args(["--features", "agent"]);
    }
    build.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &directory);
    succeeded(build.status().context("cannot start cargo")?, "the build")?;

    let corpus = fuzz.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let program = directory.join("x86_64-unknown-linux-gnu/release").join(target);
    let mut run = Command::new(program);
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1");
    run.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
    succeeded(run.status().context("cannot start the fuzz target")?, target)
}

fn succeeded(status: ExitStatus, what: &str) -> Result<()> {
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}
