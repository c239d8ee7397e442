//! Regions: the parts of a graph that are saturated one at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Engine;
use crate::{
    ir::{NodeId, Value},
    ops::{properties, properties::Operands},
};

/// A set of operators that is rewritten together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its operators, each behind its operands.
    pub nodes: Vec<NodeId>,
    /// Its values that are used outside.
    pub roots: Vec<Value>,
}

/// The regions of a graph: connected operators, cut behind values that are not linear and have several users, and where a
/// region would exceed `cap` operators. All users of a cut value lie in one region, so that siblings meet.
#[must_use]
pub fn regions(engine: &Engine, cap: usize) -> Vec<Region> {
    let graph = &engine.graph;
    let order: Vec<NodeId> = graph
        .topological()
        .into_iter()
        .filter(|id| graph.node(*id).op().is_some() && graph.node(*id).outputs() == 1 && !is_constant(engine, *id))
        .collect();
    let members: BTreeSet<NodeId> = order.iter().copied().collect();
    let mut sets = Sets { parent: BTreeMap::new(), size: BTreeMap::new() };
    for &id in &order {
        sets.parent.insert(id, id);
        sets.size.insert(id, 1);
    }
    for &id in &order {
        let v = Value { node: id, port: 0 };
        let users: Vec<NodeId> = graph.users_of_node(id).into_iter().filter(|u| members.contains(u)).collect();
        let linear = graph.node(id).op().is_some_and(|op| properties(op).linear != Operands::None);
        let cut = graph.is_output(v) || (!linear && users.len() > 1);
        if !cut {
            users.iter().for_each(|&u| sets.join(id, u, cap));
        }
        if let Some((&first, rest)) = users.split_first() {
            rest.iter().for_each(|&u| sets.join(first, u, cap));
        }
    }
    for input in graph.inputs() {
        let users: Vec<NodeId> = graph.users_of_node(input.node).into_iter().filter(|u| members.contains(u)).collect();
        if let Some((&first, rest)) = users.split_first() {
            rest.iter().for_each(|&u| sets.join(first, u, cap));
        }
    }
    let mut by_set: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let mut first_seen: Vec<NodeId> = Vec::new();
    for &id in &order {
        let root = sets.find(id);
        let nodes = by_set.entry(root).or_insert_with(|| {
            first_seen.push(root);
            Vec::new()
        });
        nodes.push(id);
    }
    first_seen
        .into_iter()
        .filter_map(|root| by_set.remove(&root))
        .map(|nodes| {
            let inside: BTreeSet<NodeId> = nodes.iter().copied().collect();
            let roots = nodes
                .iter()
                .map(|&node| Value { node, port: 0 })
                .filter(|v| graph.is_output(*v) || graph.users_of_node(v.node).iter().any(|u| !inside.contains(u)))
                .collect();
            Region { nodes, roots }
        })
        .collect()
}

fn is_constant(engine: &Engine, id: NodeId) -> bool {
    engine.terms.get(engine.term(Value { node: id, port: 0 })).constant
}

/// Disjoint sets with a largest size.
struct Sets {
    parent: BTreeMap<NodeId, NodeId>,
    size: BTreeMap<NodeId, usize>,
}

impl Sets {
    fn find(&mut self, mut id: NodeId) -> NodeId {
        while self.parent[&id] != id {
            let up = self.parent[&self.parent[&id]];
            self.parent.insert(id, up);
            id = up;
        }
        id
    }

    fn join(&mut self, a: NodeId, b: NodeId, cap: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        let size = self.size[&a] + self.size[&b];
        if size <= cap {
            self.parent.insert(b, a);
            self.size.insert(a, size);
        }
    }
}
