//! Handshakes a second beside what bounds them: the raw rate of P-384 verifications, one an attestation.
//!
//! `cargo run --release -p sealpod-broker --example handshakes [-- COUNT]`. Whole requests through the
//! broker's router on one thread, without TLS and sockets; SQLite on its own threads, on disk, in a
//! temporary directory that is removed. Making the evidence is the guests' work and is not counted. Rates
//! are by the CPU time of the whole process, so a busy machine doesn't change them much; latencies aren't.

#[path = "../tests/broker/guest.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests")]
mod guest;
#[path = "../tests/broker/support.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with the tests, which use more of it"
)]
mod support;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use axum::http::StatusCode;
use futures::StreamExt;
use futures::stream;
use protocols::rcar::ATTEST_PATH;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use sealpod_broker::config::Limits;

use support::{Answer, World, get, post, resource_path};

/// Requests under way at once.
const CLIENTS: usize = 8;

fn main() -> Result<()> {
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 1000,
    };
    let raw = verifications(Duration::from_secs(2))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let phases = runtime.block_on(handshakes(count))?;

    println!("a second of one core:");
    println!("raw P-384 verifications (ring) {raw:>8.0}");
    let (mut cpu, mut wall) = (Duration::ZERO, Duration::ZERO);
    for (name, times) in &phases {
        cpu += times.cpu;
        wall += times.wall;
        println!(
            "{name:<9} {:>29.0}   p50 {:>6.2} ms   p99 {:>6.2} ms",
            count as f64 / times.cpu.as_secs_f64(),
            times.percentile(50),
            times.percentile(99),
        );
    }
    let rate = count as f64 / cpu.as_secs_f64();
    println!("handshakes {rate:>28.0}   {:.2} of the raw rate", rate / raw);
    let real = count as f64 / wall.as_secs_f64();
    println!("by the clock, {CLIENTS} at a time: {real:.0} handshakes/s ({count} of them)");
    Ok(())
}

struct Phase {
    cpu: Duration,
    wall: Duration,
    each: Vec<Duration>,
}

impl Phase {
    fn percentile(&self, percent: usize) -> f64 {
        let mut each = self.each.clone();
        each.sort();
        let at = (each.len() * percent / 100).min(each.len().saturating_sub(1));
        each.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

async fn handshakes(count: usize) -> Result<Vec<(&'static str, Phase)>> {
    let limits = Limits { sessions: 2 * count, sessions_per_address: 2 * count, ..Limits::default() };
    let world = World::with(limits, true).await;
    let pushed = world.push(1).await;
    let (mut sessions, auth) = phase(0..count, |_| world.auth()).await;
    let (mut evidence, mut requests) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (cookie, nonce) in sessions.drain(..) {
        let body = serde_json::to_value(pushed.guest().attest_request(&nonce))?;
        evidence.push(post(ATTEST_PATH, &body, &[("cookie", &cookie)]));
        requests.push(get(&resource_path(pushed.key_id()), &[("cookie", &cookie)]));
    }
    let (answers, attest) = phase(evidence.into_iter(), |request| world.send(request)).await;
    all_granted(&answers)?;
    let (answers, resource) = phase(requests.into_iter(), |request| world.send(request)).await;
    all_granted(&answers)?;
    Ok(vec![("auth", auth), ("attest", attest), ("resource", resource)])
}

fn all_granted(answers: &[Answer]) -> Result<()> {
    match answers.iter().find(|answer| answer.status != StatusCode::OK) {
        Some(refused) => bail!("a request was refused: {refused:?}"),
        None => Ok(()),
    }
}

/// Runs one request for each item, a few at a time.
async fn phase<I, T, F>(items: impl Iterator<Item = I>, request: impl Fn(I) -> F) -> (Vec<T>, Phase)
where
    F: Future<Output = T>,
{
    let (start, cpu) = (Instant::now(), cpu_time());
    let timed = stream::iter(items)
        .map(|item| {
            let future = request(item);
            async move {
                let start = Instant::now();
                (future.await, start.elapsed())
            }
        })
        .buffer_unordered(CLIENTS)
        .collect::<Vec<_>>()
        .await;
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    let (answers, each) = timed.into_iter().unzip();
    (answers, Phase { cpu, wall, each })
}

/// CPU time of all threads of this process so far (proc(5): utime and stime, in hundredths of a second).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// How many signatures over a report ring verifies in a second.
fn verifications(time: Duration) -> Result<f64> {
    let random = SystemRandom::new();
    let failed = |_| anyhow::anyhow!("ring made no key");
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).map_err(failed)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .map_err(|error| anyhow::anyhow!("ring refused its own key: {error}"))?;
    let report = [0x5a; 0x2a0];
    let signature = key.sign(&random, &report).map_err(failed)?;
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key());
    let start = cpu_time();
    let mut done = 0u32;
    while cpu_time() - start < time {
        for _ in 0..100 {
            public.verify(&report, signature.as_ref()).map_err(failed)?;
        }
        done += 100;
    }
    Ok(f64::from(done) / (cpu_time() - start).as_secs_f64())
}
