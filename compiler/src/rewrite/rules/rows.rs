//! Products with constant matrices over more axes than two, as fully connected layers over tokens are written: what acts on
//! each column or each channel goes into the matrix.

use convc_runtime::{
    DType, Op,
    ops::{MatMul, binary::BinaryKind},
};

use super::{
    affine::{SCALE, scale_and_shift},
    read::{conv::convs_in, reshape::is_view},
    weights::{add, mul, reshape, sum},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// The size of the last axis of a class, if it is fixed.
fn last(view: &dyn View, class: Class) -> Option<i64> {
    view.fact(class)?.shape.last()?.as_fixed()
}

/// Sound over the reals: a view that keeps the last axis joins rows, and BatchNormalization is affine in each column.
/// Requires: constant parameters, W and c; c, if there is one, with a number for each column.
/// Not sound for: a view that cuts rows in pieces or joins them to longer ones.
/// Exactness: reassociated.
/// Pays: the view meets the one that undoes it; a BatchNormalization becomes the addition that a bias is.
pub const BN_INTO_ROWS: Rule = Rule {
    name: "bn-into-rows",
    equation: "BatchNormalization(viewed(MatMul(x, w)), g, b, m, v) => viewed(MatMul(x, w * s) + (b - m * s)) where s = g / \
               Sqrt(v + eps); \
               BatchNormalization(viewed(MatMul(x, w) + c), g, b, m, v) => viewed(MatMul(x, w * s) + (c * s + (b - m * s))) \
               where s = g / Sqrt(v + eps)",
    conditions: &[SCALE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a BatchNormalization becomes the addition that a bias is",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["BatchNormalization"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(y) = app.operand(0).filter(|y| view.fact(*y).is_some_and(|f| f.rank() == 2)) else { return };
        for joined in view.apps(y).iter().filter(|a| is_view(a)) {
            // A column stays a column where the last axis has the same size before and behind the view.
            let Some(z) = joined.operand(0).filter(|z| last(view, *z).is_some_and(|n| last(view, y) == Some(n))) else {
                continue;
            };
            for rows in rows_in(view, z) {
                cx.begin();
                let Some((scale, shift)) = scale_and_shift(cx, app, rows.dtype) else { continue };
                let weights = mul(rows.weights.into(), reshape(scale.clone(), &[1, rows.columns]));
                let product = Expr::op(MatMul {}, vec![Some(rows.x.into()), Some(weights)]);
                let shift = match rows.bias {
                    Some(c) => add(mul(reshape(c.into(), &[rows.columns]), scale), shift),
                    None => shift,
                };
                let lhs = Expr::of(app).with_operand(0, Expr::of(joined).with_operand(0, (rows.over)(rows.x.into())));
                cx.rewrite(lhs, Expr::of(joined).with_operand(0, add(product, shift)));
            }
        }
    },
};

/// `x W`, or `x W + c` as two operators, for an `x` of more axes than two.
struct Rows {
    /// The term as it stands, over another operand than `x`.
    over: Box<dyn Fn(Expr) -> Expr>,
    x: Class,
    weights: Class,
    bias: Option<Class>,
    dtype: DType,
    columns: i64,
}

/// The products in a class.
fn rows_in(view: &dyn View, class: Class) -> Vec<Rows> {
    view.apps(class).iter().flat_map(|app| rows_of(view, app)).collect()
}

/// The products that an application is, or adds a constant row to.
fn rows_of(view: &dyn View, app: &App<'_>) -> Vec<Rows> {
    if matches!(app.op, Op::MatMul(_)) {
        return rows_at(view, app).into_iter().collect();
    }
    let (Op::Binary(b), Some(p), Some(q)) = (app.op, app.operand(0), app.operand(1)) else { return Vec::new() };
    if b.kind != BinaryKind::Add {
        return Vec::new();
    }
    let (place, y, c) = if view.is_constant(q) { (0, p, q) } else { (1, q, p) };
    let of_columns =
        view.is_constant(c) && view.fact(c).is_some_and(|f| f.rank() == 1 && f.shape[0].as_fixed() == last(view, y));
    if !of_columns || last(view, y).is_none() {
        return Vec::new();
    }
    let shifted = |rows: Rows| {
        let (outer, inner) = (Expr::of(app), rows.over);
        let over = Box::new(move |x: Expr| outer.clone().with_operand(place, inner(x)));
        Rows { over, bias: Some(c), ..rows }
    };
    view.apps(y).iter().filter_map(|inner| rows_at(view, inner)).map(shifted).collect()
}

fn rows_at(view: &dyn View, app: &App<'_>) -> Option<Rows> {
    let Op::MatMul(_) = app.op else { return None };
    let (x, weights) = (app.operand(0)?, app.operand(1)?);
    let (fx, fw) = (view.fact(x)?, view.fact(weights)?);
    if fx.rank() < 3 || fw.rank() != 2 || view.is_constant(x) || !view.is_constant(weights) {
        return None;
    }
    let columns = fw.shape[1].as_fixed()?;
    let term = Expr::of(app);
    let over = Box::new(move |x: Expr| term.clone().with_operand(0, x));
    Some(Rows { over, x, weights, bias: None, dtype: fw.dtype, columns })
}

const CHANNELS_LAST: Condition = Condition {
    name: "channels-last",
    text: "the Transpose makes channels the last axis, which the matrix has a row for each of",
};

/// Sound over the reals: a depthwise 1x1 convolution is affine in each channel, the Transpose makes channels the last axis, and
/// each row of the matrix reads one channel.
/// Requires: constant kernels, W and c.
/// Not sound for: a Transpose that makes another axis the last one; a convolution that mixes channels.
/// Exactness: reassociated.
/// Pays: a pass over the map disappears: a BatchNormalization before attention, where all that reads it are products.
pub const SCALE_BEFORE_ROWS: Rule = Rule {
    name: "scale-before-rows",
    equation: "MatMul(Transpose(Conv(x, s, t?; depthwise 1x1)), w) => MatMul(Transpose(x), w * s) + response(w, t?); \
               MatMul(Transpose(Conv(x, s, t?; depthwise 1x1)), w) + c => MatMul(Transpose(x), w * s) + (c + response(w, t?))",
    conditions: &[CHANNELS_LAST],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a pass over the map disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["MatMul", "Add"],
    search: |cx, _, app| {
        let view = cx.view;
        for rows in rows_of(view, app) {
            for turned in view.apps(rows.x) {
                let Op::Transpose(t) = turned.op else { continue };
                let Some(z) = turned.operand(0) else { continue };
                for conv in convs_in(view, z).iter().filter(|c| c.is_pointwise() && c.is_scale()) {
                    cx.begin();
                    let last = Verdict::from_answer(Some(t.perm.last() == Some(&1)), || {
                        format!("its order of axes is {:?}", t.perm)
                    });
                    if !cx.require(CHANNELS_LAST.name, last) {
                        continue;
                    }
                    let channels = conv.kernel.outputs;
                    let place = |x: Expr| Expr::of(&turned).with_operand(0, x);
                    let along = |v: Expr| reshape(v, &[channels, 1]);
                    let weights = mul(rows.weights.into(), along(conv.kernel.weights.clone()));
                    let product = Expr::op(MatMul {}, vec![Some(place(conv.x.into())), Some(weights)]);
                    let response = conv
                        .bias
                        .map(|t| reshape(sum(mul(rows.weights.into(), along(t.into())), &[0]), &[rows.columns]));
                    let rhs = match (rows.bias.map(Expr::Class), response) {
                        (Some(c), Some(t)) => add(product, add(c, t)),
                        (c, t) => match c.or(t) {
                            Some(shift) => add(product, shift),
                            None => product,
                        },
                    };
                    cx.rewrite((rows.over)(place(conv.expr())), rhs);
                }
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BN_INTO_ROWS, &SCALE_BEFORE_ROWS];
