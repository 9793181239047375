//! Rates of what a layer's encryption is made of, on one core, in MB/s: `cargo run --release -p encrypted-image --example
//! primitives`. Says which implementation of SHA-256 is the faster here, and what the release profile costs.

#![expect(clippy::print_stdout, reason = "a measuring program")]

use std::hint::black_box;
use std::time::Instant;

use encrypted_image::{Keystream, Mac};
use sha2::{Digest, Sha256};

const CHUNK: usize = 256 * 1024;
const CHUNKS: usize = 32;
const ROUNDS: usize = 60;

type Task<'a> = &'a mut dyn FnMut(&mut [u8]);

fn main() {
    let key = [7; 32];
    let mut keystream = Keystream::new(&key, &[9; 16]);
    let mut mac = Mac::new(&key);
    let mut digest = Sha256::new();
    let mut ring_digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut ring_mac = ring::hmac::Context::with_key(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key));
    let mut tasks: [(&str, Task<'_>); 5] = [
        ("AES-256-CTR (this crate)", &mut |chunk| keystream.apply(chunk)),
        ("HMAC-SHA256 (this crate)", &mut |chunk| mac.update(chunk)),
        ("SHA-256 (sha2)", &mut |chunk| digest.update(&*chunk)),
        ("SHA-256 (ring)", &mut |chunk| ring_digest.update(chunk)),
        ("HMAC-SHA256 (ring)", &mut |chunk| ring_mac.update(chunk)),
    ];
    // In turns, and the best of many short runs: what else the machine does falls on all alike.
    let mut chunk = vec![0x5a; CHUNK];
    let mut best = [f64::MAX; 5];
    for _ in 0..ROUNDS {
        for ((_, task), best) in tasks.iter_mut().zip(&mut best) {
            let start = Instant::now();
            for _ in 0..CHUNKS {
                task(black_box(&mut chunk));
            }
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    for ((name, _), best) in tasks.iter().zip(best) {
        #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
        let megabytes = (CHUNKS * CHUNK) as f64 / 1e6;
        println!("{name:<28} {:>6.0} MB/s", megabytes / best);
    }
}
