//! Test support of convc.

pub mod mutate;
