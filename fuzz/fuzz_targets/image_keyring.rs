#![no_main]

#[path = "../bodies/image_policy.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::keyring(data, data));
