//! A container's name, looked up in the sealed spec.

use std::borrow::Cow;

use protocols::refusal::{Code, Refusal};
use sealed_spec::podspec::Container;
use sealed_spec::{ImageRef, SealedSpec};

/// What runs under a name.
pub struct Sealed<'a> {
    /// The container; a debug container is made from the grant's.
    pub container: Cow<'a, Container>,
    /// Its image.
    pub image: &'a ImageRef,
}

/// The container of that name: one of the pod's, or one for debugging where granted.
pub fn sealed_container<'a>(spec: &'a SealedSpec, name: &str) -> Result<Sealed<'a>, Refusal> {
    if let (Some(container), Some(image)) = (spec.pod.container(name), spec.image(name)) {
        return Ok(Sealed { container: Cow::Borrowed(container), image });
    }
    let debug = spec.grants.debug.as_ref();
    let granted = debug.and_then(|debug| Some((debug.container(name)?, &debug.image)));
    granted.map(|(container, image)| Sealed { container: Cow::Owned(container), image }).ok_or_else(|| {
        Refusal::new(Code::ContainerUnknown, format!("the sealed spec has no container '{name}'"))
    })
}
