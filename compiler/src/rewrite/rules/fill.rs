//! Operands that hold one number everywhere.

use convc_runtime::{Constant, Op, Tensor};

use super::affine::equal_shapes;
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr, View},
};

/// Operators between the fill and its use at most.
const DEPTH: usize = 8;

/// A value whose elements are all the same number: spelled out, and the number as a tensor of rank 0.
fn filled(view: &dyn View, class: Class, depth: usize) -> Option<(Expr, Tensor)> {
    let depth = depth.checked_sub(1)?;
    view.apps(class).iter().find_map(|app| match app.op {
        Op::ConstantOfShape(f) => Some((Expr::of(app), f.value.reshaped([]).ok()?)),
        Op::Expand(_) => {
            let value = view.constant(app.operand(0)?)?.to_tensor().ok()?;
            Some((Expr::of(app), value.reshaped([]).ok()?))
        }
        Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Gather(_) => {
            let (lhs, value) = filled(view, app.operand(0)?, depth)?;
            Some((Expr::of(app).with_operand(0, lhs), value))
        }
        _ => None,
    })
}

const SAME_SHAPE: Condition =
    Condition { name: "same-shape", text: "the result has the shape of the other operand, whatever the sizes" };

/// Sound bit for bit: every element of the fill is v.
/// Requires: a fill that does not widen x.
/// Not sound for: a fill that repeats x.
/// Exactness: bitwise.
/// Pays: the fill and the arithmetic of its shape disappear.
pub const FILL_AS_SCALAR: Rule = Rule {
    name: "fill-as-scalar",
    equation: "Add|Sub|Mul|Div|Pow|Max|Min(x, filled()) => Add|Sub|Mul|Div|Pow|Max|Min(x, v); \
               Add|Sub|Mul|Div|Pow|Max|Min(filled(), x) => Add|Sub|Mul|Div|Pow|Max|Min(v, x) where `v` is the number that the \
               tensor is filled with",
    conditions: &[SAME_SHAPE],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "the fill and the arithmetic of its shape disappear",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"],
    search: |cx, class, app| {
        if app.operands.len() != 2 {
            return;
        }
        for (place, other) in [(0, 1), (1, 0)] {
            cx.begin();
            let (Some(fill), Some(x)) = (app.operand(place), app.operand(other)) else { continue };
            if cx.view.is_constant(fill) {
                continue;
            }
            let Some((lhs, value)) = filled(cx.view, fill, DEPTH) else { continue };
            let Ok(value) = Constant::from_tensor(&value) else { continue };
            let verdict = Verdict::from_answer(equal_shapes(cx.view, x, class), || {
                let show = |c: Class| cx.view.fact(c).map_or_else(|| "unknown".into(), ToString::to_string);
                format!("the other operand is {}, the result {}", show(x), show(class))
            });
            if cx.require(SAME_SHAPE.name, verdict) {
                let spelled = Expr::of(app).with_operand(place, lhs);
                cx.rewrite(spelled, Expr::of(app).with_operand(place, Expr::Constant(value)));
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&FILL_AS_SCALAR];
