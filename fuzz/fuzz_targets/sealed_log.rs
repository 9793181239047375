#![no_main]

#[path = "../bodies/sealed_spec.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::sealed_log(data));
