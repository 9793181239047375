//! The broker as its clients see it: real requests, real evidence of an emulated processor, one thing wrong
//! in each refusal.

mod attest;
mod audit;
mod command;
mod guest;
mod owners;
mod release;
mod support;
mod wire;
