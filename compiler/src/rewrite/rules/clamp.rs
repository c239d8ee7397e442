//! Bounds of elements: Relu, Clip, and Max and Min with a constant.

use convc_runtime::{
    DType, Op,
    ops::{
        Clip, Unary,
        unary::UnaryKind,
        variadic::{Variadic, VariadicKind},
    },
};

use super::{affine::equal_shapes, weights::floats};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_nonnegative},
};

const KNOWN: Condition = Condition { name: "known-bounds", text: "every bound that is given is a constant" };

/// A lower and an upper bound, infinite where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) lower: f64,
    pub(super) upper: f64,
}

impl Bounds {
    /// `min(max(v, lower), upper)`, which of equal zeros takes the bound's.
    fn of(self, v: f64) -> f64 {
        let v = if v > self.lower { v } else { self.lower };
        if v < self.upper { v } else { self.upper }
    }

    /// These bounds behind others.
    fn behind(self, inner: Bounds) -> Bounds {
        Bounds { lower: self.of(inner.lower), upper: self.of(inner.upper) }
    }

    /// The operator with these bounds on `x`.
    fn on(self, x: Expr, dtype: DType) -> Expr {
        if self.lower == 0.0 && self.lower.is_sign_positive() && self.upper == f64::INFINITY {
            return Expr::op(Unary::new(UnaryKind::Relu), vec![Some(x)]);
        }
        let bound = |v: f64, none: f64| (v != none).then(|| floats(dtype, &[], vec![v]));
        Expr::op(Clip {}, vec![Some(x), bound(self.lower, f64::NEG_INFINITY), bound(self.upper, f64::INFINITY)])
    }
}

/// The one number that a floating-point constant holds.
pub(super) fn number(view: &dyn View, class: Class) -> Option<f64> {
    match view.constant(class)?.to_tensor().ok()?.to_f64s()?[..] {
        [v] if !v.is_nan() => Some(v),
        _ => None,
    }
}

/// The bounds of a Relu or Clip, with those that are no constants left out, and whether there are none such.
pub(super) fn bounds_of(view: &dyn View, app: &App<'_>) -> Option<(Bounds, bool)> {
    let mut known = true;
    let mut bound = |i: usize, none: f64| match app.operand(i) {
        None => none,
        Some(c) => number(view, c).unwrap_or_else(|| {
            known = false;
            none
        }),
    };
    let bounds = match app.op {
        Op::Unary(u) if u.kind == UnaryKind::Relu => Bounds { lower: 0.0, upper: f64::INFINITY },
        Op::Clip(_) => Bounds { lower: bound(1, f64::NEG_INFINITY), upper: bound(2, f64::INFINITY) },
        _ => return None,
    };
    Some((bounds, known))
}

/// Sound bit for bit: a Clip never decreases, so it takes the ends of a range to the ends of a range. Crossed bounds, of which
/// the upper one counts, and bounds that leave nothing between them go through the same formula.
/// Requires: constant bounds.
/// Exactness: bitwise.
/// Pays: one pass over the map disappears.
pub const CLIP_CLIP: Rule = Rule {
    name: "clip-clip",
    equation: "Relu|Clip(clamped(x), ..) => clamped(x)",
    conditions: &[KNOWN],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one pass over the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Relu", "Clip"],
    search: |cx, _, app| {
        let (Some(y), view) = (app.operand(0), cx.view) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let (Some((first, inner_known)), Some(x)) = (bounds_of(view, &inner), inner.operand(0)) else { continue };
            let (Some((second, outer_known)), Some(dtype)) = (bounds_of(view, app), view.fact(x).map(|f| f.dtype))
            else {
                continue;
            };
            let verdict = match inner_known && outer_known {
                true => Verdict::Holds,
                false => Verdict::Unknown("a bound is not a constant number".into()),
            };
            if cx.require(KNOWN.name, verdict) {
                let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
                cx.rewrite(lhs, second.behind(first).on(x.into(), dtype));
            }
        }
    },
};

const ONE_NUMBER: Condition =
    Condition { name: "one-number", text: "the constant is one number, which does not widen the map" };

/// Sound over the reals, by definition; of equal zeros the Max of two operands may give either.
/// Requires: a constant of one element.
/// Not sound for: a number for each channel; a constant of higher rank than the map.
/// Exactness: reassociated (the sign of zero).
/// Pays: bounds join their neighbours, and the convolution before them.
pub const MAX_AS_CLIP: Rule = Rule {
    name: "max-as-clip",
    equation: "Max(x, 0) => Relu(x); \
               Max(x, c) => Clip(x, low?); \
               Min(x, c) => Clip(x, _, high?) where the bound is the constant, and missing where that is infinite",
    conditions: &[ONE_NUMBER],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "bounds join their neighbours, and the convolution before them",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Max", "Min"],
    search: |cx, class, app| {
        let (Op::Variadic(Variadic { kind }), [Some(a), Some(b)], view) = (app.op, &app.operands[..], cx.view) else {
            return;
        };
        let (x, c) = match (view.is_constant(*a), view.is_constant(*b)) {
            (false, true) => (*a, *b),
            (true, false) => (*b, *a),
            _ => return,
        };
        let (Some(dtype), Some(shape)) = (view.fact(x).map(|f| f.dtype), view.fact(c)) else { return };
        let value = view.constant(c).and_then(|c| c.to_tensor().ok()?.to_f64s()?.first().copied());
        let one = shape.element_count().as_fixed() == Some(1) && equal_shapes(view, x, class) == Some(true);
        let verdict = match value {
            Some(v) if v.is_nan() => Verdict::Fails("the constant is no number".into()),
            Some(_) => Verdict::from_answer(Some(one), || format!("the constant is {shape}")),
            None => Verdict::Unknown("the constant is not folded".into()),
        };
        if cx.require(ONE_NUMBER.name, verdict)
            && let Some(value) = value
        {
            let bounds = match kind {
                VariadicKind::Max => Bounds { lower: value, upper: f64::INFINITY },
                _ => Bounds { lower: f64::NEG_INFINITY, upper: value },
            };
            cx.rewrite(Expr::of(app), bounds.on(x.into(), dtype));
        }
    },
};

const NONNEGATIVE: Condition =
    Condition { name: "no-negative-element", text: "the operators that made the map leave no negative element" };

/// Sound over the reals.
/// Requires: a map behind Relu, Sigmoid, Abs or the like, or sums, products, averages and views of such maps.
/// Exactness: reassociated (the sign of zero).
/// Pays: one pass over the map disappears.
pub const RELU_NONNEGATIVE: Rule = Rule {
    name: "relu-nonnegative",
    equation: "Relu|Clip(x, ..) => x where no element of x is negative",
    conditions: &[NONNEGATIVE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Relu", "Clip"],
    search: |cx, _, app| {
        let (Some(x), view) = (app.operand(0), cx.view) else { return };
        if view.is_constant(x) {
            return;
        }
        let below = bounds_of(view, app).filter(|(b, known)| *known && b.lower <= 0.0 && b.upper == f64::INFINITY);
        if below.is_none() {
            return;
        }
        // Behind a convolution there is nothing to ask.
        let hints = |app: &App<'_>| app.operands.iter().flatten().any(|&o| is_nonnegative(view, o) == Some(true));
        let known = is_nonnegative(view, x);
        if known.is_none() && !view.apps(x).iter().any(hints) {
            return;
        }
        let verdict = Verdict::from_answer(known, || "the map may have negative elements".into());
        if cx.require(NONNEGATIVE.name, verdict) {
            cx.rewrite(Expr::of(app), x);
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&MAX_AS_CLIP, &CLIP_CLIP, &RELU_NONNEGATIVE];
