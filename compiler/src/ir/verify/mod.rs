//! The verifier. After import, after every phase of rewriting, after operators are written out, and before export these hold:
//!
//! 1. every operand and output names a node that exists and an output it has;
//! 2. the derived edges are exactly those of the operands;
//! 3. there is no cycle;
//! 4. what is recorded of a value does not contradict what its operator infers from its operands, and what is recorded of a
//!    constant is its own type and sizes;
//! 5. inputs and constants have no operands and one output, and an input has a name;
//! 6. no two outputs have one name;
//! 7. an operator's attributes go together and with what is known of its operands, even where nothing can be inferred;
//! 8. an operator gives at least one result, and none that it does not have;
//! 9. each branch of an `If` takes what the node captures, gives what the node gives, and is a graph of which all this holds.
//!
//! Debug builds check this by themselves ([`verify_after`]); others do where the environment variable `CONVC_VERIFY_IR` is set.

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
    /// Invariants 4 and 7: the operator refuses its operands or its own attributes.
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
    #[error("{node} ({name}): {problem}")]
    Leaf {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// What is wrong with an input or a constant.
        problem: &'static str,
    },
    /// Invariant 8.
    #[error("{node} ({name}): it has {outputs} results, the operator gives {given}")]
    Results {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// How many it has.
        outputs: usize,
        /// How many there are.
        given: usize,
    },
    /// Invariant 9.
    #[error("{node} ({name}), {branch}: {problem}")]
    Branch {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// Which branch.
        branch: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Invariant 6.
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
        node(graph, &mut scratch, id)?;
    }
    Ok(())
}

/// Whether invariants are checked after every stage.
fn is_checked() -> bool {
    cfg!(debug_assertions) || std::env::var_os("CONVC_VERIFY_IR").is_some_and(|v| v != "0")
}

/// Checks every invariant of the module's list, in debug builds and where `CONVC_VERIFY_IR` is set.
///
/// # Errors
/// The first one that is broken.
pub fn verify_after(graph: &Graph) -> Result<(), IrError> {
    if is_checked() { verify(graph) } else { Ok(()) }
}

/// Checks what concerns one node alone.
fn node(graph: &Graph, scratch: &mut Graph, id: NodeId) -> Result<(), IrError> {
    let node = graph.node(id);
    let name = || node.name.clone();
    let leaf = |problem| Err(IrError::Leaf { node: id, name: name(), problem });
    let recorded = |port: usize, r: &Fact, i: &Fact| IrError::Fact {
        node: id,
        name: name(),
        port,
        recorded: r.to_string(),
        inferred: i.to_string(),
    };
    if matches!(node.kind, Kind::Input | Kind::Constant(_)) && !node.operands().is_empty() {
        return leaf("it has operands");
    }
    if matches!(node.kind, Kind::Input | Kind::Constant(_)) && node.outputs() != 1 {
        return leaf("it has not one output");
    }
    match &node.kind {
        Kind::Input if graph.value_name(Value { node: id, port: 0 }).is_none() => leaf("the input has no name"),
        Kind::Constant(c) => match node.facts().first() {
            Some(Some(r)) if compatible(r, &Fact::fixed(c.dtype(), c.shape())) => Ok(()),
            Some(Some(r)) => Err(recorded(0, r, &Fact::fixed(c.dtype(), c.shape()))),
            _ => leaf("the type of the constant is not recorded"),
        },
        Kind::Op(op) => {
            let refused = |source| IrError::Op { node: id, name: name(), source };
            let known: Vec<Option<&Fact>> = node.operands().iter().map(|o| o.and_then(|v| graph.fact(v))).collect();
            op.check(&known).map_err(refused)?;
            let inferred = scratch.infer(op, node.operands(), node.outputs().max(1)).map_err(refused)?;
            if node.outputs() == 0 || node.outputs() > inferred.len() {
                return Err(IrError::Results {
                    node: id,
                    name: name(),
                    outputs: node.outputs(),
                    given: inferred.len(),
                });
            }
            for (port, (r, i)) in node.facts().iter().zip(&inferred).enumerate() {
                if let (Some(r), Some(i)) = (r, i)
                    && !compatible(r, i)
                {
                    return Err(recorded(port, r, i));
                }
            }
            Ok(())
        }
        Kind::If { then_branch, else_branch } => {
            for (which, branch) in [("then_branch", then_branch), ("else_branch", else_branch)] {
                let wrong = |problem| IrError::Branch { node: id, name: name(), branch: which, problem };
                let (inputs, captures) = (branch.graph.inputs().len(), node.operands().len().saturating_sub(1));
                if inputs != captures {
                    return Err(wrong(format!("it takes {inputs} values, the node captures {captures}")));
                }
                let (gives, outputs) = (branch.graph.outputs().len(), node.outputs());
                if gives != outputs {
                    return Err(wrong(format!("it gives {gives} values, the node {outputs}")));
                }
                verify(&branch.graph).map_err(|e| wrong(e.to_string()))?;
            }
            Ok(())
        }
        Kind::Input | Kind::Opaque(_) => Ok(()),
    }
}

/// Whether two facts may be about the same value.
fn compatible(a: &Fact, b: &Fact) -> bool {
    a.dtype == b.dtype && a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(|(x, y)| x.equals(y) != Some(false))
}

#[cfg(test)]
mod tests;
