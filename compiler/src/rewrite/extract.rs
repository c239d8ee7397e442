//! Extraction: the cheapest term by true DAG cost, in which a shared value is paid once.
//!
//! The search starts from the term that was there and takes single swaps (one class's choice) as long as they lower the
//! cost, so the result is never worse than the input.

use std::collections::BTreeMap;

use egg::{Id, Language, RecExpr};

use super::language::{Graph, Node, is_hole};

/// What a node costs by itself, in the profile's unit.
pub(crate) type NodeCost<'a> = &'a dyn Fn(&Graph, Id, &Node) -> f64;

/// For each class, which of its nodes is taken.
type Choice = BTreeMap<Id, usize>;

/// The chosen term and its cost, and that of the original.
pub(crate) struct Extracted {
    pub(crate) term: RecExpr<Node>,
    pub(crate) cost: f64,
    pub(crate) before: f64,
}

/// The cost of the term that `choice` spans from `root`; `None` if it has a cycle.
fn dag_cost(egraph: &Graph, choice: &Choice, root: Id, cost: NodeCost<'_>) -> Option<f64> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut states: BTreeMap<Id, State> = BTreeMap::new();
    let mut stack = vec![(egraph.find(root), false)];
    let mut total = 0.0;
    while let Some((id, leave)) = stack.pop() {
        if leave {
            states.insert(id, State::Done);
            continue;
        }
        match states.get(&id) {
            Some(State::Done) => continue,
            Some(State::Open) => return None,
            None => {}
        }
        states.insert(id, State::Open);
        let node = &egraph[id].nodes[*choice.get(&id)?];
        total += cost(egraph, id, node);
        stack.push((id, true));
        for c in node.children() {
            let c = egraph.find(*c);
            match states.get(&c) {
                Some(State::Done) => {}
                Some(State::Open) => return None,
                None => stack.push((c, false)),
            }
        }
    }
    Some(total)
}

/// For each class the node with the cheapest tree: a choice without cycles for classes the original does not have.
fn cheapest_trees(egraph: &Graph, cost: NodeCost<'_>) -> Choice {
    let mut best: BTreeMap<Id, (f64, usize)> = BTreeMap::new();
    let mut ids: Vec<Id> = egraph.classes().map(|c| c.id).collect();
    ids.sort_unstable();
    loop {
        let mut changed = false;
        for &id in &ids {
            for (i, node) in egraph[id].nodes.iter().enumerate() {
                let children: Option<f64> =
                    node.children().iter().map(|c| best.get(&egraph.find(*c)).map(|b| b.0)).sum::<Option<f64>>();
                let Some(children) = children else { continue };
                // Every node costs something here, or trees of free nodes could go round in circles.
                let total = cost(egraph, id, node) + children + 1e-9;
                if best.get(&id).is_none_or(|b| total < b.0) {
                    best.insert(id, (total, i));
                    changed = true;
                }
            }
        }
        if !changed {
            return best.into_iter().map(|(id, (_, i))| (id, i)).collect();
        }
    }
}

fn reachable(egraph: &Graph, choice: &Choice, root: Id) -> Vec<Id> {
    let mut seen = std::collections::BTreeSet::new();
    let mut order = Vec::new();
    let mut stack = vec![egraph.find(root)];
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            order.push(id);
            if let Some(node) = choice.get(&id).and_then(|&i| egraph[id].nodes.get(i)) {
                stack.extend(node.children().iter().map(|c| egraph.find(*c)));
            }
        }
    }
    order
}

/// The cheapest term found from `before`, whose last node is the root.
pub(crate) fn extract(egraph: &Graph, before: &RecExpr<Node>, cost: NodeCost<'_>) -> Option<Extracted> {
    let ids = egraph.lookup_expr_ids(before)?;
    let root = egraph.find(*ids.last()?);
    let mut choice = cheapest_trees(egraph, cost);
    for (node, id) in before.iter().zip(&ids) {
        let id = egraph.find(*id);
        // Two original nodes in one class are equal values; the first is as good as the second.
        let canonical = canonical(egraph, node, &ids);
        if let Some(i) = egraph[id].nodes.iter().position(|n| *n == canonical)
            && !is_hole(egraph, id)
        {
            choice.insert(id, i);
        }
    }
    let mut current = dag_cost(egraph, &choice, root, cost).or_else(|| {
        // Equal original nodes can make the original itself a cycle of classes; the cheapest trees never are one.
        choice = cheapest_trees(egraph, cost);
        dag_cost(egraph, &choice, root, cost)
    })?;
    let original = current;
    loop {
        let mut improved = false;
        for id in reachable(egraph, &choice, root) {
            let kept = choice.get(&id).copied()?;
            let mut best = (current, kept);
            for i in 0..egraph[id].nodes.len() {
                if i == kept {
                    continue;
                }
                choice.insert(id, i);
                if let Some(c) = dag_cost(egraph, &choice, root, cost)
                    && c < best.0 - 1e-9 * best.0
                {
                    best = (c, i);
                }
            }
            choice.insert(id, best.1);
            if best.1 != kept {
                current = best.0;
                improved = true;
            }
        }
        if !improved {
            break;
        }
    }
    Some(Extracted { term: build(egraph, &choice, root)?, cost: current, before: original })
}

/// A node of an expression with the classes of its children.
fn canonical(egraph: &Graph, node: &Node, ids: &[Id]) -> Node {
    node.clone().map_children(|c| egraph.find(ids[usize::from(c)]))
}

fn build(egraph: &Graph, choice: &Choice, root: Id) -> Option<RecExpr<Node>> {
    let mut expr = RecExpr::default();
    let mut done: BTreeMap<Id, Id> = BTreeMap::new();
    let mut stack = vec![(root, false)];
    while let Some((id, ready)) = stack.pop() {
        if done.contains_key(&id) {
            continue;
        }
        let node = egraph[id].nodes.get(*choice.get(&id)?)?;
        if ready {
            let node = node.clone().map_children(|c| done.get(&egraph.find(c)).copied().unwrap_or(c));
            done.insert(id, expr.add(node));
        } else {
            stack.push((id, true));
            stack.extend(node.children().iter().rev().map(|c| (egraph.find(*c), false)));
        }
    }
    Some(expr)
}
