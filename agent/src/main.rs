//! The in-guest agent, PID 1 of a sealed pod's VM. Outside a VM, for development, a plain Kata agent.

mod outside;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use agent_network::Network;
use anyhow::Context;
use sealpod_agent::agent::{Agent, Parts, Paths};
use sealpod_agent::attested::Attested;
use sealpod_agent::config::Config;
use sealpod_agent::guarded::Guarded;
use sealpod_agent::images::Pulled;
use sealpod_agent::log::Feed;
use sealpod_agent::mode::{Gatekeeper, Mode};
use sealpod_agent::opening::Opening;
use sealpod_agent::pid1::{self, PowerOff, Switch};
use sealpod_agent::reaper::Reaper;
use sealpod_agent::rpc::{Peers, Service, serve};
use sealpod_agent::{launch, log};
use slog::{Logger, crit, info};

/// Certificates for registries that the sealed specification pins none for.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let mut arguments = std::env::args_os().skip(1).peekable();
        return match arguments.next_if(|first| first == launch::ARGUMENT) {
            Some(_) => ExitCode::from(u8::try_from(launch::run_helper(arguments)).unwrap_or(1)),
            None => outside::main(arguments),
        };
    }
    let feed = Feed::default();
    let log = log::logger(feed.tee(std::io::stderr()));
    log::panics_to(log.clone());
    if let Err(error) = boot(&log, feed) {
        crit!(log, # "host", "the agent can't go on"; "reason" => format!("{error:#}"));
    }
    // Without an agent the VM is of no use to anybody.
    Switch.power_off();
    ExitCode::FAILURE
}

fn boot(log: &Logger, feed: Feed) -> anyhow::Result<()> {
    pid1::prepare()?;
    if agent_resources::clock::raise_clock().context("setting the clock")? {
        info!(log, # "host", "the machine's clock was before this agent was built");
    }
    let command_line = fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?;
    let mut config = Config::from_command_line(&command_line)?;
    let log = match config.unsealed {
        true => log::open_logger(feed.tee(std::io::stderr()), config.level),
        false => log.clone(),
    };
    if config.unsealed
        && let Some(path) = &config.file
    {
        let text = fs::read_to_string(path).context("reading agent.config_file")?;
        config = Config { unsealed: true, ..Config::from_toml(&text)? };
    }
    run_time()?.block_on(serve_guest(config, log, feed))
}

/// Made when the process needs its threads; until then mounts, root and namespaces are the process'.
fn run_time() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .context("starting the run-time")
}

async fn serve_guest(config: Config, log: Logger, feed: Feed) -> anyhow::Result<()> {
    let network = Network::connect().context("connecting to rtnetlink")?;
    network.loopback_up().await.context("bringing the loopback interface up")?;
    let (mode, config) = choose(config, &log).await?;
    if let Some(port) = config.log_port {
        let log = log.clone();
        tokio::spawn(async move {
            if let Err(error) = feed.serve(port).await {
                info!(log, # "host", "no log port"; "reason" => error.to_string());
            }
        });
    }
    run(config, mode, network, Paths::guest(), log).await
}

/// What this VM is, and what of its configuration has an effect in it.
async fn choose(config: Config, log: &Logger) -> anyhow::Result<(Mode, Config)> {
    if config.unsealed {
        return Ok((Mode::Unsealed, config));
    }
    let attested = tokio::task::spawn_blocking({
        let log = log.clone();
        move || Attested::boot(log)
    })
    .await
    .context("reading the initdata")?;
    match attested.failure() {
        Some(refusal) => {
            info!(log, # "host", "this VM will open no sealed spec"; "reason" => refusal.to_string());
        }
        None => info!(log, # "host", "initdata matches the launch"),
    }
    let attested = match Guarded::by(attested, log.clone()) {
        Ok(guarded) => {
            if let Some(refusal) = guarded.failure() {
                info!(log, # "host", "this VM will make no sandbox"; "reason" => refusal.to_string());
            }
            return Ok((Mode::Policy(Box::new(guarded)), config));
        }
        Err(attested) => attested,
    };
    Ok((Mode::Sealed(Opening::new(attested)), config.sealed()))
}

async fn run(config: Config, mode: Mode, network: Network, paths: Paths, log: Logger) -> anyhow::Result<()> {
    if !config.ignored.is_empty() {
        info!(log, # "host", "parameters without effect"; "names" => config.ignored.join(" "));
    }
    let reaper = Reaper::new();
    let images = Pulled::new(paths.state.join("images"), CA_BUNDLE.into(), log.clone());
    let mode_name = mode.name();
    let agent = Agent::new(Parts {
        config: config.clone(),
        paths,
        reaper: reaper.clone(),
        mode,
        images: Box::new(images),
        network: Some(network),
        power: Arc::new(Switch),
        log: log.clone(),
    })
    .context("making the agent's directories")?;
    let peers = Peers::listen(&config.address).context("listening")?;
    let _server = serve(Service::new(agent), peers).await.context("serving")?;
    info!(log, # "host", "serving"; "mode" => mode_name, "version" => env!("CARGO_PKG_VERSION"));
    reaper.run().await.context("reaping")
}
