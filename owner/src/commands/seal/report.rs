//! What `sealpod seal` says.

use anyhow::Result;
use sealed_spec::fields::{Split, Treatment};
use sealed_spec::{Logs, SealedDocument, SealedSpec};

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
        println!("  image    {container}: {} @ {}", image.reference, image.digest);
    }
    for source in spec.registries.iter().filter(|source| source.plain_http()) {
        println!(
            "  warning: registry {} is reached over plain http: what is pulled is verified, but who sees it is not",
            source.host
        );
    }
    if spec.grants.logs == Logs::Clear {
        println!("  granted  the host may read what the containers print");
    }
    for (container, commands) in &spec.grants.exec {
        for argv in commands {
            println!(
                "  granted  the host may run in {container}: {}",
                serde_json::to_string(argv).unwrap_or_default()
            );
        }
    }
    let count = |treatment| split.rows.iter().filter(|row| row.treatment == treatment).count();
    println!(
        "  fields   {} kinds sealed, {} placeholders, {} public (--show-public lists them)",
        count(Treatment::Sealed),
        count(Treatment::Placeholder),
        count(Treatment::Public)
    );
    println!(
        "written {} for the cluster, and {} (secret) for 'sealpod push'",
        outputs.manifest.display(),
        outputs.key.display()
    );
}

/// The table's rows that this manifest uses, then the workload as the host reads it.
pub(super) fn print_public(split: &Split) -> Result<()> {
    let width = split.rows.iter().map(|row| row.path.len()).max().unwrap_or_default();
    for treatment in [Treatment::Public, Treatment::Placeholder, Treatment::Sealed] {
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
