//! Graphs: names for every value, nodes in topological order.

use std::collections::{BTreeMap, HashSet};

use convc_runtime::{Constant, Fact, Op};
use onnx_protobuf::{AttributeProto, GraphProto, Message, NodeProto, ValueInfoProto, attribute_proto::AttributeType};
use protobuf::MessageField;

use super::{
    WriteError, Writer,
    carried::{carried, defined_within},
    entries, origins_json, value_info,
};
use crate::{
    ir::{Branch, Graph, Kind, NodeId, Origin, Value},
    onnx::{attribute_proto, names::domain_of, tensor::tensor_proto, types::node_proto},
    ops::{self, NodeWriter, Operand},
};

/// The operators whose results behind the first may be left out.
const OPTIONAL_RESULTS: &[&str] = &["BatchNormalization", "Dropout", "LayerNormalization", "MaxPool", "Unique"];

/// One graph while it is written.
struct Scope {
    names: BTreeMap<Value, String>,
    nodes: Vec<NodeProto>,
    constants: Vec<(String, Constant)>,
    types: Vec<ValueInfoProto>,
    written: Vec<(String, NodeId)>,
    main: bool,
}

fn results(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> + use<> {
    (0..u32::try_from(graph.node(id).outputs()).unwrap_or(u32::MAX)).map(move |port| Value { node: id, port })
}

impl Writer<'_> {
    /// The main graph without its initializers.
    pub(super) fn main_graph(&mut self) -> Result<GraphProto, WriteError> {
        let m = self.model;
        let g = &m.graph;
        let mut scope = Scope::new(true);
        for v in g.inputs() {
            let name = self.names.take(g.value_name(v).unwrap_or("input"));
            scope.names.insert(v, name);
        }
        let renamed = self.body(g, &mut scope)?;
        debug_assert!(renamed.iter().zip(g.outputs()).all(|(a, b)| *a == b.name), "output names are kept");
        let mut proto = GraphProto::new();
        proto.name.clone_from(&m.graph_name);
        if proto.name.is_empty() {
            proto.name = "graph".into();
        }
        proto.doc_string.clone_from(&m.graph_doc);
        proto.metadata_props = entries(&m.graph_metadata);
        for v in g.inputs() {
            let Some(name) = scope.names.get(&v) else { continue };
            proto.input.push(match (m.declared_inputs.get(name), g.fact(v)) {
                (Some(info), _) => info.clone(),
                (None, Some(fact)) => value_info(name, fact),
                (None, None) => ValueInfoProto { name: name.clone(), ..Default::default() },
            });
            if let Some(c) = g.default_of(v) {
                scope.constants.push((name.clone(), c.clone()));
            }
        }
        if m.ir_version < 4 {
            let list = scope.constants.iter();
            proto.input.extend(list.map(|(n, c)| value_info(n, &Fact::fixed(c.dtype(), c.shape()))));
        }
        for o in g.outputs() {
            proto.output.push(match (m.declared_outputs.get(&o.name), g.fact(o.value).or(o.declared.as_ref())) {
                (Some(info), _) => info.clone(),
                (None, Some(fact)) => value_info(&o.name, fact),
                (None, None) => ValueInfoProto { name: o.name.clone(), ..Default::default() },
            });
        }
        let ends: HashSet<&str> = proto.input.iter().chain(&proto.output).map(|v| v.name.as_str()).collect();
        scope.types.retain(|v| !ends.contains(v.name.as_str()));
        proto.value_info = scope.types;
        proto.node = scope.nodes;
        self.constants = scope.constants;
        self.written = super::Written { nodes: scope.written, values: scope.names };
        Ok(proto)
    }

    /// Writes the nodes of `graph` into `scope`, where its inputs have names; returns the names of its outputs.
    fn body(&mut self, graph: &Graph, scope: &mut Scope) -> Result<Vec<String>, WriteError> {
        let order = graph.topological();
        // An output that is an input, a constant or another output as well comes from an Identity of its own.
        let mut copies: Vec<(Value, String)> = Vec::new();
        let mut outputs = Vec::new();
        for o in graph.outputs() {
            if scope.main
                && matches!(graph.node(o.value.node).kind, Kind::Input)
                && scope.names.get(&o.value) == Some(&o.name)
            {
                outputs.push(o.name.clone());
                continue;
            }
            let name = self.names.take(&o.name);
            let direct = !matches!(graph.node(o.value.node).kind, Kind::Input | Kind::Constant(_));
            if direct && !scope.names.contains_key(&o.value) {
                scope.names.insert(o.value, name.clone());
            } else {
                copies.push((o.value, name.clone()));
            }
            outputs.push(name);
        }
        let used: HashSet<Value> = order
            .iter()
            .flat_map(|&id| graph.node(id).operands().iter().flatten().copied())
            .chain(graph.outputs().iter().map(|o| o.value))
            .collect();
        let kept = |id: NodeId| {
            !matches!(graph.node(id).kind, Kind::Constant(_)) || used.contains(&Value { node: id, port: 0 })
        };
        for &id in order.iter().filter(|&&id| kept(id)) {
            for v in results(graph, id) {
                if let Some(name) = graph.value_name(v).filter(|_| !scope.names.contains_key(&v)) {
                    let name = self.names.take(name);
                    scope.names.insert(v, name);
                }
            }
        }
        let mut inner: Vec<String> = Vec::new();
        for &id in &order {
            if let Kind::Opaque(o) = &graph.node(id).kind
                && !o.captures.is_empty() | (o.proto.len() > 2)
            {
                inner.extend(defined_within(&NodeProto::parse_from_bytes(&o.proto)?));
            }
        }
        let outer = self.names.taken.clone();
        self.names.taken.extend(inner);
        for &id in order.iter().filter(|&&id| kept(id)) {
            for v in results(graph, id) {
                scope.names.entry(v).or_insert_with(|| {
                    let node = graph.node(id);
                    let stem = if node.name.is_empty() { node.kind.name().to_lowercase() } else { node.name.clone() };
                    self.names.take(&format!("{stem}_{}", v.port))
                });
            }
        }
        for &id in order.iter().filter(|&&id| kept(id)) {
            self.node(graph, id, scope, &used, &outer)?;
        }
        for (v, name) in copies {
            let from = scope.names.get(&v).cloned().unwrap_or_default();
            let node =
                NodeProto { op_type: "Identity".into(), input: vec![from], output: vec![name], ..Default::default() };
            let origins = graph.node(v.node).origins.clone();
            self.finish(scope, v.node, "", vec![node], &origins);
        }
        Ok(outputs)
    }

    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        scope: &mut Scope,
        used: &HashSet<Value>,
        outer: &HashSet<String>,
    ) -> Result<(), WriteError> {
        let node = graph.node(id);
        let inputs: Vec<Option<String>> =
            node.operands().iter().map(|o| o.and_then(|v| scope.names.get(&v).cloned())).collect();
        let outputs: Vec<String> =
            results(graph, id).map(|v| scope.names.get(&v).cloned().unwrap_or_default()).collect();
        // What does not follow from the operands' types is stated, as it was in the model read.
        let untyped = || node.operands().iter().flatten().any(|v| graph.fact(*v).is_none());
        if matches!(node.kind, Kind::Opaque(_)) || untyped() {
            for (name, v) in outputs.iter().zip(results(graph, id)) {
                if let Some(fact) = graph.fact(v).filter(|_| used.contains(&v)) {
                    scope.types.push(value_info(name, fact));
                }
            }
        }
        match &node.kind {
            Kind::Input => {}
            Kind::Constant(c) => {
                let name = outputs.into_iter().next().unwrap_or_default();
                if scope.main || self.model.ir_version >= 4 {
                    scope.constants.push((name, c.clone()));
                } else {
                    // Before IR version 4 an initializer has to be an input, which a branch must not have.
                    let mut value = AttributeProto { name: "value".into(), ..Default::default() };
                    value.type_ = AttributeType::TENSOR.into();
                    value.t = MessageField::some(tensor_proto("", c));
                    let n = NodeProto {
                        op_type: "Constant".into(),
                        output: vec![name],
                        attribute: vec![value],
                        ..Default::default()
                    };
                    self.finish(scope, id, &node.name, vec![n], &node.origins);
                }
            }
            Kind::Op(op) => self.op(graph, id, op, &inputs, outputs, scope, used)?,
            Kind::If { then_branch, else_branch } => {
                let captured = inputs.get(1..).unwrap_or_default();
                let mut n = NodeProto { op_type: "If".into(), output: outputs, ..Default::default() };
                n.input.extend(inputs.first().cloned().flatten());
                for (name, branch) in [("else_branch", else_branch), ("then_branch", then_branch)] {
                    let mut a = AttributeProto { name: name.into(), ..Default::default() };
                    a.type_ = AttributeType::GRAPH.into();
                    a.g = MessageField::some(self.branch(branch, name, captured)?);
                    n.attribute.push(a);
                }
                self.finish(scope, id, &node.name, vec![n], &node.origins);
            }
            Kind::Opaque(o) => {
                let n = carried(o, &inputs, &outputs, outer, &mut self.names)?;
                self.finish(scope, id, &node.name, vec![n], &node.origins);
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn op(
        &mut self,
        graph: &Graph,
        id: NodeId,
        op: &Op,
        inputs: &[Option<String>],
        mut outputs: Vec<String>,
        scope: &mut Scope,
        used: &HashSet<Value>,
    ) -> Result<(), WriteError> {
        let node = graph.node(id);
        if OPTIONAL_RESULTS.contains(&op.name()) {
            for (name, v) in outputs.iter_mut().zip(results(graph, id)).skip(1) {
                if !used.contains(&v) {
                    name.clear();
                }
            }
        }
        let operands = node
            .operands()
            .iter()
            .zip(inputs)
            .map(|(o, name)| {
                let v = (*o)?;
                Some(Operand { name: name.as_deref()?, fact: graph.fact(v), constant: graph.constant(v) })
            })
            .collect();
        let names = &mut self.names;
        let mut fresh = |stem: &str| names.take(stem);
        let mut writer = NodeWriter::new(op.name(), self.model.opset, operands, outputs, node.facts(), &mut fresh);
        let failed = |source| WriteError::Operator { node: node.name.clone(), source };
        ops::write(op, &mut writer).map_err(failed)?;
        let (nodes, constants) = writer.finish();
        let nodes = nodes.into_iter().map(node_proto).collect();
        for (name, tensor) in constants {
            match Constant::from_tensor(&tensor) {
                Ok(c) if scope.main || self.model.ir_version >= 4 => scope.constants.push((name, c)),
                _ => {
                    let value = attribute_proto("value", convc_runtime::AttrValue::Tensor(tensor));
                    let n = NodeProto {
                        op_type: "Constant".into(),
                        output: vec![name],
                        attribute: vec![value],
                        ..Default::default()
                    };
                    self.finish(scope, id, "", vec![n], &node.origins);
                }
            }
        }
        self.finish(scope, id, &node.name, nodes, &node.origins);
        Ok(())
    }

    fn branch(&mut self, branch: &Branch, name: &str, captured: &[Option<String>]) -> Result<GraphProto, WriteError> {
        let g = &branch.graph;
        let mut scope = Scope::new(false);
        for (v, outer) in g.inputs().into_iter().zip(captured) {
            scope.names.insert(v, outer.clone().unwrap_or_default());
        }
        let outputs = self.body(g, &mut scope)?;
        let mut proto =
            GraphProto { name: name.into(), node: scope.nodes, value_info: scope.types, ..Default::default() };
        proto.initializer = scope.constants.iter().map(|(n, c)| tensor_proto(n, c)).collect();
        for (name, o) in outputs.iter().zip(g.outputs()) {
            proto.output.push(match g.fact(o.value) {
                Some(fact) => value_info(name, fact),
                None => ValueInfoProto { name: name.clone(), ..Default::default() },
            });
        }
        let ends: HashSet<&str> = proto.output.iter().map(|v| v.name.as_str()).collect();
        proto.value_info.retain(|v| !ends.contains(v.name.as_str()));
        Ok(proto)
    }

    /// Names the nodes that stand for one node of the graph and puts them into the file.
    fn finish(&mut self, scope: &mut Scope, id: NodeId, name: &str, nodes: Vec<NodeProto>, origins: &[Origin]) {
        let last = nodes.len().saturating_sub(1);
        for (i, mut n) in nodes.into_iter().enumerate() {
            while n.output.len() > 1 && n.output.last().is_some_and(String::is_empty) {
                n.output.pop();
            }
            while n.input.last().is_some_and(String::is_empty) {
                n.input.pop();
            }
            self.domains.insert(domain_of(&n.domain).to_owned());
            // The name goes to the last node, which computes the result.
            n.name = match (name, self.options.origins) {
                ("", false) => String::new(),
                ("", true) => self.node_names.take(&n.op_type.to_lowercase()),
                _ if i == last => self.node_names.take(name),
                _ => self.node_names.take(&format!("{name}/{}", n.op_type)),
            };
            if self.options.origins && !origins.is_empty() {
                if self.model.ir_version >= 10 {
                    n.metadata_props.retain(|e| e.key != super::ORIGINS_KEY);
                    let text = origins_json(origins).to_string();
                    n.metadata_props.extend(entries(&[(super::ORIGINS_KEY.into(), text)]));
                } else {
                    self.origins.insert(n.name.clone(), origins.to_vec());
                }
            }
            scope.written.push((n.name.clone(), id));
            scope.nodes.push(n);
        }
    }
}

impl Scope {
    fn new(main: bool) -> Scope {
        Scope {
            names: BTreeMap::new(),
            nodes: Vec::new(),
            constants: Vec::new(),
            types: Vec::new(),
            written: Vec::new(),
            main,
        }
    }
}
