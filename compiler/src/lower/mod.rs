//! From the graph to a plan.

use std::{collections::BTreeMap, sync::Arc};

use convc_runtime::plan::{Action, Instruction, Plan, Port, Slot};

use crate::ir::{Graph, Kind, NodeId, Value};

/// Why a graph cannot become a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// Nodes that convc does not execute, each as `name (operator): reason`.
    #[error("{} cannot be executed: {}", if nodes.len() == 1 { "one node" } else { "some nodes" }, nodes.join("; "))]
    NotExecutable {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// An input or output whose element type is unknown.
    #[error("the element type of {name:?} is not known")]
    UnknownType {
        /// Its name.
        name: String,
    },
}

/// The plan of a graph, in portable instructions.
///
/// # Errors
/// If some node cannot be executed: all of them are named.
pub fn lower(graph: &Graph) -> Result<Plan, LowerError> {
    Ok(lower_with_slots(graph)?.0)
}

/// As [`lower`], and where each value of the graph went.
///
/// # Errors
/// As [`lower`].
pub fn lower_with_slots(graph: &Graph) -> Result<(Plan, BTreeMap<Value, Slot>), LowerError> {
    let order = graph.topological();
    let refused: Vec<String> = order
        .iter()
        .filter_map(|&id| match &graph.node(id).kind {
            Kind::Opaque(o) => Some(format!("{:?} ({}): {}", graph.node(id).name, o.op_type, o.reason)),
            _ => None,
        })
        .collect();
    if !refused.is_empty() {
        return Err(LowerError::NotExecutable { nodes: refused });
    }

    let mut slots: BTreeMap<Value, Slot> = BTreeMap::new();
    let mut slot_of = |v: Value| {
        let next = Slot(u32::try_from(slots.len()).unwrap_or(u32::MAX));
        *slots.entry(v).or_insert(next)
    };
    let mut plan = Plan::default();
    for v in graph.inputs() {
        let name = graph.value_name(v).unwrap_or_default().to_owned();
        let default = graph.default_of(v).cloned();
        plan.inputs.push(port(graph, name, v, slot_of(v), None, default)?);
    }
    for &id in &order {
        let node = graph.node(id);
        let results: Vec<Value> =
            (0..node.outputs()).map(|p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) }).collect();
        let action = match &node.kind {
            Kind::Input | Kind::Opaque(_) => continue,
            Kind::Constant(c) => {
                plan.constants.push((slot_of(results[0]), c.clone()));
                continue;
            }
            Kind::Op(op) => Action::Op(op.clone()),
            Kind::If { then_branch, else_branch } => Action::If {
                then_branch: Arc::new(lower(&then_branch.graph)?),
                else_branch: Arc::new(lower(&else_branch.graph)?),
            },
        };
        plan.instructions.push(Instruction {
            name: node.name.clone(),
            action,
            inputs: node.operands().iter().map(|o| o.map(&mut slot_of)).collect(),
            outputs: results.iter().map(|&v| Some(slot_of(v))).collect(),
            last_use: Vec::new(),
        });
    }
    for o in graph.outputs() {
        plan.outputs.push(port(graph, o.name.clone(), o.value, slot_of(o.value), o.declared.as_ref(), None)?);
    }
    plan.slots = slots.len();
    mark_last_uses(&mut plan);
    Ok((plan, slots))
}

fn port(
    graph: &Graph,
    name: String,
    v: Value,
    slot: Slot,
    declared: Option<&convc_runtime::Fact>,
    default: Option<convc_runtime::Constant>,
) -> Result<Port, LowerError> {
    let Some(fact) = graph.fact(v).or(declared) else { return Err(LowerError::UnknownType { name }) };
    Ok(Port { name, slot, dtype: fact.dtype, shape: Some(fact.shape.clone()), default })
}

/// Says for each instruction which values no later one reads.
fn mark_last_uses(plan: &mut Plan) {
    let mut needed: std::collections::BTreeSet<Slot> = plan.outputs.iter().map(|p| p.slot).collect();
    for step in plan.instructions.iter_mut().rev() {
        let mut last: Vec<Slot> = Vec::new();
        for &slot in step.outputs.iter().chain(&step.inputs).flatten() {
            if needed.insert(slot) {
                last.push(slot);
            }
        }
        step.last_use = last;
    }
}

/// The nodes of a graph that no plan can hold, with the reason for each.
#[must_use]
pub fn not_executable(graph: &Graph) -> Vec<(NodeId, String)> {
    graph
        .nodes()
        .into_iter()
        .filter_map(|id| match &graph.node(id).kind {
            Kind::Opaque(o) => Some((id, o.reason.clone())),
            _ => None,
        })
        .collect()
}
