#![no_main]

#[path = "../bodies/snp.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::snp_report(data));
