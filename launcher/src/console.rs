//! The guest's serial console: a file that QEMU writes and people read when a guest doesn't come up.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Bytes of the console's end that are ever read.
const TAIL: u64 = 64 * 1024;

/// The end of the console, at most 64 KiB; empty while there is none. What the terminal would act on is replaced:
/// the guest is not trusted with the owner's screen.
pub(crate) fn tail(console: &Path) -> String {
    let Ok(mut file) = std::fs::File::open(console) else { return String::new() };
    let length = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).is_err()
        || file.take(TAIL).read_to_end(&mut bytes).is_err()
    {
        return String::new();
    }
    String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| *c != '\r')
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

/// The last `count` lines.
pub(crate) fn last_lines(console: &Path, count: usize) -> String {
    let text = tail(console);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_without_what_a_terminal_would_obey() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        assert_eq!(last_lines(&path, 3), "");
        std::fs::write(&path, "one\r\ntwo\r\n\r\n\x1b[2Jthree\r\nfour").unwrap();
        assert_eq!(last_lines(&path, 2), "\u{fffd}[2Jthree\nfour");
        std::fs::write(&path, "x".repeat(200_000)).unwrap();
        assert_eq!(tail(&path).len(), 64 * 1024);
    }
}
