//! Test support of convc.

pub mod conformance;
pub mod mutate;
