//! A built broker under load, over TLS on the loopback: memory and times.
//!
//! `cargo run --release -p sealpod-broker --example load -- PATH/TO/sealpod-broker [HANDSHAKES [AUTHS]]`
//! makes a state directory in a temporary place, starts the broker on it, and as its clients sends
//! - `/auth` with 4 KiB of extra-params and nothing after it, 100,000 times
//! - whole handshakes with sample evidence (auth, attest, get a resource), each with a key of its own: one client at
//!   a time, then four, then so many as to reach 100,000
//!
//! and prints the broker's resident memory between. Clients keep their connection; their work is on the same
//! processors, so rates are lower bounds.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::rcar::{EphemeralKey, Jwk, binding};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Keys of guests: more than the broker remembers, so that each release is recorded.
const KEYS: usize = 6000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = PathBuf::from(arguments.next().context("the broker's program is missing")?);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (handshakes, auths) = (number(100_000)?, number(100_000)?);
    let broker = Broker::start(&program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(load(&broker, handshakes, auths))
}

async fn load(broker: &Broker, handshakes: usize, auths: usize) -> Result<()> {
    let idle = broker.resident()?;
    println!("idle                              {idle:>8.1} MB");
    let keys: Arc<Vec<Jwk>> =
        Arc::new((0..KEYS).map(|_| Ok(EphemeralKey::generate()?.public_jwk())).collect::<Result<_>>()?);
    // Both ways once, so that what is made once is made.
    Client::connect(broker).await?.handshake(&keys[0]).await?;
    let warm = broker.resident()?;

    let start = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    let clients = (0..4).map(|_| {
        let (client, done) = (Client::connect(broker), done.clone());
        async move {
            let mut client = client.await?;
            let filler = "x".repeat(4096);
            let body =
                json!({ "version": "0.4.0", "tee": "snp", "extra-params": { "filler": filler } }).to_string();
            while done.fetch_add(1, Ordering::Relaxed) < auths {
                client.send("POST", "/kbs/v0/auth", &body).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(clients).await?;
    let after = broker.resident()?;
    println!(
        "after {auths} × /auth with 4 KiB    {after:>8.1} MB   {:+.1} MB   {:.0}/s",
        after - warm,
        auths as f64 / start.elapsed().as_secs_f64()
    );

    let one = run(broker, &keys, 1, 2000.min(handshakes)).await?;
    print("one client", &one);
    let four = run(broker, &keys, 4, 4000.min(handshakes)).await?;
    print("four clients", &four);
    let rest = handshakes.saturating_sub(one.each.len() + four.each.len());
    if rest > 0 {
        print("the rest, eight clients", &run(broker, &keys, 8, rest).await?);
    }
    println!("after {handshakes} handshakes        {:>8.1} MB", broker.resident()?);
    Ok(())
}

struct Times {
    wall: Duration,
    each: Vec<Duration>,
}

fn print(name: &str, times: &Times) {
    let mut each = times.each.clone();
    each.sort();
    let at = |percent: usize| {
        let at = (each.len() * percent / 100).min(each.len().saturating_sub(1));
        each.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let rate = each.len() as f64 / times.wall.as_secs_f64();
    println!("{name:<24} {rate:>8.0} handshakes/s   p50 {:>6.2} ms   p99 {:>6.2} ms", at(50), at(99));
}

async fn run(broker: &Broker, keys: &Arc<Vec<Jwk>>, clients: usize, count: usize) -> Result<Times> {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (mut client, next, keys) = (Client::connect(broker).await?, next.clone(), keys.clone());
        tasks.push(tokio::spawn(async move {
            let mut each = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return anyhow::Ok(each);
                }
                let start = Instant::now();
                client.handshake(&keys[at % keys.len()]).await?;
                each.push(start.elapsed());
            }
        }));
    }
    let mut each = Vec::new();
    for task in tasks {
        each.extend(task.await??);
    }
    Ok(Times { wall: start.elapsed(), each })
}

/// A connection of a client.
struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    cookie: String,
}

struct Answer {
    head: String,
    body: Value,
}

impl Client {
    async fn connect(broker: &Broker) -> Result<Self> {
        let stream = TcpStream::connect(broker.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("broker.example")?;
        let stream = TlsConnector::from(broker.tls.clone()).connect(name, stream).await?;
        Ok(Self { stream, buffer: Vec::new(), cookie: String::new() })
    }

    async fn handshake(&mut self, key: &Jwk) -> Result<()> {
        self.cookie.clear();
        let body =
            r#"{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha384"]}}"#;
        let answer = self.send("POST", "/kbs/v0/auth", body).await?;
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).context("there is no cookie")?;
        self.cookie = format!("cookie: {cookie}\r\n");
        let nonce = answer.body["nonce"].as_str().context("there is no nonce")?;
        let report_data = BASE64_STANDARD.encode(binding(nonce, key, ""));
        let body = json!({
            "init-data": null,
            "runtime-data": { "nonce": nonce, "tee-pubkey": key },
            "tee-evidence": {
                "primary_evidence": { "svn": "1", "report_data": report_data },
                "additional_evidence": "",
            },
        });
        self.send("POST", "/kbs/v0/attest", &body.to_string()).await?;
        self.send("GET", "/kbs/v0/resource/compat/key/one", "").await?;
        Ok(())
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: b\r\ncontent-length: {}\r\n{}\r\n{body}",
            body.len(),
            self.cookie
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the broker closed the connection");
            }
        };
        let text = String::from_utf8(self.buffer[..head].to_vec())?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("the answer has no length")?.trim().parse()?;
        while self.buffer.len() < head + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the broker closed the connection");
            }
        }
        if !text.starts_with("HTTP/1.1 200") {
            bail!("refused: {text}{}", String::from_utf8_lossy(&self.buffer[head..]));
        }
        Ok(Answer { head: text, body: serde_json::from_slice(&self.buffer[head..])? })
    }
}

/// The broker's process and its state.
struct Broker {
    process: Child,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    _dir: tempfile::TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker {
    fn start(program: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("broker.toml");
        std::fs::write(
            &config,
            "listen = \"127.0.0.1:0\"\nstate = \"state\"\nserver_names = [\"broker.example\"]\n\
             [trust]\nsample = true\n[compat]\ntee = [\"sample\"]\n[limits]\nconnection_seconds = 86400\n",
        )?;
        let secret = dir.path().join("secret");
        std::fs::write(&secret, [7; 32])?;
        let command = |words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).arg("--config").arg(&config);
            command
        };
        let run = |mut command: Command| match command.stdout(Stdio::null()).status() {
            Ok(status) if status.success() => Ok(()),
            other => bail!("the broker's command failed: {other:?}"),
        };
        run(command(&["init"]))?;
        let mut put = command(&["compat", "put"]);
        put.args(["--uri", "kbs:///compat/key/one"]).arg(&secret);
        run(put)?;
        let mut process = command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("ready ").context("the broker did not start")?.parse()?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.path().join("state/ca.pem"))?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { process, address, tls: Arc::new(tls), _dir: dir })
    }

    /// Resident memory, in MB.
    fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}
