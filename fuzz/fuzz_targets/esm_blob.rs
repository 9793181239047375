#![no_main]

#[path = "../bodies/pef.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::esm_blob(data));
