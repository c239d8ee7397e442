//! Convolution behind convolution.

use convc_runtime::{Dim, ops::Conv, window::AutoPad};

use super::{
    finite::{FINITE_ELEMENTS, finite_elements},
    read::conv::{ConvAt, conv_at, convs_in},
    weights::{add_bias, compose, response},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Expr, View, is_zero},
};

pub(super) const ONE_GROUP: Condition =
    Condition { name: "one-group", text: "the convolution has one group: each of its outputs reads all of its inputs" };

/// Whether a convolution has one group.
pub(super) fn one_group(op: &Conv) -> Verdict {
    Verdict::from_answer(Some(op.group == 1), || format!("the convolution has {} groups", op.group))
}

const BORDER: Condition = Condition {
    name: "border-exact",
    text: "wherever the second convolution reads padding, the first would have computed 0 there: its bias is 0 and its \
           window lies beyond its own input; or no padding is read",
};

/// Sound over the reals: a convolution is linear in its input, and so is what it makes of another's output. Strides
/// multiply, padding is `p1 + s1 p2`, the taps `s1 d2 a + d1 b` lie on the grid of their greatest common divisor.
/// Requires: constant kernels; one number of groups divides the other.
/// Not sound for: a bias (or a first kernel that reaches into the map) where the second convolution pads, since the padding
/// is 0 and not the first one's answer there.
/// Exactness: reassociated.
/// Pays: BatchNormalization, scales, depthwise-then-pointwise without activation, DO-Conv: one pass instead of two. Cost
/// decides, since two small kernels may be cheaper than one large.
pub const CONV_COMPOSE: Rule = Rule {
    name: "conv-compose",
    equation: "Conv(Conv(x, w1, b1?), w2, b2?) => Conv(x, compose(w1, w2), b2? + response(w2, b1?))",
    conditions: &[BORDER, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one pass over the map instead of two",
    phase: Phase::Explore,
    folds: true,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(second) = conv_at(view, app) else { return };
        for first in convs_in(view, second.x) {
            if first.spatial() == second.spatial() && first.x != class {
                compose_pair(cx, &first, &second, app);
            }
        }
    },
};

fn compose_pair(cx: &mut Cx<'_>, first: &ConvAt<'_>, second: &ConvAt<'_>, app: &App<'_>) {
    cx.begin();
    let spatial = first.spatial();
    let per_axis = |f: &dyn Fn(usize) -> i64| -> Vec<i64> { (0..spatial).map(f).collect() };
    // Steps between taps on the input of the first; where there is one tap the step is of no matter.
    let steps1 = per_axis(&|a| if first.kernel.taps[a] > 1 { first.op.dilations[a] } else { 0 });
    let steps2 =
        per_axis(&|a| if second.kernel.taps[a] > 1 { first.op.strides[a] * second.op.dilations[a] } else { 0 });
    let grid = per_axis(&|a| gcd(steps1[a], steps2[a]).max(1));
    let on_grid = |steps: &[i64]| -> Vec<i64> { steps.iter().zip(&grid).map(|(s, g)| (s / g).max(1)).collect() };
    let Some(kernel) = compose(first.kernel.clone(), second.kernel.clone(), &on_grid(&steps1), &on_grid(&steps2))
    else {
        return;
    };
    let bias_is_zero = match first.bias {
        None => Some(true),
        Some(b) => is_zero(cx.view, b),
    };
    if !cx.require(BORDER.name, border(cx.view, first, second, bias_is_zero))
        || !cx
            .require(FINITE_ELEMENTS.name, finite_gaps(cx.view, first, second, [&on_grid(&steps1), &on_grid(&steps2)]))
    {
        return;
    }
    let bias1 = first.bias.filter(|_| bias_is_zero != Some(true)).map(|b| response(&second.kernel, b.into()));
    let bias = add_bias(second.bias.map(Expr::Class), bias1);
    let pads = (0..spatial)
        .map(|a| first.pad_begin(a) + first.op.strides[a] * second.pad_begin(a))
        .chain((0..spatial).map(|a| first.pad_end(a) + first.op.strides[a] * second.pad_end(a)))
        .collect();
    let op = Conv {
        strides: per_axis(&|a| first.op.strides[a] * second.op.strides[a]),
        pads,
        dilations: grid.clone(),
        group: kernel.group,
        auto_pad: AutoPad::NotSet,
    };
    let lhs = Expr::of(app).with_operand(0, first.expr());
    cx.rewrite(lhs, Expr::op(op, vec![Some(first.x.into()), Some(kernel.weights), bias]));
}

/// Whether the elements are finite that a kernel composed of two with these steps between taps reads with a weight of 0: at taps
/// that no pair of theirs comes to.
pub(super) fn finite_gaps(view: &dyn View, first: &ConvAt<'_>, second: &ConvAt<'_>, steps: [&[i64]; 2]) -> Verdict {
    let gap = (0..first.spatial()).any(|a| {
        let (s1, s2) = (steps[0][a], steps[1][a]);
        let (k1, k2) = (first.kernel.taps[a], second.kernel.taps[a]);
        // Steps of 1 by either kernel that reach the next step of the other leave no gap.
        let whole = s1 == 1 && (k2 == 1 || s2 <= k1) || s2 == 1 && (k1 == 1 || s1 <= k2);
        !whole && k1.saturating_mul(k2) > 1
    });
    if gap { finite_elements(view, first.x) } else { Verdict::Holds }
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether composing is exact at every border.
pub(super) fn border(view: &dyn View, first: &ConvAt<'_>, second: &ConvAt<'_>, bias_is_zero: Option<bool>) -> Verdict {
    let spatial = first.spatial();
    let Some(x) = view.fact(first.x) else { return Verdict::Unknown("the input's shape is not known".into()) };
    let mut unknown = None;
    for a in 0..spatial {
        let Some(size) = x.shape.get(a + 2) else { return Verdict::Unknown("the input's rank is not known".into()) };
        let reads = reads_padding(first, second, a, size);
        if reads == Some(false) {
            continue;
        }
        let verdict = match (bias_is_zero, windows_outside(first, second, a, size)) {
            (Some(false), _) => {
                Some((reads, format!("the second convolution pads spatial axis {a} and the first has a bias")))
            }
            (None, Some(true)) => Some((
                None,
                format!(
                    "the second convolution pads spatial axis {a} and whether the first one's bias is 0 is not known"
                ),
            )),
            (_, Some(true)) => None,
            (_, Some(false)) => Some((
                reads,
                format!(
                    "the second convolution pads spatial axis {a} where the first one's window reaches into the map"
                ),
            )),
            (_, None) => Some((
                None,
                format!("whether the border of spatial axis {a} (size {size}) is exact depends on the size"),
            )),
        };
        match verdict {
            None => {}
            Some((Some(true), why)) => return Verdict::Fails(why),
            Some((_, why)) => unknown = Some(why),
        }
    }
    unknown.map_or(Verdict::Holds, Verdict::Unknown)
}

/// Along one axis of fixed size: every position of the intermediate map that the second convolution reads outside it.
fn outside_reads(first: &ConvAt<'_>, second: &ConvAt<'_>, a: usize, size: i64) -> Option<Vec<i64>> {
    let outputs = |n: i64, c: &ConvAt<'_>| {
        let room = n + c.pad_begin(a) + c.pad_end(a) - c.op.dilations[a] * (c.kernel.taps[a] - 1) - 1;
        if room < 0 { 0 } else { room / c.op.strides[a] + 1 }
    };
    let middle = outputs(size, first);
    let last = outputs(middle, second);
    // Sizes from a file may be anything; a map longer than this is decided by the bounds for open sizes.
    if last.checked_mul(second.kernel.taps[a])? > 1 << 20 {
        return None;
    }
    let mut reads = Vec::new();
    for o in 0..last {
        for t in 0..second.kernel.taps[a] {
            let q = o * second.op.strides[a] - second.pad_begin(a) + t * second.op.dilations[a];
            if !(0..middle).contains(&q) {
                reads.push(q);
            }
        }
    }
    Some(reads)
}

/// Whether the second convolution reads outside the intermediate map along an axis.
fn reads_padding(first: &ConvAt<'_>, second: &ConvAt<'_>, a: usize, size: &Dim) -> Option<bool> {
    if second.pad_begin(a) <= 0 && second.pad_end(a) <= 0 {
        return Some(false);
    }
    outside_reads(first, second, a, size.as_fixed()?).map(|r| !r.is_empty())
}

/// Whether the first convolution's window lies beyond its input at every position that the second reads outside the
/// intermediate map.
fn windows_outside(first: &ConvAt<'_>, second: &ConvAt<'_>, a: usize, size: &Dim) -> Option<bool> {
    let (s1, p1, reach) = (first.op.strides[a], first.pad_begin(a), first.op.dilations[a] * (first.kernel.taps[a] - 1));
    if let Some(n) = size.as_fixed()
        && let Some(reads) = outside_reads(first, second, a, n)
    {
        let taps = 0..first.kernel.taps[a];
        let inside = |q: i64| taps.clone().any(|t| (0..n).contains(&(q * s1 - p1 + t * first.op.dilations[a])));
        return Some(!reads.into_iter().any(inside));
    }
    // For open sizes: position -1 ends before the map, position `middle` begins behind it.
    let left = second.pad_begin(a) <= 0 || reach < p1 + s1;
    let room = size + (p1 + first.pad_end(a) - reach - 1);
    let middle = room.floor_div(&Dim::from(s1)) + 1;
    let right = second.pad_end(a) <= 0 || (middle * s1 - p1 - size).at_least(0) == Some(true);
    (left && right).then_some(true)
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&CONV_COMPOSE];
