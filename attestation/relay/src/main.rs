//! Host daemon: a byte pipe between guests and the broker. The same program stands for QEMU where SEV guests are
//! launched: `sealpod-relay qemu …`, or under the name `sealpod-qemu`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sealpod_relay::address::{Broker, Listen};
use sealpod_relay::collateral;
use sealpod_relay::listener::Listener;
use sealpod_relay::serve::{Limits, serve};
use sealpod_relay::sev;
use slog::{Drain, Logger, info, o};
use tokio::signal::unix::{SignalKind, signal};

/// Lets confidential guests reach the broker: bytes in, bytes out. It holds no keys and is not trusted.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<Serve>,
}

#[derive(Subcommand)]
enum Command {
    /// Launch a SEV or SEV-ES guest in QEMU's place: the words are QEMU's. Settings: /etc/sealpod/relay.toml, or
    /// the file named by $SEALPOD_RELAY_CONFIG. The program under the name sealpod-qemu does the same
    #[command(disable_help_flag = true)]
    Qemu {
        /// QEMU's words
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Mirror AMD's key distribution service for brokers without a network; write certificate tables for QEMU
    Collateral(Box<collateral::Arguments>),
    /// Print what QEMU says of this machine's SEV, for `platform` in relay.toml
    SevPlatform,
}

#[derive(clap::Args)]
struct Serve {
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

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "sealpod-qemu") {
        return sev::qemu(&words.collect::<Vec<_>>());
    }
    // QEMU's words are not for clap: it would take some for its own.
    if let Some(word) = words.next().and_then(|word| word.into_string().ok()) {
        if word == "qemu" {
            return sev::qemu(&words.collect::<Vec<_>>());
        }
        if sev::INTERNAL.contains(&word.as_str()) {
            return sev::internal(&word, words.next().map(PathBuf::from).unwrap_or_default());
        }
    }
    let arguments = Arguments::parse();
    let outcome = match (arguments.command, arguments.serve) {
        (Some(Command::Qemu { words }), _) => return sev::qemu(&words),
        (Some(Command::Collateral(arguments)), _) => mirror(arguments),
        (Some(Command::SevPlatform), _) => return sev::platform(),
        (None, Some(serve)) => pipe(serve),
        (None, None) => Err(anyhow::anyhow!("--broker HOST:PORT is missing")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn logger() -> Logger {
    let json = slog_json::Json::new(std::io::stderr()).add_default_keys().set_flush(true).build();
    Logger::root(Mutex::new(json).map(slog::Fuse), o!("program" => "sealpod-relay"))
}

/// Resolves at SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main(flavor = "current_thread")]
async fn mirror(arguments: Box<collateral::Arguments>) -> anyhow::Result<()> {
    collateral::run(*arguments, logger(), told_to_stop()?).await
}

#[tokio::main(flavor = "current_thread")]
async fn pipe(arguments: Serve) -> anyhow::Result<()> {
    let log = logger();
    let stop = told_to_stop()?;
    let listener = Listener::bind(&arguments.listen)?;
    info!(log, "listening"; "listen" => %arguments.listen, "broker" => %arguments.broker);
    let limits = Limits {
        connections: arguments.max_connections as usize,
        per_guest: arguments.max_per_guest as usize,
        idle: Duration::from_secs(arguments.idle_seconds),
        drain: Duration::from_secs(arguments.drain_seconds),
    };
    serve(listener, arguments.broker, limits, log, stop).await;
    Ok(())
}
