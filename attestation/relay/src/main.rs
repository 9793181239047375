//! Host daemon: a byte pipe between guests and the broker.

fn main() {}
