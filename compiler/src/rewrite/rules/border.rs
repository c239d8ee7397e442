//! Borders filled with a constant per channel, as diverse branch blocks have them: a convolution's padding with zeros and a
//! shift do the same.

use convc_runtime::{DType, Op};

use super::{
    affine::map_at,
    frame::Frame,
    pad::{SPATIAL, ZEROS, fills_with_zeros, pads_of, pads_space_only},
    read::conv::{ConvAt, convs_in},
    weights::{add, floats, reshape, sub, zero_pad},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// How many operators the assignments to a border may have.
const DEPTH: usize = 64;

const INSIDE: Condition = Condition {
    name: "inside-kept",
    text: "only the border is overwritten, whatever the sizes: no row or column of the map itself",
};
const ONE_VALUE: Condition =
    Condition { name: "one-value", text: "the whole border holds one finite number, or one for each channel" };
const IS_BIAS: Condition = Condition {
    name: "fills-with-the-bias",
    text: "the border holds what the convolution gives where its input is 0: its bias, but for rounding",
};

/// A frame all of whose border holds one value per channel, that value, and the pads as an operand of Pad.
fn filled(cx: &mut Cx<'_>, app: &App<'_>) -> Option<(Frame, Vec<f64>, Vec<i64>)> {
    let frame = Frame::of(cx.view, app, DEPTH)?;
    if !frame.in_order() || !frame.covered() {
        return None;
    }
    let inside = if frame.spoiled {
        Verdict::Fails("a row or column that may belong to the map is overwritten".into())
    } else {
        Verdict::Holds
    };
    if !cx.require(INSIDE.name, inside) {
        return None;
    }
    let channels = map_at(cx.view, frame.source)?.channels;
    let spread = |v: &[f64]| if v.len() == 1 { vec![v[0]; channels] } else { v.to_vec() };
    let value = spread(frame.values.first()?);
    let one = if frame.values.iter().any(|v| spread(v) != value) {
        Verdict::Fails("parts of the border hold different values".into())
    } else if value.len() != channels || value.iter().any(|v| !v.is_finite()) {
        Verdict::Fails("the border does not hold one finite number for each channel".into())
    } else {
        Verdict::Holds
    };
    if !cx.require(ONE_VALUE.name, one) {
        return None;
    }
    let pads = frame.pads.iter().map(|p| p.0).chain(frame.pads.iter().map(|p| p.1)).collect();
    Some((frame, value, pads))
}

/// A value per channel, to be added to a map of this rank.
fn along_channels(value: Expr, channels: usize, rank: usize) -> Expr {
    let shape: Vec<i64> = [channels as i64].into_iter().chain(vec![1; rank - 2]).collect();
    reshape(value, &shape)
}

/// The convolutions with a folded bias in a class; `None` if another member, such as a BatchNormalization, may become one.
fn settled<'v>(view: &'v dyn View, class: Class) -> Option<Vec<ConvAt<'v>>> {
    let convs = convs_in(view, class);
    let open = |c: &ConvAt<'_>| c.bias.is_some_and(|b| view.constant(b).is_none());
    let pending = view.apps(class).iter().any(|a| a.op.name() == "BatchNormalization");
    (!pending && !convs.iter().any(open)).then_some(convs)
}

fn bias_of(view: &dyn View, conv: &ConvAt<'_>) -> Option<Vec<f64>> {
    match conv.bias {
        Some(b) => view.constant(b)?.to_tensor().ok()?.to_f64s(),
        None => Some(vec![0.0; usize::try_from(conv.kernel.outputs).ok()?]),
    }
}

/// Distance of neighbouring numbers of a type, relative to their size.
fn spacing(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 9.8e-4,
        DType::BF16 => 7.8e-3,
        _ => f64::from(f32::EPSILON),
    }
}

/// Whether two lists of numbers are two roundings of one: exporters compute the border and the bias in different orders.
fn equal_but_for_rounding(dtype: DType, a: &[f64], b: &[f64]) -> bool {
    let largest = a.iter().chain(b).fold(0.0f64, |m, v| m.max(v.abs()));
    let most = if dtype == DType::F64 { 0.0 } else { 16.0 * spacing(dtype) * largest };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most)
}

/// Sound over the reals: inside, the bias is added all the same; on the border it is added to 0.
/// Requires: a border of spatial axes, all of it overwritten with the convolution's bias, and nothing else overwritten. The
/// border's values are compared but for rounding, since an exporter computes them from the same parameters in another order.
/// Not sound for: a border of other values (`border-fill` takes those), an assignment that reaches into the map.
/// Exactness: reassociated.
/// Pays: assignments disappear, and a padded convolution behind takes the padding and composes with the first one.
pub const BORDER_OF_BIAS: Rule = Rule {
    name: "border-of-bias",
    equation: "bordered(Conv(x, w, b), ..) => Pad(Conv(x, w), ..) + b where the border holds `b`",
    conditions: &[INSIDE, ONE_VALUE, IS_BIAS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "assignments disappear, and the padding becomes a convolution's own",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["ScatterND", "Transpose", "Where"],
    search: |cx, _, app| {
        let Some((frame, value, pads)) = filled(cx, app) else { return };
        let view = cx.view;
        let Some(convs) = settled(view, frame.source) else { return };
        let Some(conv) = convs.first() else { return };
        let (Some(bias), Some(dtype)) = (bias_of(view, conv), view.fact(frame.source).map(|f| f.dtype)) else { return };
        let verdict = if equal_but_for_rounding(dtype, &bias, &value) {
            Verdict::Holds
        } else {
            Verdict::Fails("the border holds other values than the convolution's bias".into())
        };
        if !cx.require(IS_BIAS.name, verdict) {
            return;
        }
        let bare = Expr::op(conv.op.clone(), vec![Some(conv.x.into()), Some(conv.kernel.weights.clone()), None]);
        let rank = pads.len() / 2;
        let padded = zero_pad(bare, &pads);
        let rhs = match conv.bias {
            Some(b) => add(padded, along_channels(b.into(), value.len(), rank)),
            None => padded,
        };
        cx.rewrite(frame.term.clone(), rhs);
    },
};

/// Sound over the reals: inside, the value goes and comes; on the border it is added to 0.
/// Requires: a border of spatial axes, all of it overwritten with one value for each channel, and nothing else overwritten.
/// Not sound for: an assignment that reaches into the map.
/// Exactness: reassociated.
/// Pays: a padded convolution behind takes the padding and the shift, one before takes the other shift.
pub const BORDER_FILL: Rule = Rule {
    name: "border-fill",
    equation: "bordered(x, ..) => Pad(x - v, ..) + v where the border holds `v`",
    conditions: &[INSIDE, ONE_VALUE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the padding and the shifts become convolutions' own",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["ScatterND", "Transpose", "Where", "Concat"],
    search: |cx, _, app| {
        let Some((frame, value, pads)) = filled(cx, app) else { return };
        let view = cx.view;
        // Where the border is a bias, `border-of-bias` keeps the convolution free of what is left of their difference.
        let Some(convs) = settled(view, frame.source) else { return };
        let Some(dtype) = view.fact(frame.source).map(|f| f.dtype) else { return };
        if convs.iter().any(|c| bias_of(view, c).is_some_and(|b| equal_but_for_rounding(dtype, &b, &value))) {
            return;
        }
        let rank = pads.len() / 2;
        let v = along_channels(floats(dtype, &[value.len()], value.clone()), value.len(), rank);
        cx.rewrite(frame.term.clone(), add(zero_pad(sub(frame.source.into(), v.clone()), &pads), v));
    },
};

const MAP_INSIDE: Condition = Condition {
    name: "inside-constant",
    text: "within the padding, the constant that is added holds one finite number for each channel",
};
const MAP_BORDER: Condition = Condition {
    name: "border-constant",
    text: "beside the padded map, the constant that is added holds one finite number for each channel",
};

/// Sound over the reals: inside, `o` comes and goes; on the border it is added to 0. Where `x` is a convolution whose bias
/// is `o - i` but for rounding, it loses its bias instead.
/// Requires: padding of spatial axes with zeros; a constant of the padded map's size.
/// Not sound for: a constant that varies over the map, or over its border; another padding than zeros.
/// Exactness: reassociated.
/// Pays: a padded convolution behind takes the padding and the shift, one before takes the other shift; a constant of the
/// map's size becomes one number for each channel.
pub const BORDER_MAP: Rule = Rule {
    name: "border-map",
    equation: "Pad(x, ..) + m => Pad(x + d, ..) + o where the constant `m` is `o` on the border and `o + d` inside; \
               Pad(x, ..) + m => Pad(x, ..) + o where it is `o` everywhere; \
               Pad(Conv(x, w, b), ..) + m => Pad(Conv(x, w), ..) + o where it is `o` on the border and `o - b` inside",
    conditions: &[ZEROS, SPATIAL, MAP_INSIDE, MAP_BORDER],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the padding and the shifts become convolutions' own",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Add"],
    search: |cx, class, app| {
        let view = cx.view;
        for place in [0, 1] {
            let (Some(padded), Some(m)) = (app.operand(place), app.operand(1 - place)) else { continue };
            let Some(sizes) = full_size(view, class, m) else { continue };
            for pad in view.apps(padded) {
                cx.begin();
                let Some((x, pads)) = zero_padded(cx, &pad) else { continue };
                if let Some((inside, border)) = inside_and_border(cx, m, &sizes, &pads) {
                    let lhs = |x: Expr| Expr::of(app).with_operand(place, Expr::of(&pad).with_operand(0, x));
                    shifts_for_map(cx, &lhs, x, &pads, &inside, &border);
                }
            }
        }
    },
};

/// The sizes `[N, C, D1..Dn]` of a constant map that is as large as the class it is added in; each of the first two may be 1.
fn full_size(view: &dyn View, class: Class, m: Class) -> Option<Vec<usize>> {
    let (of, sizes) = (view.fact(class)?, view.constant(m).and(view.fact(m))?.fixed_shape()?);
    let same = of.shape.iter().zip(&sizes).skip(2).all(|(a, &b)| a.as_fixed() == i64::try_from(b).ok());
    let channels = of.shape.get(1)?.as_fixed().and_then(|c| usize::try_from(c).ok())?;
    let spatial = sizes.len() > 2 && of.rank() == sizes.len();
    let given = same && spatial && sizes[0] == 1 && (sizes[1] == 1 || sizes[1] == channels);
    given.then_some(sizes)
}

/// The operand of a Pad of spatial axes with zeros, and its pads: all beginnings, then all ends.
fn zero_padded(cx: &mut Cx<'_>, pad: &App<'_>) -> Option<(Class, Vec<i64>)> {
    let (Op::Pad(op), view) = (pad.op, cx.view) else { return None };
    let x = pad.operand(0).filter(|x| map_at(view, *x).is_some())?;
    let pads = pads_of(view, pad, view.fact(x)?.rank());
    cx.require(ZEROS.name, fills_with_zeros(view, pad, op.mode)).then_some(())?;
    cx.require(SPATIAL.name, pads_space_only(pads.as_deref())).then_some(())?;
    let pads = pads?;
    Some((x, pads.iter().map(|p| p.0).chain(pads.iter().map(|p| p.1)).collect()))
}

/// The numbers of each channel of a constant map inside the pads and on the border.
fn inside_and_border(cx: &mut Cx<'_>, m: Class, sizes: &[usize], pads: &[i64]) -> Option<(Vec<f64>, Vec<f64>)> {
    let values = cx.view.constant(m)?.to_tensor().ok()?.to_f64s()?;
    let rank = sizes.len();
    let (channels, positions) = (sizes[1], sizes[2..].iter().product::<usize>());
    if positions == 0 || values.len() != channels * positions {
        return None;
    }
    let on_border = |position: usize| {
        let mut rest = position;
        (2..rank).rev().any(|axis| {
            let at = (rest % sizes[axis]) as i64;
            rest /= sizes[axis];
            at < pads[axis] || at >= sizes[axis] as i64 - pads[rank + axis]
        })
    };
    let border: Vec<bool> = (0..positions).map(on_border).collect();
    let mut found = Vec::new();
    for (condition, wanted) in [(MAP_INSIDE, false), (MAP_BORDER, true)] {
        let mut one = Vec::new();
        let mut verdict = Verdict::Holds;
        for (c, map) in values.chunks(positions).enumerate() {
            let mut of = map.iter().zip(&border).filter(|(_, b)| **b == wanted).map(|(v, _)| *v);
            let first = of.next()?;
            if !first.is_finite() || of.any(|v| v != first) {
                verdict = Verdict::Fails(format!("it varies in channel {c}, or is no finite number"));
            }
            one.push(first);
        }
        if !cx.require(condition.name, verdict) {
            return None;
        }
        found.push(one);
    }
    let border = found.pop()?;
    Some((found.pop()?, border))
}

/// Puts shifts before and behind the Pad in the place of a map. `lhs` is the sum of the map and the padded term it is given.
fn shifts_for_map(cx: &mut Cx<'_>, lhs: &dyn Fn(Expr) -> Expr, x: Class, pads: &[i64], inside: &[f64], border: &[f64]) {
    let view = cx.view;
    let (Some(map), Some(fact), Some(convs)) = (map_at(view, x), view.fact(x), settled(view, x)) else { return };
    let (dtype, rank) = (fact.dtype, pads.len() / 2);
    let spread = |v: &[f64]| if v.len() == 1 { vec![v[0]; map.channels] } else { v.to_vec() };
    let (inside, border) = (spread(inside), spread(border));
    let along = |v: Vec<f64>| along_channels(floats(dtype, &[v.len()], v), map.channels, rank);
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    for conv in convs.iter().filter(|c| c.bias.is_some()) {
        let Some(whole) = bias_of(view, conv).map(|b| sum(&b, &inside)) else { continue };
        if equal_but_for_rounding(dtype, &whole, &border) {
            let bare = Expr::op(conv.op.clone(), vec![Some(conv.x.into()), Some(conv.kernel.weights.clone()), None]);
            cx.rewrite(lhs(conv.expr()), add(zero_pad(bare, pads), along(whole)));
            return;
        }
    }
    let shift: Vec<f64> = inside.iter().zip(&border).map(|(i, o)| i - o).collect();
    let shifted = if shift.iter().all(|s| *s == 0.0) { x.into() } else { add(x.into(), along(shift)) };
    cx.rewrite(lhs(x.into()), add(zero_pad(shifted, pads), along(border)));
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BORDER_OF_BIAS, &BORDER_FILL, &BORDER_MAP];
