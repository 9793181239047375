//! `/init` of the test initrd: shows an injected secret, or serves `/dev/sev-guest` from a child; then becomes
//! the agent.

use sealpod_emulator::guest::{DAEMON, become_agent, serve_device};
use std::env;

fn main() {
    let mut arguments = env::args_os().peekable();
    let program = arguments.next().unwrap_or_else(|| "/init".into());
    let error = match arguments.peek() {
        Some(argument) if argument == DAEMON => match serve_device() {
            Ok(()) => return,
            Err(error) => error,
        },
        _ => become_agent(&program, arguments),
    };
    // The console of a test guest; there is nothing secret in it.
    eprintln!("sealpod-emulated-sp: {error}");
    std::process::exit(1);
}
