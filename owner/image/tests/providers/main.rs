//! Key providers against scripted peers: commands, gRPC with and without TLS, ttrpc; each in the spellings that are
//! about, and hostile ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod command;
mod grpc;
mod peer;
mod tls;
mod ttrpc;
