//! The engine on layouts that are made here: what each operation does, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod archive;
mod check;
mod decrypt;
mod encrypt;
mod maker;
mod place;
mod recipients;
mod sparse;
