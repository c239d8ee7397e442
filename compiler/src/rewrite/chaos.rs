//! Chaotic extraction: terms that no cost model would choose. A rewrite is right only if every term of a saturated region is.

use super::{
    Options, RewriteError,
    cost::{Pricing, term_cost},
    engine::Engine,
    explain,
    explore::surface,
    extract::{self, Pick},
    language::{Graph as EGraph, Node},
    region,
    rule::{Phase, Rule},
    saturate, selected_rules, settle,
};
use crate::ir::Graph;

/// Folds and normalises a graph, saturates its regions, and replaces each by a random term without cycles, or for the seed
/// `None` by the dearest that a search finds.
///
/// # Errors
/// As [`super::rewrite`].
pub fn chaos(graph: Graph, options: &Options, seed: Option<u64>) -> Result<Graph, RewriteError> {
    let rules = selected_rules(options)?;
    let of_phase = |p: Phase| -> Vec<&'static Rule> { rules.iter().copied().filter(|r| r.phase == p).collect() };
    let mut engine = Engine::new(graph);
    settle(&mut engine, &of_phase(Phase::Normalise), options, 0)?;
    let exploring = of_phase(Phase::Explore);
    let pricing = Pricing::new(options);
    let cost = |egraph: &EGraph, id: egg::Id, node: &Node| term_cost(egraph, id, node, &pricing);
    let pick = seed.map_or(Pick::Dearest, Pick::Random);
    for region in region::regions(&engine, options.region_cap) {
        let Some(surface) = surface(&mut engine, &region) else { continue };
        let (roots, leaves) = (&surface.root_terms, &surface.leaves);
        let saturated =
            saturate::saturate(&engine.terms, roots, leaves, &exploring, options.saturation, options.forced);
        let egraph = &saturated.runner.egraph;
        let Some(term) = extract::chaotic(egraph, &saturated.before, &cost, pick) else { continue };
        let terms = explain::terms_of(&term, &egraph.analysis, &mut engine.terms);
        let Some(Node::Tuple(ends)) = term.iter().last() else { continue };
        for (root, end) in surface.roots.iter().zip(ends) {
            if let Some(end) = terms.get(usize::from(*end)).copied().flatten().filter(|t| engine.term(*root) != *t) {
                engine.replace(*root, end)?;
            }
        }
        engine.graph.remove_dead();
    }
    Ok(engine.graph)
}
