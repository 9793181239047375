//! Real vectors, then synthetic chains in which one thing at a time is wrong.

mod synthetic;
mod vectors;
