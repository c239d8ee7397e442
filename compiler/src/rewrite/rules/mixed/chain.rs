//! Constant convolutions behind and before a mixed one, folded into every expert.

use convc_runtime::ops::{Conv, MixedConv};

use super::{
    super::{
        compose::{border, finite_gaps, gcd},
        finite::FINITE_ELEMENTS,
        read::conv::{ConvAt, conv_at, convs_in},
        weights::{Kernel, add, compose, reshape, response, sum, transpose},
    },
    algebra::{MixedAt, SUM_TO_ONE, mixed_at, mixed_in, sum_to_one},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Expr, View, is_zero},
};

const BORDER: Condition = Condition {
    name: "border-exact",
    text: "wherever the second convolution reads padding, the first would have computed 0 there: its bias is 0 and its \
           window lies beyond its own input; or no padding is read",
};

/// Two windows one behind the other as one.
struct Joined {
    op: Conv,
    steps1: Vec<i64>,
    steps2: Vec<i64>,
}

fn joined(first: &ConvAt<'_>, second: &ConvAt<'_>) -> Joined {
    let spatial = first.spatial();
    let per_axis = |f: &dyn Fn(usize) -> i64| -> Vec<i64> { (0..spatial).map(f).collect() };
    let steps1 = per_axis(&|a| if first.kernel.taps[a] > 1 { first.op.dilations[a] } else { 0 });
    let steps2 =
        per_axis(&|a| if second.kernel.taps[a] > 1 { first.op.strides[a] * second.op.dilations[a] } else { 0 });
    let grid = per_axis(&|a| gcd(steps1[a], steps2[a]).max(1));
    let on_grid = |steps: &[i64]| -> Vec<i64> { steps.iter().zip(&grid).map(|(s, g)| (s / g).max(1)).collect() };
    let begin = per_axis(&|a| first.pad_begin(a) + first.op.strides[a] * second.pad_begin(a));
    let end = per_axis(&|a| first.pad_end(a) + first.op.strides[a] * second.pad_end(a));
    let op = Conv {
        strides: per_axis(&|a| first.op.strides[a] * second.op.strides[a]),
        pads: begin.into_iter().chain(end).collect(),
        dilations: grid.clone(),
        group: first.op.group.min(second.op.group),
        auto_pad: first.op.auto_pad,
    };
    Joined { steps1: on_grid(&steps1), steps2: on_grid(&steps2), op }
}

/// The mixed convolution as one with a constant kernel of these weights, for what only looks at windows.
fn window<'a>(m: &MixedAt<'_>, op: &'a Conv, weights: Expr, outputs: i64, inputs: i64) -> ConvAt<'a> {
    let kernel = Kernel { weights, outputs, inputs, taps: m.shape[3..].to_vec(), group: op.group };
    ConvAt { op, x: m.x, kernel, bias: None, operands: Vec::new() }
}

fn mixed(m: &MixedAt<'_>, op: Conv, x: Expr, experts: Expr, bias: Option<Expr>) -> Expr {
    let Conv { strides, pads, dilations, group, .. } = op;
    let op = MixedConv { kind: m.op.kind, strides, pads, dilations, group };
    Expr::op(op, vec![Some(x), Some(m.r.into()), Some(experts), bias])
}

/// Whether all biases are 0: `None` where there are none that could be otherwise.
fn bias_is_zero(view: &dyn View, m: &MixedAt<'_>) -> Option<bool> {
    match m.b {
        None => Some(true),
        Some(b) => is_zero(view, b),
    }
}

/// The spatial axes of a kernel, which stand behind its first `from`.
fn trailing(from: i64, spatial: usize) -> impl Iterator<Item = i64> {
    (0..spatial as i64).map(move |a| from + a)
}

/// Sound over the reals: the second convolution is linear, so it acts on each expert. Strides, padding and taps join as those of
/// two convolutions with constant kernels.
/// Requires: constant experts, biases and second kernel; the second reads no padding that the first would have filled; one
/// number of groups divides the other. A bias of the second joins mixed ones only if the coefficients sum to 1.
/// Not sound for: an activation between.
/// Exactness: reassociated.
/// Pays: a pass over the map; cost decides, since every expert's kernel may grow.
pub const CONV_BEHIND_MIXED: Rule = Rule {
    name: "conv-behind-mixed",
    equation: "Conv(CondConv|DynamicConv(x, r, w1, b1?), w2, b2?) => CondConv|DynamicConv(x, r, compose(w1, w2), b2? + \
               response(w2, b1?))",
    conditions: &[BORDER, SUM_TO_ONE, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map instead of two",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(second) = conv_at(view, app) else { return };
        for first in mixed_in(view, second.x) {
            if first.shape.len() == second.spatial() + 3 && first.x != class {
                cx.begin();
                behind(cx, &first, &second, app);
            }
        }
    },
};

fn behind(cx: &mut Cx<'_>, m: &MixedAt<'_>, second: &ConvAt<'_>, app: &App<'_>) -> Option<()> {
    let view = cx.view;
    let [e, o, i, taps @ ..] = m.shape.as_slice() else { return None };
    let (spatial, op) = (taps.len(), m.window());
    // The experts side by side as inputs.
    let perm: Vec<i64> = [1, 0, 2].into_iter().chain(trailing(3, spatial)).collect();
    let folded: Vec<i64> = [*o, e * i].into_iter().chain(taps.iter().copied()).collect();
    let weights = reshape(transpose(m.w.into(), &perm), &folded);
    let first = window(m, &op, weights, *o, e * i);
    let join = joined(&first, second);
    let kernel = compose(first.kernel.clone(), second.kernel.clone(), &join.steps1, &join.steps2)?;
    let zero = bias_is_zero(view, m);
    cx.require(BORDER.name, border(view, &first, second, zero)).then_some(())?;
    let gaps = finite_gaps(view, &first, second, [&join.steps1, &join.steps2]);
    cx.require(FINITE_ELEMENTS.name, gaps).then_some(())?;
    let blocks = kernel.inputs / (e * i);
    let split: Vec<i64> = [kernel.outputs, blocks, *e, *i].into_iter().chain(kernel.taps.iter().copied()).collect();
    let perm: Vec<i64> = [2, 0, 1, 3].into_iter().chain(trailing(4, spatial)).collect();
    let whole: Vec<i64> = [*e, kernel.outputs, blocks * i].into_iter().chain(kernel.taps.iter().copied()).collect();
    let experts = reshape(transpose(reshape(kernel.weights, &split), &perm), &whole);
    let mixes = m.mixes_bias(view) && zero != Some(true);
    let bias =
        m.b.filter(|_| zero != Some(true))
            .map(|b| if mixes { responses(&second.kernel, b.into(), *e) } else { response(&second.kernel, b.into()) });
    let added = second.bias.filter(|b| is_zero(view, *b) != Some(true));
    if added.is_some() {
        cx.require(SUM_TO_ONE.name, sum_to_one(view, mixes, m.r)).then_some(())?;
    } else {
        cx.require(SUM_TO_ONE.name, Verdict::Holds);
    }
    let bias = match (bias, added) {
        (Some(b), Some(c)) => Some(add(b, c.into())),
        (b, c) => b.or(c.map(Expr::Class)),
    };
    let lhs = Expr::of(app).with_operand(0, m.expr());
    cx.rewrite(lhs, mixed(m, Conv { group: kernel.group, ..join.op }, m.x.into(), experts, bias));
    Some(())
}

/// What `second` makes of each row of `[E, channels]`, away from borders: `[E, O]`.
fn responses(second: &Kernel, biases: Expr, e: i64) -> Expr {
    let spatial = second.taps.len();
    let axes: Vec<i64> = trailing(2, spatial).collect();
    let conv = Conv {
        strides: vec![1; spatial],
        pads: vec![0; 2 * spatial],
        dilations: vec![1; spatial],
        group: second.group,
        auto_pad: convc_runtime::window::AutoPad::NotSet,
    };
    let point: Vec<i64> = [e, second.channels()].into_iter().chain(vec![1; spatial]).collect();
    let y = Expr::op(conv, vec![Some(reshape(biases, &point)), Some(sum(second.weights.clone(), &axes)), None]);
    reshape(y, &[e, second.outputs])
}

/// Sound over the reals: each expert is linear in what the first convolution makes.
/// Requires: constant experts, biases and first kernel; the mixed convolution reads no padding that the first would have
/// filled; one number of groups divides the other. What the experts make of the first bias is mixed, and joins biases that are
/// not only if the coefficients sum to 1.
/// Not sound for: a shift before a padded convolution.
/// Exactness: reassociated.
/// Pays: a pass over the map; cost decides.
pub const CONV_BEFORE_MIXED: Rule = Rule {
    name: "conv-before-mixed",
    equation: "CondConv|DynamicConv(Conv(x, w1, b1?), r, w2, b2?) => CondConv|DynamicConv(x, r, compose(w1, w2), b2? + \
               response(w2, b1?))",
    conditions: &[BORDER, SUM_TO_ONE, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map instead of two",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["CondConv", "DynamicConv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(second) = mixed_at(view, app) else { return };
        for first in convs_in(view, second.x) {
            if second.shape.len() == first.spatial() + 3 && first.x != class {
                cx.begin();
                before(cx, &first, &second, app);
            }
        }
    },
};

fn before(cx: &mut Cx<'_>, first: &ConvAt<'_>, m: &MixedAt<'_>, app: &App<'_>) -> Option<()> {
    let view = cx.view;
    let [e, o, i, taps @ ..] = m.shape.as_slice() else { return None };
    let (spatial, op, g) = (taps.len(), m.window(), m.op.group);
    if o % g != 0 {
        return None;
    }
    // The experts side by side as outputs, within each group.
    let split: Vec<i64> = [*e, g, o / g, *i].into_iter().chain(taps.iter().copied()).collect();
    let perm: Vec<i64> = [1, 0, 2, 3].into_iter().chain(trailing(4, spatial)).collect();
    let folded: Vec<i64> = [e * o, *i].into_iter().chain(taps.iter().copied()).collect();
    let weights = reshape(transpose(reshape(m.w.into(), &split), &perm), &folded);
    let second = window(m, &op, weights, e * o, *i);
    let join = joined(first, &second);
    let kernel = compose(first.kernel.clone(), second.kernel.clone(), &join.steps1, &join.steps2)?;
    let zero = match first.bias {
        None => Some(true),
        Some(b) => is_zero(view, b),
    };
    cx.require(BORDER.name, border(view, first, &second, zero)).then_some(())?;
    let gaps = finite_gaps(view, first, &second, [&join.steps1, &join.steps2]);
    cx.require(FINITE_ELEMENTS.name, gaps).then_some(())?;
    let apart = |of: Expr, rest: &[i64]| {
        let split: Vec<i64> = [g, *e, o / g].into_iter().chain(rest.iter().copied()).collect();
        let perm: Vec<i64> = [1, 0, 2].into_iter().chain(trailing(3, rest.len())).collect();
        let whole: Vec<i64> = [*e, *o].into_iter().chain(rest.iter().copied()).collect();
        reshape(transpose(reshape(of, &split), &perm), &whole)
    };
    let rest: Vec<i64> = [kernel.inputs].into_iter().chain(kernel.taps.iter().copied()).collect();
    let experts = apart(kernel.weights, &rest);
    let added = first.bias.filter(|_| zero != Some(true)).map(|b| apart(response(&second.kernel, b.into()), &[]));
    let own = m.b.filter(|b| is_zero(view, *b) != Some(true));
    let shared = own.is_some() && !m.mixes_bias(view);
    cx.require(SUM_TO_ONE.name, sum_to_one(view, added.is_some() && shared, m.r)).then_some(())?;
    let bias = match (own, added) {
        (Some(b), Some(a)) => Some(add(a, b.into())),
        (b, a) => a.or(b.map(Expr::Class)),
    };
    let lhs = Expr::of(app).with_operand(0, first.expr());
    cx.rewrite(lhs, mixed(m, Conv { group: kernel.group, ..join.op }, first.x.into(), experts, bias));
    Some(())
}
