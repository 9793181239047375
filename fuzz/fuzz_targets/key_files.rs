#![no_main]

#[path = "../bodies/wrapped_keys.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::keys(data));
