//! Bytes that are no requests: oversized, truncated, thousands at once, mutated at random from a seed.

use std::time::Duration;

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
    let connect = || Raw::connect(&vsock, ports::AGENT, PATIENCE);
    target
        .attempt(checks, "12: frames that claim more than a message may have", async {
            for claimed in [LARGEST as u32 + 1, u32::MAX, 1 << 31] {
                let mut raw = connect()?;
                let frame = Frame { stream: 1, kind: REQUEST, flags: 0, message: vec![0x41; 64 * 1024] };
                raw.write(&frame.bytes_that_claim(claimed))?;
            }
            answers(&mut connect()?)
        })
        .await;
    target
        .attempt(checks, "12: a message of the largest size that is nothing", async {
            let mut raw = connect()?;
            let frame = Frame { stream: 1, kind: REQUEST, flags: 0, message: vec![0xff; LARGEST] };
            raw.write(&frame.bytes())?;
            answers(&mut connect()?)
        })
        .await;
    target
        .attempt(checks, "12: truncated frames and half-open connections, hundreds of them", async {
            let whole = Frame::request(1, SERVICE, "CreateSandbox", &[0x0a, 0x03, 0x61, 0x62, 0x63]).bytes();
            let mut open = Vec::new();
            for index in 0..200 {
                let mut raw = connect()?;
                raw.write(&whole[..index % whole.len()])?;
                open.push(raw);
            }
            answers(&mut connect()?)?;
            drop(open);
            answers(&mut connect()?)
        })
        .await;
    target
        .attempt(checks, "12: thousands of calls that wait, at once", async {
            let mut payload = Vec::new();
            frames::field(&mut payload, 1, target.id("main")?.as_bytes());
            let mut raw = connect()?;
            for index in 0..4096 {
                raw.write(&Frame::request(index * 2 + 1, SERVICE, "WaitProcess", &payload).bytes())?;
            }
            // Those beyond the bound are answered with an error; the others wait for a process that runs.
            let first = raw.read()?.context("the agent hung up")?;
            ensure!(first.status() != 0, "a wait for a running process was answered");
            drop(raw);
            answers(&mut connect()?)
        })
        .await;
    target
        .attempt(checks, "12: strings with invalid UTF-8 and NUL", async {
            let mut raw = connect()?;
            for (index, bytes) in
                [b"\xff\xfe".as_slice(), b"a\0b", b"\xed\xa0\x80", b"\xc0\x80"].iter().enumerate()
            {
                for (nth, rpc) in
                    ["StartContainer", "SignalProcess", "CreateSandbox", "CopyFile"].iter().enumerate()
                {
                    let mut payload = Vec::new();
                    frames::field(&mut payload, if *rpc == "CreateSandbox" { 5 } else { 1 }, bytes);
                    let stream = (index * 8 + nth) as u32 * 2 + 1;
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
                let mut raw = connect()?;
                let mut bytes = Vec::new();
                for index in 0..BATCH {
                    bytes.extend(mutations.frame(index as u32 * 2 + 1));
                }
                raw.write(&bytes).context("the agent reads no more")?;
            }
            answers(&mut connect()?)
        })
        .await;
}

/// The agent answers `Check` on a connection of its own.
fn answers(raw: &mut Raw) -> Result<()> {
    raw.write(&Frame::request(1, "grpc.Health", "Check", &[]).bytes())?;
    let answer = raw.read()?.context("the agent hung up")?;
    ensure!(answer.stream == 1 && answer.status() == 0, "{answer:?}");
    Ok(())
}
