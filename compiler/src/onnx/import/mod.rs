//! From a file to a [`Model`].
//!
//! The importer walks nodes in topological order and keeps a map from the names of the file to values of the graph, one
//! map for each graph and each call of a local function: names live here and nowhere else. A node that convc does not
//! execute becomes [`crate::ir::Kind::Opaque`]; one that breaks the specification is an error, which `check` notes
//! before it goes on.

mod control;
mod functions;
mod interface;
mod nodes;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use convc_runtime::Blob;
use onnx_protobuf::{AttributeProto, FunctionProto, ModelProto, ValueInfoProto};

use super::{
    Limits, Model, OnnxError, Problem, Severity,
    error::{plain, shown, visible},
    external::Folder,
    names::domain_of,
    tensor::Source,
    wire,
};
use crate::ir::{Graph, NodeId, Value};

/// The oldest version of the default operator set that is read.
pub const OLDEST_OPSET: i64 = 7;

/// The newest version of the default operator set that is known.
pub const NEWEST_OPSET: i64 = 28;

/// The newest version of the file format that is known.
const NEWEST_IR: i64 = 14;

/// The values that names stand for; `None` for an input of a function that the caller leaves out.
type Names = HashMap<String, Option<Value>>;

/// A function's domain, name and overload.
type FunctionKey = (String, String, String);

/// What surrounds the nodes that are read.
struct Env<'e> {
    /// Version of each operator set by domain.
    opsets: BTreeMap<String, i64>,
    /// Attributes of the function that is inlined; `None` outside functions.
    attributes: Option<BTreeMap<String, AttributeProto>>,
    /// Put before the names of nodes and values: where the function is inlined.
    prefix: String,
    /// The functions being inlined.
    calls: Vec<FunctionKey>,
    /// Nesting of graphs.
    depth: usize,
    /// Types that the file states for values.
    value_info: HashMap<&'e str, &'e ValueInfoProto>,
}

struct Importer<'a> {
    source: Source<'a>,
    limits: &'a Limits,
    functions: BTreeMap<FunctionKey, &'a FunctionProto>,
    /// Whether an error of the model is noted only.
    lenient: bool,
    problems: Vec<Problem>,
    nodes: usize,
    /// Whether a node that is carried as it is calls a function from within.
    keeps_functions: bool,
    /// What of the graph being read is taken on the model's word.
    beliefs: Beliefs,
}

/// The values of a graph whose type is what the model states of it, which cannot be checked, or follows from such a type.
#[derive(Default)]
struct Beliefs {
    values: HashSet<Value>,
    /// The nodes whose results have been told apart.
    seen: HashSet<NodeId>,
}

impl Beliefs {
    fn any(&self, operands: &[Option<Value>]) -> bool {
        operands.iter().flatten().any(|v| self.values.contains(v))
    }

    /// Follows beliefs through the nodes that were added to compute these values.
    fn follow(&mut self, graph: &Graph, values: &[Value]) {
        let mut added = Vec::new();
        let mut stack: Vec<NodeId> = values.iter().map(|v| v.node).collect();
        while let Some(id) = stack.pop() {
            if self.seen.insert(id) {
                added.push(id);
                stack.extend(graph.node(id).operands().iter().flatten().map(|v| v.node));
            }
        }
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for &id in added.iter().rev().filter(|id| self.any(graph.node(**id).operands())).collect::<Vec<_>>() {
                let ports = u32::try_from(graph.node(id).outputs()).unwrap_or(u32::MAX);
                for port in 0..ports {
                    changed |= self.values.insert(Value { node: id, port });
                }
            }
        }
    }
}

/// Reads the model at `path`, which is mapped into memory; external data comes from the folder it lies in.
///
/// # Errors
/// If the file cannot be read, is damaged, breaks the specification or exceeds `limits`.
pub fn import(path: &Path, limits: &Limits) -> Result<Model, OnnxError> {
    import_bytes(map(path)?, Some(path.parent().unwrap_or(Path::new("."))), limits)
}

/// Reads a model from memory. Without a folder `base`, external data is refused.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: Blob, base: Option<&Path>, limits: &Limits) -> Result<Model, OnnxError> {
    let (model, _) = read(bytes, base, limits, false)?;
    Ok(model)
}

/// Everything that a user should know of the model at `path`: errors, nodes that are not executed, and notes.
#[must_use]
pub fn check(path: &Path, limits: &Limits) -> Vec<Problem> {
    match map(path) {
        Ok(bytes) => check_bytes(bytes, Some(path.parent().unwrap_or(Path::new("."))), limits),
        Err(e) => vec![e.into_problem()],
    }
}

/// As [`check`], for a model in memory.
#[must_use]
pub fn check_bytes(bytes: Blob, base: Option<&Path>, limits: &Limits) -> Vec<Problem> {
    match read(bytes, base, limits, true) {
        Ok((_, problems)) => problems,
        Err(e) => vec![e.into_problem()],
    }
}

fn map(path: &Path) -> Result<Blob, OnnxError> {
    convc_runtime::sys::map_file(path).map_err(|source| OnnxError::Io { path: path.into(), source })
}

fn read(bytes: Blob, base: Option<&Path>, limits: &Limits, lenient: bool) -> Result<(Model, Vec<Problem>), OnnxError> {
    let (proto, payloads) = wire::parse(bytes.as_bytes(), &limits.wire())?;
    let folder = base.map_or_else(Folder::none, Folder::at);
    let mut importer = Importer {
        source: Source::new(bytes, payloads, folder, limits),
        limits,
        functions: BTreeMap::new(),
        lenient,
        problems: Vec::new(),
        nodes: 0,
        keeps_functions: false,
        beliefs: Beliefs::default(),
    };
    let mut model = importer.model(&proto)?;
    if importer.keeps_functions {
        model.functions.clone_from(&proto.functions);
        for f in &mut model.functions {
            for node in &mut f.node {
                importer.embed(node).map_err(|e| e.at(format!("function {}", shown(&f.name))))?;
            }
        }
    }
    let problems = std::mem::take(&mut importer.problems);
    model.notes.clone_from(&problems);
    Ok((model, problems))
}

impl<'a> Importer<'a> {
    /// An error of the model: final, unless all are wanted.
    fn fail(&mut self, problem: Problem) -> Result<(), OnnxError> {
        if !self.lenient {
            return Err(problem.into());
        }
        self.problems.push(problem);
        Ok(())
    }

    fn note(&mut self, place: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(Severity::Note, place, problem, help));
    }

    fn count_nodes(&mut self, n: usize) -> Result<(), OnnxError> {
        self.nodes = self.nodes.saturating_add(n);
        if self.nodes > self.limits.nodes {
            return Err(OnnxError::Limit {
                place: "the model".into(),
                needed: format!("at least {}", self.nodes),
                what: "nodes",
                limit: u64::try_from(self.limits.nodes).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }

    fn opsets(
        &mut self,
        place: &str,
        imports: &[onnx_protobuf::OperatorSetIdProto],
    ) -> Result<BTreeMap<String, i64>, OnnxError> {
        let mut opsets = BTreeMap::new();
        for o in imports {
            let domain = domain_of(&o.domain);
            if let Some(old) = opsets.insert(domain.to_owned(), o.version)
                && old != o.version
            {
                let what = format!("imports operator set {} twice, as {old} and {}", shown(domain), o.version);
                self.fail(Problem::new(Severity::Error, place, what, "leave one of them out"))?;
            }
        }
        if let Some(&opset) = opsets.get("") {
            if opset < OLDEST_OPSET {
                let what = format!("uses opset {opset}, and {OLDEST_OPSET} is the oldest that convc reads");
                let help = "convert the model first, for instance with onnx.version_converter";
                self.fail(Problem::new(Severity::Error, place, what, help))?;
            } else if opset > NEWEST_OPSET {
                let what = format!("uses opset {opset}, and {NEWEST_OPSET} is the newest that convc knows");
                self.note(place, what, format!("operators are read as opset {NEWEST_OPSET} defines them"));
            }
        }
        Ok(opsets)
    }

    fn model(&mut self, proto: &'a ModelProto) -> Result<Model, OnnxError> {
        if proto.graph.is_none() {
            let what = if proto.ir_version == 0 { "holds no graph and no IR version" } else { "holds no graph" };
            return Err(Problem::new(Severity::Error, "model", what, "is this an ONNX file?").into());
        }
        if proto.ir_version < 3 {
            let what = format!("has IR version {}, and 3 is the oldest that convc reads", proto.ir_version);
            self.fail(Problem::new(Severity::Error, "model", what, "load and save it with a newer onnx first"))?;
        } else if proto.ir_version > NEWEST_IR {
            let what = format!("has IR version {}, and {NEWEST_IR} is the newest that convc knows", proto.ir_version);
            self.note("model", what, "parts that it adds are lost");
        }
        if !proto.training_info.is_empty() {
            self.note("model", "holds training information", "it is left out of what convc writes");
        }
        let opsets = self.opsets("model", &proto.opset_import)?;
        for f in &proto.functions {
            let key = (domain_of(&f.domain).to_owned(), f.name.clone(), f.overload.clone());
            if self.functions.insert(key, f).is_some() {
                let place = format!("function {}", shown(&f.name));
                self.fail(Problem::new(Severity::Error, place, "is defined twice", "leave one of them out"))?;
            }
        }
        let mut model = Model {
            opset: opsets.get("").copied().unwrap_or(NEWEST_OPSET),
            opset_imports: opsets.iter().map(|(d, v)| (d.clone(), *v)).collect(),
            ir_version: proto.ir_version,
            producer_name: proto.producer_name.clone(),
            producer_version: proto.producer_version.clone(),
            domain: proto.domain.clone(),
            model_version: proto.model_version,
            doc_string: proto.doc_string.clone(),
            metadata_props: proto.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            graph_name: proto.graph.name.clone(),
            graph_doc: proto.graph.doc_string.clone(),
            graph_metadata: proto.graph.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            ..Model::default()
        };
        // What outputs are declared to be is left out: other programs only warn where it is not what comes out.
        let value_info = proto.graph.value_info.iter().map(|v| (v.name.as_str(), v)).collect();
        let env = Env { opsets, attributes: None, prefix: String::new(), calls: Vec::new(), depth: 0, value_info };
        self.main_graph(&mut model, &proto.graph, &env)?;
        if let Err(e) = crate::ir::verify_after(&model.graph) {
            let what = format!("is read into a graph that breaks an invariant: {e}");
            self.fail(Problem::new(
                Severity::Error,
                "model",
                what,
                "this is a defect of convc; please report the model",
            ))?;
        }
        Ok(model)
    }
}

/// The node's name as the trace and messages show it: its own, or its place in the file.
fn label(prefix: &str, index: usize, name: &str, op_type: &str) -> String {
    if name.is_empty() { format!("{prefix}#{index} ({})", plain(op_type)) } else { format!("{prefix}{name}") }
}

#[cfg(test)]
mod tests;
