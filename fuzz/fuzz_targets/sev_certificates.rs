#![no_main]

#[path = "../bodies/sev.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::sev_certificates(data));
