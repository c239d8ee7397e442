//! BatchNormalization behind products with constant matrices.

use convc_runtime::{Dim, Op, ops::Gemm};

use super::{
    affine::{SCALE, scale_and_shift},
    weights::{add, mul, reshape},
};
use crate::rewrite::{
    rule::{Exactness, Phase, Rule},
    types::Types,
    view::Expr,
};

/// `bn(x W + c; g, b, m, v)  =>  x (W * s) + (c * s + b - m s)`, `s = g / sqrt(v + eps)`
///
/// Sound over the reals: inference-time BatchNormalization is affine in each column.
/// Requires: constant parameters, W and c; c, if there is one, with a number for each column.
/// Not sound for: training mode, whose statistics are the batch's own.
/// Exactness: reassociated.
/// Pays: an operator disappears.
pub const BN_INTO_PRODUCT: Rule = Rule {
    name: "bn-into-product",
    equation: "bn(x W + c, g, b, m, v) => x (W * s) + (c * s + b - m * s), s = g / sqrt(v + eps)",
    conditions: &[SCALE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "an operator disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["BatchNormalization"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(y) = app.operand(0).filter(|y| view.fact(*y).is_some_and(|f| f.rank() == 2)) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let op = match inner.op {
                Op::Gemm(g) if g.alpha == 1.0 && g.beta == 1.0 => g.clone(),
                Op::MatMul(_) => Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false },
                _ => continue,
            };
            let (Some(x), Some(w), c) = (inner.operand(0), inner.operand(1), inner.operand(2)) else { continue };
            let (Some(fw), Some(fx)) = (view.fact(w), view.fact(x)) else { continue };
            let columns = fw.shape.get(usize::from(!op.trans_b)).and_then(Dim::as_fixed);
            let constant = view.is_constant(w) && c.is_none_or(|c| view.is_constant(c)) && !view.is_constant(x);
            let (true, Some(n)) = (constant && fw.rank() == 2 && fx.rank() == 2, columns) else { continue };
            if c.is_some_and(|c| view.fact(c).and_then(|f| f.element_count().as_fixed()) != Some(n)) {
                continue;
            }
            // A column of its own for each number, where there is one row of them.
            if c.is_some_and(|c| view.fact(c).and_then(|f| f.shape.last().and_then(Dim::as_fixed)) != Some(n)) {
                continue;
            }
            let Some((scale, shift)) = scale_and_shift(cx, app, fw.dtype) else { continue };
            let along = if op.trans_b { [n, 1] } else { [1, n] };
            let weights = mul(w.into(), reshape(scale.clone(), &along));
            let shift = match c {
                Some(c) => add(mul(reshape(c.into(), &[n]), scale), shift),
                None => shift,
            };
            let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
            cx.rewrite(lhs, Expr::op(op, vec![Some(x.into()), Some(weights), Some(shift)]));
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BN_INTO_PRODUCT];
