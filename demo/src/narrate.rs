//! What the demo prints: numbered chapters, steps with their time, and what was proven.

use std::time::{Duration, Instant};

/// Prints progress while the work goes on.
#[derive(Debug)]
pub(crate) struct Narrator {
    began: Instant,
    chapters: usize,
    proven: Vec<String>,
}

impl Default for Narrator {
    fn default() -> Self {
        Self { began: Instant::now(), chapters: 0, proven: Vec::new() }
    }
}

impl Narrator {
    /// A new part of the story.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}. {title}", self.chapters);
    }

    /// Something that is being done now.
    pub(crate) fn step(&self, text: &str) {
        println!("   [{:>5.1} s] {text}", self.began.elapsed().as_secs_f32());
    }

    /// What a program or a guest printed.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("             | {line}");
        }
    }

    /// Something that was shown to hold.
    pub(crate) fn proved(&mut self, text: &str) {
        self.step(&format!("✓ {text}"));
        self.proven.push(text.to_owned());
    }

    /// The end.
    pub(crate) fn proven(&self, took: Duration) {
        println!("\nProven in {:.0} s:", took.as_secs_f32());
        for line in &self.proven {
            println!("   ✓ {line}");
        }
        println!("\nThe secure processor was emulated: see 'What is emulated' in README.md.");
    }
}
