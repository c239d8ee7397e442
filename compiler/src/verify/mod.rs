//! Verification: the rewritten model against the original.
//!
//! Every rewritten region is run before and after in f64, on the values of one f64 pass over the original (its weights as
//! the terms that rules built, not yet rounded). Then both models run in f32. A model that leaves sizes open is verified so
//! at its nominal sizes, around the numbers of its shape arithmetic, and at sizes drawn from a seed ([`sizes`]); inputs are
//! made up such that integers that index lie in range, and all others have both signs ([`roles`], [`inputs`]).

mod cases;
mod compare;
pub mod inputs;
pub mod roles;
pub mod sizes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::{
    DType, Fact, Real, Tensor,
    session::{RunError, Session, SessionOptions},
};

pub use cases::Request;
use cases::{Cases, Sizes};
use compare::differs_by_noise;
pub use compare::{Difference, Tolerance, difference};

use crate::{
    ir::{Graph, Value},
    lower::{LowerError, lower, lower_with_slots},
    rewrite::{
        RegionReport, Rewritten,
        terms::{Head, TermId, Terms},
    },
};

/// How far two outputs in f32 may lie apart.
pub const OUTPUTS: Tolerance = Tolerance { of_largest: 1e-4, of_each: 1e-3 };

/// How far the two sides of a region may lie apart in f64.
const REGIONS: Tolerance = Tolerance { of_largest: 1e-9, of_each: 1e-7 };

/// What the rounding of weights may change in f64, where a normalisation of one position blows it up.
const ROUNDED: f64 = 3e-5;

/// How many times as far as the original's an output may be from what the original gives in f64, where the two differ: sums
/// in another order cancel out differently.
const WORSE: f64 = 8.0;

/// What sums in f64 may leave where they cancel out, relative to the largest element that a region begins with.
const NOISE: f64 = 1e-13;

/// Why a rewritten model was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A region computes something else.
    #[error("region {region} ({}) differs after {}: {problem}", origins.join(", "), rules.join(", "))]
    Region {
        /// Its number.
        region: usize,
        /// The nodes of the model that it is about.
        origins: Vec<String>,
        /// The rules that rewrote it.
        rules: Vec<String>,
        /// What differs.
        problem: String,
    },
    /// An output of the whole model is another.
    #[error("output {name:?} differs: {problem}")]
    Output {
        /// The output.
        name: String,
        /// What differs.
        problem: String,
    },
    /// The rewritten model fails where the original runs.
    #[error("the rewritten model fails where the original runs: {0}")]
    Fails(RunError),
    /// The rewritten model cannot be lowered though the original can.
    #[error("the rewritten model cannot be run: {0}")]
    Lower(#[from] LowerError),
    /// Something differs at these sizes, which are not the nominal ones.
    #[error("at {sizes}: {source}")]
    At {
        /// The sizes.
        sizes: String,
        /// What differs.
        source: Box<VerifyError>,
    },
    /// The original runs at none of the sizes tried.
    #[error("the model runs at none of the sizes tried for its open axes: {0}")]
    NoSizes(RunError),
    /// The rank of an input is not known.
    #[error("the rank of input {name:?} is not known")]
    Rank {
        /// The input.
        name: String,
    },
    /// An input cannot be made up.
    #[error("input {name:?} {problem}")]
    Inputs {
        /// The input.
        name: String,
        /// Why.
        problem: String,
    },
    /// An input would be too large.
    #[error("input {name:?} would have more than {limit} elements")]
    TooLarge {
        /// The input.
        name: String,
        /// How many it may have.
        limit: usize,
    },
}

/// What was checked.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Each rewritten region and the largest difference of its sides at the first sizes, relative to the largest element.
    pub regions: Vec<(usize, f64)>,
    /// Each output of the model at the first sizes.
    pub outputs: Vec<Difference>,
    /// Why the model as a whole was not run, if it was not.
    pub not_run: Option<String>,
    /// The sizes at which regions and outputs were checked, the first ones first.
    pub bindings: Vec<Checked>,
    /// How many bindings around numbers of the model's shape arithmetic were left out, since they need too many operations.
    pub left_out: usize,
}

/// What was checked at some sizes.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Checked {
    /// Why at these: `nominal`, `around 100`, `drawn by seed 0`.
    pub why: String,
    /// The sizes.
    pub sizes: BTreeMap<String, i64>,
    /// How many regions were run before and after in f64.
    pub regions: usize,
    /// How many outputs were compared in f32.
    pub outputs: usize,
    /// The largest difference of two elements of outputs.
    pub max_abs: f64,
    /// Whether all integers made up are 0, since the original runs with no others.
    pub zeros: bool,
    /// Why nothing was checked at these sizes, if so: the original does not run there.
    pub skipped: Option<String>,
}

impl Checked {
    fn at(sizes: &Sizes) -> Checked {
        let bindings = sizes.bindings.iter().map(|(s, n)| (s.to_string(), *n)).collect();
        Checked { why: sizes.why.clone(), sizes: bindings, ..Checked::default() }
    }

    /// The sizes as text, such as `N = 2, H = 64`.
    #[must_use]
    pub fn sizes_text(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(|(s, n)| format!("{s} = {n}")).collect();
        if sizes.is_empty() { "the model's sizes".into() } else { sizes.join(", ") }
    }
}

/// Checks `rewritten` against `original`, its outputs on `inputs` alone.
///
/// # Errors
/// The first difference found.
pub fn verify(
    original: &Graph,
    rewritten: &Rewritten,
    inputs: &BTreeMap<String, Tensor>,
    threads: usize,
) -> Result<Report, VerifyError> {
    verify_request(original, rewritten, &Request { given: inputs.clone(), threads, ..Request::default() })
}

/// Checks `rewritten` against `original` at all sizes that follow from the request.
///
/// # Errors
/// The first difference found, or that there are no inputs on which the original runs.
pub fn verify_request(original: &Graph, rewritten: &Rewritten, request: &Request) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let cases = Cases::new(original, request);
    let checker = match Checker::new(original, rewritten, request.threads) {
        Ok(checker) => checker,
        Err(why) => {
            report.not_run = Some(why);
            for region in rewritten.regions.iter().filter(|r| r.changed) {
                let worst = check_region(rewritten, region, &BTreeMap::new(), request.threads)?;
                report.regions.extend(worst.map(|w| (region.region, w)));
            }
            return Ok(report);
        }
    };
    let mut nominal: Option<(Sizes, BTreeMap<String, Tensor>, Vec<Tensor>, bool)> = None;
    let mut last: Option<RunError> = None;
    for sizes in cases.nominal() {
        match find_inputs(&cases, &checker, &sizes)? {
            Ok((inputs, outputs, zeros)) => {
                nominal = Some((sizes, inputs, outputs, zeros));
                break;
            }
            Err(e) => last = Some(e),
        }
    }
    let Some((sizes, inputs, outputs, zeros)) = nominal else {
        let Some(e) = last else { return Ok(report) };
        if !cases.is_open() {
            report.not_run = Some(e.to_string());
            return Ok(report);
        }
        return Err(VerifyError::NoSizes(e));
    };
    let mut checked = Checked { zeros, ..Checked::at(&sizes) };
    let (regions, rows) = checker.check(&inputs, &outputs, &mut checked)?;
    (report.regions, report.outputs) = (regions, rows);
    report.bindings.push(checked);
    drop((inputs, outputs));
    let (others, left_out) = cases.others(&sizes.bindings);
    report.left_out = left_out;
    for sizes in others {
        let mut checked = Checked::at(&sizes);
        if sizes.instead {
            match report.bindings.last() {
                Some(last) if last.why == checked.why && last.skipped.is_some() => drop(report.bindings.pop()),
                _ => continue,
            }
        }
        match find_inputs(&cases, &checker, &sizes)? {
            Ok((inputs, outputs, zeros)) => {
                checked.zeros = zeros;
                let sizes = checked.sizes_text();
                checker
                    .check(&inputs, &outputs, &mut checked)
                    .map_err(|e| VerifyError::At { sizes, source: Box::new(e) })?;
            }
            Err(e) => checked.skipped = Some(e.to_string()),
        }
        report.bindings.push(checked);
    }
    Ok(report)
}

type Ran = Result<(BTreeMap<String, Tensor>, Vec<Tensor>, bool), RunError>;

/// Inputs of these sizes on which the original runs, what comes out, and whether all their integers are 0.
fn find_inputs(cases: &Cases<'_>, checker: &Checker<'_>, sizes: &Sizes) -> Result<Ran, VerifyError> {
    let attempts = cases.attempts();
    let mut failed = None;
    for attempt in attempts.clone() {
        let inputs = cases.inputs(sizes, attempt)?;
        match checker.original.run(&inputs) {
            Ok(outputs) => return Ok(Ok((inputs, outputs, attempts.len() > 1 && attempt + 1 == attempts.end))),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    Ok(failed.map_or_else(|| Ok((BTreeMap::new(), Vec::new(), false)), Err))
}

/// Both models, ready to be run.
struct Checker<'a> {
    graph: &'a Graph,
    rewritten: &'a Rewritten,
    changed: Vec<&'a RegionReport>,
    original: Session,
    optimised: Result<Session, VerifyErrorAtLoad>,
    /// The original in f64, and the terms of the values that are looked at.
    capture: Option<(Session, BTreeMap<convc_runtime::plan::Slot, TermId>)>,
    threads: usize,
}

enum VerifyErrorAtLoad {
    Lower(LowerError),
    Fails(RunError),
}

impl VerifyErrorAtLoad {
    fn error(&self) -> VerifyError {
        match self {
            VerifyErrorAtLoad::Lower(e) => VerifyError::Lower(e.clone()),
            VerifyErrorAtLoad::Fails(e) => VerifyError::Fails(e.clone()),
        }
    }
}

impl<'a> Checker<'a> {
    /// Why the original cannot be run is an error.
    fn new(graph: &'a Graph, rewritten: &'a Rewritten, threads: usize) -> Result<Checker<'a>, String> {
        let (plan, slots) = lower_with_slots(graph).map_err(|e| e.to_string())?;
        let plan = Arc::new(plan);
        let changed: Vec<&RegionReport> = rewritten.regions.iter().filter(|r| r.changed).collect();
        let original = Session::new(Arc::clone(&plan), options(threads, Real::Native)).map_err(|e| e.to_string())?;
        let optimised = lower(&rewritten.graph).map_err(VerifyErrorAtLoad::Lower).and_then(|plan| {
            Session::new(Arc::new(plan), options(threads, Real::Native)).map_err(VerifyErrorAtLoad::Fails)
        });
        let capture = if changed.is_empty() {
            None
        } else {
            let session = Session::new(plan, options(threads, Real::F64)).map_err(|e| e.to_string())?;
            Some((session, wanted(graph, rewritten, &changed, slots)))
        };
        Ok(Checker { graph, rewritten, changed, original, optimised, capture, threads })
    }

    /// Whether an output differs by more than rounding explains: in f64, where only the weights are rounded, or by being much
    /// further from what the original gives in f64 than the original is at its own types.
    fn differs_in_f64(
        &self,
        inputs: &BTreeMap<String, Tensor>,
        output: &str,
        (after_native, before_native): (&Tensor, &Tensor),
    ) -> Result<bool, VerifyError> {
        let run = |graph: &Graph| -> Result<Vec<Tensor>, VerifyError> {
            let session = Session::new(Arc::new(lower(graph)?), options(self.threads, Real::F64));
            session.and_then(|s| s.run(inputs)).map_err(VerifyError::Fails)
        };
        let (before, after) = (run(self.graph)?, run(&self.rewritten.graph)?);
        let place = self.graph.outputs().iter().position(|o| o.name == output);
        let Some((a, b)) = place.and_then(|i| Some((after.get(i)?, before.get(i)?))) else { return Ok(true) };
        let d = difference(output, a, b, OUTPUTS.with_roundings_of(before_native.dtype()));
        let same_shape = a.shape() == b.shape() && a.dtype() == b.dtype();
        let is_rounding = same_shape && same_where_not_finite(a, b) && d.max_abs.is_some_and(|m| m <= ROUNDED);
        let as_near = same_where_not_finite(after_native, before_native)
            && match (distance(after_native, b), distance(before_native, b)) {
                (Some(after), Some(before)) => after <= WORSE * before,
                _ => false,
            };
        Ok(!((d.agree || is_rounding) && as_near))
    }

    /// Checks regions and outputs on these inputs, on which the original gave `before`.
    #[allow(clippy::type_complexity)]
    fn check(
        &self,
        inputs: &BTreeMap<String, Tensor>,
        before: &[Tensor],
        checked: &mut Checked,
    ) -> Result<(Vec<(usize, f64)>, Vec<Difference>), VerifyError> {
        let mut values = BTreeMap::new();
        if let Some((session, of_slot)) = &self.capture {
            // What runs in f32 runs in f64; should it not, the regions cannot be checked, but the outputs are.
            let ran = session.run_observed(inputs, &mut |slot, tensor| {
                if let Some(&term) = of_slot.get(&slot) {
                    values.insert(term, tensor.clone());
                }
            });
            if ran.is_err() {
                values.clear();
            }
        }
        let mut regions = Vec::new();
        for region in &self.changed {
            let worst = check_region(self.rewritten, region, &values, self.threads)?;
            regions.extend(worst.map(|w| (region.region, w)));
        }
        let optimised = self.optimised.as_ref().map_err(VerifyErrorAtLoad::error)?;
        let after = optimised.run(inputs).map_err(VerifyError::Fails)?;
        let mut rows = Vec::new();
        for ((o, a), b) in self.graph.outputs().iter().zip(&after).zip(before) {
            let d = difference(&o.name, a, b, OUTPUTS.with_roundings_of(b.dtype()));
            if !d.agree && self.differs_in_f64(inputs, &o.name, (a, b))? {
                return Err(VerifyError::Output {
                    name: o.name.clone(),
                    problem: d.problem.unwrap_or_else(|| "the values differ".into()),
                });
            }
            rows.push(d);
        }
        checked.regions = regions.len();
        checked.outputs = rows.len();
        checked.max_abs = rows.iter().filter_map(|d| d.max_abs).fold(0.0, f64::max);
        Ok((regions, rows))
    }
}

fn options(threads: usize, real: Real) -> SessionOptions {
    SessionOptions { threads, real, ..SessionOptions::default() }
}

/// Whether the elements that are no finite numbers are the same on both sides: the same infinity, or NaN.
fn same_where_not_finite(a: &Tensor, b: &Tensor) -> bool {
    let same = |(x, y): (&f64, &f64)| (x.is_finite() && y.is_finite()) || x == y || (x.is_nan() && y.is_nan());
    match (a.to_f64s(), b.to_f64s()) {
        (Some(x), Some(y)) => x.len() == y.len() && x.iter().zip(&y).all(same),
        _ => false,
    }
}

/// How far the finite elements of a tensor lie from those of a reference of its shape, at most.
fn distance(x: &Tensor, reference: &Tensor) -> Option<f64> {
    let (x, reference) = (x.to_f64s()?, reference.to_f64s()?);
    let apart = x.iter().zip(&reference).filter(|(x, _)| x.is_finite()).map(|(x, y)| (x - y).abs());
    (x.len() == reference.len())
        .then(|| apart.fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { d.max(worst) }))
}

/// The terms whose values in f64 are looked at: those that regions begin or end with.
fn wanted(
    original: &Graph,
    rewritten: &Rewritten,
    changed: &[&RegionReport],
    slots: BTreeMap<Value, convc_runtime::plan::Slot>,
) -> BTreeMap<convc_runtime::plan::Slot, TermId> {
    let wanted: BTreeSet<TermId> =
        changed.iter().flat_map(|r| r.leaves.iter().copied().chain(r.roots.iter().map(|r| r.0))).collect();
    // Beyond the regions' own ends, the model's inputs: from them everything can be computed.
    let is_input = |v: &Value| matches!(original.node(v.node).kind, crate::ir::Kind::Input);
    let mut of_slot = BTreeMap::new();
    for (value, slot) in slots {
        if let Some(&term) = rewritten.original_values.get(&value)
            && (wanted.contains(&term) || is_input(&value))
        {
            of_slot.insert(slot, term);
        }
    }
    of_slot
}

/// Runs both sides of a region from captured values; the largest relative difference. `None` where the values that it
/// begins with cannot be had.
fn check_region(
    rewritten: &Rewritten,
    region: &RegionReport,
    captured: &BTreeMap<TermId, Tensor>,
    threads: usize,
) -> Result<Option<f64>, VerifyError> {
    let fail = |problem: String| VerifyError::Region {
        region: region.region,
        origins: region
            .roots
            .iter()
            .flat_map(|r| rewritten.terms.get(r.0).origins.iter().map(ToString::to_string))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .take(4)
            .collect(),
        rules: rewritten
            .steps
            .iter()
            .filter(|s| s.region == Some(region.region))
            .map(|s| s.rule.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        problem,
    };
    let mut before_at: BTreeMap<TermId, Tensor> = captured.clone();
    let leaves: BTreeMap<TermId, Tensor> = {
        let missing: Vec<TermId> = region
            .leaves
            .iter()
            .copied()
            .filter(|t| !captured.contains_key(t) && !rewritten.terms.get(*t).constant)
            .collect();
        match evaluate(&rewritten.terms, &missing, captured, threads) {
            Some(Ok(values)) => {
                missing.into_iter().zip(values).chain(captured.iter().map(|(k, v)| (*k, v.clone()))).collect()
            }
            _ => return Ok(None),
        }
    };
    before_at.extend(leaves.iter().map(|(k, v)| (*k, v.clone())));
    let (befores, afters): (Vec<TermId>, Vec<TermId>) = region.roots.iter().copied().unzip();
    let from_leaves: BTreeMap<TermId, Tensor> =
        leaves.iter().filter(|(t, _)| region.leaves.contains(t)).map(|(t, v)| (*t, v.clone())).collect();
    let (Some(before), Some(after)) = (
        evaluate(&rewritten.terms, &befores, &before_at, threads),
        evaluate(&rewritten.terms, &afters, &from_leaves, threads),
    ) else {
        return Ok(None);
    };
    let before = before.map_err(|e| fail(format!("the original fails: {e}")))?;
    let after = after.map_err(|e| fail(format!("the rewritten side fails: {e}")))?;
    let mut worst = 0.0f64;
    // f64 values stand for those of the terms' own types, to which constants are rounded.
    let dtype = |t: &TermId| rewritten.terms.get(*t).fact.as_ref().map(|f| f.dtype);
    let types = region.leaves.iter().chain(&befores).filter_map(dtype);
    let tolerance = types.fold(REGIONS, Tolerance::with_roundings_of);
    let values = from_leaves.values().filter_map(Tensor::to_f64s).flatten().filter(|v| v.is_finite());
    let noise = NOISE * values.fold(0.0f64, |m, v| m.max(v.abs()));
    for (b, a) in before.iter().zip(&after) {
        let d = difference("", a, b, tolerance);
        if !d.agree && !differs_by_noise(a, b, noise) {
            return Err(fail(d.problem.unwrap_or_else(|| "the values differ".into())));
        }
        let largest = b.to_f64s().map_or(0.0, |v| v.iter().fold(0.0f64, |m, x| m.max(x.abs())));
        worst = worst.max(d.max_abs.unwrap_or(0.0) / largest.max(f64::MIN_POSITIVE));
    }
    Ok(Some(worst))
}

/// The values of terms, computed in f64 from known ones; `None` if they depend on a value that is not known.
fn evaluate(
    terms: &Terms,
    roots: &[TermId],
    known: &BTreeMap<TermId, Tensor>,
    threads: usize,
) -> Option<Result<Vec<Tensor>, RunError>> {
    let mut graph = Graph::new();
    let mut at: BTreeMap<TermId, Value> = BTreeMap::new();
    let mut inputs = BTreeMap::new();
    let mut needed: BTreeSet<TermId> = BTreeSet::new();
    let mut stack = roots.to_vec();
    while let Some(t) = stack.pop() {
        if needed.insert(t) && !known.contains_key(&t) {
            stack.extend(terms.get(t).operands.iter().flatten());
        }
    }
    for t in needed {
        let term = terms.get(t);
        let v = match (&term.head, known.get(&t)) {
            (_, Some(tensor)) => {
                let fact = Fact::fixed(tensor.dtype(), tensor.shape());
                inputs.insert(t.to_string(), tensor.clone());
                graph.add_input(t.to_string(), Some(fact), None)
            }
            (Head::Constant(c), None) => graph.add_constant(c.clone()),
            (Head::Op(op), None) => {
                let operands = term.operands.iter().map(|o| o.map(|o| at[&o])).collect();
                // Facts play no part in a run: the original's may speak of other types than the f64 values have.
                let id = graph.add_node(crate::ir::Kind::Op(op.clone()), operands, vec![term.fact.clone()]);
                Value { node: id, port: 0 }
            }
            (Head::Value(_), None) => return None,
        };
        at.insert(t, v);
    }
    for (i, root) in roots.iter().enumerate() {
        graph.add_output(i.to_string(), at[root], Some(Fact::new(DType::F64, Vec::new())));
    }
    let plan = lower(&graph).ok()?;
    let session = match Session::new(Arc::new(plan), options(threads, Real::F64)) {
        Ok(s) => s,
        Err(e) => return Some(Err(e)),
    };
    Some(session.run(&inputs))
}
