//! Opens places by their names.

use oci_registry::{Access, Client, Reference, Settings};
use thiserror::Error;
use tokio::runtime::Runtime;

use crate::name::ImageName;
use crate::store::{Archive, ArchiveWriter, Destination, Layout, Registry, Source, StoreError};

/// How registries are reached.
#[derive(Default)]
pub struct Registries {
    /// Sources, logins, proxies and CAs.
    pub settings: Settings,
}

/// Where an image is and where the result goes.
pub struct Place {
    source: Box<dyn Source>,
    destination: Box<dyn Destination>,
    /// Drives the registries' connections; dropped after them.
    _runtime: Option<Runtime>,
}

/// An image to be read.
pub struct Readable {
    source: Box<dyn Source>,
    _runtime: Option<Runtime>,
}

/// Why a place can't be opened.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The place itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its name.
    #[error(transparent)]
    Reference(#[from] oci_registry::ReferenceError),
    /// Its registry.
    #[error(transparent)]
    Registry(#[from] oci_registry::RegistryError),
    /// No thread for connections.
    #[error("starting a thread for connections failed: {0}")]
    Runtime(#[source] std::io::Error),
}

impl Place {
    /// From one place to another; without another, in place: the image's name then stands for the result, if
    /// it still stands for what was read.
    ///
    /// # Errors
    /// When the image isn't there, or the result can't be.
    pub fn open(
        from: &ImageName,
        to: Option<&ImageName>,
        registries: &Registries,
    ) -> Result<Self, PlaceError> {
        let mut opening = Opening { registries, runtime: None };
        let in_place = to.is_none_or(|to| to == from);
        let to = to.unwrap_or(from);
        if let (ImageName::Archive { file, reference }, true) = (from, in_place) {
            let source = Archive::open(file, reference.as_deref())?;
            let destination = ArchiveWriter::replacing(file, reference.as_deref(), &source)?;
            return Ok(Self { source: Box::new(source), destination: Box::new(destination), _runtime: None });
        }
        let source = opening.source(from)?;
        let destination: Box<dyn Destination> = match to {
            ImageName::Layout { directory, reference } => {
                let layout = Layout::new(directory, reference.as_deref());
                Box::new(if in_place { layout.replacing(&source.root()?.descriptor) } else { layout })
            }
            ImageName::Archive { file, reference } => {
                Box::new(ArchiveWriter::create(file, reference.as_deref())?)
            }
            ImageName::Registry(name) => {
                let mut registry = opening.registry(name, Access::Push)?;
                if let ImageName::Registry(from) = from {
                    registry = registry.mounting(&Reference::parse(from)?);
                }
                Box::new(if in_place { registry.replacing(&source.root()?.descriptor) } else { registry })
            }
        };
        destination.check()?;
        Ok(Self { source, destination, _runtime: opening.runtime })
    }

    /// Only to be read.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn source_of(name: &ImageName, registries: &Registries) -> Result<Readable, PlaceError> {
        let mut opening = Opening { registries, runtime: None };
        let source = opening.source(name)?;
        Ok(Readable { source, _runtime: opening.runtime })
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

impl Readable {
    /// Where the image is.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }
}

struct Opening<'a> {
    registries: &'a Registries,
    runtime: Option<Runtime>,
}

impl Opening<'_> {
    fn source(&mut self, name: &ImageName) -> Result<Box<dyn Source>, PlaceError> {
        Ok(match name {
            ImageName::Layout { directory, reference } => {
                Box::new(Layout::new(directory, reference.as_deref()))
            }
            ImageName::Archive { file, reference } => Box::new(Archive::open(file, reference.as_deref())?),
            ImageName::Registry(name) => Box::new(self.registry(name, Access::Pull)?),
        })
    }

    fn registry(&mut self, name: &str, access: Access) -> Result<Registry, PlaceError> {
        let reference = Reference::parse(name)?;
        let client = Client::new(self.registries.settings.clone());
        let repository = client.repository(&reference, access)?;
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .map_err(PlaceError::Runtime)?,
        };
        let handle = runtime.handle().clone();
        self.runtime = Some(runtime);
        Ok(Registry::new(handle, repository, reference))
    }
}
