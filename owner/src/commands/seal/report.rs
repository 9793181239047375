//! What `sealpod seal` says.

use anyhow::Result;
use sealed_spec::fields::{Split, Treatment};
use sealed_spec::podspec::Quantity;
use sealed_spec::{ImageRef, Logs, SealedDocument, SealedSpec};

use super::Outputs;
use crate::manifest;

pub(super) fn print(split: &Split, spec: &SealedSpec, document: &SealedDocument, outputs: &Outputs) {
    let header = document.header();
    let (workload, namespace) = (header.workload(), header.namespace());
    println!(
        "sealed {} {namespace}/{}: lineage '{}', revision {}",
        workload.kind,
        workload.name,
        header.lineage(),
        header.revision()
    );
    println!("  spec     {}", document.digest());
    println!("  key id   {}", header.key_id());
    for (container, image) in &spec.images {
        println!("  image    {container}: {}", pinned(image));
        for key in &image.keys {
            println!("           opened by {key}");
        }
    }
    for source in spec.registries.iter().filter(|source| source.plain_http()) {
        println!(
            "  warning: registry {} is reached over plain http: what is pulled is verified, but who sees it is not",
            source.host
        );
    }
    for grant in granted(spec) {
        println!("  granted  {grant}");
    }
    for container in spec.pod.all_containers() {
        if container.stdin == Some(true) && !spec.grants.attach.contains(&container.name) {
            println!(
                "  note     {} has stdin: true, but nobody can write to it; --grant-attach {} lets the host",
                container.name, container.name
            );
        }
    }
    let count = |treatment| split.rows.iter().filter(|row| row.treatment == treatment).count();
    println!(
        "  fields   {} kinds sealed, {} placeholders, {} by grant, {} public (--show-public lists them)",
        count(Treatment::Sealed),
        count(Treatment::Placeholder),
        count(Treatment::Granted),
        count(Treatment::Public)
    );
    println!(
        "written {} for the cluster, and {} (secret) for 'sealpod push'",
        outputs.manifest.display(),
        outputs.key.display()
    );
}

/// What the host may do, one line each.
fn granted(spec: &SealedSpec) -> Vec<String> {
    let grants = &spec.grants;
    let mut lines = Vec::new();
    match &grants.logs {
        Logs::Off => {}
        Logs::Sealed { .. } => {
            lines.push(
                "the host carries what the containers print; only you can read it: 'sealpod logs'".into(),
            );
        }
        Logs::Clear => lines.push("the host may read what the containers print".into()),
    }
    for name in &grants.attach {
        lines.push(format!("the host may write to {name}'s standard input"));
    }
    for (name, commands) in &grants.exec {
        for argv in commands {
            lines.push(format!(
                "the host may run in {name}: {}",
                serde_json::to_string(argv).unwrap_or_default()
            ));
        }
    }
    for (name, ceiling) in &grants.update_resources {
        let amount = |resource, amount: &Option<Quantity>| {
            amount.as_ref().map(|amount| format!("{resource} {}", amount.as_str()))
        };
        let amounts = [amount("cpu", &ceiling.cpu), amount("memory", &ceiling.memory)];
        let amounts: Vec<_> = amounts.into_iter().flatten().collect();
        lines.push(format!("the host may raise the limits of {name} up to {}", amounts.join(", ")));
    }
    for (name, mounts) in &grants.volumes {
        for (path, grant) in mounts {
            let executable = if grant.executable { ", programs included" } else { "" };
            lines.push(format!(
                "the host fills {path} of {name}, at most {} KiB{executable}",
                grant.max_bytes.div_ceil(1024)
            ));
        }
    }
    if grants.service_account_token {
        lines.push("the host gives all containers the service account's token".into());
    }
    if !grants.downward.is_empty() {
        let fields: Vec<_> = grants.downward.iter().map(String::as_str).collect();
        lines.push(format!("the host tells {}; don't trust them", fields.join(", ")));
    }
    if grants.service_links {
        lines.push("the host sets variables for services; don't trust them".into());
    }
    if let Some(debug) = &grants.debug {
        lines.push(format!(
            "the host may add {} debug containers named {}: {}",
            debug.count,
            debug.names,
            pinned(&debug.image)
        ));
    }
    for (name, uris) in &spec.resources {
        for uri in uris {
            lines.push(format!("{name} may ask the broker for {uri}"));
        }
    }
    lines
}

fn pinned(image: &ImageRef) -> String {
    match &image.digest {
        Some(digest) => format!("{} @ {digest}", image.reference),
        None => format!("{} as its tag is signed when the pod starts", image.reference),
    }
}

/// The table's rows that this manifest uses, then the workload as the host reads it.
pub(super) fn print_public(split: &Split) -> Result<()> {
    let width = split.rows.iter().map(|row| row.path.len()).max().unwrap_or_default();
    for treatment in [Treatment::Public, Treatment::Granted, Treatment::Placeholder, Treatment::Sealed] {
        println!("\n{}:", treatment.as_str());
        for row in split.rows.iter().filter(|row| row.treatment == treatment) {
            println!("  {:width$}  {}", row.path, row.reason);
        }
    }
    println!(
        "\nwhat the host reads; added to it are the annotation {} (the sealed document's digest, the key's name, the \
         broker's address and certificate) and the sealed document (in clear only its header: the names above):\n",
        sealed_spec::initdata::ANNOTATION
    );
    print!("{}", manifest::write(std::slice::from_ref(&split.public))?);
    Ok(())
}
