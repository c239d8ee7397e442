//! The machine: threads and mapped files. With `kernels` the only module where `unsafe` may live, behind safe interfaces.

mod disjoint;
mod map;
mod pool;

pub(crate) use disjoint::Disjoint;
pub use map::map_file;
pub use pool::Pool;
