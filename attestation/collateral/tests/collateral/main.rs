//! The cache against a key distribution service on loopback, with certificates of an emulated processor.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bundle;
mod merge;
mod platform;
mod service;
mod service_lists;
mod service_tls;
mod stand_in;
