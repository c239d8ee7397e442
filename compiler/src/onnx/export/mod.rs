//! From a [`Model`] to a file.
//!
//! What the graph does not change is written as it was read: versions, names and declarations of inputs and outputs,
//! metadata. Every byte follows from the model and the options. Weights are not copied: a file is a list of pieces, the
//! large ones being views of the constants.

mod carried;
mod graph;
mod save;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use convc_runtime::{Constant, Dim, Fact};
use onnx_protobuf::{
    FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    ValueInfoProto, tensor_proto::DataLocation, tensor_shape_proto::Dimension, type_proto,
};
use protobuf::MessageField;

pub use save::{Exported, Pieces, Saved, save};

use super::{
    Model,
    names::{domain_of, subgraphs},
    tensor::tensor_header,
};
use crate::{
    ir::{NodeId, Origin, Value},
    ops::{self, dtype_to_onnx},
};

/// How to write a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether weights go to a file of their own even if the model would fit in one.
    pub external_data: bool,
    /// The name of that file, as the model refers to it.
    pub external_name: String,
    /// Whether each node says which nodes of the model that was read it stands for.
    pub origins: bool,
    /// Size from which a file is not written as one: at most the 2 GiB that protobuf allows.
    pub largest_file: u64,
}

impl Default for ExportOptions {
    fn default() -> ExportOptions {
        ExportOptions {
            external_data: false,
            external_name: "model.onnx.data".into(),
            origins: false,
            largest_file: (1 << 31) - 1,
        }
    }
}

/// The key under which a node, or a model before IR version 10, holds its origins.
pub const ORIGINS_KEY: &str = "convc.origins";

/// Length in bytes from which a constant goes to the external file, if there is one.
const SMALLEST_EXTERNAL: usize = 1024;

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An operator has no form in the model's opset.
    #[error("node {node:?}: {source}")]
    Operator {
        /// The node.
        node: String,
        /// Why.
        source: ops::ExportError,
    },
    /// The model without its weights exceeds what protobuf allows.
    #[error("the file would have {bytes} bytes without its weights, and ONNX allows 2 GiB")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The graph breaks an invariant.
    #[error("the graph to be written breaks an invariant: {0}; this is a defect of convc")]
    Invariant(#[from] crate::ir::IrError),
    /// Our own message could not be encoded.
    #[error("the model could not be encoded: {0}")]
    Encode(#[from] protobuf::Error),
    /// A file could not be written.
    #[error("cannot write {path:?}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The bytes of the ONNX file that holds `model`, and of the file of its weights if there is one.
///
/// # Errors
/// If an operator cannot be written at the model's opset, or the file would be too large.
pub fn export(model: &Model, options: &ExportOptions) -> Result<Exported, WriteError> {
    crate::ir::verify_after(&model.graph)?;
    let (proto, constants, written) = Writer::new(model, options).write()?;
    let inline = pieces(&proto, &constants, None)?;
    if !options.external_data && inline.0.len() <= options.largest_file {
        return Ok(Exported { model: inline.0, external: None, written });
    }
    let (file, external) = pieces(&proto, &constants, Some(&options.external_name))?;
    if file.len() > options.largest_file {
        return Err(WriteError::TooLarge { bytes: file.len() });
    }
    Ok(Exported { model: file, external: Some((options.external_name.clone(), external)), written })
}

/// What a file calls the nodes and values of the main graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The names of the nodes in the file's order, and the node each stands for; several where one operator is spelled by
    /// several.
    pub nodes: Vec<(String, NodeId)>,
    /// The names of the values.
    pub values: BTreeMap<Value, String>,
}

/// What writes one model.
struct Writer<'m> {
    model: &'m Model,
    options: &'m ExportOptions,
    names: Fresh,
    node_names: Fresh,
    domains: BTreeSet<String>,
    origins: BTreeMap<String, Vec<Origin>>,
    /// Initializers of the main graph.
    constants: Vec<(String, Constant)>,
    written: Written,
}

/// Names in use, and new ones.
#[derive(Default)]
struct Fresh {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Fresh {
    /// Takes `name`, or if it is taken, a new one that begins with it.
    fn take(&mut self, name: &str) -> String {
        if !name.is_empty() && self.taken.insert(name.to_owned()) {
            return name.to_owned();
        }
        let next = self.next.entry(name.to_owned()).or_insert(0);
        loop {
            *next += 1;
            let candidate = format!("{name}_{next}");
            if self.taken.insert(candidate.clone()) {
                return candidate;
            }
        }
    }
}

impl<'m> Writer<'m> {
    fn new(model: &'m Model, options: &'m ExportOptions) -> Writer<'m> {
        Writer {
            model,
            options,
            names: Fresh::default(),
            node_names: Fresh::default(),
            domains: BTreeSet::new(),
            origins: BTreeMap::new(),
            constants: Vec::new(),
            written: Written::default(),
        }
    }

    /// The model without the initializers of its main graph, these, and the names.
    fn write(mut self) -> Result<(ModelProto, Vec<(String, Constant)>, Written), WriteError> {
        let m = self.model;
        let graph = self.main_graph()?;
        let functions = self.functions(&graph);
        let mut metadata = m.metadata_props.clone();
        if self.options.origins {
            metadata.retain(|(k, _)| k != ORIGINS_KEY);
        }
        if !self.origins.is_empty() && m.ir_version < 10 {
            let map: serde_json::Map<String, serde_json::Value> =
                self.origins.iter().map(|(n, o)| (n.clone(), origins_json(o))).collect();
            metadata.push((ORIGINS_KEY.into(), serde_json::Value::Object(map).to_string()));
        }
        let proto = ModelProto {
            ir_version: m.ir_version,
            opset_import: self.opset_imports(),
            producer_name: m.producer_name.clone(),
            producer_version: m.producer_version.clone(),
            domain: m.domain.clone(),
            model_version: m.model_version,
            doc_string: m.doc_string.clone(),
            graph: MessageField::some(graph),
            metadata_props: entries(&metadata),
            functions,
            ..ModelProto::default()
        };
        Ok((proto, self.constants, self.written))
    }

    /// The operator sets that the file uses, in the order of their domains; the default one always.
    fn opset_imports(&self) -> Vec<OperatorSetIdProto> {
        let mut list: BTreeMap<&str, i64> = self.model.opset_imports.iter().map(|(d, v)| (d.as_str(), *v)).collect();
        list.retain(|d, _| d.is_empty() || self.domains.contains(*d));
        for d in &self.domains {
            list.entry(d).or_insert(if d.is_empty() { self.model.opset } else { 1 });
        }
        list.into_iter()
            .map(|(domain, version)| OperatorSetIdProto { domain: domain.into(), version, ..Default::default() })
            .collect()
    }

    /// The local functions that nodes of `graph` call, directly or not. Notes the domains they use.
    fn functions(&mut self, graph: &GraphProto) -> Vec<FunctionProto> {
        let all = &self.model.functions;
        let mut wanted: BTreeSet<usize> = BTreeSet::new();
        let mut stack: Vec<&NodeProto> = graph.node.iter().collect();
        let mut found: Vec<&NodeProto> = Vec::new();
        while let Some(node) = stack.pop() {
            stack.extend(subgraphs(node).flat_map(|g| &g.node));
            found.push(node);
            let called = all
                .iter()
                .position(|f| (&f.domain, &f.name, &f.overload) == (&node.domain, &node.op_type, &node.overload));
            if let Some(f) = called.filter(|&i| wanted.insert(i)).and_then(|i| all.get(i)) {
                stack.extend(&f.node);
            }
        }
        self.domains.extend(found.iter().map(|n| domain_of(&n.domain).to_owned()));
        wanted.into_iter().filter_map(|i| all.get(i).cloned()).collect()
    }
}

fn origins_json(origins: &[Origin]) -> serde_json::Value {
    origins.iter().map(|o| serde_json::Value::from(&**o)).collect()
}

fn entries(list: &[(String, String)]) -> Vec<StringStringEntryProto> {
    list.iter()
        .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone(), ..Default::default() })
        .collect()
}

/// The declaration of a value. Sizes that only the data decides are left open.
fn value_info(name: &str, fact: &Fact) -> ValueInfoProto {
    let mut shape = onnx_protobuf::TensorShapeProto::new();
    for d in &fact.shape {
        let mut dim = Dimension::new();
        match (d, d.as_symbol()) {
            (Dim::Fixed(n), _) => dim.set_dim_value(*n),
            (_, Some(s)) if !s.to_string().starts_with('?') => dim.set_dim_param(s.to_string()),
            (_, None) if d.symbols().iter().all(|s| !s.to_string().starts_with('?')) => {
                dim.set_dim_param(d.to_string());
            }
            _ => {}
        }
        shape.dim.push(dim);
    }
    let tensor = type_proto::Tensor {
        elem_type: dtype_to_onnx(fact.dtype),
        shape: MessageField::some(shape),
        ..Default::default()
    };
    let mut info = ValueInfoProto::new();
    name.clone_into(&mut info.name);
    info.type_.mut_or_insert_default().set_tensor_type(tensor);
    info
}

/// The tag of a length-delimited field and the length.
fn header(field: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    let mut rest = length;
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The file as pieces, and the external file's if it is named.
fn pieces(
    proto: &ModelProto,
    constants: &[(String, Constant)],
    external: Option<&str>,
) -> Result<(Pieces, Pieces), WriteError> {
    const GRAPH: u8 = 7;
    const INITIALIZER: u8 = 5;
    const RAW_DATA: u8 = 9;
    let mut model = proto.clone();
    let graph = model.graph.take().unwrap_or_default();
    let mut body = Pieces::default();
    body.push_bytes(graph.write_to_bytes()?);
    let mut outside = Pieces::default();
    for (name, constant) in constants {
        let mut tensor = tensor_header(name, constant);
        let bytes = constant.bytes();
        let (inner, raw) = if let Some(location) = external.filter(|_| bytes.len() >= SMALLEST_EXTERNAL) {
            let offset = outside.push_aligned(bytes);
            tensor.data_location = DataLocation::EXTERNAL.into();
            tensor.external_data = entries(&[
                ("location".into(), location.into()),
                ("offset".into(), offset.to_string()),
                ("length".into(), bytes.len().to_string()),
            ]);
            (tensor.write_to_bytes()?, None)
        } else {
            let mut inner = tensor.write_to_bytes()?;
            if !bytes.is_empty() {
                inner.extend(header(RAW_DATA, save::wide(bytes.len())));
            }
            (inner, Some(bytes))
        };
        let raw_length = raw.map_or(0, |r| r.len());
        body.push_bytes(header(INITIALIZER, save::wide(inner.len() + raw_length)));
        body.push_bytes(inner);
        if let Some(raw) = raw {
            body.push_blob(raw);
        }
    }
    let mut file = Pieces::default();
    file.push_bytes(model.write_to_bytes()?);
    file.push_bytes(header(GRAPH, body.len()));
    file.append(body);
    Ok((file, outside))
}

#[cfg(test)]
mod tests;
