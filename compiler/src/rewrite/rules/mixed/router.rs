//! Constant factors in a router, such as the temperature of a softmax.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, Gemm, MatMul, binary::BinaryKind},
};

use super::super::{
    affine::equal_shapes,
    read::{
        conv::convs_in,
        reshape::is_view,
        scale::{Scaling, finite_factors, scaling},
    },
    weights::{add, div, mul, reshape},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

const PER_COLUMN: Condition = Condition {
    name: "per-column",
    text: "the factor is one number, or one for each column, and does not widen the product",
};
const FINITE: Condition =
    Condition { name: "finite-scale", text: "every factor, or 1 over it where it divides, is a finite number" };

/// The product `x W (+ c)` in a class.
enum Product {
    /// A Gemm with constant b.
    Gemm(Gemm, Class, Class, Option<Class>),
    /// A product with a constant matrix, and what is added.
    MatMul(Class, Class, Option<Class>),
    /// A convolution with constant weights.
    Conv(Conv, Class, Expr, Option<Class>),
}

impl Product {
    /// The same with its weights multiplied or divided by `s`: one number, or one for each of `count` columns.
    fn scaled(self, s: Class, count: i64, divides: bool) -> Expr {
        let factor = |shape: &[i64]| reshape(s.into(), shape);
        let scaled = |e: Expr, by: Expr| if divides { div(e, by) } else { mul(e, by) };
        let each = |c: Option<Class>| c.map(|c| scaled(c.into(), factor(&[count])));
        match self {
            Product::Gemm(g, x, w, c) => {
                let by = if g.trans_b { factor(&[count, 1]) } else { factor(&[count]) };
                Expr::op(g, vec![Some(x.into()), Some(scaled(w.into(), by)), each(c)])
            }
            Product::MatMul(x, w, added) => {
                let y = Expr::op(MatMul {}, vec![Some(x.into()), Some(scaled(w.into(), factor(&[count])))]);
                match each(added) {
                    None => y,
                    Some(c) => add(y, c),
                }
            }
            Product::Conv(op, x, w, b) => {
                Expr::op(op, vec![Some(x.into()), Some(scaled(w, factor(&[count]))), each(b)])
            }
        }
    }
}

/// The product or convolution in a class, spelled out.
fn linear(view: &dyn View, class: Class) -> Option<(Expr, Product)> {
    product(view, class).or_else(|| {
        let c = convs_in(view, class).into_iter().next()?;
        Some((c.expr(), Product::Conv(c.op.clone(), c.x, c.kernel.weights.clone(), c.bias)))
    })
}

/// A product with a constant matrix `[K, M]`, spelled out.
fn product(view: &dyn View, class: Class) -> Option<(Expr, Product)> {
    let matmul = |app: &App<'_>| {
        let (x, w) = (app.operand(0)?, app.operand(1)?);
        let fits = matches!(app.op, Op::MatMul(_)) && view.is_constant(w) && !view.is_constant(x);
        (fits && view.fact(w)?.rank() == 2).then_some((x, w))
    };
    view.apps(class).iter().find_map(|app| match app.op {
        Op::Gemm(g) => {
            let (x, w, c) = (app.operand(0)?, app.operand(1)?, app.operand(2));
            let constant = view.is_constant(w) && c.is_none_or(|c| view.is_constant(c)) && !view.is_constant(x);
            constant.then(|| (Expr::of(app), Product::Gemm(g.clone(), x, w, c)))
        }
        Op::Binary(b) if b.kind == BinaryKind::Add => {
            let (p, q) = (app.operand(0)?, app.operand(1)?);
            [(0, p, q), (1, q, p)].into_iter().find_map(|(place, y, c)| {
                if !view.is_constant(c) || equal_shapes(view, y, class) != Some(true) {
                    return None;
                }
                let inner = view.apps(y).into_iter().find(|a| matmul(a).is_some())?;
                let (x, w) = matmul(&inner)?;
                let lhs = Expr::of(app).with_operand(place, Expr::of(&inner));
                Some((lhs, Product::MatMul(x, w, Some(c))))
            })
        }
        _ => {
            let (x, w) = matmul(app)?;
            Some((Expr::of(app), Product::MatMul(x, w, None)))
        }
    })
}

/// Sound over the reals: a product of matrices is linear in its second factor.
/// Requires: constant W, c and s, one number or one for each column of W; finite.
/// Not sound for: `s / (x W)`; a factor of its own for each row.
/// Exactness: reassociated.
/// Pays: an operator disappears, such as the temperature of a softmax.
pub const SCALE_INTO_MATMUL: Rule = Rule {
    name: "scale-into-matmul",
    equation: "MatMul(x, w) * s => MatMul(x, w * s); \
               (MatMul(x, w) + c) * s => MatMul(x, w * s) + c * s; \
               Gemm(x, w, c?) * s => Gemm(x, w * s, c? * s); \
               MatMul(x, w) / s => MatMul(x, w / s); \
               (MatMul(x, w) + c) / s => MatMul(x, w / s) + c / s; \
               Gemm(x, w, c?) / s => Gemm(x, w / s, c? / s)",
    conditions: &[PER_COLUMN, FINITE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "an operator disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(Scaling { place, y, factor: s, divides }) = scaling(view, app) else { return };
        let Some((lhs, product)) = product(view, y) else { return };
        let (Some(fs), Some(fy)) = (view.fact(s), view.fact(y)) else { return };
        let Some(sizes) = fs.fixed_shape() else { return };
        let count: usize = sizes.iter().product();
        let columns = fy.shape.last().and_then(Dim::as_fixed);
        let of_columns = count == 1 || (columns == Some(count as i64) && sizes.last() == Some(&count));
        let verdict = match equal_shapes(view, y, class) {
            Some(true) if of_columns => Verdict::Holds,
            None if of_columns => Verdict::Unknown("whether the factor widens the product is not known".into()),
            _ => Verdict::Fails(format!("the factor is {fs}, the product {fy}")),
        };
        if !cx.require(PER_COLUMN.name, verdict) || !cx.require(FINITE.name, finite_factors(view, s, divides)) {
            return;
        }
        let rhs = product.scaled(s, count as i64, divides);
        cx.rewrite(Expr::of(app).with_operand(place, lhs), rhs);
    },
};

const ONE_NUMBER: Condition =
    Condition { name: "one-number", text: "the factor is a single number and does not add axes" };

/// Sound over the reals: a view changes no element, and what made them is linear in its weights.
/// Requires: constant weights; a constant of one finite number.
/// Not sound for: a factor that varies along an axis that the view changes.
/// Exactness: reassociated.
/// Pays: an operator disappears, such as the temperature of a softmax.
pub const SCALE_PAST_VIEW: Rule = Rule {
    name: "scale-past-view",
    equation: "viewed(Conv|Gemm(x, w, c?)) * s => viewed(Conv|Gemm(x, w * s, c? * s)); \
               viewed(Conv|Gemm(x, w, c?)) / s => viewed(Conv|Gemm(x, w / s, c? / s)); \
               viewed(MatMul(x, w) + c?) * s => viewed(MatMul(x, w * s) + c? * s); \
               viewed(MatMul(x, w) + c?) / s => viewed(MatMul(x, w / s) + c? / s)",
    conditions: &[ONE_NUMBER, FINITE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "an operator disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(Scaling { place, y: v, factor: s, divides }) = scaling(view, app) else { return };
        for inner in view.apps(v).into_iter().filter(is_view) {
            cx.begin();
            let Some((lhs, product)) = inner.operand(0).and_then(|y| linear(view, y)) else { continue };
            let Some(fs) = view.fact(s) else { continue };
            let single = fs.fixed_shape().is_some_and(|s| s.iter().product::<usize>() == 1);
            let verdict = match equal_shapes(view, v, class) {
                Some(true) if single => Verdict::Holds,
                _ => Verdict::Fails(format!("the factor is {fs}")),
            };
            if !cx.require(ONE_NUMBER.name, verdict) || !cx.require(FINITE.name, finite_factors(view, s, divides)) {
                continue;
            }
            let count = fs.fixed_shape().map_or(1, |s| s.iter().product::<usize>() as i64);
            let rhs = Expr::of(&inner).with_operand(0, product.scaled(s, count, divides));
            let lhs = Expr::of(app).with_operand(place, Expr::of(&inner).with_operand(0, lhs));
            cx.rewrite(lhs, rhs);
        }
    },
};
