//! The audit of saturated regions: every e-node of every class is evaluated, and all members of a class have to agree. It tests
//! every union that rules make, not only those that a winning term came by.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{Bindings, Fact, Real, Tensor, ops::RunCx, sys::Pool};
use egg::{Id, Language};

use super::{
    Options, RewriteError,
    engine::Engine,
    explore::surface,
    language::{Graph as EGraph, Node, is_hole},
    region,
    rule::{Phase, Rule},
    saturate, selected_rules, settle,
};
use crate::ir::{Graph, text::Generator};

/// What an audit came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// Classes evaluated.
    pub classes: usize,
    /// E-nodes evaluated.
    pub nodes: usize,
    /// Classes whose members differ, nodes that an operator refuses, and right sides that did not type-check.
    pub problems: Vec<String>,
}

/// Folds and normalises a graph, saturates its regions, and evaluates every e-node on random values of the regions' inputs, with
/// `bindings` for the symbols. In [`Real::Field`] members agree exactly, in [`Real::F64`] within 1e-6 of the largest element,
/// for constants of rules are rounded to the graph's type.
///
/// # Errors
/// As [`super::rewrite`].
pub fn audit(graph: Graph, options: &Options, bindings: &Bindings, real: Real) -> Result<Audit, RewriteError> {
    let rules = selected_rules(options)?;
    let of_phase = |p: Phase| -> Vec<&'static Rule> { rules.iter().copied().filter(|r| r.phase == p).collect() };
    let mut engine = Engine::new(graph);
    settle(&mut engine, &of_phase(Phase::Normalise), options, 0)?;
    let exploring = of_phase(Phase::Explore);
    let mut audit = Audit::default();
    for region in region::regions(&engine, options.region_cap) {
        let Some(surface) = surface(&mut engine, &region) else { continue };
        let limits = options.saturation;
        let saturated =
            saturate::saturate(&engine.terms, &surface.root_terms, &surface.leaves, &exploring, limits, options.forced);
        audit.problems.extend(saturated.ill_typed);
        evaluate(&saturated.runner.egraph, bindings, real, &mut audit);
    }
    Ok(audit)
}

/// A value for a leaf: its constant, or random numbers.
fn leaf(egraph: &EGraph, id: Id, leaf: u32, bindings: &Bindings, real: Real) -> Option<Tensor> {
    if let Some(c) = egraph.analysis.constant(leaf) {
        return Some(c.to_tensor().ok()?.to_real(real));
    }
    let fact: &Fact = egraph[id].data.fact.as_ref()?;
    let shape: Option<Vec<usize>> = fact.shape.iter().map(|d| usize::try_from(d.eval(bindings).ok()?).ok()).collect();
    Some(Generator::Random(u64::from(leaf) + 7).tensor(fact.dtype, &shape?)?.to_real(real))
}

fn evaluate(egraph: &EGraph, bindings: &Bindings, real: Real, audit: &mut Audit) {
    let pool = Pool::new(1);
    let cx = RunCx::new(real, &pool);
    let mut ids: Vec<Id> = egraph.classes().map(|c| c.id).collect();
    ids.sort_unstable();
    let mut values: BTreeMap<Id, Tensor> = BTreeMap::new();
    let mut done: BTreeSet<(Id, usize)> = BTreeSet::new();
    loop {
        let before = done.len();
        for &id in &ids {
            for (i, node) in egraph[id].nodes.iter().enumerate() {
                let ready = |c: &Id| is_hole(egraph, *c) || values.contains_key(&egraph.find(*c));
                if done.contains(&(id, i)) || !node.children().iter().all(ready) {
                    continue;
                }
                done.insert((id, i));
                let result = match node {
                    Node::Hole | Node::Tuple(_) => continue,
                    Node::Leaf(l) => leaf(egraph, id, *l, bindings, real).ok_or_else(|| "a leaf has no value".into()),
                    Node::Op(..) => {
                        let Some(op) = egraph.analysis.op(node) else { continue };
                        let operands: Vec<Option<&Tensor>> =
                            node.children().iter().map(|c| values.get(&egraph.find(*c))).collect();
                        op.run(&operands, &cx)
                            .map_err(|e| format!("{} is refused: {e}", op.name()))
                            .and_then(|mut r| if r.is_empty() { Err("no result".into()) } else { Ok(r.swap_remove(0)) })
                    }
                };
                audit.nodes += 1;
                match (result, values.get(&id)) {
                    (Err(e), _) => audit.problems.push(e),
                    (Ok(t), None) => {
                        audit.classes += 1;
                        values.insert(id, t);
                    }
                    (Ok(t), Some(known)) => {
                        if let Err(e) = same(known, &t) {
                            let name = egraph.analysis.op(node).map_or("a leaf", convc_runtime::Op::name);
                            audit.problems.push(format!("{name} differs from the other members of its class: {e}"));
                        }
                    }
                }
            }
        }
        if done.len() == before {
            break;
        }
    }
    let all: usize = ids.iter().map(|id| egraph[*id].nodes.len()).sum();
    if done.len() < all {
        audit.problems.push(format!("{} of {all} e-nodes have no value", all - done.len()));
    }
}

fn same(a: &Tensor, b: &Tensor) -> Result<(), String> {
    if a.shape() != b.shape() {
        return Err(format!("shapes {:?} and {:?}", a.shape(), b.shape()));
    }
    if a.data() == b.data() {
        return Ok(());
    }
    let (Some(x), Some(y)) = (a.to_f64s(), b.to_f64s()) else { return Err("elements".into()) };
    let size = x.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    match x.iter().zip(&y).position(|(x, y)| (x - y).abs() > 1e-6 * size || x.is_nan() != y.is_nan()) {
        Some(i) => Err(format!("element {i}, {} and {}", x[i], y[i])),
        None => Ok(()),
    }
}
