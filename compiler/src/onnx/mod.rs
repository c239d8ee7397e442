//! ONNX: the only place that sees protobuf.

mod error;
mod export;
mod external;
mod import;
mod limits;
mod model;
mod names;
mod tensor;
#[cfg(test)]
mod testing;
mod types;
mod wire;

pub use error::{OnnxError, Problem, Severity};
pub use export::{ExportOptions, Exported, ORIGINS_KEY, Pieces, Saved, WriteError, Written, export, save};
pub use import::{NEWEST_OPSET, OLDEST_OPSET, check, check_bytes, import, import_bytes};
pub use limits::Limits;
pub use model::Model;
pub use tensor::read_tensor_file;
pub use types::{attribute_proto, attribute_value};
pub use wire::{Scanned, WireError, WireLimits};
