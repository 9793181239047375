//! What `docker save` writes, old and new: a tar file with `manifest.json`, and since Docker 25 an OCI layout
//! beside it. Read as whichever it is; written as both, so that `docker load` and OCI tools find it.

mod read;
mod tarball;
mod write;

pub use read::Archive;
pub use write::ArchiveWriter;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::REF_NAME;
use crate::document::Descriptor;

const MANIFEST_FILE: &str = "manifest.json";
const INDEX_FILE: &str = "index.json";
const VERSION_FILE: &str = "oci-layout";
const BLOBS: &str = "blobs/sha256/";
/// The whole name of an image, as containerd notes it; the reference is only its tag there.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// An entry of `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn names(descriptor: &Descriptor) -> Vec<&str> {
    [IMAGE_NAME, REF_NAME]
        .iter()
        .filter_map(|key| descriptor.annotations.get(*key))
        .map(String::as_str)
        .collect()
}

/// Whether two names are one to Docker, which leaves out its own registry's.
fn same_name(one: &str, other: &str) -> bool {
    let whole = |name: &str| oci_registry::Reference::parse(name).map(|reference| reference.to_string()).ok();
    one == other || whole(one).is_some_and(|one| Some(one) == whole(other))
}

/// The one of several that is meant.
fn one_of<'a, T>(
    place: &str,
    entries: &'a [T],
    reference: Option<&str>,
    names: impl Fn(&'a T) -> Vec<&'a str>,
) -> Result<&'a T, StoreError> {
    let fits = |entry: &&'a T| {
        reference.is_none_or(|wanted| names(entry).iter().any(|name| same_name(name, wanted)))
    };
    let known = || {
        let known: Vec<&str> = entries.iter().flat_map(&names).collect();
        if known.is_empty() { "no names".to_owned() } else { known.join(", ") }
    };
    match entries.iter().filter(fits).collect::<Vec<_>>().as_slice() {
        [entry] => Ok(entry),
        [] => Err(StoreError::NoImage {
            place: place.to_owned(),
            reference: reference.unwrap_or("").to_owned(),
            known: known(),
        }),
        several => {
            Err(StoreError::Ambiguous { place: place.to_owned(), count: several.len(), known: known() })
        }
    }
}
