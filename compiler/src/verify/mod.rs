//! Verification: the rewritten model against the original.
//!
//! Every rewritten region is run before and after in f64, on the values of one f64 pass over the original (its weights as
//! the terms that rules built, not yet rounded). Then both models run once in f32.

mod compare;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::{
    DType, Fact, Real, Tensor,
    session::{RunError, Session, SessionOptions},
};

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
}

/// What was checked.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Each rewritten region and the largest difference of its sides, relative to the largest element.
    pub regions: Vec<(usize, f64)>,
    /// Each output of the model.
    pub outputs: Vec<Difference>,
    /// Why the model as a whole was not run, if it was not.
    pub not_run: Option<String>,
}

/// Checks `rewritten` against `original`, its outputs on `inputs`.
///
/// # Errors
/// The first difference found.
pub fn verify(
    original: &Graph,
    rewritten: &Rewritten,
    inputs: &BTreeMap<String, Tensor>,
    threads: usize,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let changed: Vec<&RegionReport> = rewritten.regions.iter().filter(|r| r.changed).collect();
    let captured = match capture(original, rewritten, &changed, inputs, threads) {
        Ok(values) => values,
        Err(why) => {
            report.not_run = Some(why);
            BTreeMap::new()
        }
    };
    for region in changed {
        let worst = check_region(rewritten, region, &captured, threads)?;
        report.regions.extend(worst.map(|w| (region.region, w)));
    }
    if report.not_run.is_none() {
        report.outputs = check_outputs(original, &rewritten.graph, inputs, threads)?;
    }
    Ok(report)
}

fn options(threads: usize, real: Real) -> SessionOptions {
    SessionOptions { threads, real, ..SessionOptions::default() }
}

/// The values, in f64, of those terms of the original that regions begin or end with.
fn capture(
    original: &Graph,
    rewritten: &Rewritten,
    changed: &[&RegionReport],
    inputs: &BTreeMap<String, Tensor>,
    threads: usize,
) -> Result<BTreeMap<TermId, Tensor>, String> {
    let (plan, slots) = lower_with_slots(original).map_err(|e| e.to_string())?;
    if changed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let wanted: BTreeSet<TermId> =
        changed.iter().flat_map(|r| r.leaves.iter().copied().chain(r.roots.iter().map(|r| r.0))).collect();
    // Beyond the regions' own ends, the model's inputs: from them everything can be computed.
    let is_input = |v: &Value| matches!(original.node(v.node).kind, crate::ir::Kind::Input);
    let mut of_slot: BTreeMap<_, TermId> = BTreeMap::new();
    for (value, slot) in slots {
        if let Some(&term) = rewritten.original_values.get(&value)
            && (wanted.contains(&term) || is_input(&value))
        {
            of_slot.insert(slot, term);
        }
    }
    let session = Session::new(Arc::new(plan), options(threads, Real::F64)).map_err(|e| e.to_string())?;
    let mut values = BTreeMap::new();
    session
        .run_observed(inputs, &mut |slot, tensor| {
            if let Some(&term) = of_slot.get(&slot) {
                values.insert(term, tensor.clone());
            }
        })
        .map_err(|e| e.to_string())?;
    Ok(values)
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

/// Runs both models in f32.
fn check_outputs(
    original: &Graph,
    rewritten: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    threads: usize,
) -> Result<Vec<Difference>, VerifyError> {
    let run = |graph: &Graph| -> Result<Vec<Tensor>, VerifyError> {
        let session =
            Session::new(Arc::new(lower(graph)?), options(threads, Real::Native)).map_err(VerifyError::Fails)?;
        session.run(inputs).map_err(VerifyError::Fails)
    };
    let (before, after) = (run(original)?, run(rewritten)?);
    let mut rows = Vec::new();
    for ((o, a), b) in original.outputs().iter().zip(&after).zip(&before) {
        let d = difference(&o.name, a, b, OUTPUTS.with_roundings_of(b.dtype()));
        if !d.agree {
            return Err(VerifyError::Output {
                name: o.name.clone(),
                problem: d.problem.unwrap_or_else(|| "the values differ".into()),
            });
        }
        rows.push(d);
    }
    Ok(rows)
}
