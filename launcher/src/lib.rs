//! Boots a guest in QEMU and drives its agent as the Kata runtime does.
