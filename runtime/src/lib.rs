//! Runs compiled convolutional models on CPUs.
//!
//! A [`plan::Plan`] is a list of instructions over numbered values; a [`session::Session`] runs it. Operators are those of
//! ONNX ([`ops`]), each with a portable implementation that is also what the compiler folds constants and verifies with.

pub mod attrs;
mod blob;
pub mod dim;
mod dtype;
pub mod error;
pub mod fact;
pub mod kernels;
pub mod ops;
pub mod plan;
pub mod scalar;
pub mod session;
pub mod sys;
mod tensor;
pub mod window;

pub use attrs::{AttrValue, Attrs};
pub use blob::Blob;
pub use dim::{Bindings, Dim, Symbol};
pub use dtype::DType;
pub use error::{OpError, TensorError};
pub use fact::{Fact, Known};
pub use ops::{Op, Operator};
pub use tensor::{Constant, Data, Element, Real, Tensor};
