//! The broker as its clients see it: real requests, real evidence of an emulated processor, one thing wrong
//! in each refusal.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says where")]

mod attest;
mod audit;
mod blobs;
mod client;
mod collateral;
mod command;
mod connections;
mod fuzz_bodies;
mod guest;
mod host;
mod image_keys;
mod kill;
mod launches;
mod limits;
mod owners;
mod passport;
mod production;
mod release;
mod resources;
mod stock;
mod support;
mod wire;
