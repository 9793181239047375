//! `sealpod image` as it is run, with other tools on the other side: skopeo, umoci, GnuPG, a registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod commands;
mod registry;
mod skopeo;
mod workshop;
