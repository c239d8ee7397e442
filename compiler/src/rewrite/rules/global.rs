//! Means over positions: what is the same everywhere goes behind them.

use convc_runtime::{
    Dim, Op,
    ops::{binary::BinaryKind, global_pool::GlobalPoolKind, reduce::ReduceKind},
};

use super::read::{axes::listed, conv::convs_in};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// The axes over which an application averages, which stay as sizes of 1.
fn averaged(view: &dyn View, app: &App<'_>) -> Option<Vec<usize>> {
    let rank = view.fact(app.operand(0)?)?.rank();
    match app.op {
        Op::GlobalPool(p) if p.kind == GlobalPoolKind::Average => Some((2..rank).collect()),
        Op::Reduce(r) if r.kind == ReduceKind::ReduceMean && r.keepdims => {
            listed(view, app.operand(1)?, rank).filter(|a| !a.is_empty())
        }
        _ => None,
    }
}

const SAME_ALONG: Condition =
    Condition { name: "one-along-axes", text: "the other operand has one element along every axis that is averaged" };

/// Whether a class has one element along each of these axes of a tensor of this rank.
fn is_same_along(view: &dyn View, class: Class, axes: &[usize], rank: usize) -> Verdict {
    let Some(fact) = view.fact(class) else { return Verdict::Unknown("the other operand's shape is not known".into()) };
    let Some(missing) = rank.checked_sub(fact.rank()) else {
        return Verdict::Fails(format!("the other operand is {fact}, the map has {rank} axes"));
    };
    let one = Dim::from(1);
    let sizes = axes.iter().filter_map(|a| fact.shape.get(a.checked_sub(missing)?));
    let answers: Vec<Option<bool>> = sizes.map(|size| size.equals(&one)).collect();
    let answer = if answers.contains(&Some(false)) {
        Some(false)
    } else {
        answers.iter().all(|a| *a == Some(true)).then_some(true)
    };
    Verdict::from_answer(answer, || format!("the other operand is {fact}, the mean is over axes {axes:?}"))
}

/// Sound over the reals: means of positions and sums over channels commute, and the mean of a bias is the bias.
/// Not sound for: an activation between; windows of several taps.
/// Exactness: reassociated.
/// Pays: the convolution works on one position.
pub const MEAN_BEFORE_POINTWISE: Rule = Rule {
    name: "mean-before-pointwise",
    equation: "GlobalAveragePool|ReduceMean(Conv(x, w, b?; pointwise), ..) => Conv(GlobalAveragePool|ReduceMean(x, ..), w, b?)",
    conditions: &[],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the convolution works on one position",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["GlobalAveragePool", "ReduceMean"],
    search: |cx, _, app| {
        let view = cx.view;
        let (Some(y), Some(axes)) = (app.operand(0), averaged(view, app)) else { return };
        for conv in convs_in(view, y).iter().filter(|c| c.is_pointwise()) {
            // Over the batch the mean commutes too; over channels it is another one.
            if axes.contains(&1) {
                continue;
            }
            let mean = Expr::of(app).with_operand(0, conv.x.into());
            let operands = vec![Some(mean), Some(conv.kernel.weights.clone()), conv.bias.map(Expr::Class)];
            cx.rewrite(Expr::of(app).with_operand(0, conv.expr()), Expr::op(conv.op.clone(), operands));
        }
    },
};

/// Sound over the reals where `a` has one element along the axes averaged: it need not be a constant.
/// Not sound for: an `a` that varies along them.
/// Exactness: reassociated.
/// Pays: one pass over the map disappears, unless the product is needed otherwise.
pub const MEAN_OF_SCALED: Rule = Rule {
    name: "mean-of-scaled",
    equation: "GlobalAveragePool|ReduceMean(Add|Sub|Mul(x, a), ..) => Add|Sub|Mul(GlobalAveragePool|ReduceMean(x, ..), a); \
               GlobalAveragePool|ReduceMean(a - x, ..) => a - GlobalAveragePool|ReduceMean(x, ..) where `a` has one value for \
               all positions",
    conditions: &[SAME_ALONG],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["GlobalAveragePool", "ReduceMean"],
    search: |cx, _, app| {
        let view = cx.view;
        let (Some(y), Some(axes)) = (app.operand(0), averaged(view, app)) else { return };
        let Some(rank) = view.fact(y).map(convc_runtime::Fact::rank) else { return };
        for inner in view.apps(y) {
            let (Op::Binary(b), Some(p), Some(q)) = (inner.op, inner.operand(0), inner.operand(1)) else { continue };
            for (x, a, place) in [(p, q, 0), (q, p, 1)] {
                // A quotient by 0 is infinite of one sign for each element.
                let linear = matches!(b.kind, BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul);
                let whole = view.fact(x).map(convc_runtime::Fact::rank) == Some(rank);
                if !linear || !whole || view.is_constant(x) {
                    continue;
                }
                cx.begin();
                if cx.require(SAME_ALONG.name, is_same_along(view, a, &axes, rank)) {
                    let mean = Expr::of(app).with_operand(0, x.into());
                    let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
                    cx.rewrite(lhs, Expr::of(&inner).with_operand(place, mean));
                }
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&MEAN_BEFORE_POINTWISE, &MEAN_OF_SCALED];
