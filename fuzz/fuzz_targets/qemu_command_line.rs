#![no_main]

#[path = "../bodies/relay.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::command_line(data));
