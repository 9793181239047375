//! The console is a channel to the adversary: only records tagged `"host"` leave the guest, as one JSON
//! object a line. Everything else, also what libraries log, goes nowhere, except in an unsealed VM.

mod port;

pub use port::{Feed, Tee};

use std::io::{self, Write};
use std::sync::Mutex;

use slog::{Drain, Level, LevelFilter, Logger, Never, OwnedKVList, Record, crit, o};

/// Tag of a record that is safe for the host.
pub const SAFE: &str = "host";

/// A logger whose safe records go to `writer`.
pub fn logger(writer: impl Write + Send + 'static) -> Logger {
    let json = slog_json::Json::default(Lines { writer, line: Vec::new() });
    let drain = Mutex::new(SafeOnly(json)).fuse();
    Logger::root(drain, o!("name" => "sealpod-agent"))
}

/// A logger for a VM that keeps nothing from the host: every record from `level` up.
pub fn open_logger(writer: impl Write + Send + 'static, level: Level) -> Logger {
    let json = slog_json::Json::new(Lines { writer, line: Vec::new() }).add_default_keys().build();
    let drain = Mutex::new(LevelFilter::new(json, level)).fuse();
    Logger::root(drain, o!("name" => "sealpod-agent"))
}

/// From now on a panic says where it happened and nothing else: its message may hold what is sealed.
pub fn panics_to(log: Logger) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        crit!(log, # "host", "a bug in the agent"; "at" => place);
    }));
}

struct SafeOnly<D>(D);

impl<D: Drain> Drain for SafeOnly<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if record.tag() == SAFE {
            // A console that is gone is no reason to stop.
            let _ = self.0.log(record, values);
        }
        Ok(())
    }
}

/// Hands whole lines to the writer: the kernel prints between two writes.
struct Lines<W> {
    writer: W,
    line: Vec<u8>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            self.writer.write_all(&line)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slog::info;

    use super::*;

    #[derive(Clone, Default)]
    struct Console(Arc<Mutex<Vec<u8>>>);

    impl Write for Console {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_safe_records_leave() {
        let console = Console::default();
        let log = logger(console.clone());
        info!(log, "a password"; "value" => "hunter2");
        info!(log, # "other", "another"; "value" => "hunter2");
        info!(log, # "host", "a container was made"; "id" => "c1\nforged");
        let text = String::from_utf8(console.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("a container was made") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_panic_keeps_its_message() {
        let console = Console::default();
        panics_to(logger(console.clone()));
        let died = std::panic::catch_unwind(|| panic!("hunter2"));
        drop(std::panic::take_hook());
        assert!(died.is_err());
        let text = String::from_utf8(console.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("log/mod.rs:") && !text.contains("hunter2"), "{text}");
    }
}
