//! Helpers of the operators' unit tests.

use std::collections::BTreeMap;

use convc_runtime::{
    AttrValue, Constant, Fact, Tensor,
    session::{Session, SessionOptions},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, WrittenNode, writer::Operand};
use crate::ir::{Graph, NodeId, Value};

/// An integer attribute.
pub(crate) fn int(name: &str, v: i64) -> (String, AttrValue) {
    (name.to_owned(), AttrValue::Int(v))
}

/// An attribute of integers.
pub(crate) fn ints(name: &str, v: &[i64]) -> (String, AttrValue) {
    (name.to_owned(), AttrValue::Ints(v.to_vec()))
}

/// A float attribute.
pub(crate) fn float(name: &str, v: f32) -> (String, AttrValue) {
    (name.to_owned(), AttrValue::Float(v))
}

/// A string attribute.
pub(crate) fn string(name: &str, v: &str) -> (String, AttrValue) {
    (name.to_owned(), AttrValue::Str(v.to_owned()))
}

/// An operand of the node that is read.
#[derive(Clone)]
pub(crate) enum Arg {
    /// Left out.
    Hole,
    /// A graph input.
    Input(Fact),
    /// A constant.
    Constant(Tensor),
}

/// Reads a node whose operands are graph inputs.
pub(crate) fn read(
    op_type: &str,
    opset: i64,
    inputs: &[Fact],
    attrs: Vec<(String, AttrValue)>,
    outputs: usize,
) -> Result<(Graph, Vec<Value>), ImportError> {
    read_args(op_type, opset, &inputs.iter().cloned().map(Arg::Input).collect::<Vec<_>>(), attrs, outputs)
}

/// Reads a node.
pub(crate) fn read_args(
    op_type: &str,
    opset: i64,
    args: &[Arg],
    attrs: Vec<(String, AttrValue)>,
    outputs: usize,
) -> Result<(Graph, Vec<Value>), ImportError> {
    let mut graph = Graph::new();
    let operands = args
        .iter()
        .enumerate()
        .map(|(i, arg)| match arg {
            Arg::Hole => None,
            Arg::Input(fact) => Some(graph.add_input(format!("x{i}"), Some(fact.clone()), None)),
            Arg::Constant(t) => Some(graph.add_constant(Constant::from_tensor(t).unwrap())),
        })
        .collect();
    let from_onnx = super::reader("", op_type).or_else(|| super::reader(super::systems::DOMAIN, op_type)).unwrap();
    let values = from_onnx(&mut NodeReader::new(&mut graph, op_type, opset, operands, vec![true; outputs], attrs))?;
    for (i, &v) in values.iter().enumerate() {
        graph.add_output(format!("y{i}"), v, None);
    }
    assert!(crate::ir::verify(&graph).is_ok());
    Ok((graph, values))
}

/// Writes the node that makes `v`, with the names of [`read`] where they are.
pub(crate) fn write(graph: &Graph, v: Value, opset: i64) -> Result<Vec<WrittenNode>, ExportError> {
    Ok(write_all(graph, v.node, opset)?.0)
}

/// Nodes and the constants they refer to.
pub(crate) type Nodes = (Vec<WrittenNode>, Vec<(String, Tensor)>);

/// As [`write`], with the constants that were added.
pub(crate) fn write_all(graph: &Graph, id: NodeId, opset: i64) -> Result<Nodes, ExportError> {
    let node = graph.node(id);
    let names: Vec<Option<String>> = node
        .operands()
        .iter()
        .map(|o| o.map(|v| graph.value_name(v).map_or_else(|| format!("v_{}_{}", v.node, v.port), str::to_owned)))
        .collect();
    let operands = node
        .operands()
        .iter()
        .zip(&names)
        .map(|(o, name)| {
            let (v, name) = (((*o)?), name.as_ref()?);
            Some(Operand { name, fact: graph.fact(v), constant: graph.constant(v) })
        })
        .collect();
    let outputs = (0..node.outputs()).map(|i| format!("y{i}")).collect();
    let mut n = 0;
    let mut fresh = |stem: &str| {
        n += 1;
        format!("{stem}_{n}")
    };
    let op = node.op().unwrap();
    let mut writer = NodeWriter::new(op.name(), opset, operands, outputs, node.facts(), &mut fresh);
    super::write(op, &mut writer)?;
    let (nodes, constants) = writer.finish();
    Ok((nodes, constants))
}

/// Reads a node, writes it at `written`, reads that again, and requires that both compute the same bits. The operands are `args`, of
/// which the inputs take `tensors` in turn.
///
/// # Errors
/// If the opset cannot express it.
pub(crate) fn rewritten(
    op_type: &str,
    (opset, written): (i64, i64),
    args: &[Arg],
    attrs: Vec<(String, AttrValue)>,
    tensors: &[Tensor],
) -> Result<Vec<WrittenNode>, ExportError> {
    let run = |graph: &Graph| {
        let plan = crate::lower::lower(graph).unwrap();
        let session = Session::new(plan.into(), SessionOptions::default()).unwrap();
        let names = session.plan().inputs.iter().map(|p| p.name.clone());
        session.run(&names.zip(tensors.iter().cloned()).collect()).unwrap()
    };
    let (graph, y) = read_args(op_type, opset, args, attrs, 1).unwrap();
    let (nodes, constants) = write_all(&graph, y[0].node, written)?;
    let mut again = Graph::new();
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for v in graph.inputs() {
        let name = graph.value_name(v).unwrap();
        values.insert(name.into(), again.add_input(name, graph.fact(v).cloned(), None));
    }
    for v in graph.node(y[0].node).operands().iter().flatten() {
        if let Some(c) = graph.constant(*v) {
            let name = graph.value_name(*v).map_or_else(|| format!("v_{}_{}", v.node, v.port), str::to_owned);
            values.insert(name, again.add_constant(c.clone()));
        }
    }
    for (name, tensor) in constants {
        values.insert(name, again.add_constant(Constant::from_tensor(&tensor).unwrap()));
    }
    for node in &nodes {
        let operands = node.inputs.iter().map(|n| values.get(n).copied()).collect();
        let outputs = vec![true; node.outputs.len()];
        let reader = super::reader("", &node.op_type).unwrap();
        let mut node_reader =
            NodeReader::new(&mut again, &node.op_type, written, operands, outputs, node.attrs.clone());
        let results = reader(&mut node_reader).unwrap_or_else(|e| panic!("{node:?}: {e}"));
        values.extend(node.outputs.iter().cloned().zip(results));
    }
    again.add_output("y0", values["y0"], None);
    assert_eq!(format!("{:?}", run(&again)), format!("{:?}", run(&graph)), "{op_type} at opset {written}");
    Ok(nodes)
}
