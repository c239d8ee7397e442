//! Slices of channels through convolutions and what acts on each element.

use convc_runtime::{
    Op,
    ops::{Conv, clip::Clip, unary::UnaryKind},
};

use super::{
    finite::{FINITE_ELEMENTS, unread_elements},
    read::{
        conv::{ConvAt, conv_at, convs_in},
        slice::{Cut, STEPS_OF_ONE, slice, sliced, slices_in, steps_of_one},
    },
    weights::zero_pad,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, fixed_dim},
};

const CHANNELS_ONLY: Condition =
    Condition { name: "channels-only", text: "the slice cuts channels alone: batch and map are taken whole, forwards" };
const ALIGNED: Condition = Condition {
    name: "whole-groups",
    text: "the slice takes whole groups in their order, or there is one group, or each output has a group of its own",
};

/// The cut of the channels, if it is the only one.
fn channel_cut(cx: &mut Cx<'_>, axes: &[usize], cut: Option<Cut>) -> Option<Cut> {
    let verdict = match axes {
        [1] => Verdict::Holds,
        _ => Verdict::Fails(format!("axes {axes:?} are cut")),
    };
    cx.require(CHANNELS_ONLY.name, verdict).then_some(())?;
    cut
}

/// Sound bit for bit: an output channel depends on its own row of the kernel, and on the inputs of its group.
/// Requires: constant kernel; a slice of channels alone, which takes whole groups of a grouped convolution (those groups'
/// inputs are sliced then), or any channels of one with a group for each.
/// Not sound for: a slice that ends inside a group.
/// Exactness: bitwise.
/// Pays: channels that nobody reads are not computed.
pub const SLICE_OUT: Rule = Rule {
    name: "slice-out",
    equation: "Slice(Conv(x, w, b?), ..) => Conv(x, slice(w), slice(b?)); \
               Slice(Conv(x, w, b?), ..) => Conv(Slice(x, ..), slice(w), slice(b?))",
    conditions: &[CHANNELS_ONLY, ALIGNED],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "channels that nobody reads are not computed",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Slice"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(s) = sliced(view, app) else { return };
        for conv in convs_in(view, s.x) {
            cx.begin();
            let Some(cut) = channel_cut(cx, &s.axes(), s.along[1]) else { continue };
            if let Some(rhs) = rows(cx, &conv, cut) {
                cx.rewrite(Expr::of(app).with_operand(0, conv.expr()), rhs);
            }
        }
    },
};

/// The convolution of some output channels.
fn rows(cx: &mut Cx<'_>, conv: &ConvAt<'_>, cut: Cut) -> Option<Expr> {
    let kernel = &conv.kernel;
    let (first, count) = cut.on(kernel.outputs)?;
    if count == 0 || kernel.outputs % kernel.group != 0 {
        return None;
    }
    let per = kernel.outputs / kernel.group;
    let whole = cut.step == 1 && first % per == 0 && count % per == 0;
    let each = per == 1 && kernel.inputs == 1;
    let verdict = if kernel.group == 1 || whole || each {
        Verdict::Holds
    } else {
        Verdict::Fails(format!(
            "channels {first} to {} in steps of {}, where a group has {per}",
            first + (count - 1) * cut.step,
            cut.step
        ))
    };
    cx.require(ALIGNED.name, verdict).then_some(())?;
    let (x, group) = if kernel.group == 1 {
        (conv.x.into(), 1)
    } else if each {
        (slice(conv.x.into(), &[(1, Cut::at(first, count, cut.step))]), count)
    } else {
        let (low, high) = (first / per, (first + count + per - 1) / per);
        let inputs = Cut::at(low * kernel.inputs, (high - low) * kernel.inputs, 1);
        (slice(conv.x.into(), &[(1, inputs)]), high - low)
    };
    let rows = [(0, Cut::at(first, count, cut.step))];
    let bias = conv.bias.map(|b| slice(b.into(), &rows));
    let op = Conv { group, ..conv.op.clone() };
    Some(Expr::op(op, vec![Some(x), Some(slice(kernel.weights.clone(), &rows)), bias]))
}

/// Sound over the reals: channels that were not read are read with weights of 0.
/// Requires: constant kernel of one group; a slice of channels alone, in steps of 1; numbers, not infinities, in the channels
/// that were left out.
/// Not sound for: a slice that also crops the map, or that takes every second channel.
/// Exactness: reassociated.
/// Pays: no copy of the slice; convolutions of several slices of one map meet in [`super::branch::BRANCH_ADD`].
pub const SLICE_IN: Rule = Rule {
    name: "slice-in",
    equation: "Conv(Slice(x, ..), w, b?) => Conv(x, zero_pad(w), b?)",
    conditions: &[CHANNELS_ONLY, STEPS_OF_ONE, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "no copy of the slice, and convolutions of slices of one map can be added up",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        if conv.op.group != 1 {
            return;
        }
        for s in slices_in(view, conv.x) {
            cx.begin();
            let Some(size) = fixed_dim(view, s.x, 1).filter(|_| s.x != class && !view.is_constant(s.x)) else {
                continue;
            };
            let Some(cut) = channel_cut(cx, &s.axes(), s.along.get(1).copied().flatten()) else { continue };
            let Some((first, count)) = cut.on(size) else { continue };
            if !cx.require(STEPS_OF_ONE.name, steps_of_one([&cut])) {
                continue;
            }
            if !cx.require(FINITE_ELEMENTS.name, unread_elements(view, s.x)) {
                continue;
            }
            let n = conv.spatial();
            let pads: Vec<i64> =
                [0, first].into_iter().chain(vec![0; n + 1]).chain([size - first - count]).chain(vec![0; n]).collect();
            let w = zero_pad(conv.kernel.weights.clone(), &pads);
            let lhs = Expr::of(app).with_operand(0, s.expr());
            cx.rewrite(lhs, Expr::op(conv.op.clone(), vec![Some(s.x.into()), Some(w), conv.bias.map(Expr::Class)]));
        }
    },
};

/// The operand of a function of each element by itself: one of the unary operators, or Clip between constant bounds.
pub(super) fn mapped(view: &dyn View, app: &App<'_>) -> Option<Class> {
    let x = app.operand(0)?;
    let plain = match app.op {
        // A scale is a convolution of its own kind, see `neg-as-conv`.
        Op::Unary(u) => u.kind != UnaryKind::Neg,
        Op::Clip(Clip {}) => (1..3).all(|i| app.operand(i).is_none_or(|b| view.is_constant(b))),
        _ => false,
    };
    (plain && !view.is_constant(x)).then_some(x)
}

/// The operators that [`mapped`] looks at.
pub(super) const MAPS: &[&str] =
    &["Relu", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Mish", "Swish", "Clip"];

/// Sound bit for bit: `f` acts on each element by itself.
/// Requires: a function of one argument, or Clip between constants.
/// Exactness: bitwise.
/// Pays: nothing by itself; one activation behind one convolution serves all slices of it.
pub const MAP_SLICE: Rule = Rule {
    name: "map-slice",
    equation: "f(Slice(x, ..)) => Slice(f(x), ..)",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "one activation serves all slices",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: MAPS,
    search: |cx, _, app| {
        let view = cx.view;
        let Some(y) = mapped(view, app) else { return };
        for s in slices_in(view, y) {
            let inner = Expr::of(app).with_operand(0, s.x.into());
            cx.rewrite(Expr::of(app).with_operand(0, s.expr()), s.expr().with_operand(0, inner));
        }
    },
};

/// Sound bit for bit: `f` acts on each element by itself.
/// Requires: a function of one argument, or Clip between constants.
/// Exactness: bitwise.
/// Pays: nothing by itself; the slice reaches the convolution behind the activation.
pub const SLICE_MAP: Rule = Rule {
    name: "slice-map",
    equation: "Slice(f(x), ..) => f(Slice(x, ..))",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "the slice reaches the convolution behind an activation",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Slice"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(s) = sliced(view, app) else { return };
        for f in view.apps(s.x).iter().filter(|f| MAPS.contains(&f.op.name())) {
            if let Some(x) = mapped(view, f) {
                let inner = s.expr().with_operand(0, x.into());
                cx.rewrite(s.expr().with_operand(0, Expr::of(f)), Expr::of(f).with_operand(0, inner));
            }
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&SLICE_OUT, &SLICE_IN, &MAP_SLICE, &SLICE_MAP];
