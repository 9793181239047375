//! `sealpod esm`: ESM blobs for guests of Power PEF, one a sealed pod.

mod change;
mod make;
mod options;
mod record;
mod show;

use std::process::ExitCode;

use anyhow::Result;

use crate::identity::IdentityDir;
pub(crate) use options::EsmCommand;

pub(crate) fn run(directory: &IdentityDir, command: &EsmCommand) -> Result<ExitCode> {
    match command {
        EsmCommand::Make(args) => make::run(directory, args),
        EsmCommand::Authorize(args) => change::authorize(directory, args),
        EsmCommand::Revoke(args) => change::revoke(directory, args),
        EsmCommand::Attach(args) => show::attach(args),
        EsmCommand::Show(args) => show::show(directory, args),
        EsmCommand::Deny(args) => change::deny(directory, args),
    }
    .map(|()| ExitCode::SUCCESS)
}
