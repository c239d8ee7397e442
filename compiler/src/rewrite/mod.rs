//! Rewriting: normalisation on the graph, equality saturation in regions, extraction by cost, and a record of every step.
//!
//! The engine knows no operator algebra; that is in [`rules`]. A rule is a value ([`rule::Rule`]) that searches a
//! [`view::View`].

#[doc(hidden)]
pub mod audit;
#[doc(hidden)]
pub mod chaos;
pub mod cost;
pub mod declined;
pub mod definitions;
pub mod elements;
pub mod engine;
mod error;
mod explain;
mod explore;
mod extract;
pub mod fold;
pub mod index_map;
pub(crate) mod join;
pub mod keys;
mod language;
pub mod magnitude;
mod normalise;
mod options;
mod phases;
pub mod positive;
mod profile;
mod recognise;
pub mod region;
pub mod rule;
pub mod rules;
mod saturate;
mod split;
pub mod target;
pub mod terms;
pub mod types;
pub mod verdict;
pub mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::OpError;

use self::{
    declined::Declined,
    engine::{Engine, NotFired, Step},
    phases::{Work, settle},
    positive::Positive,
    rule::{Exactness, Rule},
    target::Target,
    terms::TermId,
};
pub use self::{
    error::RewriteError,
    explore::{RegionReport, rederive_step},
    options::{Dialect, Fp, Options},
    saturate::SaturationLimits,
};
use crate::{
    ir::{Graph, Value},
    ops::{newer_operators, primitives},
};

/// A rewritten graph and the record of how it came about.
pub struct Rewritten {
    /// The graph.
    pub graph: Graph,
    /// The terms that the record speaks of.
    pub terms: terms::Terms,
    /// The terms of the original graph's values.
    pub original_values: BTreeMap<Value, TermId>,
    /// The terms of the outputs as they were.
    pub outputs_before: Vec<TermId>,
    /// The terms of the outputs as they are.
    pub outputs_after: Vec<TermId>,
    /// The terms of the graph's values as they are.
    pub values: BTreeMap<Value, TermId>,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What became of each region.
    pub regions: Vec<RegionReport>,
    /// Candidates that did not fire.
    pub not_fired: BTreeSet<NotFired>,
    /// Rewrites that were found and that cost decided against.
    pub declined: Vec<Declined>,
    /// Right sides that did not type-check: defects of a rule.
    pub ill_typed: Vec<String>,
    /// Operators of domain `ai.convc` that could not be written out, by name, and why.
    pub kept: Vec<(String, OpError)>,
}

/// The rules that the options leave.
///
/// # Errors
/// [`RewriteError::UnknownRule`].
pub fn selected_rules(options: &Options) -> Result<Vec<&'static Rule>, RewriteError> {
    let all = rules::all();
    for name in options.only.iter().chain(&options.skip) {
        if !all.iter().any(|r| r.name == name) {
            let near = all
                .iter()
                .map(|r| r.name)
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            return Err(RewriteError::UnknownRule { name: name.clone(), suggestion: near.map(str::to_owned) });
        }
    }
    let allowed = |r: &Rule| match options.fp {
        Fp::Strict => r.exactness == Exactness::Bitwise,
        Fp::Real | Fp::Fast => true,
    };
    Ok(all
        .into_iter()
        .filter(|r| allowed(r))
        .filter(|r| options.only.is_empty() || options.only.iter().any(|n| n == r.name))
        .filter(|r| !options.skip.iter().any(|n| n == r.name))
        .collect())
}

/// Rewrites a graph.
///
/// # Errors
/// If an option names no rule, constants cannot be folded, or a rule turns out to be defective.
pub fn rewrite(graph: Graph, options: &Options) -> Result<Rewritten, RewriteError> {
    let rules = selected_rules(options)?;
    let target = options.opset.map(|opset| Arc::new(Target::of(&graph, opset)));
    let positive = Arc::new(Positive::of(&graph));
    let mut engine = Engine::new(graph);
    engine.terms.set_target(target);
    engine.terms.set_positive(positive);
    let terms_of_outputs = |e: &Engine| -> Vec<TermId> { e.graph.outputs().iter().map(|o| e.term(o.value)).collect() };
    let outputs_before = terms_of_outputs(&engine);
    let original_values = terms_of_values(&engine);
    let mut work = Work::new(&engine, &rules, options);
    engine.splits_to_slices()?;
    engine.verify_after("reading splits as slices")?;
    work.recognise_first(&mut engine)?;
    work.improve(&mut engine)?;
    let mut kept = Vec::new();
    let recognising = work.recognising.clone();
    if options.dialect == Dialect::Onnx {
        let left = engine.write_out(&recognising, primitives::is_system)?;
        kept.extend(left.into_iter().map(|(id, e)| (engine.graph.node(id).name.clone(), e)));
        engine.verify_after("writing operators out")?;
        work.recognising.clear();
        work.improve(&mut engine)?;
    }
    if let Some(opset) = options.opset {
        // Last, so that no rule takes apart what other programs know as one. Those of unknown type are left to the exporter.
        engine.write_out(&recognising, |op| newer_operators::introduced(op).is_some_and(|first| first > opset))?;
    }
    engine.slices_to_splits()?;
    engine.refresh();
    engine.graph.remove_dead();
    engine.verify_after("rewriting")?;
    let outputs_after = terms_of_outputs(&engine);
    let values = terms_of_values(&engine);
    let declined = declined::left(engine.declined, &engine.terms, &outputs_after);
    Ok(Rewritten {
        graph: engine.graph,
        terms: engine.terms,
        original_values,
        outputs_before,
        outputs_after,
        values,
        steps: engine.steps,
        regions: work.reports,
        not_fired: engine.not_fired,
        declined,
        ill_typed: work.ill_typed,
        kept,
    })
}

fn terms_of_values(engine: &Engine) -> BTreeMap<Value, TermId> {
    let outputs = |id| {
        (0..engine.graph.node(id).outputs())
            .map(move |p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) })
    };
    engine.graph.nodes().into_iter().flat_map(outputs).map(|v| (v, engine.term(v))).collect()
}
