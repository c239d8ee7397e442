//! The `convc` command line.
#![forbid(unsafe_code)]
fn main() {}
