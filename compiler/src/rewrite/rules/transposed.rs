//! Pointwise convolutions (BatchNormalization among them) before and behind transposed ones.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, ConvTranspose},
    window::AutoPad,
};

use super::{
    read::conv::{ConvAt, conv_at, convs_in},
    weights::{add_bias, mul, reshape, response, transpose},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_zero},
};

/// A transposed convolution with a constant kernel `[C, O/group, K..]`.
struct Transposed<'a> {
    op: &'a ConvTranspose,
    x: Class,
    weights: Class,
    shape: Vec<i64>,
    bias: Option<Class>,
}

impl<'a> Transposed<'a> {
    fn at(view: &dyn View, app: &App<'a>) -> Option<Transposed<'a>> {
        let Op::ConvTranspose(op) = app.op else { return None };
        let (x, weights, bias) = (app.operand(0)?, app.operand(1)?, app.operand(2));
        if !view.is_constant(weights) || bias.is_some_and(|b| !view.is_constant(b)) {
            return None;
        }
        let shape: Vec<i64> = view.fact(weights)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
        (shape.len() > 2 && !shape.contains(&0)).then_some(Transposed { op, x, weights, shape, bias })
    }

    fn outputs(&self) -> i64 {
        self.shape[1] * self.op.group
    }

    fn with(&self, x: Class, weights: Expr, bias: Option<Expr>) -> Expr {
        Expr::op(self.op.clone(), vec![Some(x.into()), Some(weights), bias])
    }
}

/// A dense pointwise convolution as an operator on kernels.
fn pointwise(spatial: usize) -> Conv {
    Conv {
        strides: vec![1; spatial],
        pads: vec![0; 2 * spatial],
        dilations: vec![1; spatial],
        group: 1,
        auto_pad: AutoPad::NotSet,
    }
}

/// Sound over the reals: every output is linear in w1 and b1, also where no tap reaches.
/// Requires: a pointwise convolution without padding that gives each channel a factor, or both in one group.
/// Exactness: reassociated.
/// Pays: BatchNormalization disappears, and so does a pointwise convolution where that is no more work.
pub const POINTWISE_AFTER_TRANSPOSED: Rule = Rule {
    name: "pointwise-after-transposed",
    equation: "Conv(ConvTranspose(x, w1, b1?), w2, b2?; pointwise) => ConvTranspose(x, joined(w1, w2), b2? + response(w2, b1?))",
    conditions: &[],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map instead of two",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(second) = conv_at(view, app).filter(ConvAt::is_pointwise) else { return };
        for inner in view.apps(second.x) {
            let Some(first) = Transposed::at(view, &inner) else { continue };
            if second.kernel.channels() != first.outputs() {
                continue;
            }
            let (group, per, taps) = (first.op.group, first.shape[1], &first.shape[2..]);
            let weights = if second.is_scale() {
                let ones = vec![1; taps.len()];
                let split: Vec<i64> = [group, first.shape[0] / group, per].iter().chain(taps).copied().collect();
                let scale: Vec<i64> = [group, 1, per].into_iter().chain(ones).collect();
                let scale = reshape(second.kernel.weights.clone(), &scale);
                reshape(mul(reshape(first.weights.into(), &split), scale), &first.shape)
            } else if group == 1 && second.kernel.group == 1 {
                // The kernel's inputs are a batch of maps with its outputs as channels.
                let operands = vec![Some(first.weights.into()), Some(second.kernel.weights.clone()), None];
                Expr::op(pointwise(taps.len()), operands)
            } else {
                continue;
            };
            let bias = add_bias(second.bias.map(Expr::Class), first.bias.map(|b| response(&second.kernel, b.into())));
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), first.with(first.x, weights, bias));
        }
    },
};

const NO_BIAS: Condition = Condition {
    name: "no-bias",
    text: "the pointwise convolution has no bias, or one of zeros: a constant reaches each output by another set of taps",
};

/// Sound over the reals: a transposed convolution is linear in its input.
/// Requires: a pointwise convolution without padding and bias that gives each channel a factor, or both in one group.
/// Not sound for: a bias, which the taps at the border and between strides do not all carry on.
/// Exactness: reassociated.
/// Pays: a scale disappears, and so does a pointwise convolution where that is no more work.
pub const POINTWISE_BEFORE_TRANSPOSED: Rule = Rule {
    name: "pointwise-before-transposed",
    equation: "ConvTranspose(Conv(x, w1; pointwise), w2, b2?) => ConvTranspose(x, joined(w1, w2), b2?); \
               ConvTranspose(Conv(x, w1, 0; pointwise), w2, b2?) => ConvTranspose(x, joined(w1, w2), b2?)",
    conditions: &[NO_BIAS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map instead of two",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["ConvTranspose"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(second) = Transposed::at(view, app) else { return };
        for first in convs_in(view, second.x).iter().filter(|c| c.is_pointwise()) {
            cx.begin();
            let spatial = second.shape.len() - 2;
            let weights = if first.is_scale() {
                mul(second.weights.into(), first.kernel.weights.clone())
            } else if first.kernel.group == 1 && second.op.group == 1 {
                // [M, O, K..] as a batch of O maps of M channels, and [M, C, 1..] as a kernel from M to C.
                let perm: Vec<i64> = [1, 0].into_iter().chain(2..2 + spatial as i64).collect();
                let maps = transpose(second.weights.into(), &perm);
                let kernel = transpose(first.kernel.weights.clone(), &perm);
                transpose(Expr::op(pointwise(spatial), vec![Some(maps), Some(kernel), None]), &perm)
            } else {
                continue;
            };
            let zero = first.bias.map_or(Some(true), |b| is_zero(view, b));
            if cx.require(NO_BIAS.name, Verdict::from_answer(zero, || "its bias is not known to be 0".into())) {
                let rhs = second.with(first.x, weights, second.bias.map(Expr::Class));
                cx.rewrite(Expr::of(app).with_operand(0, first.expr()), rhs);
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&POINTWISE_AFTER_TRANSPOSED, &POINTWISE_BEFORE_TRANSPOSED];
