//! `sealpod logs`: opens what `kubectl logs` printed, and says what is wrong with it.

mod printer;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sealed_spec::log::{Line, Opener, StreamReport};

use crate::cli::LogsArgs;
use crate::identity::IdentityDir;
use printer::Printer;

/// Longer lines are read in pieces: no sealed line is that long.
const LINE_LIMIT: u64 = 64 * 1024;
/// The log was tampered with, or isn't whole where `--whole` asks for it.
const TAMPERED: u8 = 2;

pub(crate) fn run(directory: &IdentityDir, args: &LogsArgs) -> Result<ExitCode> {
    let key = directory.log_key()?.with_context(|| {
        format!("{directory} has no log key: nothing was sealed here with --grant-logs sealed; name another with --identity")
    })?;
    let mut input: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.file).with_context(|| args.file.display().to_string())?;
        Box::new(BufReader::new(file))
    };
    let mut opener = Opener::new(key);
    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()), args.prefix);
    let (mut number, mut broken, mut sealed) = (0u64, 0u64, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut input).take(LINE_LIMIT).read_until(b'\n', &mut line).context("reading the log")?;
        if line.is_empty() {
            break;
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let outcome = match opener.line(&line) {
            Line::Plain => printer.plain(&line),
            Line::Broken(error) => {
                broken += 1;
                eprintln!("sealpod: line {number}: {error}");
                printer.broken()
            }
            Line::Sealed(opened) => {
                sealed = true;
                let report = opener.streams().nth(opened.stream).cloned().unwrap_or_default();
                printer.chunk(&line[..opened.prefix], &opened, &report)
            }
        };
        match outcome {
            // `| head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            outcome => outcome.context("writing the log")?,
        }
    }
    printer.finish().context("writing the log")?;
    let streams: Vec<_> = opener.streams().cloned().collect();
    let whole = say(&streams, args.whole);
    if broken > 0 {
        eprintln!("sealpod: {broken} of {number} lines look sealed and don't open");
    }
    if !sealed && broken == 0 {
        eprintln!(
            "sealpod: no sealed line in {number} lines; was the pod sealed with --grant-logs sealed, by this identity?"
        );
    }
    io::stderr().flush().context("writing the report")?;
    Ok(if whole && broken == 0 && sealed { ExitCode::SUCCESS } else { ExitCode::from(TAMPERED) })
}

/// One line a stream that has something to say; whether all is as it should be.
fn say(streams: &[StreamReport], whole: bool) -> bool {
    let mut good = true;
    for report in streams {
        let name = printer::name(report);
        let run = report
            .info
            .as_ref()
            .map_or_else(String::new, |info| format!(" (run {})", printer::safe(&info.instance)));
        let mut say = |bad: bool, text: String| {
            good &= !bad;
            eprintln!("sealpod: {name}{run}: {text}");
        };
        if report.missing_between > 0 {
            say(true, format!("{} chunks are missing: lines were dropped", report.missing_between));
        }
        if report.late > 0 {
            say(true, format!("{} chunks are out of order", report.late));
        }
        if report.repeated > 0 {
            say(true, format!("{} chunks came again and are shown once", report.repeated));
        }
        if report.missing_before > 0 {
            say(
                whole,
                format!(
                    "the first {} chunks are missing: not asked for, rotated away, or dropped",
                    report.missing_before
                ),
            );
        }
        if !report.ended {
            say(whole, "no end: it still runs, it was cut off, or the last lines were dropped".into());
        }
    }
    good
}
