#![no_main]

#[path = "../bodies/encrypted_image.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::keyprovider_messages(data));
