//! The owner's command line.

fn main() {}
