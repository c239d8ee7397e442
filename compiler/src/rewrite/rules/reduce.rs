//! Reductions of reductions.

use std::collections::BTreeSet;

use convc_runtime::{
    Op,
    ops::{Reduce, Squeeze, reduce::ReduceKind},
};

use super::{read::axes::listed, weights::ints};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Expr, View},
};

const GATHERS: Condition = Condition {
    name: "one-reduction",
    text: "both are the same reduction, one that may be carried out in steps: a sum, mean, maximum, minimum, product or norm",
};

/// The axes that a reduction of a tensor of this rank goes over.
fn axes_of(view: &dyn View, app: &App<'_>, op: &Reduce, rank: usize) -> Option<BTreeSet<usize>> {
    let axes = match app.operand(1) {
        None => Vec::new(),
        Some(a) => listed(view, a, rank)?,
    };
    if axes.is_empty() {
        return Some(if op.noop_with_empty_axes { BTreeSet::new() } else { (0..rank).collect() });
    }
    Some(axes.into_iter().collect())
}

/// Whether steps of this reduction make the whole.
fn in_steps(kind: ReduceKind) -> bool {
    use ReduceKind as K;
    matches!(
        kind,
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd | K::ReduceL1 | K::ReduceL2
    )
}

/// Sound over the reals: sums of sums are sums, and means of equally many elements are means. Where only one of both keeps its
/// axes, they are squeezed out behind the reduction.
/// Requires: one kind of reduction on both sides.
/// Not sound for: a sum of maxima; sums of squares or logarithms in steps; means of integers, which are rounded.
/// Exactness: reassociated.
/// Pays: a pass over the intermediate result disappears.
pub const REDUCE_REDUCE: Rule = Rule {
    name: "reduce-reduce",
    equation: "Reduce*(Reduce*(x, ..), ..) => Reduce*(x, axes); \
               Reduce*(Reduce*(x, ..), ..) => Squeeze(Reduce*(x, axes), shape) where `axes` are those of both",
    conditions: &[GATHERS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a pass over the intermediate result disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: ReduceKind::TEXTS,
    search: |cx, _, app| {
        let (Op::Reduce(outer), Some(y), view) = (app.op, app.operand(0), cx.view) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let (Op::Reduce(first), Some(x)) = (inner.op, inner.operand(0)) else { continue };
            let Some(fact) = view.fact(x) else { continue };
            let one = first.kind == outer.kind && in_steps(outer.kind);
            let differ = || format!("{} behind {}", app.op.name(), inner.op.name());
            if !cx.require(GATHERS.name, Verdict::from_answer(Some(one), differ)) {
                continue;
            }
            let rank = fact.rank();
            let before = axes_of(view, &inner, first, rank);
            // Axes of the intermediate result as axes of the input.
            let left = |gone: &BTreeSet<usize>| -> Vec<usize> {
                (0..rank).filter(|a| first.keepdims || !gone.contains(a)).collect()
            };
            let axes = before.and_then(|before| {
                let left = left(&before);
                let behind =
                    axes_of(view, app, outer, left.len())?.into_iter().map(|a| left[a]).collect::<BTreeSet<_>>();
                Some((before, behind))
            });
            let Some((before, behind)) = axes else { continue };
            let list = |axes: &BTreeSet<usize>| {
                Some(Expr::Constant(ints(&axes.iter().map(|&a| a as i64).collect::<Vec<i64>>())))
            };
            let all: BTreeSet<usize> = before.union(&behind).copied().collect();
            if all.is_empty() {
                continue;
            }
            let reduced = |keepdims: bool| {
                let op = Reduce { kind: outer.kind, keepdims, noop_with_empty_axes: false };
                Expr::op(op, vec![Some(x.into()), list(&all)])
            };
            // Those that do not stay.
            let gone: BTreeSet<usize> = match (first.keepdims, outer.keepdims) {
                (true, true) => BTreeSet::new(),
                (true, false) => behind.clone(),
                (false, true) => before.clone(),
                (false, false) => all.clone(),
            };
            let rhs = if gone.is_empty() {
                reduced(true)
            } else if gone == all {
                reduced(false)
            } else {
                Expr::op(Squeeze {}, vec![Some(reduced(true)), list(&gone)])
            };
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), rhs);
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&REDUCE_REDUCE];
