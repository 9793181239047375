//! Bytes that are no requests: oversized, truncated, thousands at once, mutated at random from a seed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocols::ports;
use sealpod_tests::checks::Checks;
use sealpod_tests::frames::{self, Frame, LARGEST, REQUEST, Raw};
use sealpod_tests::mutate::Mutations;

use crate::Target;

const PATIENCE: Duration = Duration::from_secs(40);
const SERVICE: &str = "grpc.AgentService";
/// Frames in all, and in one connection.
const FRAMES: usize = 10_000;
const BATCH: usize = 50;
const SEED: u64 = 0x5ea1_9042;

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    let vsock = target.running.guest.vsock_socket();
    let reachable = || reachable(&vsock);
    target
        .attempt(checks, "12: frames that claim more than a message may have", async {
            for claimed in [LARGEST as u32 + 1, u32::MAX, 1 << 31] {
                let mut raw = reachable()?;
                let frame = Frame { stream: 3, kind: REQUEST, flags: 0, message: vec![0x41; 64 * 1024] };
                raw.write(&frame.bytes_that_claim(claimed))?;
            }
            reachable().map(drop)
        })
        .await;
    target
        .attempt(checks, "12: a message of the largest size that is nothing", async {
            let mut raw = reachable()?;
            let frame = Frame { stream: 3, kind: REQUEST, flags: 0, message: vec![0xff; LARGEST] };
            raw.write(&frame.bytes())?;
            reachable().map(drop)
        })
        .await;
    target
        .attempt(checks, "12: truncated frames and half-open connections, hundreds of them", async {
            let whole = Frame::request(1, SERVICE, "CreateSandbox", &[0x0a, 0x03, 0x61, 0x62, 0x63]).bytes();
            let mut open = Vec::new();
            for index in 0..200 {
                let mut raw = Raw::connect(&vsock, ports::AGENT, PATIENCE)?;
                raw.write(&whole[..index % whole.len()])?;
                open.push(raw);
            }
            // Those who are connected are served; who comes later is, once others have gone.
            target.lives().await?;
            drop(open);
            reachable().map(drop)
        })
        .await;
    target
        .attempt(
            checks,
            "12: thousands of calls that wait, at once, and connections that end before their calls",
            async {
                let mut payload = Vec::new();
                frames::field(&mut payload, 1, target.id("main")?.as_bytes());
                let wait =
                    |index: u32| Frame::request(index * 2 + 3, SERVICE, "WaitProcess", &payload).bytes();
                let mut raw = reachable()?;
                for index in 0..4096 {
                    raw.write(&wait(index))?;
                }
                // Those beyond the bound are answered with an error; the others wait for a process that runs.
                let first = raw.read()?.context("the agent hung up")?;
                ensure!(first.status() != 0, "a wait for a running process was answered");
                drop(raw);
                // More connections than the agent serves at once, each gone while its calls wait.
                for _ in 0..40 {
                    let mut raw = reachable()?;
                    raw.write(&(0..10).flat_map(wait).collect::<Vec<_>>())?;
                }
                reachable().map(drop)
            },
        )
        .await;
    target
        .attempt(checks, "12: strings with invalid UTF-8 and NUL", async {
            let mut raw = reachable()?;
            let mut stream = 1;
            for bytes in [b"\xff\xfe".as_slice(), b"a\0b", b"\xed\xa0\x80", b"\xc0\x80"] {
                for rpc in ["StartContainer", "SignalProcess", "CreateSandbox", "CopyFile"] {
                    let mut payload = Vec::new();
                    frames::field(&mut payload, if rpc == "CreateSandbox" { 5 } else { 1 }, bytes);
                    stream += 2;
                    raw.write(&Frame::request(stream, SERVICE, rpc, &payload).bytes())?;
                    let answer = raw.read()?.context("the agent hung up")?;
                    ensure!(answer.status() != 0, "{rpc} took {bytes:?}");
                }
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "12: ten thousand random and mutated frames", async {
            let mut mutations = Mutations::new(SEED);
            for _ in 0..FRAMES / BATCH {
                // One that was answered: all frames of the batch are read, or the agent hangs up on one of them.
                let mut raw = reachable()?;
                let frames: Vec<u8> =
                    (0..BATCH).flat_map(|index| mutations.frame(index as u32 * 2 + 3)).collect();
                raw.write(&frames).context("the agent reads no more")?;
            }
            reachable().map(drop)
        })
        .await;
}

/// A connection on which the agent has answered `Check`. It serves few at once, and sees a moment later that one has
/// ended.
fn reachable(vsock: &Path) -> Result<Raw> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::connect(vsock, ports::AGENT, PATIENCE)?;
        let check = Frame::request(1, "grpc.Health", "Check", &[]);
        if raw.write(&check.bytes())?
            && let Some(answer) = raw.read()?
        {
            ensure!(answer.stream == 1 && answer.status() == 0, "{answer:?}");
            return Ok(raw);
        }
        ensure!(Instant::now() < deadline, "the agent took no connection for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
