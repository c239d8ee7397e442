//! The verifier. After import, every patch, extraction and lowering these hold:
//!
//! 1. every operand, input and output names a node that exists and an output it has;
//! 2. the derived edges are exactly those of the operands;
//! 3. there is no cycle;
//! 4. what is recorded of a value does not contradict what its operator infers from its operands;
//! 5. inputs have no operands and a name; output names are unique.

use std::collections::BTreeSet;

use convc_runtime::{Fact, OpError};

use super::{Graph, Kind, NodeId, Value};

/// A broken invariant of the IR: always an error of convc, never of the model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IrError {
    /// Invariant 1.
    #[error("{node} ({name}): operand {operand} names a value that does not exist")]
    Dangling {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// Which operand.
        operand: usize,
    },
    /// Invariant 1, for an output of the graph.
    #[error("output {name:?} names a value that does not exist")]
    DanglingOutput {
        /// The output.
        name: String,
    },
    /// Invariant 2.
    #[error("{node} ({name}): edges and operands disagree")]
    Edges {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// Invariant 3.
    #[error("{nodes} nodes lie on a cycle, {name} among them")]
    Cycle {
        /// How many.
        nodes: usize,
        /// One of them.
        name: String,
    },
    /// Invariant 4.
    #[error("{node} ({name}): output {port} is recorded as {recorded}, the operator infers {inferred}")]
    Fact {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// Which output.
        port: usize,
        /// What is recorded.
        recorded: String,
        /// What follows.
        inferred: String,
    },
    /// Invariant 4: the operator refuses its operands.
    #[error("{node} ({name}): {source}")]
    Op {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// Why.
        source: OpError,
    },
    /// Invariant 5.
    #[error("output name {name:?} is used twice")]
    OutputName {
        /// The name.
        name: String,
    },
}

/// Checks every invariant of the module's list.
///
/// # Errors
/// The first one that is broken.
pub fn verify(graph: &Graph) -> Result<(), IrError> {
    let exists = |v: Value| graph.contains(v.node) && (v.port as usize) < graph.node(v.node).outputs();
    for id in graph.nodes() {
        let node = graph.node(id);
        let name = || node.name.clone();
        if let Some(operand) = node.operands().iter().position(|o| o.is_some_and(|v| !exists(v))) {
            return Err(IrError::Dangling { node: id, name: name(), operand });
        }
        let sources: BTreeSet<NodeId> = node.operands().iter().flatten().map(|v| v.node).collect();
        if sources != graph.edge_sources(id) {
            return Err(IrError::Edges { node: id, name: name() });
        }
    }
    let mut seen = BTreeSet::new();
    for o in graph.outputs() {
        if !exists(o.value) {
            return Err(IrError::DanglingOutput { name: o.name.clone() });
        }
        if !seen.insert(&o.name) {
            return Err(IrError::OutputName { name: o.name.clone() });
        }
    }
    let order = graph.topological();
    if order.len() != graph.len() {
        let sorted: BTreeSet<NodeId> = order.into_iter().collect();
        let left: Vec<NodeId> = graph.nodes().into_iter().filter(|id| !sorted.contains(id)).collect();
        let name = left.first().map(|&id| graph.node(id).name.clone()).unwrap_or_default();
        return Err(IrError::Cycle { nodes: left.len(), name });
    }
    let mut scratch = graph.clone();
    for id in order {
        let node = graph.node(id);
        let Kind::Op(op) = &node.kind else { continue };
        let inferred = scratch.infer(op, node.operands(), node.outputs()).map_err(|source| IrError::Op {
            node: id,
            name: node.name.clone(),
            source,
        })?;
        for (port, (recorded, inferred)) in node.facts().iter().zip(&inferred).enumerate() {
            if let (Some(r), Some(i)) = (recorded, inferred)
                && !compatible(r, i)
            {
                return Err(IrError::Fact {
                    node: id,
                    name: node.name.clone(),
                    port,
                    recorded: r.to_string(),
                    inferred: i.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Whether two facts may be about the same value.
fn compatible(a: &Fact, b: &Fact) -> bool {
    a.dtype == b.dtype && a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(|(x, y)| x.equals(y) != Some(false))
}
