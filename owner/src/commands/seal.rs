//! `sealpod seal`: splits the manifest, pins the images, seals, and writes what goes to the cluster and
//! what goes to the broker.

mod grants;
mod image_keys;
mod image_policy;
mod options;
mod report;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_registry::Reference;
use protocols::owner::{Registration, Statement as _};
use sealed_spec::fields::{self, Publication, Split};
use sealed_spec::initdata::{Initdata, SealpodConfig, annotation};
use sealed_spec::podspec::Container;
use sealed_spec::{
    HeaderFields, ImageRef, KeyId, LayerStore, Lineage, RegistrySource, SealedDocument, SealedSpec, SpecKey,
};

use grants::Wanted;
use image_keys::GivenKeys;
use image_policy::ByTag;

use super::push::{KEY_FILE_VERSION, KeyFile};
use crate::cli::{LayerStoreOption, SealArgs};
use crate::files::{self, Access};
use crate::identity::{Identity, IdentityDir};
use crate::keystore::KeyStore;
use crate::registry::Pinned;
use crate::{manifest, registry};

pub(crate) use options::{
    Ceiling, ContainerAnd, DebugOption, ExecGrant, RegistryOption, ResolveVia, VolumeOption,
};

/// A longer inline document would not fit beside what `kubectl apply` copies into annotations.
const INLINE_LIMIT: usize = 96 * 1024;

pub(crate) fn run(directory: &IdentityDir, args: &SealArgs) -> Result<ExitCode> {
    let identity = directory.load()?;
    let manifest = manifest::read(&args.manifest)?;
    let wanted = Wanted::collect(args, &manifest)?;
    let split = fields::split_with(manifest, &wanted.sources(&args.with)?)
        .map_err(|error| anyhow!("{}: {error}", args.manifest.display()))?;
    let namespace = namespace(args, &split)?;
    let lineage = match &args.lineage {
        Some(lineage) => lineage.clone(),
        None => format!("{namespace}.{}", split.workload.name)
            .parse::<Lineage>()
            .context("give a --lineage of your own")?,
    };
    let revision = match args.revision {
        Some(revision) => revision,
        None => directory.next_revision(lineage.as_str())?,
    };

    let sources = sources(args)?;
    let by_tag = ByTag::load(args)?;
    let debug = wanted.debug_container()?;
    let containers: Vec<_> = split.pod.all_containers().map(|container| container.name.as_str()).collect();
    let store = KeyStore::of(directory)?;
    let given = GivenKeys::new(&args.image_key, &containers, &store)?;
    let mut images = crate::block_on(pin_images(args, &split, debug.as_ref(), &sources, &by_tag, &given))??;
    let debug = debug.zip(images.remove(DEBUG_IMAGE));
    let mut spec = SealedSpec::new(split.pod.clone());
    spec.images = images;
    spec.registries = sources;
    spec.proxy = options::proxy(args.proxy.as_deref(), args.proxy_file.as_ref(), &args.proxy_except)?;
    spec.image_policy = by_tag.into_policy();
    spec.layer_store = match args.layer_store {
        LayerStoreOption::Memory => LayerStore::Memory,
        LayerStoreOption::Device => LayerStore::Device,
    };
    spec.grants = wanted.grants(&split.pod, directory, debug)?;
    spec.resources = wanted.resources(&identity.repository)?;

    let key = SpecKey::generate()?;
    let header = HeaderFields {
        key_id: KeyId::generate(&identity.repository, &lineage, revision)?,
        namespace: namespace.clone(),
        workload: split.workload.clone(),
    };
    let document = sealed_spec::seal(&spec, &header, &key)?;
    let initdata = initdata(args, &identity, &document)?;
    let registration = registration(&document, &spec, &key, &initdata);
    // What can't be signed later must not be written now.
    registration.validate()?;
    let outputs = Outputs::of(args)?;
    let published = publish(args, &initdata, &split, &document)?;

    // The key first: a sealed manifest whose key is lost can't be opened by anybody.
    let file = KeyFile { version: KEY_FILE_VERSION, registration, key: key.to_base64url() };
    let text = zeroize::Zeroizing::new(serde_json::to_string_pretty(&file)? + "\n");
    files::write(&outputs.key, text.as_bytes(), Access::Secret)?;
    files::write(&outputs.manifest, published.as_bytes(), Access::Public)?;
    directory.record_revision(lineage.as_str(), revision)?;

    report::print(&split, &spec, &document, &outputs);
    if args.show_public {
        report::print_public(&split)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the results go.
struct Outputs {
    manifest: PathBuf,
    key: PathBuf,
}

impl Outputs {
    fn of(args: &SealArgs) -> Result<Self> {
        let stem = |path: &Path| path.file_stem().map(OsString::from).unwrap_or_default();
        let beside = |path: &Path, end: &str| {
            let mut name = stem(path);
            name.push(end);
            path.with_file_name(name)
        };
        let manifest = args.output.clone().unwrap_or_else(|| beside(&args.manifest, "-sealed.yaml"));
        let key = args.key_output.clone().unwrap_or_else(|| beside(&manifest, ".key.json"));
        ensure!(
            manifest != args.manifest && key != args.manifest && key != manifest,
            "--output {} would replace another file of this command; choose another name",
            manifest.display()
        );
        Ok(Self { manifest, key })
    }
}

fn namespace(args: &SealArgs, split: &Split) -> Result<String> {
    match (&split.namespace, &args.namespace) {
        (Some(own), Some(given)) if own != given => {
            bail!("manifest is for namespace '{own}', --namespace says '{given}'; leave one of them out")
        }
        (Some(namespace), _) | (None, Some(namespace)) => Ok(namespace.clone()),
        (None, None) => Ok("default".into()),
    }
}

fn sources(args: &SealArgs) -> Result<Vec<RegistrySource>> {
    args.registry.iter().map(RegistryOption::load).collect()
}

/// Key of the debug container's image among the others; no container's name, which has a letter.
const DEBUG_IMAGE: &str = "";

/// Looks every image up once, but for those that stay named by tag.
async fn pin_images(
    args: &SealArgs,
    split: &Split,
    debug: Option<&Container>,
    sources: &[RegistrySource],
    by_tag: &ByTag<'_>,
    given: &GivenKeys<'_>,
) -> Result<BTreeMap<String, ImageRef>> {
    by_tag.check_names(split.pod.all_containers().map(|container| container.name.as_str()))?;
    let mut pinned: BTreeMap<String, Pinned> = BTreeMap::new();
    let registries = registry::client(looked_up_at(args, sources))?;
    let mut images = BTreeMap::new();
    let containers = split.pod.all_containers().map(|container| (container.name.as_str(), container));
    for (key, container) in containers.chain(debug.map(|container| (DEBUG_IMAGE, container))) {
        let reference =
            Reference::parse(&container.image).with_context(|| format!("container '{}'", container.name))?;
        if let Some(image) = by_tag.image(key, &reference)? {
            images.insert(key.to_owned(), ImageRef { keys: given.unseen(key), ..image });
            continue;
        }
        let name = reference.to_string();
        let image = match pinned.entry(name.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let found = registry::resolve(&registries, &reference).await;
                unknown.insert(found.with_context(|| format!("container '{}'", container.name))?)
            }
        };
        let keys = given
            .of(key, &image.layers)
            .with_context(|| format!("container '{}': image {name}", container.name))?;
        images.insert(key.to_owned(), ImageRef { keys, ..ImageRef::pinned(name, &image.digest) });
    }
    Ok(images)
}

/// How this machine reaches registries: as said, else as the guest does, else at their own address.
fn looked_up_at(args: &SealArgs, sources: &[RegistrySource]) -> Vec<RegistrySource> {
    let mut sources = sources.to_vec();
    for via in &args.resolve_via {
        match sources.iter_mut().find(|source| source.host == via.host) {
            Some(source) => source.location.clone_from(&via.location),
            None => sources.push(RegistrySource::new(&via.host, &via.location)),
        }
    }
    sources
}

fn registration(document: &SealedDocument, spec: &SealedSpec, key: &SpecKey, initdata: &str) -> Registration {
    let header = document.header();
    let debug = spec.grants.debug.iter().map(|debug| &debug.image);
    let mut images: Vec<String> =
        spec.images.values().chain(debug).filter_map(|image| image.digest.clone()).collect();
    images.sort();
    images.dedup();
    Registration {
        repository: header.key_id().repository().to_string(),
        lineage: header.lineage().to_string(),
        revision: header.revision(),
        spec_digest: document.digest().to_string(),
        key_id: header.key_id().to_string(),
        key_sha256: protocols::name::sha256(key.as_bytes()),
        namespace: header.namespace().to_owned(),
        workload_kind: header.workload().kind.to_string(),
        workload_name: header.workload().name.clone(),
        images,
        init_data: Some(protocols::name::sha256(initdata.as_bytes())),
        image_keys: image_keys(spec),
    }
}

/// Whatever the pod's images are encrypted for, each key once.
fn image_keys(spec: &SealedSpec) -> Vec<String> {
    let debug = spec.grants.debug.iter().map(|debug| &debug.image);
    let keys = spec.images.values().chain(debug).flat_map(|image| &image.keys);
    keys.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

fn initdata(args: &SealArgs, identity: &Identity, document: &SealedDocument) -> Result<String> {
    let config = SealpodConfig {
        sealed_spec: document.digest(),
        key_id: document.header().key_id().clone(),
        broker: identity.guest.clone(),
    };
    Ok(Initdata { config, document: args.inline.then(|| document.clone()) }.to_toml()?)
}

fn publish(args: &SealArgs, initdata: &str, split: &Split, document: &SealedDocument) -> Result<String> {
    let annotation = annotation::encode(initdata.as_bytes())?;
    ensure!(
        !args.inline || annotation.len() <= INLINE_LIMIT,
        "sealed document is too large for the annotation ({} KiB, at most {} are safe); leave --inline out",
        annotation.len() / 1024,
        INLINE_LIMIT / 1024
    );
    let digest = document.digest().to_string();
    let short = digest.trim_start_matches("sha256:").get(..10).unwrap_or_default().to_owned();
    let name = &split.workload.name;
    // The cut keeps it a DNS name of at most 253 bytes.
    let name = name.get(..name.len().min(200)).unwrap_or(name).trim_end_matches(['.', '-']);
    let config_map = (!args.inline).then(|| format!("{name}-sealed-{short}"));
    let workload = split.publish(&Publication {
        annotation: &annotation,
        config_map: config_map.as_deref(),
        runtime_class: args.runtime_class.as_deref(),
        placeholder_image: args.placeholder_image.as_deref(),
    });
    let namespace = split.namespace.as_deref().or(args.namespace.as_deref());
    let mut objects = Vec::new();
    objects.extend(config_map.map(|name| fields::config_map(&name, namespace, document)));
    let mut workload = workload;
    if let Some(namespace) = namespace {
        workload["metadata"]["namespace"] = namespace.into();
    }
    objects.push(workload);
    let header = document.header();
    Ok(format!(
        "# Sealed by sealpod: lineage {}, revision {}, {digest}.\n# Deploy it unchanged; seal the original again to change it.\n{}",
        header.lineage(),
        header.revision(),
        manifest::write(&objects)?
    ))
}
