//! [`Model`]: a graph and all else that its file says.

use std::collections::BTreeMap;

use onnx_protobuf::{FunctionProto, ValueInfoProto};

use super::Problem;
use crate::ir::Graph;

/// An imported model: the graph, and what export needs to write a file that differs from the one read only where the
/// graph does.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The graph.
    pub graph: Graph,
    /// Version of the default operator set.
    pub opset: i64,
    /// All operator sets imported: domain (empty for the default one) and version.
    pub opset_imports: Vec<(String, i64)>,
    /// Version of the file format.
    pub ir_version: i64,
    /// The tool that wrote the file.
    pub producer_name: String,
    /// Its version.
    pub producer_version: String,
    /// The model's namespace.
    pub domain: String,
    /// The model's own version.
    pub model_version: i64,
    /// The model's documentation.
    pub doc_string: String,
    /// The model's metadata.
    pub metadata_props: Vec<(String, String)>,
    /// The graph's name.
    pub graph_name: String,
    /// The graph's documentation.
    pub graph_doc: String,
    /// The graph's metadata.
    pub graph_metadata: Vec<(String, String)>,
    /// What a user should know: everything that `check` lists short of errors.
    pub notes: Vec<Problem>,
    /// Inputs and outputs as the file declares them, by name.
    pub(super) declared_inputs: BTreeMap<String, ValueInfoProto>,
    pub(super) declared_outputs: BTreeMap<String, ValueInfoProto>,
    /// Local functions that nodes carried as they are call from their nested graphs.
    pub(super) functions: Vec<FunctionProto>,
}
