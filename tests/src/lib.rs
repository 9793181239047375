//! A whole Sealpod on this machine, and the tests that run it in QEMU.
