//! Puts opened chunks together to lines, stream by stream, and marks what nobody vouches for.

use std::collections::BTreeMap;
use std::io::{self, Write};

use sealed_spec::log::{Content, Opened, Place, StreamReport};

/// A longer line without an end is printed in pieces.
const PENDING_LIMIT: usize = 256 * 1024;

/// Writes what was logged to `out`.
pub(super) struct Printer<W> {
    out: W,
    prefix: bool,
    /// By stream: what is before its next line, and the line as far as it is known.
    pending: BTreeMap<usize, (Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Printer<W> {
    /// `prefix`: put container and stream before each line.
    pub(super) fn new(out: W, prefix: bool) -> Self {
        Self { out, prefix, pending: BTreeMap::new() }
    }

    /// A line that is not sealed: shown, marked, and without what could hide the mark.
    pub(super) fn plain(&mut self, line: &[u8]) -> io::Result<()> {
        writeln!(self.out, "[not sealed] {}", safe(&String::from_utf8_lossy(line)))?;
        self.out.flush()
    }

    /// A line that doesn't open.
    pub(super) fn broken(&mut self) -> io::Result<()> {
        writeln!(self.out, "[does not open]")
    }

    /// A chunk; `before` is what a log collector put before it.
    pub(super) fn chunk(&mut self, before: &[u8], opened: &Opened, report: &StreamReport) -> io::Result<()> {
        let stream = opened.stream;
        let mark = match opened.place {
            Place::Next => None,
            Place::After(missing) => {
                self.end_line(stream)?;
                writeln!(self.out, "[{missing} chunks of {} are missing here]", name(report))?;
                None
            }
            Place::Late => Some("[out of order] "),
            Place::BehindEnd => Some("[behind the end] "),
            Place::Again => return Ok(()),
        };
        if mark.is_some() {
            self.end_line(stream)?;
        }
        let Content::Text(text) = &opened.content else { return Ok(()) };
        let mut start = before.to_vec();
        if self.prefix {
            start.extend(format!("{}: ", name(report)).bytes());
        }
        start.extend(mark.unwrap_or_default().bytes());
        for piece in text.split_inclusive(|b| *b == b'\n') {
            let (_, line) = self.pending.entry(stream).or_insert_with(|| (start.clone(), Vec::new()));
            line.extend(piece);
            if line.ends_with(b"\n") || line.len() > PENDING_LIMIT {
                self.end_line(stream)?;
            }
        }
        if mark.is_some() {
            self.end_line(stream)?;
        }
        // A log that is followed shows up line by line.
        self.out.flush()
    }

    /// The lines that have no end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let streams: Vec<_> = self.pending.keys().copied().collect();
        for stream in streams {
            self.end_line(stream)?;
        }
        self.out.flush()
    }

    fn end_line(&mut self, stream: usize) -> io::Result<()> {
        let Some((start, line)) = self.pending.remove(&stream) else { return Ok(()) };
        self.out.write_all(&start)?;
        self.out.write_all(&line)?;
        if line.ends_with(b"\n") { Ok(()) } else { self.out.write_all(b"\n") }
    }
}

/// What a stream is called: `web/stdout`.
pub(super) fn name(report: &StreamReport) -> String {
    match &report.info {
        Some(info) => format!("{}/{}", safe(&info.container), info.stream.as_str()),
        None => "a stream without its beginning".into(),
    }
}

/// Text that moves no cursor and ends no line.
pub(super) fn safe(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}
