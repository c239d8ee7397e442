//! Compiler for convolutional ONNX models.
#![forbid(unsafe_code)]

pub mod ir;
pub mod lower;
pub mod npz;
pub mod onnx;
pub mod ops;
pub mod rewrite;
pub mod trace;
pub mod verify;
