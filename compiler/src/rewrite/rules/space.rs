//! Slices of the map before and behind convolutions, and taps that read nothing.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, DepthToSpace, depth_space::DepthMode},
    window::AutoPad,
};

use super::{
    compose::{ONE_GROUP, one_group},
    finite::{FINITE_ELEMENTS, unread_elements},
    read::{
        conv::{ConvAt, conv_at, convs_in},
        slice::{Cut, Sliced, slice, sliced, slices_in},
    },
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr},
};

const SPACE_ONLY: Condition = Condition {
    name: "space-only",
    text: "the slice cuts spatial axes alone, forwards, by margins that are the same for all sizes",
};

/// The margins of a slice along each spatial axis with its step, if it cuts nothing else.
fn margins(cx: &mut Cx<'_>, s: &Sliced) -> Option<Vec<(i64, i64, i64)>> {
    let shape = cx.view.fact(s.x)?.shape.clone();
    let mut out = Vec::new();
    let mut verdict = Verdict::Holds;
    for (a, size) in shape.iter().enumerate() {
        match (a, s.along[a]) {
            (_, None) if a < 2 => {}
            (_, None) => out.push((0, 0, 1)),
            (0 | 1, Some(_)) => verdict = Verdict::Fails(format!("axis {a} is cut")),
            (_, Some(cut)) => match cut.margins(size) {
                Some((before, behind)) => out.push((before, behind, cut.step)),
                None => {
                    // Forced, the size decides as if it were large.
                    out.push((cut.start.max(0), 0, cut.step.abs()));
                    verdict = Verdict::Unknown(format!(
                        "{} to {} in steps of {} of {size} elements along axis {a}",
                        cut.start, cut.end, cut.step
                    ));
                }
            },
        }
    }
    cx.require(SPACE_ONLY.name, verdict).then_some(out)
}

/// Sound bit for bit: output `o + t i` is the window at `s (o + t i) - p`. Where the first window to stay lies within the
/// map, what is before it is cut off the map.
/// Requires: a slice of spatial axes, with margins that do not depend on the sizes.
/// Not sound for: steps backwards, bounds that count from the other end of an open size.
/// Exactness: bitwise.
/// Pays: outputs that nobody reads are not computed.
pub const STRIDE_SLICE: Rule = Rule {
    name: "stride-slice",
    equation: "Slice(Conv(x, w, b?), ..) => Conv(x, w, b?); Slice(Conv(x, w, b?), ..) => Conv(Slice(x, ..), w, b?)",
    conditions: &[SPACE_ONLY],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "outputs that nobody reads are not computed",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Slice"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(s) = sliced(view, app) else { return };
        for conv in convs_in(view, s.x) {
            // A slice of channels is the business of `slice-out`.
            if s.axes() == [1] {
                continue;
            }
            cx.begin();
            let Some(margins) = margins(cx, &s) else { continue };
            let n = conv.spatial();
            let Some(shape) = view.fact(conv.x).map(|f| f.shape.clone()) else { continue };
            let (mut pads, mut crop, mut within) = (vec![0; 2 * n], Vec::new(), true);
            for a in 0..n {
                let (before, behind, _) = margins[a];
                let stride = conv.op.strides[a];
                let begin = conv.pad_begin(a) - stride * before;
                let end = conv.pad_end(a) - stride * behind + idle(&conv, a, &shape[a + 2], margins[a]);
                pads[a] = begin.max(0);
                pads[n + a] = end.max(0);
                let cut = Cut { start: (-begin).max(0), end: if end < 0 { end } else { i64::MAX }, step: 1 };
                if begin < 0 || end < 0 {
                    crop.push((a + 2, cut));
                }
                // Windows that lie in the padding alone cannot be had by cutting the map.
                within &= (&shape[a + 2] + begin.min(0) + end.min(0)).at_least(0) == Some(true);
            }
            if !within {
                continue;
            }
            let strides = (0..n).map(|a| conv.op.strides[a] * margins[a].2).collect();
            let op = Conv { strides, pads, ..conv.op.clone() };
            let x = slice(conv.x.into(), &crop);
            let operands = vec![Some(x), Some(conv.kernel.weights.clone()), conv.bias.map(Expr::Class)];
            cx.rewrite(Expr::of(app).with_operand(0, conv.expr()), Expr::op(op, operands));
        }
    },
};

/// By how much the padding behind an axis may be larger without a further output, up to making good what a slice takes off.
fn idle(conv: &ConvAt<'_>, a: usize, size: &Dim, (before, behind, step): (i64, i64, i64)) -> i64 {
    let Some(size) = size.as_fixed() else { return 0 };
    let stride = conv.op.strides[a];
    let end = conv.pad_end(a) - stride * behind;
    let reach = conv.op.dilations[a] * (conv.kernel.taps[a] - 1) + 1;
    let room = size + conv.pad_begin(a) - stride * before + end - reach;
    let left = stride * step - 1 - room.rem_euclid(stride * step);
    left.min(-end).max(0)
}

const BORDER: Condition = Condition {
    name: "reads-within",
    text: "where the convolution pads, the place before the slice's first element lies outside the map",
};

/// Sound bit for bit: element `i` of the slice is element `o + t i` of the map. Margins that are wider than the padding are
/// reached over by taps of 0 (the crop layers of ACNet, <https://arxiv.org/abs/1908.03930>), up to twice the taps and one more.
/// Requires: a slice of spatial axes; where the convolution pads before, `o < t`, so that what lies before the slice's first
/// element lies outside the map, and nothing cut off where it pads behind.
/// Not sound for: padding before a slice that leaves out whole steps, which stand there then instead of zeros; taps of 0 over an
/// infinity.
/// Exactness: bitwise.
/// Pays: no copy of the slice; branches on crops of one map come together.
pub const STRIDE_IN: Rule = Rule {
    name: "stride-in",
    equation: "Conv(Slice(x, ..), w, b?) => Conv(x, embedded(w), b?)",
    conditions: &[SPACE_ONLY, BORDER, FINITE_ELEMENTS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "no copy of the slice",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        for s in slices_in(view, conv.x) {
            if s.axes() == [1] || s.x == class || view.is_constant(s.x) {
                continue;
            }
            cx.begin();
            let Some(margins) = margins(cx, &s) else { continue };
            let n = conv.spatial();
            let (begin, end): (Vec<i64>, Vec<i64>) = (0..n)
                .map(|a| {
                    let (before, behind, step) = margins[a];
                    (step * conv.pad_begin(a) - before, step * conv.pad_end(a) - behind)
                })
                .unzip();
            let inside = (0..n).find(|&a| {
                let (before, behind, step) = margins[a];
                (conv.pad_begin(a) > 0 && before >= step) || (conv.pad_end(a) > 0 && behind > 0)
            });
            let verdict = match inside {
                None => Verdict::Holds,
                Some(a) => Verdict::Fails(format!(
                    "along spatial axis {a} the convolution pads what leaves {} elements out before and {} behind",
                    margins[a].0, margins[a].1
                )),
            };
            if !cx.require(BORDER.name, verdict) {
                continue;
            }
            // Where there is one tap the step between taps is of no matter.
            let dilations: Vec<i64> = (0..n)
                .map(|a| if conv.kernel.taps[a] == 1 { 1 } else { conv.op.dilations[a] * margins[a].2 })
                .collect();
            // Taps of 0 reach over what is cut off and not padded.
            let over = |p: i64, a: usize| if p < 0 && p % dilations[a] == 0 { -p / dilations[a] } else { 0 };
            let front: Vec<i64> = (0..n).map(|a| over(begin[a], a)).collect();
            let taps: Vec<i64> = (0..n).map(|a| front[a] + conv.kernel.taps[a] + over(end[a], a)).collect();
            let kept = |p: &[i64], a: usize| p[a] + over(p[a], a) * dilations[a];
            let pads: Vec<i64> = (0..n).map(|a| kept(&begin, a)).chain((0..n).map(|a| kept(&end, a))).collect();
            if pads.iter().any(|p| *p < 0) || (0..n).any(|a| taps[a] > 2 * conv.kernel.taps[a] + 1) {
                continue;
            }
            let strides = (0..n).map(|a| conv.op.strides[a] * margins[a].2).collect();
            let op = Conv { strides, dilations, pads, ..conv.op.clone() };
            let over_zeros = if taps == conv.kernel.taps { Verdict::Holds } else { unread_elements(view, s.x) };
            if !cx.require(FINITE_ELEMENTS.name, over_zeros) {
                continue;
            }
            let weights = if taps == conv.kernel.taps {
                conv.kernel.weights.clone()
            } else {
                conv.kernel.clone().embedded(&front, &taps).weights
            };
            let lhs = Expr::of(app).with_operand(0, s.expr());
            let operands = vec![Some(s.x.into()), Some(weights), conv.bias.map(Expr::Class)];
            cx.rewrite(lhs, Expr::op(op, operands));
        }
    },
};

const READS_PADDING: Condition =
    Condition { name: "reads-padding", text: "the outermost taps along an axis of fixed size read padding alone" };

/// Sound bit for bit: a tap that never reads the map adds 0.
/// Requires: a constant kernel; the size of the axis.
/// Not sound for: a tap that reads the map at one output at least.
/// Exactness: bitwise.
/// Pays: less work on maps that are smaller than the kernel (the ends of pyramids, dilated kernels).
pub const TAP_CROP: Rule = Rule {
    name: "tap-crop",
    equation: "Conv(x, w, b?) => Conv(x, slice(w), b?) where the other taps read zeros alone",
    conditions: &[READS_PADDING],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "no work on padding",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        let Some(shape) = view.fact(conv.x).map(|f| f.shape.clone()) else { return };
        let n = conv.spatial();
        let mut op = conv.op.clone();
        let (mut cuts, mut whole) = (Vec::new(), None);
        for a in 0..n {
            let taps = conv.kernel.taps[a];
            let Some(size) = shape.get(a + 2).and_then(Dim::as_fixed) else { continue };
            let Some((first, last)) = reading(&conv, a, size) else { continue };
            if last - first + 1 < taps {
                cuts.push((a + 2, Cut::at(first, last - first + 1, 1)));
                op.pads[a] -= first * op.dilations[a];
                op.pads[n + a] -= (taps - 1 - last) * op.dilations[a];
            } else if taps > 1 && op.dilations[a] * (taps - 1) >= size {
                whole = Some((a, size));
            }
        }
        cx.begin();
        if cuts.is_empty() {
            let Some((a, size)) = whole else { return };
            // Forced, the first tap is taken off.
            let why = Verdict::Fails(format!("all taps along spatial axis {a} read the map of {size}"));
            if !cx.require(READS_PADDING.name, why) {
                return;
            }
            cuts.push((a + 2, Cut::at(1, conv.kernel.taps[a] - 1, 1)));
            op.pads[a] -= op.dilations[a];
        } else {
            cx.require(READS_PADDING.name, Verdict::Holds);
        }
        if op.pads.iter().any(|p| *p < 0) {
            return;
        }
        let w = slice(conv.kernel.weights.clone(), &cuts);
        cx.rewrite(Expr::of(app), Expr::op(op, vec![Some(conv.x.into()), Some(w), conv.bias.map(Expr::Class)]));
    },
};

/// The first and the last tap along an axis of this size that read the map; `None` if none does, or if that is too long to
/// tell.
fn reading(conv: &ConvAt<'_>, a: usize, size: i64) -> Option<(i64, i64)> {
    let (stride, dilation, begin) = (conv.op.strides[a], conv.op.dilations[a], conv.pad_begin(a));
    if size > 1 << 40 {
        return None;
    }
    let room = size + begin + conv.pad_end(a) - dilation * (conv.kernel.taps[a] - 1) - 1;
    if room < 0 || size < 1 {
        return None;
    }
    let last_output = room / stride;
    let reads = |t: i64| {
        // The first output whose window has this tap at or behind the map's first element.
        let first = (begin - t * dilation + stride - 1).div_euclid(stride).max(0);
        first <= last_output && (first * stride - begin + t * dilation) < size
    };
    let taps = 0..conv.kernel.taps[a];
    Some((taps.clone().find(|t| reads(*t))?, taps.rev().find(|t| reads(*t))?))
}

pub(super) const UNDILATED: Condition =
    Condition { name: "undilated", text: "the kernel is not dilated, or has one tap along the axes where it is" };

/// Whether taps that lie apart are neighbours.
pub(super) fn undilated(conv: &ConvAt<'_>) -> Verdict {
    match (0..conv.spatial()).find(|&a| conv.kernel.taps[a] > 1 && conv.op.dilations[a] > 1) {
        None => Verdict::Holds,
        Some(a) => Verdict::Fails(format!("the kernel is dilated by {} along spatial axis {a}", conv.op.dilations[a])),
    }
}

/// Sound bit for bit: channel `(i, j, c)` of the rearranged map at `q` is channel `c` of the map at `b q + (i, j)`.
/// Requires: a constant kernel of one group without dilation; 2 spatial axes.
/// Not sound for: dilated kernels, whose taps lie `b d` apart in blocks of `b`; several groups, of which each reads channels that
/// are places of all channels of the map.
/// Exactness: bitwise.
/// Pays: no rearrangement, the same arithmetic.
pub const FOCUS: Rule = Rule {
    name: "focus",
    equation: "Conv(SpaceToDepth(x), w, b?) => Conv(x, DepthToSpace(w), b?)",
    conditions: &[UNDILATED, ONE_GROUP],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "no rearrangement",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        if conv.spatial() != 2 {
            return;
        }
        for inner in view.apps(conv.x) {
            let (Op::SpaceToDepth(s), Some(x)) = (inner.op, inner.operand(0)) else { continue };
            if x != class {
                let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
                focus(cx, &conv, lhs, x, s.blocksize, &s.mode);
            }
        }
    },
};

fn focus(cx: &mut Cx<'_>, conv: &ConvAt<'_>, lhs: Expr, x: Class, block: i64, mode: &DepthMode) {
    cx.begin();
    if !cx.require(UNDILATED.name, undilated(conv)) || !cx.require(ONE_GROUP.name, one_group(conv.op)) {
        return;
    }
    let op = Conv {
        strides: conv.op.strides.iter().map(|s| s * block).collect(),
        pads: conv.op.pads.iter().map(|p| p * block).collect(),
        dilations: vec![1; 2],
        group: conv.op.group,
        auto_pad: AutoPad::NotSet,
    };
    let spread = DepthToSpace { blocksize: block, mode: mode.clone() };
    let w = Expr::op(spread, vec![Some(conv.kernel.weights.clone())]);
    cx.rewrite(lhs, Expr::op(op, vec![Some(x.into()), Some(w), conv.bias.map(Expr::Class)]));
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&STRIDE_SLICE, &STRIDE_IN, &TAP_CROP, &FOCUS];
