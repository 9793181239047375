//! What happens meanwhile, told to whoever shows it.

use crate::document::Descriptor;

/// Is told what the engine does. Layers may be worked on at the same time.
pub trait Observer: Sync {
    /// A layer or other blob is begun: what is done with it, and how many bytes it has.
    fn begin(&self, doing: &str, blob: &Descriptor) -> Box<dyn Meter>;
}

/// Is told of one blob's bytes as they pass; dropped when it is done or has failed.
pub trait Meter: Send + Sync {
    /// So many more.
    fn bytes(&self, count: u64);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _: &str, _: &Descriptor) -> Box<dyn Meter> {
        Box::new(Self)
    }
}

impl Meter for Silent {
    fn bytes(&self, _: u64) {}
}
