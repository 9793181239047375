//! Progress: bars on a terminal, lines elsewhere, nothing when quiet was asked for.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use owner_image::document::Descriptor;
use owner_image::{Meter, Observer, Silent};

const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";

/// Runs with whatever shows progress here.
pub(super) fn watched<T>(quiet: bool, work: impl FnOnce(&dyn Observer) -> T) -> T {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => work(&Silent),
        (false, true) => work(&Bars(MultiProgress::new())),
        (false, false) => work(&Lines),
    }
}

struct Lines;

impl Observer for Lines {
    fn begin(&self, doing: &str, blob: &Descriptor) -> Box<dyn Meter> {
        eprintln!("{doing} {} ({})", blob.digest, size(blob.size));
        Box::new(Silent)
    }
}

struct Bars(MultiProgress);

impl Observer for Bars {
    fn begin(&self, doing: &str, blob: &Descriptor) -> Box<dyn Meter> {
        let bar = self.0.add(ProgressBar::new(blob.size));
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_message(format!("{doing} {}", blob.digest.short()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Box::new(Bar(bar))
    }
}

struct Bar(ProgressBar);

impl Meter for Bar {
    fn bytes(&self, count: u64) {
        self.0.inc(count);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// For people: 3 digits are enough.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (209_715_200, "209.7 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
