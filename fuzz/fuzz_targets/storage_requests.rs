#![no_main]

#[path = "../bodies/storage.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::storage_requests(data));
