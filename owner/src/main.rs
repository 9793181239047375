//! The owner's command line: makes an identity, seals pods, hands keys and policies to the broker,
//! measures guests, and explains refusals.

mod broker;
mod cli;
mod commands;
mod esm;
mod files;
mod http;
mod identity;
mod keystore;
mod manifest;
mod registry;
mod run;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{AuditCommand, Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Init(args) => commands::init::run(&cli.identity, args),
        Command::Seal(args) => commands::seal::run(&cli.identity, args),
        Command::Push(args) => commands::push::run(&cli.identity, args),
        Command::Resource(args) => commands::resource::run(&cli.identity, args),
        Command::Keyprovider(args) => commands::keyprovider::run(&cli.identity, args),
        Command::Retire(args) => commands::retire::run(&cli.identity, args),
        Command::Measure(args) => commands::measure::run(args),
        Command::Logs(args) => commands::logs::run(&cli.identity, args),
        Command::Run(args) => run::run(args),
        Command::Doctor(args) => commands::doctor::run(&cli.identity, args),
        Command::Appraise(args) => commands::appraise::run(args),
        Command::Esm(command) => commands::esm::run(&cli.identity, command),
        Command::Image(command) => commands::image::run(&cli.identity, command),
        Command::Explain(args) => commands::explain::run(args),
        Command::Collateral(command) => commands::collateral::run(&cli.identity, command),
        Command::Audit(AuditCommand::Verify(args)) => commands::audit::run(&cli.identity, args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sealpod: {}", one_line(&error));
        ExitCode::FAILURE
    })
}

/// One thread: a command waits for one answer at a time.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// The chain of causes, without those that their consequence already quotes.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line = format!("{line}{separator}{text}");
        }
    }
    line
}
