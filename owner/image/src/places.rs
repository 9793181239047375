//! Opens places by their names.

use crate::name::ImageName;
use crate::store::{Destination, Layout, Source, StoreError};

/// How registries are reached.
#[derive(Default)]
pub struct Registries {}

/// Where an image is and where the result goes.
pub struct Place {
    source: Box<dyn Source>,
    destination: Box<dyn Destination>,
}

impl Place {
    /// From one place to another; without another, in place: the image's name then stands for the result, if
    /// it still stands for what was read.
    ///
    /// # Errors
    /// When the image isn't there.
    pub fn open(
        from: &ImageName,
        to: Option<&ImageName>,
        registries: &Registries,
    ) -> Result<Self, StoreError> {
        let source = Self::source_of(from, registries)?;
        let destination: Box<dyn Destination> = match to.unwrap_or(from) {
            ImageName::Layout { directory, reference } => {
                let layout = Layout::new(directory, reference.as_deref());
                let in_place = to.is_none_or(|to| to == from);
                Box::new(if in_place { layout.replacing(&source.root()?.descriptor) } else { layout })
            }
            ImageName::Archive { file, .. } => return Err(later(&file.display().to_string())),
            ImageName::Registry(name) => return Err(later(name)),
        };
        Ok(Self { source, destination })
    }

    /// Only to be read.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn source_of(name: &ImageName, _registries: &Registries) -> Result<Box<dyn Source>, StoreError> {
        match name {
            ImageName::Layout { directory, reference } => {
                Ok(Box::new(Layout::new(directory, reference.as_deref())))
            }
            ImageName::Archive { file, .. } => Err(later(&file.display().to_string())),
            ImageName::Registry(name) => Err(later(name)),
        }
    }

    /// Where the image is.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Where the result goes.
    #[must_use]
    pub fn destination(&self) -> &dyn Destination {
        &*self.destination
    }
}

fn later(place: &str) -> StoreError {
    StoreError::Registry { place: place.to_owned(), problem: "only oci: is read and written yet".to_owned() }
}
