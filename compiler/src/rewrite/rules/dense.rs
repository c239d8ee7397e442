//! Products with constant matrices take in BatchNormalization before and behind them, and add up.

use convc_runtime::{
    DType, Dim, Op,
    ops::{Gemm, binary::BinaryKind},
};

use super::{
    affine::{SCALE, scale_and_shift},
    read::reshape::is_view,
    weights::{add, mul, neg, ones, reshape, sub, sum, transpose},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

const UNSCALED: Condition =
    Condition { name: "unscaled", text: "alpha and beta are 1: the product and what is added to it count as they are" };
const OF_COLUMNS: Condition = Condition {
    name: "one-for-each-column",
    text: "what is added to the product is one number for each column, and not for each row",
};

/// `x W + c` with a constant matrix `W` and, if there is one, a constant `c`.
struct Product {
    op: Gemm,
    x: Class,
    weights: Class,
    bias: Option<Class>,
    /// Why `c` is not a number for each column, if it is none.
    not_of_columns: Option<String>,
    dtype: DType,
    rows: i64,
    columns: i64,
}

/// Reads an application as a [`Product`] of matrices.
fn product_at(view: &dyn View, app: &App<'_>) -> Option<Product> {
    let op = match app.op {
        Op::Gemm(g) => g.clone(),
        Op::MatMul(_) => Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false },
        _ => return None,
    };
    let (x, weights, bias) = (app.operand(0)?, app.operand(1)?, app.operand(2));
    let (fw, fx) = (view.fact(weights)?, view.fact(x)?);
    if fw.rank() != 2 || fx.rank() != 2 || view.is_constant(x) || !view.is_constant(weights) {
        return None;
    }
    let size = |axis: usize| fw.shape.get(axis).and_then(Dim::as_fixed);
    let (rows, columns) = (size(usize::from(op.trans_b))?, size(usize::from(!op.trans_b))?);
    let mut not_of_columns = None;
    if let Some(c) = bias {
        let fc = view.fact(c).filter(|_| view.is_constant(c))?;
        // A column of its own for each number, where there is one row of them.
        let of_columns =
            fc.element_count().as_fixed() == Some(columns) && fc.shape.last().and_then(Dim::as_fixed) == Some(columns);
        not_of_columns = (!of_columns).then(|| format!("{fc} is added to {columns} columns"));
    }
    Some(Product { dtype: fw.dtype, op, x, weights, bias, not_of_columns, rows, columns })
}

impl Product {
    /// Whether it is `x W + c` as it stands, with a `c` of columns.
    fn is_plain(&self, cx: &mut Cx<'_>) -> bool {
        let (alpha, beta) = (self.op.alpha, self.op.beta);
        let unscaled =
            Verdict::from_answer(Some(alpha == 1.0 && beta == 1.0), || format!("alpha is {alpha}, beta {beta}"));
        let of_columns = self.not_of_columns.clone().map_or(Verdict::Holds, Verdict::Fails);
        cx.require(UNSCALED.name, unscaled) && cx.require(OF_COLUMNS.name, of_columns)
    }

    /// The matrix with each column, or each row, multiplied by its own number.
    fn scaled(&self, scale: Expr, of_columns: bool) -> Expr {
        let along = match (of_columns, self.op.trans_b) {
            (true, true) => [self.columns, 1],
            (true, false) => [1, self.columns],
            (false, true) => [1, self.rows],
            (false, false) => [self.rows, 1],
        };
        mul(self.weights.into(), reshape(scale, &along))
    }

    /// `row W`, for a constant row.
    fn response(&self, row: Expr) -> Expr {
        let terms = self.scaled(row, false);
        reshape(sum(terms, &[i64::from(self.op.trans_b)]), &[self.columns])
    }

    /// What is added to each column.
    fn shift(&self) -> Option<Expr> {
        self.bias.map(|c| reshape(c.into(), &[self.columns]))
    }

    /// The product with another operand, matrix and shift.
    fn with(&self, x: Expr, weights: Expr, shift: Option<Expr>) -> Expr {
        Expr::op(self.op.clone(), vec![Some(x), Some(weights), shift])
    }
}

/// Sound over the reals: inference-time BatchNormalization is affine in each column.
/// Requires: constant parameters, W and c; c, if there is one, with a number for each column.
/// Not sound for: training mode, whose statistics are the batch's own.
/// Exactness: reassociated.
/// Pays: an operator disappears.
pub const BN_INTO_PRODUCT: Rule = Rule {
    name: "bn-into-product",
    equation: "BatchNormalization(MatMul(x, w), g, b, m, v) => Gemm(x, w * s, b - m * s) where s = g / Sqrt(v + eps); \
               BatchNormalization(Gemm(x, w, c?), g, b, m, v) => Gemm(x, w * s, c? * s + (b - m * s)) where s = g / Sqrt(v + \
               eps)",
    conditions: &[UNSCALED, OF_COLUMNS, SCALE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "an operator disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["BatchNormalization"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(y) = app.operand(0) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let Some(p) = product_at(view, &inner) else { continue };
            if !p.is_plain(cx) {
                continue;
            }
            let Some((scale, shift)) = scale_and_shift(cx, app, p.dtype) else { continue };
            let shift = match p.shift() {
                Some(c) => add(mul(c, scale.clone()), shift),
                None => shift,
            };
            let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
            cx.rewrite(lhs, p.with(p.x.into(), p.scaled(scale, true), Some(shift)));
        }
    },
};

const OWN_ROWS: Condition = Condition {
    name: "channels-are-rows",
    text: "the rows of the matrix are the channels in their order, each with all its positions",
};

/// Sound over the reals: inference-time BatchNormalization is affine in each channel, and each row of the matrix reads one
/// channel. A view that joins channels and positions to one axis gives each channel as many neighbouring rows as it has
/// positions.
/// Requires: constant parameters, W and c; c, if there is one, with a number for each column.
/// Not sound for: training mode, whose statistics are the batch's own; a view that mixes samples.
/// Exactness: reassociated.
/// Pays: an operator disappears.
pub const BN_BEFORE_PRODUCT: Rule = Rule {
    name: "bn-before-product",
    equation: "MatMul(viewed(BatchNormalization(x, g, b, m, v)), w) => Gemm(viewed(x), w * s, response(w, b - m * s)) where s = \
               g / Sqrt(v + eps); \
               Gemm(viewed(BatchNormalization(x, g, b, m, v)), w, c?) => Gemm(viewed(x), w * s, c? + response(w, b - m * s)) \
               where s = g / Sqrt(v + eps)",
    conditions: &[UNSCALED, OF_COLUMNS, SCALE, OWN_ROWS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "an operator disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Gemm", "MatMul"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(p) = product_at(view, app) else { return };
        for inner in view.apps(p.x) {
            if is_view(&inner) {
                let Some(z) = inner.operand(0) else { continue };
                for norm in view.apps(z) {
                    let place = |y: Expr| Expr::of(&inner).with_operand(0, y);
                    before(cx, app, &p, &norm, &place);
                }
            } else {
                before(cx, app, &p, &inner, &|y| y);
            }
        }
    },
};

/// Takes the BatchNormalization `norm` into the product at `app`; `place` is what stands between them.
fn before(cx: &mut Cx<'_>, app: &App<'_>, p: &Product, norm: &App<'_>, place: &dyn Fn(Expr) -> Expr) {
    let view = cx.view;
    let (Op::BatchNormalization(_), Some(x)) = (norm.op, norm.operand(0)) else { return };
    let Some(sizes) = view.fact(x).map(|f| f.shape.iter().skip(1).map(Dim::as_fixed).collect::<Vec<_>>()) else {
        return;
    };
    let Some(channels) = sizes.first().copied().flatten().filter(|c| *c > 0) else { return };
    cx.begin();
    if !p.is_plain(cx) {
        return;
    }
    let count = sizes.iter().try_fold(1i64, |n, s| n.checked_mul((*s)?));
    let verdict = match count {
        _ if p.op.trans_a => Verdict::Fails("the map is transposed: the rows meet samples".into()),
        Some(n) if n == p.rows => Verdict::Holds,
        Some(n) => Verdict::Fails(format!("a sample has {n} elements, the matrix {} rows", p.rows)),
        None => Verdict::Unknown("how many elements a sample has is not known".into()),
    };
    if !cx.require(OWN_ROWS.name, verdict) || p.rows % channels != 0 {
        return;
    }
    let Some((scale, shift)) = scale_and_shift(cx, norm, p.dtype) else { return };
    let each = p.rows / channels;
    let spread = |v: Expr| match usize::try_from(each) {
        Ok(n) if n > 1 => reshape(mul(reshape(v, &[channels, 1]), ones(p.dtype, &[1, n])), &[p.rows]),
        _ => v,
    };
    let response = p.response(spread(shift));
    let shift = p.shift().map_or(response.clone(), |c| add(c, response));
    let lhs = Expr::of(app).with_operand(0, place(Expr::of(norm)));
    cx.rewrite(lhs, p.with(place(x.into()), p.scaled(spread(scale), false), Some(shift)));
}

const SAME_OPERAND: Condition =
    Condition { name: "same-operand", text: "both products take x as it stands, or both take it transposed" };

/// Sound over the reals: a product is linear in its matrix.
/// Requires: constant matrices and shifts; the same x.
/// Not sound for: products of different width, which the sum would broadcast.
/// Exactness: reassociated.
/// Pays: one product and no addition.
pub const PRODUCT_ADD: Rule = Rule {
    name: "product-add",
    equation: "MatMul|Gemm(x, w1, c1?) + Gemm|MatMul(x, w2, c2?) => Gemm(x, w1 + transposed(w2), c1? + c2?); \
               MatMul|Gemm(x, w1, c1?) - Gemm|MatMul(x, w2, c2?) => Gemm(x, w1 - transposed(w2), c1? - c2?)",
    conditions: &[SAME_OPERAND, UNSCALED, OF_COLUMNS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one product and no addition",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Add", "Sub"],
    search: |cx, _, app| {
        let view = cx.view;
        let join: fn(Expr, Expr) -> Expr = match app.op {
            Op::Binary(b) if b.kind == BinaryKind::Add => add,
            Op::Binary(b) if b.kind == BinaryKind::Sub => sub,
            _ => return,
        };
        let negates = matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Sub);
        let (Some(left), Some(right)) = (app.operand(0), app.operand(1)) else { return };
        let products = |class: Class| -> Vec<(Expr, Product)> {
            let read = |a: &App<'_>| Some((Expr::of(a), product_at(view, a)?));
            view.apps(class).iter().filter_map(read).collect()
        };
        for (first, p) in products(left) {
            for (second, q) in products(right) {
                if p.x != q.x || p.columns != q.columns {
                    continue;
                }
                cx.begin();
                let same = Verdict::from_answer(Some(p.op.trans_a == q.op.trans_a), || {
                    "one product takes x transposed, the other as it stands".into()
                });
                if !cx.require(SAME_OPERAND.name, same) || !p.is_plain(cx) || !q.is_plain(cx) {
                    continue;
                }
                let turned =
                    if p.op.trans_b == q.op.trans_b { q.weights.into() } else { transpose(q.weights.into(), &[1, 0]) };
                let shift = match (p.shift(), q.shift()) {
                    (Some(c), Some(d)) => Some(join(c, d)),
                    (None, Some(d)) if negates => Some(neg(d)),
                    (c, d) => c.or(d),
                };
                let lhs = Expr::of(app).with_operand(0, first.clone()).with_operand(1, second);
                cx.rewrite(lhs, p.with(p.x.into(), join(p.weights.into(), turned), shift));
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BN_INTO_PRODUCT, &BN_BEFORE_PRODUCT, &PRODUCT_ADD];
