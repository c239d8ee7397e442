//! Test support of convc.

pub mod conformance;
pub mod mutate;
pub mod oracle;
pub mod random;
pub mod rules;
