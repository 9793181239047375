//! Build tasks: kernel, guest bundle, checks.

fn main() {}
