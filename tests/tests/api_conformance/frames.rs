//! Below the generated clients: what the server says to what isn't a request.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocols::ports;
use sealpod_tests::checks::Checks;
use sealpod_tests::frames::{Frame, RESPONSE, Raw};

use crate::Bench;

const PATIENCE: Duration = Duration::from_secs(30);
const UNKNOWN: u64 = 2;
const INVALID_ARGUMENT: u64 = 3;
const UNIMPLEMENTED: u64 = 12;

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let vsock = bench.running.guest.vsock_socket();
    let connect = || Raw::connect(&vsock, ports::AGENT, PATIENCE);
    let ask = |raw: &mut Raw, frame: &Frame| -> anyhow::Result<Frame> {
        raw.write(&frame.bytes())?;
        let answer = raw.read()?.context("the agent hung up")?;
        ensure!(answer.stream == frame.stream && answer.kind == RESPONSE, "{answer:?}");
        Ok(answer)
    };
    checks
        .that("an unknown method is UNIMPLEMENTED, an unknown service INVALID_ARGUMENT", async {
            let mut raw = connect()?;
            let method = ask(&mut raw, &Frame::request(1, "grpc.AgentService", "FormatDisk", &[]))?;
            ensure!(method.status() == UNIMPLEMENTED, "{}", method.status());
            let service = ask(&mut raw, &Frame::request(3, "grpc.Nothing", "Check", &[]))?;
            ensure!(service.status() == INVALID_ARGUMENT, "{}", service.status());
            let good = ask(&mut raw, &Frame::request(5, "grpc.Health", "Check", &[]))?;
            ensure!(good.status() == 0, "{}", good.status());
            Ok(())
        })
        .await;
    let proto = include_str!("../../../protocols/proto/agent.proto");
    let rpcs = proto
        .lines()
        .filter_map(|line| line.trim().strip_prefix("rpc "))
        .filter_map(|line| line.split(['(', ' ']).next());
    let mut raw = connect();
    for (index, rpc) in rpcs.enumerate() {
        let stream = index as u32 * 2 + 1;
        checks
            .that(&format!("{rpc} refuses bytes that aren't its request: UNKNOWN"), async {
                let raw = raw.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                let answer = ask(raw, &Frame::request(stream, "grpc.AgentService", rpc, b"\xff"))?;
                ensure!(answer.status() == UNKNOWN, "status {}", answer.status());
                Ok(())
            })
            .await;
    }
    checks
        .that("many requests in one write are all answered, in any order", async {
            let mut raw = connect()?;
            let streams: Vec<u32> = (0..100).map(|index| index * 2 + 1).collect();
            let bytes: Vec<u8> = streams
                .iter()
                .flat_map(|&stream| Frame::request(stream, "grpc.Health", "Check", &[]).bytes())
                .collect();
            raw.write(&bytes)?;
            let mut answered = Vec::new();
            for _ in &streams {
                answered.push(raw.read()?.context("the agent hung up")?.stream);
            }
            answered.sort_unstable();
            ensure!(answered == streams, "{answered:?}");
            Ok(())
        })
        .await;
}
