//! ONNX: the only place that sees protobuf.

mod types;
#[allow(dead_code, unreachable_pub)]
mod wire;

pub use types::{attribute_proto, attribute_value, dtype_from_onnx, dtype_to_onnx};
pub use wire::{Scanned, WireError, WireLimits};
