//! Bounds on what a registry may make the guest read, write and remember.

use std::time::Duration;

/// Bounds on one image. The defaults fit every public image that we know of.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Manifest, index or config, bytes.
    pub document_bytes: u64,
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
    /// Time to reach a registry's address and finish its TLS handshake.
    pub connect_timeout: Duration,
    /// Time without a byte after which a transfer counts as dead.
    pub idle_timeout: Duration,
    /// Attempts for one document or layer.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each further one.
    pub backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            layers: 127,
            layer_transfer_bytes: 32 << 30,
            layer_unpacked_bytes: 64 << 30,
            layer_entries: 500_000,
            parallel_layers: 2,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(500),
        }
    }
}
