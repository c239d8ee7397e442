//! Slices and concatenations of concatenations.

use convc_runtime::{Op, ops::Concat};

use super::read::{
    axes::axis,
    slice::{Cut, part, slice, sliced},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr, fixed_dim},
};

const IN_ORDER: Condition = Condition {
    name: "in-order",
    text: "along the axis of the concatenation the slice takes neighbours in their order, in steps of 1",
};

/// Sound bit for bit: a slice of consecutive elements is what it takes of each operand, one behind the other.
/// Requires: operands of fixed size along the axis; a slice with fixed bounds, in steps of 1 along it (along other axes any).
/// Not sound for: a slice that reverses or skips, whose parts would have to be reversed or begin elsewhere.
/// Exactness: bitwise.
/// Pays: only what is kept is copied, and once; an operand that is not met need not be computed, and a slice that cuts one
/// goes on to the convolution behind it.
pub const SLICE_OF_CONCAT: Rule = Rule {
    name: "slice-of-concat",
    equation: "Slice(Concat(x[i]..), ..) => parts(x[i]..?)",
    conditions: &[IN_ORDER],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "only what is kept is copied and computed",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Slice"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(s) = sliced(view, app) else { return };
        for cat in view.apps(s.x) {
            let Op::Concat(c) = cat.op else { continue };
            let (Some(rank), Some(parts)) = (view.fact(s.x).map(|f| f.rank()), cat.operands.iter().copied().collect())
            else {
                continue;
            };
            let parts: Vec<Class> = parts;
            let Some(axis) = axis(c.axis, rank) else { continue };
            let sizes: Option<Vec<i64>> = parts.iter().map(|&p| fixed_dim(view, p, axis)).collect();
            let (Some(cut), Some(sizes)) = (s.along.get(axis).copied().flatten(), sizes) else { continue };
            let Some((first, count)) = cut.on(sizes.iter().sum()) else { continue };
            if count == 0 || parts.contains(&class) {
                continue;
            }
            cx.begin();
            let verdict = if cut.step == 1 {
                Verdict::Holds
            } else {
                Verdict::Fails(format!("steps of {} along axis {axis}", cut.step))
            };
            if !cx.require(IN_ORDER.name, verdict) {
                continue;
            }
            let first = if cut.step < 0 { first + 1 - count } else { first };
            let mut met = Vec::new();
            let mut at = 0;
            for (&p, size) in parts.iter().zip(sizes) {
                let (low, high) = ((first - at).max(0), (first + count - at).min(size));
                at += size;
                if low < high {
                    let whole = low == 0 && high == size;
                    met.push(if whole { p.into() } else { part(p.into(), axis, low, high - low) });
                }
            }
            let others: Vec<(usize, Cut)> =
                s.axes().into_iter().filter(|a| *a != axis).filter_map(|a| Some((a, s.along[a]?))).collect();
            let one = if met.len() == 1 {
                met.swap_remove(0)
            } else {
                Expr::op(Concat { axis: c.axis }, met.into_iter().map(Some).collect())
            };
            let rhs = slice(one, &others);
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&cat)), rhs);
        }
    },
};

/// Operands that one concatenation is given by this rule at most, so that a chain of them has few spellings.
const MOST: usize = 16;

/// Sound bit for bit, by definition.
/// Requires: one axis.
/// Not sound for: concatenations along different axes.
/// Exactness: bitwise.
/// Pays: what stands in the inner one is copied once less, unless that is needed for something else.
pub const CONCAT_OF_CONCAT: Rule = Rule {
    name: "concat-of-concat",
    equation: "Concat(p.., Concat(x[i]..), q..) => Concat(p.., x[i].., q..)",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy less",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, class, app| {
        let view = cx.view;
        let (Op::Concat(c), Some(rank)) = (app.op, view.fact(class).map(|f| f.rank())) else { return };
        for (place, &operand) in app.operands.iter().enumerate() {
            let Some(operand) = operand else { continue };
            for inner in view.apps(operand) {
                let Op::Concat(i) = inner.op else { continue };
                if app.operands.len() + inner.operands.len() > MOST + 1 || inner.operands.contains(&Some(class)) {
                    continue;
                }
                if axis(i.axis, rank) != axis(c.axis, rank) {
                    continue;
                }
                let mut operands = app.operands.clone();
                operands.splice(place..=place, inner.operands.iter().copied());
                let operands = operands.into_iter().map(|o| o.map(Expr::Class)).collect();
                let rhs = Expr::op(Concat { axis: c.axis }, operands);
                cx.rewrite(Expr::of(app).with_operand(place, Expr::of(&inner)), rhs);
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&SLICE_OF_CONCAT, &CONCAT_OF_CONCAT];
