//! [`Target`]: which operators the program that reads the result executes, at which element types.

use std::collections::BTreeSet;

use convc_runtime::{DType, Op};

use crate::{
    ir::{Graph, Value},
    ops::{is_executed, newer_operators},
};

/// A model that is to be written as ONNX: rules bring in no operator at an element type at which nobody may execute it.
///
/// Whoever runs the model executes what it holds already; beyond that, what ONNX Runtime's CPU provider executes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The operators that the model uses, each with the type of its first output.
    used: BTreeSet<(&'static str, DType)>,
    opset: i64,
}

impl Target {
    /// Of a model that is to be written in this opset.
    #[must_use]
    pub fn of(graph: &Graph, opset: i64) -> Target {
        let mut used = BTreeSet::new();
        for id in graph.nodes() {
            let node = graph.node(id);
            if let (Some(op), Some(dtype)) = (node.op(), graph.dtype(Value { node: id, port: 0 })) {
                used.insert((op.name(), dtype));
            }
        }
        Target { used, opset }
    }

    /// Whether an operator whose results have this type may be brought in.
    #[must_use]
    pub fn executes(&self, op: &Op, dtype: DType) -> bool {
        // An operator that the opset lacks is written as what it is made of.
        let opset =
            if newer_operators::introduced(op).is_some_and(|first| first > self.opset) { i64::MAX } else { self.opset };
        // Everything is executed in f32.
        dtype == DType::F32 || self.used.contains(&(op.name(), dtype)) || is_executed(op, dtype, opset)
    }
}
