//! One rule at every element type: its left sides with that type in place of their own, run natively before and after.

use std::collections::{BTreeMap, BTreeSet};

use convc::{
    ir::{
        Graph,
        text::{parse, print},
    },
    lower::lower,
    rewrite::{
        rule::{ELEMENT_TYPE, Rule},
        types::Types,
    },
};
use convc_runtime::{
    DType, Tensor,
    session::{Session, SessionOptions},
};

use crate::{
    agree::bindings,
    oracle::{self, Array, Elements},
    random::Rng,
    rules::apply,
};

/// What became of a rule at one type.
#[derive(Debug, Default)]
pub struct AtType {
    /// Rewrites whose results were compared.
    pub compared: usize,
    /// Rewrites at all.
    pub fired: usize,
    /// Matches that the type alone stopped, and of these the ones that would have given other numbers or none at all.
    pub stopped: usize,
    /// Of these, those that are equal all the same.
    pub equal: usize,
    /// Of these, those where the original runs and what it became runs not, or gives other numbers.
    pub wrong: usize,
    /// Graphs of which the rule says that the type stops it.
    pub named: usize,
}

/// The types that are tried: those that are executed, but for strings, of which the oracle has none.
#[must_use]
pub fn tried() -> Vec<DType> {
    DType::ALL.iter().copied().filter(|d| d.is_executed() && *d != DType::Str).collect()
}

/// A graph's text with `to` for the floating-point type of its first input; whole literals are written as integers are.
fn turned(text: &str, to: DType) -> Option<String> {
    let from = ["f32", "f64"].into_iter().filter_map(|d| Some((text.find(&format!(": {d}["))?, d))).min()?.1;
    let text = text.replace(&format!("{from}["), &format!("{}[", to.name()));
    if to.is_float() {
        return Some(text);
    }
    Some(text.replace(".0,", ",").replace(".0]", "]"))
}

/// Tries `rule` at `dtype` on graphs that `generate` makes, until `wanted` rewrites were compared or `most` graphs were made.
///
/// # Errors
/// Where a rewrite gives other results.
pub fn at_type(
    rule: &'static Rule,
    generate: fn(&mut Rng) -> String,
    dtype: DType,
    wanted: usize,
    most: u64,
) -> Result<AtType, String> {
    let mut out = AtType::default();
    for seed in 1..=most {
        if out.compared >= wanted {
            break;
        }
        let Some(text) = turned(&generate(&mut Rng::new(seed)), dtype) else { continue };
        let Ok(graph) = parse(&text) else { continue };
        let forced = (!rule.types.contains(dtype)).then_some(ELEMENT_TYPE.name);
        let (rewrites, misses) = apply(&graph, rule, None);
        out.named += usize::from(misses.iter().any(|m| m.condition == ELEMENT_TYPE.name));
        for r in rewrites {
            let Ok(rewritten) = r.graph else { continue };
            if !has(&graph, dtype) {
                continue;
            }
            out.fired += 1;
            out.compared += usize::from(same(&graph, &rewritten, seed).map_err(|e| {
                format!("{} at {dtype} (seed {seed}): {e}\n{text}becomes\n{}", rule.name, print(&rewritten))
            })?);
        }
        if forced.is_none() {
            continue;
        }
        for r in apply(&graph, rule, forced).0 {
            out.stopped += 1;
            let after = r.graph.and_then(|g| same(&graph, &g, seed));
            out.equal += usize::from(after == Ok(true));
            out.wrong += usize::from(after.is_err() && same(&graph, &graph, seed) == Ok(true));
        }
        if out.stopped >= wanted {
            break;
        }
    }
    Ok(out)
}

fn has(graph: &Graph, dtype: DType) -> bool {
    graph.outputs().iter().any(|o| graph.dtype(o.value) == Some(dtype))
}

/// The declared types among those tried.
#[must_use]
pub fn declared(types: Types) -> BTreeSet<DType> {
    tried().into_iter().filter(|d| types.contains(*d)).collect()
}

/// Whether both graphs compute the same, run in their own types against the oracle; `false` if the original runs on no size.
fn same(original: &Graph, rewritten: &Graph, seed: u64) -> Result<bool, String> {
    let session = |g: &Graph| -> Result<Session, String> {
        let plan = lower(g).map_err(|e| e.to_string())?;
        Session::new(plan.into(), SessionOptions::default()).map_err(|e| e.to_string())
    };
    let after = session(rewritten)?;
    let mut compared = false;
    for b in bindings(original, seed) {
        let inputs: BTreeMap<String, Tensor> =
            oracle::random_inputs(original, &b, seed).into_iter().map(|(n, t)| (n, widened(&t, seed))).collect();
        let Ok(expected) = oracle::run_native(original, &inputs) else { continue };
        let found = after.run(&inputs).map_err(|e| format!("with {b:?}: {e}"))?;
        for (k, (e, f)) in expected.iter().zip(&found).enumerate() {
            close(e, f).map_err(|e| format!("with {b:?}, output {k}: {e}"))?;
        }
        compared = true;
    }
    Ok(compared)
}

/// Integers over the whole range of their type, mixed signs included, in place of small ones; every fourth stays.
fn widened(t: &Tensor, seed: u64) -> Tensor {
    let Some(v) = t.to_i64s().filter(|_| t.dtype().is_integer()) else { return t.clone() };
    let mut rng = Rng::new(seed ^ 0x5EED);
    let bits = t.dtype().bits() as u32;
    let wide: Vec<i64> = v
        .iter()
        .map(|&v| {
            let x = if rng.chance(25) {
                v
            } else {
                rng.range(i64::from(i32::MIN), i64::from(i32::MAX)) << (bits / 2).min(31)
            };
            oracle::wrapped(x, t.dtype())
        })
        .collect();
    oracle::integers(t.dtype(), t.shape(), &wide).unwrap_or_else(|| t.clone())
}

/// Whether a result is the oracle's: bit for bit for integers, within the roundings of its type for numbers.
fn close(expected: &Array<f64>, found: &Tensor) -> Result<(), String> {
    let f: Array<f64> = oracle::read(found);
    if expected.shape != f.shape {
        return Err(format!("shape {:?}, not {:?}", f.shape, expected.shape));
    }
    let step = match found.dtype() {
        DType::F16 => 2f64.powi(-7),
        DType::BF16 => 2f64.powi(-4),
        DType::F32 => 2f64.powi(-18),
        _ => 2f64.powi(-40),
    };
    match (&expected.data, &f.data) {
        (Elements::Int(a), Elements::Int(b)) if a == b => Ok(()),
        (Elements::Int(a), Elements::Int(b)) => Err(format!("{b:?}, not {a:?}")),
        (Elements::Real(a), Elements::Real(b)) => {
            let size = a.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
            let off = a
                .iter()
                .zip(b)
                .find(|(x, y)| !((**x - **y).abs() <= step * size || x == y || (x.is_nan() && y.is_nan())));
            off.map_or(Ok(()), |(x, y)| Err(format!("{y:?}, not {x:?}")))
        }
        _ => Err("integers and numbers".into()),
    }
}
