//! `sealpod retire`.

use std::process::ExitCode;

use anyhow::Result;
use protocols::broker::{RETIREMENTS_PATH, RetirementRequest};
use protocols::owner::Retirement;

use crate::broker::Broker;
use crate::cli::RetireArgs;
use crate::identity::IdentityDir;

pub(crate) fn run(directory: &IdentityDir, args: &RetireArgs) -> Result<ExitCode> {
    let identity = directory.load()?;
    let retirement = Retirement {
        repository: identity.repository.to_string(),
        lineage: args.lineage.to_string(),
        revision: args.revision,
    };
    let request = RetirementRequest { retirement: directory.key()?.sign_statement(&retirement)? };
    let broker = Broker::of(&identity)?;
    let accepted = crate::block_on(broker.post(RETIREMENTS_PATH, &request))??;
    directory.keep_checkpoint(&accepted.checkpoint)?;
    println!(
        "revision {} of lineage '{}' is retired: its key is not released again",
        args.revision, args.lineage
    );
    println!("pods that run already keep running; deploy another revision to replace them");
    Ok(ExitCode::SUCCESS)
}
