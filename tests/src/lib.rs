//! Test support of convc.

pub mod agree;
pub mod blocks;
pub mod conformance;
pub mod equations;
pub mod filetests;
pub mod mutate;
pub mod operators;
pub mod oracle;
pub mod random;
pub mod rules;
pub mod subjects;
pub mod types;
