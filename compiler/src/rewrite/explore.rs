//! One region: saturated, extracted by cost, and replaced where that pays.

use std::collections::BTreeSet;

use convc_runtime::Fact;

use super::{
    cost::{Pricing, term_cost},
    declined,
    engine::{Engine, NotFired, Step},
    error::RewriteError,
    explain, extract, language,
    language::{Graph as EGraph, Node},
    options::Options,
    region::Region,
    rule,
    rule::Rule,
    rules, saturate, terms,
    terms::TermId,
    view,
};
use crate::ir::Value;

/// What became of one region.
#[derive(Debug, Clone)]
pub struct RegionReport {
    /// Its number.
    pub region: usize,
    /// Operators before.
    pub nodes: usize,
    /// Terms of its outputs before and after.
    pub roots: Vec<(TermId, TermId)>,
    /// Terms at which it begins.
    pub leaves: Vec<TermId>,
    /// Cost before, in the profile's unit.
    pub before: f64,
    /// Cost after.
    pub after: f64,
    /// Why saturation stopped.
    pub stop: String,
    /// Rounds of saturation.
    pub iterations: usize,
    /// E-nodes at the end.
    pub e_nodes: usize,
    /// Swaps that extraction tried.
    pub moves: usize,
    /// Whether it was replaced.
    pub changed: bool,
}

/// Where a region begins and ends.
pub(super) struct Surface {
    pub(super) roots: Vec<Value>,
    pub(super) root_terms: Vec<TermId>,
    inside: BTreeSet<TermId>,
    pub(super) leaves: BTreeSet<TermId>,
}

/// The terms of a region; `None` if it is no more.
pub(super) fn surface(engine: &mut Engine, region: &Region) -> Option<Surface> {
    // The region's values may have been handed over to equal ones by an earlier region of this round.
    let roots: Vec<Value> = region.roots.iter().copied().filter(|v| engine.graph.contains(v.node)).collect();
    if roots.is_empty() || region.nodes.iter().any(|n| !engine.graph.contains(*n)) {
        return None;
    }
    let root_terms: Vec<TermId> = roots.iter().map(|v| engine.term(*v)).collect();
    let inside: BTreeSet<TermId> = region.nodes.iter().map(|n| engine.term(Value { node: *n, port: 0 })).collect();
    let leaves: BTreeSet<TermId> = inside
        .iter()
        .flat_map(|t| engine.terms.get(*t).operands.iter().flatten())
        .copied()
        .filter(|t| !inside.contains(t))
        .collect();
    Some(Surface { roots, root_terms, inside, leaves })
}

/// Saturates one region and replaces it if a cheaper term is found. `None` if there is nothing to rewrite in it.
pub(super) fn explore(
    engine: &mut Engine,
    region: &Region,
    number: usize,
    rules: &[&'static Rule],
    options: &Options,
    budget: &mut f64,
    ill_typed: &mut Vec<String>,
) -> Result<Option<RegionReport>, RewriteError> {
    let Some(Surface { roots, root_terms, inside, leaves }) = surface(engine, region) else { return Ok(None) };
    let saturated = saturate::saturate(&engine.terms, &root_terms, &leaves, rules, options.saturation, options.forced);
    let mut runner = saturated.runner;
    if let Some((a, b)) = runner.egraph.analysis.conflicts.first() {
        return Err(RewriteError::Unsound { a: a.clone(), b: b.clone() });
    }
    ill_typed.extend(saturated.ill_typed);
    let origins: Vec<crate::ir::Origin> = inside
        .iter()
        .flat_map(|t| engine.terms.get(*t).origins.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let originals = declined::originals(&runner.egraph, &saturated.before, &mut engine.terms);
    for (miss, at) in saturated.misses {
        let at = at.or_else(|| originals.get(&runner.egraph.find(language::EView::id(miss.class))).copied());
        let origins = at.map_or_else(|| origins.clone(), |t| engine.terms.get(t).origins.iter().cloned().collect());
        engine.not_fired.insert(NotFired {
            rule: miss.rule.into(),
            condition: miss.condition.into(),
            reason: miss.reason,
            origins,
        });
    }
    let pricing = Pricing::new(options);
    let cost = |egraph: &EGraph, id: egg::Id, node: &Node| term_cost(egraph, id, node, &pricing);
    let Some(extracted) = extract::extract(&runner.egraph, &saturated.before, &cost) else { return Ok(None) };
    let noted = &mut engine.declined;
    declined::note(&mut runner.egraph, &saturated.offers, &originals, &engine.terms, &pricing, noted);
    let changed = extracted.cost < extracted.before && extracted.term != saturated.before;
    let mut report = RegionReport {
        region: number,
        nodes: region.nodes.len(),
        roots: root_terms.iter().map(|t| (*t, *t)).collect(),
        leaves: leaves.iter().copied().collect(),
        before: extracted.before,
        after: extracted.cost,
        stop: saturated.stop,
        iterations: saturated.iterations,
        e_nodes: runner.egraph.total_number_of_nodes(),
        moves: extracted.moves,
        changed,
    };
    if !changed {
        return Ok(Some(report));
    }
    let growth = frontier_bytes(&runner.egraph, &extracted.term, &pricing)
        - frontier_bytes(&runner.egraph, &saturated.before, &pricing);
    if growth > *budget {
        report.changed = false;
        report.after = report.before;
        report.stop += &format!("; left alone, since constants would grow by {growth} bytes (--max-growth)");
        return Ok(Some(report));
    }
    *budget -= growth;
    let mut proof = runner.explain_equivalence(&saturated.before, &extracted.term);
    let trees = std::mem::take(&mut proof.explanation_trees);
    let steps = explain::steps(&trees, &runner.egraph.analysis, &mut engine.terms);
    let after = explain::terms_of(&extracted.term, &runner.egraph.analysis, &mut engine.terms);
    let Some(Node::Tuple(ends)) = extracted.term.iter().last() else { return Ok(None) };
    let ends: Vec<TermId> = ends.iter().filter_map(|id| after.get(usize::from(*id)).copied().flatten()).collect();
    if ends.len() != root_terms.len() {
        return Err(RewriteError::Lost { value: format!("region {number}") });
    }
    for step in steps {
        let conditions = rederive(engine, &step, options);
        engine.terms.derive_origins(step.lhs, step.rhs);
        engine.steps.push(Step { rule: step.rule, region: Some(number), lhs: step.lhs, rhs: step.rhs, conditions });
    }
    report.roots = root_terms.iter().copied().zip(ends.iter().copied()).collect();
    for (root, end) in roots.iter().zip(ends) {
        if engine.term(*root) != end {
            engine.replace(*root, end)?;
        }
    }
    Ok(Some(report))
}

/// The conditions that a step's rule finds to hold on the step's own terms.
fn rederive(engine: &Engine, step: &explain::RawStep, options: &Options) -> Vec<String> {
    let Some(rule) = rules::find(&step.rule) else { return Vec::new() };
    rederive_step(&engine.terms, rule, step.lhs, step.rhs, options.forced).unwrap_or_default()
}

/// Searches the left term of a step for its rule again, without an e-graph: the conditions that hold if the right term
/// comes out, `None` if it does not.
#[must_use]
pub fn rederive_step(
    terms: &terms::Terms,
    rule: &'static Rule,
    lhs: TermId,
    rhs: TermId,
    forced: Option<(&'static str, &'static str)>,
) -> Option<Vec<String>> {
    let app = view::View::apps(terms, lhs.class()).pop()?;
    let forced = forced.filter(|f| f.0 == rule.name).map(|f| f.1);
    let (matches, _) = rule::Cx::search(terms, rule, lhs.class(), &app, forced);
    matches
        .into_iter()
        .find(|m| terms.find(&m.rhs) == Some(rhs))
        .map(|m| m.conditions.iter().map(|c| (*c).to_owned()).collect())
}

/// Bytes that constants may grow by in any case: the biases of a small model.
pub(super) const SMALL_GROWTH: f64 = 65_536.0;

/// Bytes of the constants that operators of a term use, once they are folded.
fn frontier_bytes(egraph: &EGraph, term: &egg::RecExpr<Node>, pricing: &Pricing) -> f64 {
    let ids = egraph.lookup_expr_ids(term).unwrap_or_default();
    let constant = |id: &egg::Id| ids.get(usize::from(*id)).is_some_and(|c| egraph[*c].data.constant);
    let used: BTreeSet<egg::Id> = term
        .iter()
        .zip(&ids)
        .filter(|(_, class)| !egraph[**class].data.constant)
        .flat_map(|(node, _)| egg::Language::children(node))
        .filter(|c| constant(c))
        .filter_map(|c| ids.get(usize::from(*c)).copied())
        .collect();
    let bytes = |f: &Fact| pricing.elements(f) * f.dtype.bits() as f64 / 8.0;
    used.iter().filter_map(|c| egraph[*c].data.fact.as_ref()).map(bytes).sum()
}
