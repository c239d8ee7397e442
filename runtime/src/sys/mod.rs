//! The machine: threads and mapped files. With `kernels` the only module where `unsafe` may live, behind safe interfaces.

mod map;
mod pool;

pub use map::map_file;
pub use pool::Pool;
