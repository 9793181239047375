#![no_main]

#[path = "../bodies/pef.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::pef_evidence(data));
