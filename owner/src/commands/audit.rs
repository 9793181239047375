//! `sealpod audit verify`: an exported log against the checkpoints that pushes brought back. Whoever
//! holds the broker's database could make a new chain, but not one that fits the checkpoints.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use protocols::audit::{self, AuditError, Checkpoint, Record};
use serde::Deserialize;

use crate::cli::AuditArgs;
use crate::identity::IdentityDir;

/// Longest line of an export.
const LINE_LIMIT: u64 = 4 * 1024 * 1024;

/// A line of an export: records, then checkpoints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Checkpoint { checkpoint: Checkpoint },
    Record(Record),
}

pub(crate) fn run(directory: &IdentityDir, args: &AuditArgs) -> Result<ExitCode> {
    let name = args.log.display();
    let file = File::open(&args.log).with_context(|| format!("{name}: opening failed"))?;
    let mut reader = BufReader::new(file);
    let kept = directory.checkpoints()?;
    let mut checkpoints = kept.clone();
    let mut records = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        reader
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("{name}: reading failed"))?;
        if line.is_empty() {
            break;
        }
        ensure!(line.len() as u64 != LINE_LIMIT, "{name}:{number}: longer than any record");
        match serde_json::from_slice(&line) {
            Ok(Line::Record(record)) => records.push(record),
            Ok(Line::Checkpoint { checkpoint }) => checkpoints.push(checkpoint),
            Err(_) => bail!(
                "{name}:{number}: neither a record nor a checkpoint; is it what 'sealpod-broker audit export' wrote?"
            ),
        }
    }
    if let (Some(wanted), Some(other)) =
        (args.key, checkpoints.iter().find(|checkpoint| Some(checkpoint.key) != args.key))
    {
        bail!("{name}: audit key is {}, not {wanted}: another broker's log, or a forged one", other.key);
    }
    let summary = audit::verify(records, &checkpoints).map_err(|error| {
        let meaning = match error {
            AuditError::CheckpointKey(_) => "another broker's log, or a forged one",
            _ => "the log is not the one that was written; keep it and ask the broker's operator",
        };
        anyhow::Error::new(error).context(format!("{name}: {meaning}"))
    })?;

    println!("{} records, an unbroken chain", summary.head.seq);
    match (kept.len(), args.key) {
        (0, None) => println!(
            "warning: no checkpoint from an earlier push in {directory}, and no --key: the chain is whole, but who wrote it \
             is only its own word"
        ),
        (0, Some(key)) => println!("{} checkpoints signed by {key}", summary.checkpoints),
        (kept, _) => println!("{} checkpoints fit, {kept} of them from your own pushes", summary.checkpoints),
    }
    println!("head: {} {}", summary.head.seq, summary.head.hash);
    Ok(ExitCode::SUCCESS)
}
