//! The agent outside a VM: a plain Kata agent on a unix socket, for development and for trying a
//! runtime against it. It keeps nothing from anybody, and says so.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use agent_network::Network;
use anyhow::{Context, bail};
use sealpod_agent::agent::Paths;
use sealpod_agent::config::{Address, Config};
use sealpod_agent::log;
use sealpod_agent::mode::Mode;

const USAGE: &str = "sealpod-agent is the first process of a sealed pod's VM. Outside a VM it is a plain Kata agent:\n\n\
    sealpod-agent --config FILE   the stock agent's TOML file, with unsealed = \"allow\" and a server_addr\n\
    sealpod-agent --version\n\n\
    KATA_AGENT_SERVER_ADDR=unix:///PATH sets server_addr.";

pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpod-agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let file = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(flag), None, None) if flag == "--version" => {
            println!("sealpod-agent {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        (Some(flag), Some(file), None) if flag == "--config" || flag == "-c" => PathBuf::from(file),
        _ => bail!(USAGE),
    };
    let config = configuration(&file)?;
    if let Address::Unix(path) = &config.address
        && std::os::unix::net::UnixStream::connect(path).is_ok()
    {
        bail!("another agent answers on {}", path.display());
    }
    // Containers' processes become the agent's children when their makers end.
    nix::sys::prctl::set_child_subreaper(true).context("becoming the reaper of containers")?;
    let log = log::open_logger(std::io::stderr(), config.level);
    let paths = Paths::guest();
    super::run_time()?.block_on(async {
        let network = Network::connect().context("connecting to rtnetlink")?;
        super::run(config, Mode::Unsealed, network, paths, log).await
    })
}

fn configuration(file: &PathBuf) -> anyhow::Result<Config> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut config = Config::from_toml(&text)?;
    if let Ok(address) = std::env::var("KATA_AGENT_SERVER_ADDR") {
        config = config.with_address(&address)?;
    }
    if !config.unsealed {
        bail!(
            "{}: outside a VM there is nothing that could be sealed; write unsealed = \"allow\" to run a plain Kata agent",
            file.display()
        );
    }
    if !matches!(config.address, Address::Unix(_)) {
        bail!("{}: outside a VM server_addr must be unix:///PATH", file.display());
    }
    Ok(config)
}
