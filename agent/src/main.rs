//! The in-guest agent, PID 1 of a sealed pod's VM.

fn main() {}
