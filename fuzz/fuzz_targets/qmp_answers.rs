#![no_main]

#[path = "../bodies/relay.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::qmp_answers(data));
