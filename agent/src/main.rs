//! The in-guest agent, PID 1 of a sealed pod's VM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use protocols::ports;
use sealpod_agent::agent::{Agent, Parts, Paths};
use sealpod_agent::attested::Attested;
use sealpod_agent::images::Pulled;
use sealpod_agent::network::Network;
use sealpod_agent::opening::Opening;
use sealpod_agent::pid1::{self, PowerOff, Switch};
use sealpod_agent::reaper::Reaper;
use sealpod_agent::rpc::{Peers, Service, serve};
use sealpod_agent::{guest, launch, log};
use slog::{Logger, crit, info};

/// Certificates for registries that the sealed specification pins none for.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let mut arguments = std::env::args_os().skip(1);
        return match arguments.next() {
            Some(argument) if argument == launch::ARGUMENT => {
                ExitCode::from(u8::try_from(launch::run_helper(arguments)).unwrap_or(1))
            }
            _ => {
                eprintln!("sealpod-agent runs as the first process of a sealed pod's VM; see the README");
                ExitCode::from(2)
            }
        };
    }
    let log = log::logger(std::io::stderr());
    log::panics_to(log.clone());
    if let Err(error) = boot(&log) {
        crit!(log, # "host", "the agent can't go on"; "reason" => format!("{error:#}"));
    }
    // Without an agent the VM is of no use to anybody.
    Switch.power_off();
    ExitCode::FAILURE
}

fn boot(log: &Logger) -> anyhow::Result<()> {
    pid1::prepare()?;
    if guest::raise_clock().context("setting the clock")? {
        info!(log, # "host", "the machine's clock was before this agent was built");
    }
    // Single-threaded until here: mounts and root are the process'.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .context("starting the run-time")?;
    runtime.block_on(run(log.clone()))
}

async fn run(log: Logger) -> anyhow::Result<()> {
    let reaper = Reaper::new();
    let network = Network::connect().context("connecting to rtnetlink")?;
    network.loopback_up().await.context("bringing the loopback interface up")?;
    let attested = tokio::task::spawn_blocking(Attested::boot).await.context("reading the initdata")?;
    match attested.failure() {
        Some(refusal) => {
            info!(log, # "host", "this VM will open no sealed spec"; "reason" => refusal.to_string());
        }
        None => info!(log, # "host", "initdata matches the launch"),
    }
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let ignored = guest::agent_parameters(&command_line);
    if !ignored.is_empty() {
        info!(log, # "host", "kernel parameters without effect"; "names" => ignored.join(" "));
    }
    let paths = Paths::guest();
    let images = Pulled::new(paths.state.join("images"), CA_BUNDLE.into());
    let agent = Agent::new(Parts {
        paths,
        reaper: reaper.clone(),
        opening: Opening::new(Box::new(attested)),
        images: Box::new(images),
        network: Some(network),
        power: Arc::new(Switch),
        log: log.clone(),
    })
    .context("making the agent's directories")?;
    let peers = Peers::vsock(ports::AGENT).context("listening on vsock")?;
    let _server = serve(Service::new(agent), peers).await.context("serving")?;
    info!(log, # "host", "serving"; "port" => ports::AGENT, "version" => env!("CARGO_PKG_VERSION"));
    reaper.run().await.context("reaping")
}
