//! The owner's side: lines in, output out, and what is missing from it.

use std::collections::BTreeMap;

use p256::PublicKey;
use thiserror::Error;
use zeroize::Zeroizing;

use super::chunk::{Chunk, Kind, LINE_PREFIX, LogInfo, StreamKey};
use super::key::LogKey;

/// Most streams in one reading; their keys are kept.
const MOST_STREAMS: usize = 4096;
/// Most gaps that are remembered of one stream; chunks that arrive late for an older one look repeated.
const MOST_GAPS: usize = 4096;

/// What one line of a log is.
#[derive(Debug)]
pub enum Line {
    /// Not sealed: nobody vouches for it.
    Plain,
    /// A sealed chunk that opened.
    Sealed(Opened),
    /// Looks sealed and doesn't open.
    Broken(ChunkError),
}

/// Why a line that looks sealed doesn't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// Not `sealpod1.<base64url of a chunk>` after what log collectors put before a line.
    #[error("malformed: cut, joined with other text, or not from a sealed pod")]
    Malformed,
    /// The ephemeral key is no point of the curve.
    #[error("not a sealed line: its key is not on the curve")]
    Point,
    /// Another key, a forgery, or any bit changed.
    #[error("doesn't open: changed on its way, forged, or sealed to another identity's log key")]
    Open,
    /// More streams than any pod has.
    #[error("more than {MOST_STREAMS} streams in one log; split it up")]
    Streams,
}

/// A chunk that opened.
#[derive(Debug)]
pub struct Opened {
    /// Its stream: an index into [`Opener::streams`].
    pub stream: usize,
    /// Its number in the stream.
    pub number: u64,
    /// Whether it came where it belongs.
    pub place: Place,
    /// What it holds.
    pub content: Content,
    /// Bytes before the sealed text in the line: a prefix or time stamp of the log collector.
    pub prefix: usize,
}

/// Whether a chunk came where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Right after the one before it.
    Next,
    /// So many are missing before it.
    After(u64),
    /// Out of order: later ones came before it.
    Late,
    /// It came before; its text must not be shown twice.
    Again,
    /// Behind the end of its stream: two runs can't share a key, so somebody made one stream of two.
    BehindEnd,
}

/// What a chunk holds.
pub enum Content {
    /// The beginning of its stream.
    Start,
    /// Output.
    Text(Zeroizing<Vec<u8>>),
    /// The end of its stream.
    End,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "Start",
            Self::Text(_) => "Text(..)",
            Self::End => "End",
        })
    }
}

/// What is known of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Which it is; `None` if its first chunk didn't come.
    pub info: Option<LogInfo>,
    /// Chunks missing at its beginning: rotated away, not asked for, or dropped.
    pub missing_before: u64,
    /// Chunks missing between others.
    pub missing_between: u64,
    /// Chunks that came out of order.
    pub late: u64,
    /// Chunks that came more than once.
    pub repeated: u64,
    /// Whether its end came. Without it, the container still runs, or the last chunks are missing.
    pub ended: bool,
}

impl StreamReport {
    /// Whether nothing was taken from between, repeated or reordered.
    pub fn is_whole(&self) -> bool {
        self.missing_between == 0 && self.late == 0 && self.repeated == 0
    }
}

struct Stream {
    key: StreamKey,
    next: u64,
    /// Missing chunks: first, and the one after the last.
    gaps: BTreeMap<u64, u64>,
    first: u64,
    report: StreamReport,
}

/// Opens sealed lines, in the order in which they come.
pub struct Opener {
    key: LogKey,
    by_key: BTreeMap<[u8; 33], usize>,
    streams: Vec<Stream>,
}

impl Opener {
    /// With the owner's log key.
    pub fn new(key: LogKey) -> Self {
        Self { key, by_key: BTreeMap::new(), streams: Vec::new() }
    }

    /// Opens one line, given without its line end.
    pub fn line(&mut self, line: &[u8]) -> Line {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let prefix = LINE_PREFIX.as_bytes();
        let Some(at) = line.windows(prefix.len()).position(|window| window == prefix) else {
            return Line::Plain;
        };
        let chunk = Chunk::parse(&line[at + prefix.len()..]).filter(|_| collector_prefix(&line[..at]));
        let Some(chunk) = chunk else { return Line::Broken(ChunkError::Malformed) };
        match self.open(&chunk) {
            Ok((stream, place, content)) => {
                Line::Sealed(Opened { stream, number: chunk.number, place, content, prefix: at })
            }
            Err(error) => Line::Broken(error),
        }
    }

    /// What is known of each stream, in the order in which they first appeared.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = &StreamReport> {
        self.streams.iter().map(|stream| &stream.report)
    }

    fn open(&mut self, chunk: &Chunk) -> Result<(usize, Place, Content), ChunkError> {
        let (index, kind, payload) = match self.by_key.get(&chunk.epk) {
            Some(index) => {
                let (kind, payload) = self.streams[*index].key.open(chunk).ok_or(ChunkError::Open)?;
                (*index, kind, payload)
            }
            // Only a stream of which something opened is kept: garbage takes no memory.
            None => {
                if self.streams.len() == MOST_STREAMS {
                    return Err(ChunkError::Streams);
                }
                let epk = PublicKey::from_sec1_bytes(&chunk.epk).map_err(|_| ChunkError::Point)?;
                let owner = self.key.0.public_key();
                let key = StreamKey::derive(&self.key.0, &epk, &epk, &owner, &self.key.sender());
                let key = key.ok_or(ChunkError::Open)?;
                let (kind, payload) = key.open(chunk).ok_or(ChunkError::Open)?;
                let report = StreamReport { missing_before: chunk.number, ..StreamReport::default() };
                let (next, first) = (chunk.number, chunk.number);
                self.streams.push(Stream { key, next, gaps: BTreeMap::new(), first, report });
                let index = self.streams.len() - 1;
                self.by_key.insert(chunk.epk, index);
                (index, kind, payload)
            }
        };
        let content = match kind {
            Kind::Start => Content::Start,
            Kind::Data => Content::Text(payload.clone()),
            Kind::End => Content::End,
        };
        let stream = &mut self.streams[index];
        let place = stream.place(chunk.number);
        match kind {
            // The sealer is the owner's agent, so unreadable information is a version of it that is newer.
            Kind::Start => stream.report.info = serde_json::from_slice(&payload).ok(),
            Kind::End => stream.report.ended = true,
            Kind::Data => {}
        }
        Ok((index, place, content))
    }
}

impl Stream {
    /// Where a chunk that opened belongs, and what that changes.
    fn place(&mut self, number: u64) -> Place {
        if number == self.next {
            self.next = self.next.saturating_add(1);
            return if self.report.ended { Place::BehindEnd } else { Place::Next };
        }
        if number > self.next {
            let missing = number - self.next;
            self.report.missing_between = self.report.missing_between.saturating_add(missing);
            if self.gaps.len() < MOST_GAPS {
                self.gaps.insert(self.next, number);
            }
            self.next = number.saturating_add(1);
            return Place::After(missing);
        }
        if number < self.first {
            // The chunks before the first one that came were taken for not asked for.
            self.report.missing_before = number;
            self.report.missing_between = self.report.missing_between.saturating_add(self.first - number - 1);
            if self.gaps.len() < MOST_GAPS && self.first - number > 1 {
                self.gaps.insert(number + 1, self.first);
            }
            self.first = number;
            self.report.late += 1;
            return Place::Late;
        }
        let gap = self.gaps.range(..=number).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = gap.filter(|(_, end)| number < *end) else {
            self.report.repeated += 1;
            return Place::Again;
        };
        self.gaps.remove(&start);
        if start < number {
            self.gaps.insert(start, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        self.report.missing_between -= 1;
        self.report.late += 1;
        Place::Late
    }
}

/// Whether the text before a sealed chunk is what `kubectl logs --prefix` and `--timestamps` or a
/// container log file puts there, and not text that wants to be read as output.
fn collector_prefix(prefix: &[u8]) -> bool {
    let Some(words) = prefix.strip_suffix(b" ") else { return prefix.is_empty() };
    words.len() <= 512
        && words.split(|b| *b == b' ').all(|word| match word {
            b"stdout" | b"stderr" | b"F" => true,
            [b'[', name @ .., b']'] => name.iter().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(b)),
            time => {
                time.len() >= 20
                    && time.iter().all(|b| b.is_ascii_digit() || b"TZ:.+-".contains(b))
                    && time[0].is_ascii_digit()
            }
        })
}
