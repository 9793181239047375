//! Rate of a whole layer from file to file: `cargo run --release -p encrypted-image --example layer_rate -- DIRECTORY
//! [MiB]`. Encrypts and decrypts random bytes, with all checks that a copy between OCI layouts makes; no key is unwrapped.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring program"
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use encrypted_image::{PrivateOptions, pipeline};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let directory = Path::new(arguments.get(1).map_or("/tmp", String::as_str));
    let size: usize = arguments.get(2).map_or(200, |size| size.parse().unwrap());
    let [plain, encrypted, decrypted] = ["plain", "encrypted", "decrypted"].map(|name| directory.join(name));

    let mut bytes = vec![0; size << 20];
    getrandom::fill(&mut bytes).unwrap();
    File::create(&plain).unwrap().write_all(&bytes).unwrap();
    let private = PrivateOptions::generate(Sha256::digest(&bytes).into()).unwrap();
    drop(bytes);

    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let sealed =
            pipeline::encrypt(File::open(&plain).unwrap(), File::create(&encrypted).unwrap(), &private)
                .unwrap();
        sealing.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let stage = File::create(&decrypted).unwrap();
        let opened =
            pipeline::decrypt(File::open(&encrypted).unwrap(), stage, &private, &sealed.public).unwrap();
        opening.push(start.elapsed().as_secs_f64());
        assert_eq!(opened.encrypted_digest, sealed.encrypted_digest);
    }
    for (name, mut times) in [("encrypt", sealing), ("decrypt", opening)] {
        times.sort_by(f64::total_cmp);
        println!("{name} {size} MiB: median {:.3} s, best {:.3} s", times[ROUNDS / 2], times[0]);
    }
    for file in [plain, encrypted, decrypted] {
        std::fs::remove_file(file).unwrap();
    }
}
