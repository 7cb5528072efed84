//! rejoin
fn main() {}
