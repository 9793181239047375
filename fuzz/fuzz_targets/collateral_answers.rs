#![no_main]

#[path = "../bodies/collateral.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::answers(data));
