//! The graph that everything between import and lowering works on.

mod graph;
pub mod text;
mod verify;

pub use graph::{Branch, Graph, Kind, Node, NodeId, Opaque, Origin, Output, Value};
pub use verify::{IrError, verify, verify_after};
