//! Inputs, outputs and initializers of the main graph.

use std::collections::BTreeSet;

use convc_runtime::{Constant, Dim, Fact, dim::element_count};
use onnx_protobuf::{GraphProto, TypeProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

use super::{Env, Importer, Model, Names, OnnxError, Problem, Severity, shown};
use crate::{ir::Graph, onnx::tensor::TensorFault, ops::dtype_from_onnx};

/// What a declaration says of a value.
pub(super) enum Declared {
    /// Nothing: no type, or a tensor of unknown rank.
    Nothing,
    /// A tensor.
    Tensor(Fact),
    /// Something else: a sequence, a map, an optional value, a sparse tensor.
    Other(&'static str),
}

/// Texts that tools write for a size that they do not know.
const NAMELESS: &[&str] = &["", "?", "-1", "None", "none"];

/// What `info` declares. `nameless` makes the dimension of an axis whose size has neither value nor name.
pub(super) fn declared(info: &ValueInfoProto, nameless: &mut dyn FnMut(usize) -> Dim) -> Result<Declared, String> {
    let Some(tensor) = (match &info.type_.as_ref().and_then(|t: &TypeProto| t.value.as_ref()) {
        None => return Ok(Declared::Nothing),
        Some(type_proto::Value::TensorType(t)) => Some(t),
        Some(type_proto::Value::SequenceType(_)) => return Ok(Declared::Other("a sequence")),
        Some(type_proto::Value::MapType(_)) => return Ok(Declared::Other("a map")),
        Some(type_proto::Value::OptionalType(_)) => return Ok(Declared::Other("an optional value")),
        Some(type_proto::Value::SparseTensorType(_)) => return Ok(Declared::Other("a sparse tensor")),
        Some(_) => None,
    }) else {
        return Ok(Declared::Other("of a type that convc does not know"));
    };
    let dtype = dtype_from_onnx(tensor.elem_type)
        .ok_or_else(|| format!("has element type {}, which ONNX does not define", tensor.elem_type))?;
    let Some(shape) = tensor.shape.as_ref() else { return Ok(Declared::Nothing) };
    let dims: Vec<Dim> = shape
        .dim
        .iter()
        .enumerate()
        .map(|(axis, d)| match &d.value {
            Some(dimension::Value::DimValue(n)) if *n >= 0 => Dim::from(*n),
            Some(dimension::Value::DimParam(s)) if !NAMELESS.contains(&s.as_str()) => Dim::symbol(s.as_str()),
            _ => nameless(axis),
        })
        .collect();
    Ok(Declared::Tensor(Fact::new(dtype, dims)))
}

/// The symbols that a declaration names.
fn named_symbols(info: &ValueInfoProto) -> impl Iterator<Item = &str> {
    let shape = match info.type_.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(t)) => t.shape.as_ref(),
        _ => None,
    };
    shape.into_iter().flat_map(|s| &s.dim).filter_map(|d| match &d.value {
        Some(dimension::Value::DimParam(s)) => Some(s.as_str()),
        _ => None,
    })
}

impl<'a> Importer<'a> {
    /// The initializers of a graph by name, in the file's order.
    pub(super) fn initializers(&mut self, graph: &GraphProto) -> Result<Vec<(String, Constant)>, OnnxError> {
        let mut list: Vec<(String, Constant)> = Vec::with_capacity(graph.initializer.len());
        let mut seen = BTreeSet::new();
        let dense = graph.initializer.iter().map(|t| (t.name.as_str(), Ok(t)));
        let sparse = graph.sparse_initializer.iter().map(|t| (t.values.name.as_str(), Err(t)));
        for (name, tensor) in dense.chain(sparse) {
            let place = || format!("initializer {}", shown(name));
            if name.is_empty() {
                self.fail(Problem::new(Severity::Error, place(), "has no name", ""))?;
                continue;
            }
            if !seen.insert(name) {
                self.fail(Problem::new(Severity::Error, place(), "is defined twice", "leave one of them out"))?;
                continue;
            }
            let constant = match tensor {
                Ok(t) => self.source.constant(t),
                Err(t) => self.source.dense(t),
            };
            match constant {
                Ok(c) => list.push((name.to_owned(), c)),
                Err(TensorFault::Bad(problem)) => self.fail(Problem::new(Severity::Error, place(), problem, ""))?,
                Err(limit) => return Err(limit.at(place())),
            }
        }
        Ok(list)
    }

    /// Reads the main graph into `model`.
    pub(super) fn main_graph(&mut self, model: &mut Model, proto: &GraphProto, env: &Env<'_>) -> Result<(), OnnxError> {
        let mut graph = Graph::new();
        let mut names = Names::new();
        let initializers = self.initializers(proto)?;
        let mut defaults: std::collections::BTreeMap<&str, &Constant> =
            initializers.iter().map(|(n, c)| (n.as_str(), c)).collect();
        let mut symbols: BTreeSet<String> = proto
            .input
            .iter()
            .chain(&proto.output)
            .chain(&proto.value_info)
            .flat_map(named_symbols)
            .map(str::to_owned)
            .collect();
        for info in &proto.input {
            let place = || format!("input {}", shown(&info.name));
            if info.name.is_empty() {
                self.fail(Problem::new(Severity::Error, "input", "has no name", ""))?;
                continue;
            }
            if names.contains_key(&info.name) || model.declared_inputs.contains_key(&info.name) {
                self.fail(Problem::new(Severity::Error, place(), "is defined twice", "rename one of them"))?;
                continue;
            }
            model.declared_inputs.insert(info.name.clone(), info.clone());
            // Before IR version 4 every initializer had to be listed as an input, and none was meant as one.
            if model.ir_version < 4 && defaults.contains_key(info.name.as_str()) {
                continue;
            }
            let mut nameless = |axis: usize| {
                let mut name = format!("{}_{axis}", info.name);
                while !symbols.insert(name.clone()) {
                    name.push('_');
                }
                Dim::symbol(name)
            };
            let default = defaults.remove(info.name.as_str()).cloned();
            let fact = match declared(info, &mut nameless) {
                Ok(Declared::Tensor(fact)) => Some(fact),
                Ok(Declared::Nothing) => default.as_ref().map(|c| Fact::fixed(c.dtype(), c.shape())).or_else(|| {
                    self.note(place(), "declares no shape", "nodes that need its rank are carried as they are");
                    None
                }),
                Ok(Declared::Other(what)) => {
                    self.note(place(), format!("is {what}"), "nodes that use it are carried as they are");
                    None
                }
                Err(problem) => {
                    self.fail(Problem::new(Severity::Error, place(), problem, ""))?;
                    None
                }
            };
            if let Some(shape) = fact.as_ref().and_then(Fact::fixed_shape)
                && element_count(&shape).is_none_or(|n| n > self.limits.elements)
            {
                return Err(OnnxError::Limit {
                    place: place(),
                    needed: format!("{shape:?}"),
                    what: "elements",
                    limit: u64::try_from(self.limits.elements).unwrap_or(u64::MAX),
                });
            }
            if let (Some(f), Some(c)) = (&fact, &default) {
                let fits = f.rank() == c.shape().len()
                    && f.shape.iter().zip(c.shape()).all(|(d, &n)| d.equals(&Dim::from(n)) != Some(false));
                if f.dtype != c.dtype() || !fits {
                    let what = format!("is declared {f}, its initializer is {}{:?}", c.dtype(), c.shape());
                    self.fail(Problem::new(Severity::Error, place(), what, ""))?;
                }
            }
            let v = graph.add_input(info.name.clone(), fact, default);
            names.insert(info.name.clone(), Some(v));
        }
        for (name, constant) in &initializers {
            if defaults.contains_key(name.as_str()) {
                let v = graph.add_constant(constant.clone());
                graph.set_value_name(v, name.clone());
                graph.annotate(v.node, name.clone(), vec![name.as_str().into()]);
                names.insert(name.clone(), Some(v));
            }
        }
        self.nodes(&mut graph, &mut names, &proto.node, env)?;
        self.main_outputs(model, &mut graph, &names, proto)?;
        self.without_read_sequences(&mut graph);
        model.graph = graph;
        Ok(())
    }

    fn main_outputs(
        &mut self,
        model: &mut Model,
        graph: &mut Graph,
        names: &Names,
        proto: &GraphProto,
    ) -> Result<(), OnnxError> {
        if proto.output.is_empty() {
            self.fail(Problem::new(Severity::Error, "graph", "has no outputs", ""))?;
        }
        for info in &proto.output {
            let place = || format!("output {}", shown(&info.name));
            if model.declared_outputs.contains_key(&info.name) {
                self.fail(Problem::new(Severity::Error, place(), "is declared twice", "rename one of them"))?;
                continue;
            }
            let Some(Some(value)) = names.get(&info.name) else {
                self.fail(Problem::new(Severity::Error, place(), "is computed by no node", "add its node or drop it"))?;
                continue;
            };
            model.declared_outputs.insert(info.name.clone(), info.clone());
            let mut n = 0;
            let mut nameless = |axis: usize| {
                n += 1;
                Dim::symbol(format!("?{}_{axis}_{n}", info.name))
            };
            let fact = match declared(info, &mut nameless) {
                Ok(Declared::Tensor(fact)) => Some(fact),
                Ok(_) => None,
                Err(problem) => {
                    self.fail(Problem::new(Severity::Error, place(), problem, ""))?;
                    None
                }
            };
            match (&fact, graph.fact(*value)) {
                (Some(d), Some(f)) if d.dtype != f.dtype => {
                    let what = format!("is declared {d}, the nodes compute {f}");
                    self.fail(Problem::new(Severity::Error, place(), what, "correct the declared element type"))?;
                }
                (Some(d), Some(f)) => {
                    let fits = d.rank() == f.rank()
                        && d.shape.iter().zip(&f.shape).all(|(d, f)| {
                            d.as_fixed().is_none() || f.as_fixed().is_none() || d.equals(f) != Some(false)
                        });
                    if !fits {
                        let what = format!("is declared {d}, the nodes compute {f}");
                        self.note(place(), what, "the declaration is kept and not relied on");
                    }
                }
                _ => {}
            }
            graph.add_output(info.name.clone(), *value, fact);
        }
        Ok(())
    }
}
