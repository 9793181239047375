//! Software AMD secure processor for machines without the hardware; test and demo only.

fn main() {}
