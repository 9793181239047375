//! The main job, shown from end to end.

fn main() {}
