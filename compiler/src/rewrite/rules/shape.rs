//! Views and rearrangements: reshapes, transposes, slices and pads that do nothing, or less than they seem to.

use convc_runtime::{
    Dim, Op,
    ops::{Reshape, Transpose},
};

use super::{
    affine::equal_shapes,
    read::{axes::axis, reshape::VIEWS, transpose::order},
    weights::{ints, reshape},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

const SAME_SHAPE: Condition =
    Condition { name: "same-shape", text: "the result has the shape of the operand, whatever the sizes" };

fn same_shape(cx: &mut Cx<'_>, x: Class, result: Class) -> bool {
    let answer = equal_shapes(cx.view, x, result);
    cx.require(SAME_SHAPE.name, Verdict::from_answer(answer, || "the shapes differ or may differ".into()))
}

/// Sound bit for bit: the elements keep their order.
/// Requires: equal shapes for all values of the symbols.
/// Exactness: bitwise.
/// Pays: an operator disappears.
pub const VIEW_SAME: Rule = Rule {
    name: "view-same",
    equation: "Reshape|Flatten|Squeeze|Unsqueeze|Expand(x, ..) => x where the shape stays",
    conditions: &[SAME_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "an operator disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"],
    search: |cx, class, app| {
        if let Some(x) = app.operand(0)
            && same_shape(cx, x, class)
        {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

const STATIC_SHAPE: Condition = Condition {
    name: "static-shape",
    text: "the result's shape is known but for one size, or for sizes that are copied from the operand in place",
};

/// A constant `shape` operand of Reshape from `from` to `to`, 0 where a size is copied and -1 where it is left open, and
/// whether it gives just that.
pub(super) fn reshape_operand(from: &[Dim], to: &[Dim]) -> (Vec<i64>, bool) {
    let operand: Vec<i64> = to
        .iter()
        .enumerate()
        .map(|(i, d)| match d.as_fixed() {
            Some(n) => n,
            None if from.get(i) == Some(d) => 0,
            None => -1,
        })
        .collect();
    let open = operand.iter().filter(|&&n| n == -1).count();
    // An empty tensor leaves -1 undecided, and a size of 0 would be read as a copy.
    let may_be_empty = from.iter().chain(to).any(|d| d.at_least(1) != Some(true));
    let zero = to.iter().any(|d| d.as_fixed() == Some(0));
    // A model may ask for a shape that never fits, which only a run is to refuse.
    let fits = Dim::product(from).equals(&Dim::product(to)) != Some(false);
    let exact = fits && !zero && (open == 0 || (open == 1 && !may_be_empty));
    (operand, exact)
}

fn static_shape(cx: &mut Cx<'_>, x: Class, result: Class) -> Option<Vec<i64>> {
    let (from, to) = (cx.view.fact(x)?.shape.clone(), cx.view.fact(result)?.shape.clone());
    let (operand, exact) = reshape_operand(&from, &to);
    let verdict = if exact {
        Verdict::Holds
    } else {
        Verdict::Unknown(format!("{} has sizes that no constant shape expresses", convc_runtime::fact::Shape(&to)))
    };
    cx.require(STATIC_SHAPE.name, verdict).then_some(operand)
}

/// Sound bit for bit: both give the inferred shape.
/// Requires: at most one size that is neither fixed nor copied in place.
/// Exactness: bitwise.
/// Pays: the arithmetic that computes the shape disappears.
pub const STATIC_RESHAPE: Rule = Rule {
    name: "static-reshape",
    equation: "Reshape(x, s) => Reshape(x, shape) where `s` is computed and `shape` a constant",
    conditions: &[STATIC_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "the arithmetic that computes the shape disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Reshape"],
    search: |cx, class, app| {
        let (Some(x), Some(shape)) = (app.operand(0), app.operand(1)) else { return };
        if cx.view.is_constant(shape) {
            return;
        }
        if let Some(operand) = static_shape(cx, x, class) {
            cx.rewrite(Expr::of(app), reshape(x.into(), &operand));
        }
    },
};

/// Sound bit for bit: the elements keep their order.
/// Requires: the outer shape as a constant operand.
/// Exactness: bitwise.
/// Pays: an operator disappears.
pub const VIEW_VIEW: Rule = Rule {
    name: "view-view",
    equation: "Reshape|Flatten|Squeeze|Unsqueeze(viewed(x), ..) => Reshape(x, shape)",
    conditions: &[STATIC_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "an operator disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: VIEWS,
    search: |cx, class, app| {
        let Some(y) = app.operand(0) else { return };
        let view = cx.view;
        let Some(inner) = view.apps(y).into_iter().find(App::is_view) else { return };
        let Some(x) = inner.operand(0) else { return };
        if let Some(operand) = static_shape(cx, x, class) {
            let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
            let rhs =
                Expr::op(Reshape { allowzero: false }, vec![Some(x.into()), Some(Expr::Constant(ints(&operand)))]);
            cx.rewrite(lhs, rhs);
        }
    },
};

/// Sound bit for bit.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const TRANSPOSE_SAME: Rule = Rule {
    name: "transpose-same",
    equation: "Transpose(x; perm 0 1 2 and so on) => x",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Transpose"],
    search: |cx, _, app| {
        let Op::Transpose(t) = app.op else { return };
        let in_order = t.perm.iter().enumerate().all(|(i, &p)| usize::try_from(p) == Ok(i));
        if let (Some(x), true) = (app.operand(0), in_order && !t.perm.is_empty()) {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

/// Sound bit for bit: permutations compose.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const TRANSPOSE_TRANSPOSE: Rule = Rule {
    name: "transpose-transpose",
    equation: "Transpose(Transpose(x; perm p); perm q) => Transpose(x; perm p[q])",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Transpose"],
    search: |cx, _, app| {
        let (Op::Transpose(outer), Some(y)) = (app.op, app.operand(0)) else { return };
        let view = cx.view;
        for inner in view.apps(y) {
            let (Op::Transpose(p), Some(x)) = (inner.op, inner.operand(0)) else { continue };
            let perm: Option<Vec<i64>> =
                outer.perm.iter().map(|&q| p.perm.get(usize::try_from(q).ok()?).copied()).collect();
            if let Some(perm) = perm.filter(|p| !p.is_empty()) {
                let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
                cx.rewrite(lhs, Expr::op(Transpose { perm }, vec![Some(x.into())]));
            }
        }
    },
};

const MOVES_ONES: Condition =
    Condition { name: "moves-ones", text: "the axes whose size is not 1 for certain keep their order" };

/// Sound bit for bit: the elements keep their order.
/// Requires: the axes whose size is not certainly 1 keep their order; the result's shape as a constant operand.
/// Not sound for: two axes that may both be larger than 1 in another order.
/// Exactness: bitwise.
/// Pays: a copy becomes a view, which joins its neighbours.
pub const TRANSPOSE_AS_VIEW: Rule = Rule {
    name: "transpose-as-view",
    equation: "Transpose(x) => Reshape(x, shape) where only axes of size 1 move",
    conditions: &[MOVES_ONES, STATIC_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy becomes a view",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Transpose"],
    search: |cx, class, app| {
        let (Op::Transpose(t), Some(x)) = (app.op, app.operand(0)) else { return };
        let Some(fact) = cx.view.fact(x) else { return };
        let Some(axes) = order(t, fact.rank()) else { return };
        let large: Vec<usize> = axes.into_iter().filter(|&a| fact.shape[a].as_fixed() != Some(1)).collect();
        let verdict = if large.is_sorted() {
            Verdict::Holds
        } else {
            Verdict::Fails(format!("axes {large:?} change their order"))
        };
        if cx.require(MOVES_ONES.name, verdict)
            && let Some(operand) = static_shape(cx, x, class)
        {
            cx.rewrite(Expr::of(app), reshape(x.into(), &operand));
        }
    },
};

const WHOLE: Condition = Condition { name: "takes-all", text: "every axis is taken whole, forwards" };

/// Sound bit for bit.
/// Requires: the shape stays and every step is 1.
/// Not sound for: a step of -1, which keeps the shape and reverses.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const SLICE_ALL: Rule = Rule {
    name: "slice-all",
    equation: "Slice(x, ..) => x where all elements are taken",
    conditions: &[WHOLE, SAME_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Slice"],
    search: |cx, class, app| {
        let Some(x) = app.operand(0) else { return };
        let steps = match app.operand(4) {
            None => Some(true),
            Some(s) => cx.view.fact(s).and_then(convc_runtime::Fact::i64s).map(|s| s.iter().all(|&s| s == 1)),
        };
        if cx.require(WHOLE.name, Verdict::from_answer(steps, || "a step is not 1 or not known".into()))
            && same_shape(cx, x, class)
        {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

const IN_ORDER: Condition =
    Condition { name: "all-in-order", text: "the indices are those of all elements along the axis, in their order" };

/// Sound bit for bit: the elements keep their order.
/// Requires: every index along the axis once, in order, whatever the shape of the indices: of an axis of size 1 the 0.
/// Exactness: bitwise.
/// Pays: a copy becomes a view, which joins its neighbours.
pub const GATHER_AS_VIEW: Rule = Rule {
    name: "gather-as-view",
    equation: "Gather(x, i) => Reshape(x, shape) where `i` is 0 1 2 and so on",
    conditions: &[IN_ORDER, STATIC_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy becomes a view",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Gather"],
    search: |cx, class, app| {
        let (Op::Gather(g), Some(x), Some(i)) = (app.op, app.operand(0), app.operand(1)) else { return };
        let view = cx.view;
        let (Some(fact), Some(indices)) = (view.fact(x), view.fact(i).and_then(convc_runtime::Fact::i64s)) else {
            return;
        };
        let Some(axis) = axis(g.axis, fact.rank()) else { return };
        let verdict = match fact.shape[axis].as_fixed() {
            None => Verdict::Unknown(format!("the size of axis {axis} is open")),
            Some(n) => {
                let all = indices.len() as i64 == n
                    && (0..).zip(&indices).all(|(at, &v)| if v < 0 { v + n == at } else { v == at });
                Verdict::from_answer(Some(all), || format!("indices {indices:?} of {n} elements"))
            }
        };
        if cx.require(IN_ORDER.name, verdict)
            && let Some(operand) = static_shape(cx, x, class)
        {
            cx.rewrite(Expr::of(app), reshape(x.into(), &operand));
        }
    },
};

const NO_PADS: Condition = Condition { name: "no-pads", text: "all pads are known and 0" };

/// Sound bit for bit.
/// Not sound for: pads that cancel in the shape, such as 1 and -1, which shift.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const PAD_NONE: Rule = Rule {
    name: "pad-none",
    equation: "Pad(x, ..) => x where all pads are 0",
    conditions: &[NO_PADS],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Pad"],
    search: |cx, _, app| {
        let (Some(x), Op::Pad(_)) = (app.operand(0), app.op) else { return };
        let zeros = pads(cx.view, app).map(|p| p.iter().all(|&p| p == 0));
        if cx.require(NO_PADS.name, Verdict::from_answer(zeros, || "a pad is not 0 or not known".into())) {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

fn pads(view: &dyn View, app: &App<'_>) -> Option<Vec<i64>> {
    view.fact(app.operand(1)?)?.i64s()
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[
    &VIEW_SAME,
    &STATIC_RESHAPE,
    &VIEW_VIEW,
    &TRANSPOSE_SAME,
    &TRANSPOSE_TRANSPOSE,
    &TRANSPOSE_AS_VIEW,
    &SLICE_ALL,
    &GATHER_AS_VIEW,
    &PAD_NONE,
];
