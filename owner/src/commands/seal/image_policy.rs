//! Images that stay named by tag: `--by-tag` with `--image-policy`. Whoever runs the registry can move a tag, so
//! one may only stay if the policy makes the guest ask for signatures.

use anyhow::{Context as _, Result, bail, ensure};
use image_policy::{MAX_POLICY, Policy, inline_key_files};
use oci_registry::Reference;
use sealed_spec::ImageRef;
use serde_json::Value;

use crate::cli::SealArgs;
use crate::files;

const KEY_FILE_LIMIT: usize = MAX_POLICY;

/// The image policy to be sealed, and the containers that it is for.
pub(super) struct ByTag<'a> {
    containers: &'a [String],
    policy: Option<(Value, Policy)>,
}

impl<'a> ByTag<'a> {
    /// From the options, with the key files' contents in the policy.
    pub(super) fn load(args: &'a SealArgs) -> Result<Self> {
        let Some(path) = &args.image_policy else { return Ok(Self { containers: &[], policy: None }) };
        let text = files::read(path, MAX_POLICY).context("--image-policy")?;
        let mut read = |file: &str| {
            files::read(file.as_ref(), KEY_FILE_LIMIT).map(|bytes| bytes.to_vec()).map_err(|e| e.to_string())
        };
        let inlined = inline_key_files(&text, &mut read).with_context(|| path.display().to_string())?;
        let policy = Policy::from_value(inlined.clone())?;
        Ok(Self { containers: &args.by_tag, policy: Some((inlined, policy)) })
    }

    /// Refuses names that no container has: their images would be kept by digest instead.
    pub(super) fn check_names<'n>(&self, mut containers: impl Iterator<Item = &'n str>) -> Result<()> {
        let names: Vec<_> = containers.by_ref().collect();
        for name in self.containers {
            ensure!(names.contains(&name.as_str()), "--by-tag {name}: the pod has no such container");
        }
        Ok(())
    }

    /// The image of a container, if it stays named by tag.
    pub(super) fn image(&self, container: &str, reference: &Reference) -> Result<Option<ImageRef>> {
        if !self.containers.iter().any(|name| name == container) {
            return Ok(None);
        }
        let Some((_, policy)) = &self.policy else { bail!("--by-tag {container} needs an --image-policy") };
        if reference.digest.is_some() {
            bail!(
                "--by-tag {container}: the pod names its image by digest; leave --by-tag or the digest out"
            );
        }
        let name = reference.to_string();
        let image =
            image_policy::Reference::parse(&name).with_context(|| format!("container '{container}'"))?;
        let requirements = policy.requirements_for(&image);
        let scope = requirements.scope();
        if requirements.rejects() {
            bail!("--by-tag {container}: the image policy rejects {name} ({scope})");
        }
        if !requirements.asks_for_signatures() {
            bail!(
                "--by-tag {container}: the image policy accepts {name} unsigned ({scope}), and whoever runs the \
                 registry can move a tag; have it ask for signatures, or leave --by-tag out to seal the digest"
            );
        }
        Ok(Some(ImageRef { reference: name, digest: None, keys: Vec::new() }))
    }

    /// What is sealed.
    pub(super) fn into_policy(self) -> Option<Value> {
        self.policy.map(|(inlined, _)| inlined)
    }
}
