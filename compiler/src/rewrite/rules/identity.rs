//! Operators that change nothing.

use convc_runtime::{DType, Op, ops::binary::BinaryKind};

use super::affine::equal_shapes;
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_zero},
};

const SAME_SHAPE: Condition =
    Condition { name: "same-shape", text: "the result has the shape of the operand, whatever the sizes" };

fn same_shape(cx: &mut Cx<'_>, x: Class, result: Class) -> bool {
    let verdict = Verdict::from_answer(equal_shapes(cx.view, x, result), || {
        let show = |c: Class| cx.view.fact(c).map_or_else(|| "unknown".into(), ToString::to_string);
        format!("the operand is {}, the result {}", show(x), show(result))
    });
    cx.require(SAME_SHAPE.name, verdict)
}

/// Sound bit for bit, by definition.
/// Exactness: bitwise.
/// Pays: an operator disappears.
pub const IDENTITY: Rule = Rule {
    name: "identity",
    equation: "Identity(x) => x",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "an operator disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Identity"],
    search: |cx, _, app| {
        if let Some(x) = app.operand(0) {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

/// Whether all elements of a constant are 1.
fn is_one(view: &dyn View, class: Class) -> bool {
    let Some(t) = view.constant(class).and_then(|c| c.to_tensor().ok()) else { return false };
    match t.to_f64s() {
        Some(v) => v.iter().all(|&x| x == 1.0),
        None => t.to_i64s().is_some_and(|v| v.iter().all(|&x| x == 1)),
    }
}

const NEUTRAL: Condition = Condition { name: "neutral", text: "the constant is the operation's neutral element" };

/// Sound over the reals; in floating point the sum of -0 and 0 is 0.
/// Requires: a constant of zeros that does not widen `x`.
/// Not sound for: `0 - x`.
/// Exactness: reassociated (the sign of zero).
/// Pays: one pass over the map disappears.
pub const ADD_ZERO: Rule = Rule {
    name: "add-zero",
    equation: "x + 0 => x; x - 0 => x",
    conditions: &[NEUTRAL, SAME_SHAPE],
    exactness: Exactness::Reassociated,
    types: Types::NUMBERS,
    pays: "one pass over the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Add", "Sub"],
    search: |cx, class, app| {
        let both = matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Add);
        neutral(cx, class, app, both, &|view, c| is_zero(view, c) == Some(true));
    },
};

/// Sound bit for bit.
/// Requires: a constant of ones that does not widen `x`.
/// Not sound for: `1 / x`.
/// Exactness: bitwise.
/// Pays: one pass over the map disappears.
pub const MUL_ONE: Rule = Rule {
    name: "mul-one",
    equation: "x * 1 => x; x / 1 => x",
    conditions: &[NEUTRAL, SAME_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "one pass over the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        let both = matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Mul);
        neutral(cx, class, app, both, &|view, c| is_one(view, c));
    },
};

fn neutral(cx: &mut Cx<'_>, class: Class, app: &App<'_>, both: bool, is_neutral: &dyn Fn(&dyn View, Class) -> bool) {
    let (Some(a), Some(b)) = (app.operand(0), app.operand(1)) else { return };
    for (x, c, allowed) in [(a, b, true), (b, a, both)] {
        cx.begin();
        if !allowed || !cx.view.is_constant(c) || cx.view.is_constant(x) {
            continue;
        }
        let verdict =
            if is_neutral(cx.view, c) { Verdict::Holds } else { Verdict::Fails("the constant is another".into()) };
        if cx.require(NEUTRAL.name, verdict) && same_shape(cx, x, class) {
            cx.rewrite(Expr::of(app), x);
        }
    }
}

/// Sound bit for bit.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const CAST_SAME: Rule = Rule {
    name: "cast-same",
    equation: "Cast(x; to the type of x) => x",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Cast"],
    search: |cx, class, app| {
        let Some(x) = app.operand(0) else { return };
        let dtype = |c: Class| -> Option<DType> { Some(cx.view.fact(c)?.dtype) };
        if dtype(x).is_some() && dtype(x) == dtype(class) {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

/// Sound bit for bit: the maximum with 0 is idempotent.
/// Exactness: bitwise.
/// Pays: one pass over the map disappears.
pub const RELU_RELU: Rule = Rule {
    name: "relu-relu",
    equation: "Relu(Relu(x)) => Relu(x)",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS.and(Types::SIGNED),
    pays: "one pass over the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Relu"],
    search: |cx, _, app| {
        let Some(x) = app.operand(0) else { return };
        if let Some(inner) = cx.view.apps(x).into_iter().find(|a| a.op.name() == "Relu") {
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), x);
        }
    },
};

/// Sound bit for bit.
/// Exactness: bitwise.
/// Pays: a copy disappears.
pub const CONCAT_ONE: Rule = Rule {
    name: "concat-one",
    equation: "Concat(x) => x",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, _, app| {
        if let [Some(x)] = app.operands.as_slice() {
            cx.rewrite(Expr::of(app), *x);
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&IDENTITY, &ADD_ZERO, &MUL_ONE, &CAST_SAME, &RELU_RELU, &CONCAT_ONE];
