#![no_main]

#[path = "../bodies/broker.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::sev_requests(data));
