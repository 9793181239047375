//! How fast layers are encrypted and decrypted, and in how much memory, beside skopeo in the same run:
//! `image-rate SEALPOD [MIB] [ROUNDS] [SKOPEO]`. The layer is gzip of what can't be compressed, in an OCI
//! layout below `$TMPDIR`; each round runs every program once, so that both see the same machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement")]

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use sha2::{Digest as _, Sha256};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        // One program, and its peak memory, which a process knows of its children together only.
        [flag, program, rest @ ..] if flag == "--measured" => measured(program, rest),
        [sealpod, rest @ ..] => {
            let number = |at: usize, default| rest.get(at).map_or(default, |text| text.parse().unwrap());
            let skopeo = rest.get(2).map_or("skopeo", String::as_str);
            compare(sealpod, skopeo, number(0, 200), number(1, 5));
            ExitCode::SUCCESS
        }
        [] => {
            eprintln!("image-rate SEALPOD [MIB] [ROUNDS] [SKOPEO]");
            ExitCode::FAILURE
        }
    }
}

fn measured(program: &str, arguments: &[String]) -> ExitCode {
    let began = Instant::now();
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    println!("{seconds} {}", usage.max_rss());
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What one program did, in every round.
struct Row {
    name: &'static str,
    program: String,
    arguments: Vec<String>,
    /// Removed before each run.
    output: &'static str,
    seconds: Vec<f64>,
    peak_kib: u64,
}

impl Row {
    fn new(name: &'static str, program: &str, output: &'static str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Self { name, program: program.to_owned(), arguments, output, seconds: Vec::new(), peak_kib: 0 }
    }

    fn run(&mut self, dir: &Path) {
        let _ = fs::remove_dir_all(dir.join(self.output));
        let output = Command::new(std::env::current_exe().unwrap())
            .arg("--measured")
            .arg(&self.program)
            .args(&self.arguments)
            .current_dir(dir)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{} failed", self.name);
        let text = String::from_utf8(output.stdout).unwrap();
        let (seconds, peak) = text.trim().split_once(' ').unwrap();
        self.seconds.push(seconds.parse().unwrap());
        self.peak_kib = self.peak_kib.max(peak.parse().unwrap());
    }

    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }
}

fn compare(sealpod: &str, skopeo: &str, mib: u64, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let sealpod = fs::canonicalize(sealpod).unwrap().to_str().unwrap().to_owned();
    layout(&dir.path().join("plain"), mib);
    keys(dir.path());
    let mut rows = [
        Row::new("skopeo copy", skopeo, "skopeo-copy", "copy -q oci:plain:v1 oci:skopeo-copy:v1"),
        Row::new(
            "skopeo encrypt",
            skopeo,
            "skopeo-enc",
            "copy -q --encryption-key jwe:key.pub oci:plain:v1 oci:skopeo-enc:v1",
        ),
        Row::new(
            "skopeo decrypt",
            skopeo,
            "skopeo-dec",
            "copy -q --decryption-key key.pem oci:skopeo-enc:v1 oci:skopeo-dec:v1",
        ),
        Row::new(
            "sealpod encrypt",
            &sealpod,
            "own-enc",
            "image encrypt -q oci:plain:v1 oci:own-enc:v1 -r jwe:key.pub",
        ),
        Row::new(
            "sealpod decrypt",
            &sealpod,
            "own-dec",
            "image decrypt -q oci:own-enc:v1 oci:own-dec:v1 -k key.pem",
        ),
        Row::new(
            "sealpod decrypt what skopeo encrypted",
            &sealpod,
            "cross-dec",
            "image decrypt -q oci:skopeo-enc:v1 oci:cross-dec:v1 -k key.pem",
        ),
        Row::new(
            "sealpod rotate",
            &sealpod,
            "own-rot",
            "image rotate -q oci:own-enc:v1 --to oci:own-rot:v1 -k key.pem -r jwe:key.pub",
        ),
    ];
    for _ in 0..rounds {
        rows.iter_mut().for_each(|row| row.run(dir.path()));
    }
    println!("{mib} MiB, {rounds} rounds, medians");
    for row in &rows {
        let seconds = row.median();
        let rate = mib as f64 * 1.048_576 / seconds;
        println!(
            "{:40} {seconds:6.3} s {rate:6.0} MB/s  peak {:5.1} MB",
            row.name,
            row.peak_kib as f64 / 1000.0
        );
    }
    println!(
        "encrypt: {:.2} x skopeo, decrypt: {:.2} x skopeo",
        rows[1].median() / rows[3].median(),
        rows[2].median() / rows[4].median()
    );
}

fn keys(dir: &Path) {
    for arguments in ["genrsa -out key.pem 2048", "rsa -in key.pem -pubout -out key.pub"] {
        let mut command = Command::new("openssl");
        let status = command.args(arguments.split(' ')).current_dir(dir).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "openssl {arguments}");
    }
}

/// Bytes without a pattern; the same each time.
struct Noise {
    state: u64,
    left: u64,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap().min(buffer.len());
        for chunk in buffer[..length].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let bytes = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn layout(dir: &Path, mib: u64) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(mib << 20);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "noise", Noise { state: 7, left: mib << 20 }).unwrap();
    let tar = builder.into_inner().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let layer = encoder.finish().unwrap();
    let blob = |bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = blob(config.to_string().as_bytes());
    let layer = blob(&layer);
    let described = |kind: &str, (digest, size): (String, usize)| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar+gzip", layer)],
    });
    let mut entry = described("manifest.v1+json", blob(manifest.to_string().as_bytes()));
    entry["annotations"]["org.opencontainers.image.ref.name"] = "v1".into();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
