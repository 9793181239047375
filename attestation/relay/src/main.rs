//! Host daemon: a byte pipe between guests and the broker.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sealpod_relay::address::{Broker, Listen};
use sealpod_relay::listener::Listener;
use sealpod_relay::serve::{Limits, serve};
use slog::{Drain, Logger, info, o};
use tokio::signal::unix::{SignalKind, signal};

/// Lets confidential guests reach the broker: bytes in, bytes out. It holds no keys and is not trusted.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where guests connect: vsock:PORT or unix:PATH
    #[arg(long, default_value_t = Listen::Vsock(protocols::ports::BROKER))]
    listen: Listen,
    /// The broker's HOST:PORT
    #[arg(long)]
    broker: Broker,
    /// Connections at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16384))]
    max_connections: u32,
    /// Connections of one guest at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=16384))]
    max_per_guest: u32,
    /// Seconds without a byte after which a connection is closed
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86400))]
    idle_seconds: u64,
    /// Seconds that open connections get after SIGTERM
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let json = slog_json::Json::new(std::io::stderr()).add_default_keys().set_flush(true).build();
    let log = Logger::root(Mutex::new(json).map(slog::Fuse), o!("program" => "sealpod-relay"));
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let listener = Listener::bind(&arguments.listen)?;
    info!(log, "listening"; "listen" => %arguments.listen, "broker" => %arguments.broker);
    let limits = Limits {
        connections: arguments.max_connections as usize,
        per_guest: arguments.max_per_guest as usize,
        idle: Duration::from_secs(arguments.idle_seconds),
        drain: Duration::from_secs(arguments.drain_seconds),
    };
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(listener, arguments.broker, limits, log, stop).await;
    Ok(())
}
