//! How registries are reached, from options and the environment.

use anyhow::Result;
use owner_image::places::Registries;

use super::options::RegistryArgs;
use crate::registry;

pub(super) fn registries(args: &RegistryArgs) -> Result<Registries> {
    let mut settings = registry::settings(args.authfile.as_deref())?;
    for option in &args.registry {
        settings.sources.push(registry::source(option.load()?));
    }
    Ok(Registries { settings })
}
