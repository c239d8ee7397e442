//! Extraction: the cheapest term by true DAG cost, in which a shared value is paid once.
//!
//! The search starts from the term that was there and moves only where the cost falls, so the result is never worse than
//! the input. Which node makes a constant is settled beforehand: folding leaves the same constant of all of them.

mod climb;
mod dag;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use egg::{Id, Language, RecExpr};

use self::dag::{Alternative, Choice, Cost, Problem, Selection, cost_in_unit, cost_of};
use super::language::{Graph, Node};

/// What a node costs by itself, in the profile's unit.
pub(crate) type NodeCost<'a> = &'a dyn Fn(&Graph, Id, &Node) -> f64;

/// The chosen term and its cost, and that of the original.
pub(crate) struct Extracted {
    pub(crate) term: RecExpr<Node>,
    pub(crate) cost: f64,
    pub(crate) before: f64,
    /// Swaps that were tried.
    pub(crate) moves: usize,
}

/// The cheapest term found from `before`, whose last node is the root.
pub(crate) fn extract(egraph: &Graph, before: &RecExpr<Node>, cost: NodeCost<'_>) -> Option<Extracted> {
    let classes = Classes::new(egraph, before, cost)?;
    let mut selection = Selection::new(&classes.problem, classes.start.clone())?;
    climb::climb(&mut selection);
    let (found, moves) = (selection.total(), selection.moves);
    let term = if found < classes.before { classes.term(selection.choice())? } else { before.clone() };
    let cost = cost_in_unit(found.min(classes.before));
    Some(Extracted { term, cost, before: cost_in_unit(classes.before), moves })
}

/// Which term to take where cost does not decide: for tests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pick {
    /// The dearest that a search finds.
    Dearest,
    /// A random one, constants included.
    Random(u64),
}

/// A term of the region that `before` was, without cycles.
pub(crate) fn chaotic(egraph: &Graph, before: &RecExpr<Node>, cost: NodeCost<'_>, pick: Pick) -> Option<RecExpr<Node>> {
    let mut classes = Classes::new(egraph, before, cost)?;
    let seed = if let Pick::Random(seed) = pick { seed } else { 0 };
    let price = |class: usize, i: usize| {
        let h = (seed ^ ((class as u64) << 20) ^ i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Cost::from((h ^ (h >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40)
    };
    let start = classes.problem.cheapest(&classes.start, |_| false, price);
    if let Pick::Dearest = pick {
        let dear = |a: &Alternative| Alternative { cost: -a.cost, needs: a.needs.clone() };
        let dear = classes.problem.classes.iter().map(|c| c.iter().map(dear).collect()).collect();
        let problem = Problem::new(dear, classes.problem.root);
        let mut selection = Selection::new(&problem, start)?;
        climb::climb(&mut selection);
        return classes.term(selection.choice());
    }
    let kept: Choice = vec![None; classes.ids.len()];
    classes.constants = constants(egraph, &classes.ids, &classes.constant, &kept, &classes.numbers, price);
    classes.term(&start)
}

/// An e-graph as a [`Problem`].
struct Classes<'a> {
    egraph: &'a Graph,
    /// The classes below the root, ascending; their places are the problem's numbers.
    ids: Vec<Id>,
    numbers: BTreeMap<Id, usize>,
    /// Which classes are constant.
    constant: Vec<bool>,
    problem: Problem,
    /// The original's choice.
    start: Choice,
    /// What makes each class that is constant.
    constants: Choice,
    /// What the original costs.
    before: Cost,
}

impl<'a> Classes<'a> {
    fn new(egraph: &'a Graph, before: &RecExpr<Node>, cost: NodeCost<'_>) -> Option<Classes<'a>> {
        let originals: Vec<Id> = egraph.lookup_expr_ids(before)?.into_iter().map(|id| egraph.find(id)).collect();
        let root = *originals.last()?;
        let ids = below(egraph, root);
        let numbers: BTreeMap<Id, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
        let root = *numbers.get(&root)?;
        let constant: Vec<bool> =
            ids.iter().enumerate().map(|(n, id)| n != root && egraph[*id].data.constant).collect();
        let price = |n: usize, node: &Node| cost_of(cost(egraph, ids[n], node));
        let needs = |node: &Node| needs(egraph, &numbers, node);
        let alternatives = |n: usize| -> Vec<Alternative> {
            let nodes = &egraph[ids[n]].nodes;
            if constant[n] {
                let cost = nodes.iter().map(|node| price(n, node)).min().unwrap_or(0);
                return vec![Alternative { cost, needs: Vec::new() }];
            }
            nodes.iter().map(|node| Alternative { cost: price(n, node), needs: needs(node) }).collect()
        };
        let problem = Problem::new((0..ids.len()).map(alternatives).collect(), root);
        // Two original nodes in one class are equal values. What the first of a class needs comes before it, so that the
        // choice of firsts has no cycle.
        let mut firsts: Choice = vec![None; ids.len()];
        let mut total = 0;
        let mut paid = BTreeSet::new();
        for (node, id) in before.iter().zip(&originals) {
            let Some(&n) = numbers.get(id) else { continue };
            let canonical = node.clone().map_children(|c| originals[usize::from(c)]);
            firsts[n] = firsts[n].or_else(|| egraph[*id].nodes.iter().position(|m| *m == canonical));
            if !constant[n] {
                total += price(n, &canonical);
                // Folding leaves the constants that others use.
                let used = needs(&canonical).into_iter().filter(|c| constant[*c] && paid.insert(*c));
                total += used.map(|c| problem.classes[c].first().map_or(0, |a| a.cost)).sum::<Cost>();
            }
        }
        let leaf = |n: usize| egraph[ids[n]].nodes.iter().position(|node| matches!(node, Node::Leaf(_) | Node::Hole));
        let kept = (0..ids.len()).map(|n| if constant[n] { leaf(n).or(firsts[n]) } else { None }).collect();
        let constants = constants(egraph, &ids, &constant, &kept, &numbers, |_, _| 1);
        let start = firsts.iter().zip(&constant).map(|(i, constant)| if *constant { Some(0) } else { *i }).collect();
        Some(Classes { egraph, ids, numbers, constant, problem, start, constants, before: total })
    }

    /// The term of a choice.
    fn term(&self, choice: &Choice) -> Option<RecExpr<Node>> {
        let mut expr = RecExpr::default();
        let mut done: BTreeMap<usize, Id> = BTreeMap::new();
        let mut stack = vec![(self.problem.root, false)];
        while let Some((n, ready)) = stack.pop() {
            if done.contains_key(&n) {
                continue;
            }
            let node = self.egraph[self.ids[n]].nodes.get(self.constants[n].or(choice[n])?)?;
            let number = |c: &Id| self.numbers.get(&self.egraph.find(*c)).copied();
            if ready {
                let made = |c: Id| number(&c).and_then(|n| done.get(&n)).copied().unwrap_or(c);
                let node = node.clone().map_children(made);
                done.insert(n, expr.add(node));
            } else {
                stack.push((n, true));
                stack.extend(node.children().iter().rev().filter_map(number).map(|c| (c, false)));
            }
        }
        Some(expr)
    }
}

/// The classes that `root` can need, ascending.
fn below(egraph: &Graph, root: Id) -> Vec<Id> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            stack.extend(egraph[id].nodes.iter().flat_map(Language::children).map(|c| egraph.find(*c)));
        }
    }
    seen.into_iter().collect()
}

/// The classes a node needs.
fn needs(egraph: &Graph, numbers: &BTreeMap<Id, usize>, node: &Node) -> Vec<usize> {
    node.children().iter().filter_map(|c| numbers.get(&egraph.find(*c)).copied()).collect()
}

/// The node of each constant class: that of `kept`, or else that of the term of least `price`.
fn constants(
    egraph: &Graph,
    ids: &[Id],
    constant: &[bool],
    kept: &Choice,
    numbers: &BTreeMap<Id, usize>,
    price: impl Fn(usize, usize) -> Cost,
) -> Choice {
    let alternatives = |n: usize| -> Vec<Alternative> {
        let nodes = if constant[n] { egraph[ids[n]].nodes.as_slice() } else { &[] };
        nodes.iter().map(|node| Alternative { cost: 1, needs: needs(egraph, numbers, node) }).collect()
    };
    let problem = Problem::new((0..ids.len()).map(alternatives).collect(), 0);
    problem.cheapest(kept, |n| kept[n].is_some(), price)
}
