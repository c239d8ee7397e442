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
mod explain;
mod extract;
pub mod fold;
pub mod index_map;
mod join;
pub mod keys;
mod language;
pub mod magnitude;
mod normalise;
mod phases;
mod recognise;
pub mod region;
pub mod rule;
pub mod rules;
mod saturate;
mod split;
pub mod target;
pub mod terms;
pub mod types;
pub mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::{Fact, OpError, Symbol};

pub use self::saturate::SaturationLimits;
use self::{
    cost::{Operand, PORTABLE, Pricing, Profile},
    declined::Declined,
    engine::{Engine, NotFired, Step},
    fold::FoldLimits,
    language::{Graph as EGraph, Node},
    phases::{Work, settle},
    region::Region,
    rule::{Exactness, Rule},
    target::Target,
    terms::TermId,
};
use crate::{
    ir::{Graph, Value},
    ops::{newer_operators, primitives},
};

/// An error of rewriting: always a defect of convc or a model whose constants break an operator's rules.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RewriteError {
    /// A rule built a term that an operator refuses.
    #[error("the rewritten {op} ({term}) is refused: {source}; this is a defect of convc, --skip leaves a rule out")]
    Emit {
        /// The operator.
        op: &'static str,
        /// The term.
        term: String,
        /// Why.
        source: OpError,
    },
    /// A term refers to a value that is no longer there.
    #[error("the value {value} was lost while rewriting; this is a defect of convc")]
    Lost {
        /// The value.
        value: String,
    },
    /// A phase left a graph behind that breaks an invariant.
    #[error("{phase} broke the graph: {source}; this is a defect of convc")]
    Invariant {
        /// What was done.
        phase: &'static str,
        /// What is broken.
        source: crate::ir::IrError,
    },
    /// Constants could not be folded.
    #[error("constants could not be folded: {0}")]
    Fold(String),
    /// A rule made two values equal whose types exclude each other.
    #[error("rules made {a} equal to {b}; this is a defect of convc, --skip leaves a rule out")]
    Unsound {
        /// One fact.
        a: String,
        /// The other.
        b: String,
    },
    /// A rule name that does not exist.
    #[error("there is no rule {name:?}{}", did_you_mean(suggestion.as_deref()))]
    UnknownRule {
        /// The name given.
        name: String,
        /// The nearest that exists.
        suggestion: Option<String>,
    },
}

fn did_you_mean(s: Option<&str>) -> String {
    s.map(|s| format!("; did you mean {s:?}?")).unwrap_or_default()
}

/// Which inexactness is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fp {
    /// Bit-exact rules only.
    Strict,
    /// All that is equal over the reals.
    #[default]
    Real,
    /// Approximations too.
    Fast,
}

/// How operators of domain `ai.convc` are left in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Written out in ONNX's own operators.
    #[default]
    Onnx,
    /// As they are.
    Convc,
}

/// How to rewrite.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which inexactness is allowed.
    pub fp: Fp,
    /// Only these rules; empty for all.
    pub only: Vec<String>,
    /// Not these rules.
    pub skip: Vec<String>,
    /// At most so many rewrites; for bisection.
    pub max_rewrites: usize,
    /// What nodes cost.
    pub profile: &'static Profile,
    /// How operators of domain `ai.convc` are left.
    pub dialect: Dialect,
    /// The operator set that the result is to be written in: operators that it lacks are written out by their definitions.
    pub opset: Option<i64>,
    /// How much larger the constants may become in all, relative to those of the model.
    pub max_growth: f64,
    /// Sizes to reckon with for symbols, in the cost model only.
    pub nominal: BTreeMap<Symbol, i64>,
    /// Limits of each saturation.
    pub saturation: SaturationLimits,
    /// Limits of folding.
    pub fold: FoldLimits,
    /// Operators in a region at most.
    pub region_cap: usize,
    /// A rule and one of its conditions that counts as holding: for tests that show the condition is needed.
    pub forced: Option<(&'static str, &'static str)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fp: Fp::default(),
            only: Vec::new(),
            skip: Vec::new(),
            max_rewrites: usize::MAX,
            profile: &PORTABLE,
            dialect: Dialect::default(),
            opset: None,
            max_growth: 0.1,
            nominal: BTreeMap::new(),
            saturation: SaturationLimits::default(),
            fold: FoldLimits::default(),
            region_cap: 256,
            forced: None,
        }
    }
}

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
    let mut engine = Engine::new(graph);
    engine.terms.set_target(target);
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

/// Where a region begins and ends.
struct Surface {
    roots: Vec<Value>,
    root_terms: Vec<TermId>,
    inside: BTreeSet<TermId>,
    leaves: BTreeSet<TermId>,
}

/// The terms of a region; `None` if it is no more.
fn surface(engine: &mut Engine, region: &Region) -> Option<Surface> {
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
fn explore(
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
const SMALL_GROWTH: f64 = 65_536.0;

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

/// The price of a constant term, per byte: small against anything that runs, so that fewer bytes win only between equals.
const CONSTANT: f64 = 1e-9;

fn term_cost(egraph: &EGraph, id: egg::Id, node: &Node, pricing: &Pricing) -> f64 {
    let data = &egraph[id].data;
    match node {
        Node::Hole | Node::Tuple(_) => 0.0,
        Node::Leaf(_) => 0.0,
        Node::Op(_, _, args) => {
            if data.constant {
                return CONSTANT * data.fact.as_ref().map_or(1.0, |f| pricing.elements(f));
            }
            let operand = |a: &egg::Id| {
                let data = &egraph[*a].data;
                data.fact.as_ref().map(|fact| Operand { fact, constant: data.constant })
            };
            let operands: Vec<Option<Operand<'_>>> = args.iter().map(operand).collect();
            match egraph.analysis.op(node) {
                Some(op) => pricing.node(op, &operands, data.fact.as_ref()),
                None => 0.0,
            }
        }
    }
}
