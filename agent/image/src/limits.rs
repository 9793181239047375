//! Bounds on what a registry may make the guest read, write and remember.

/// Bounds on one image. The defaults fit every public image that we know of.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Layers in an image. overlayfs stacks at most 500; a mount's option page holds fewer.
    pub layers: usize,
    /// One layer as transferred, bytes.
    pub layer_transfer_bytes: u64,
    /// One layer unpacked (the whole tar stream), bytes.
    pub layer_unpacked_bytes: u64,
    /// Entries in one layer: each costs an inode, about 1 KiB of guest memory.
    pub layer_entries: u64,
    /// Layers that are transferred and unpacked at the same time, over all images.
    pub parallel_layers: usize,
    /// The traffic with registries; its bound on documents holds for what is in them, too.
    pub registry: oci_registry::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layers: 127,
            layer_transfer_bytes: 32 << 30,
            layer_unpacked_bytes: 64 << 30,
            layer_entries: 500_000,
            parallel_layers: 2,
            registry: oci_registry::Limits::default(),
        }
    }
}
