//! Per-channel scales and shifts as 1x1 depthwise convolutions: the form in which [`super::compose`] and [`super::branch`]
//! fold them.

use convc_runtime::{
    DType, Dim, Op, Tensor,
    ops::{Conv, binary::BinaryKind},
    window::AutoPad,
};

use super::{
    read::scale::{Scaling, finite_factors, is_finite_in, scaling},
    weights::{add, div, floats, mul, ones, reshape, sqrt, sub},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, same_shape},
};

/// The largest factor by which a folded BatchNormalization may scale: beyond it, its variance is noise.
const LARGEST_SCALE: f64 = 1e4;

/// A tensor `[N, C, D1..Dn]` with a fixed number of channels and at least one spatial axis.
pub(super) struct Map {
    class: Class,
    dtype: DType,
    pub(super) channels: usize,
    spatial: usize,
}

pub(super) fn map_at(view: &dyn View, class: Class) -> Option<Map> {
    let fact = view.fact(class)?;
    if fact.rank() < 3 || view.is_constant(class) {
        return None;
    }
    // A window has no place in an empty map.
    if fact.shape[2..].iter().any(|d| d.as_fixed() == Some(0)) {
        return None;
    }
    let channels = usize::try_from(fact.shape[1].as_fixed()?).ok().filter(|&c| c > 0)?;
    Some(Map { class, dtype: fact.dtype, channels, spatial: fact.rank() - 2 })
}

impl Map {
    /// `conv(x, scale[c,1,1..], shift[c], groups = channels)`.
    fn scaled(&self, scale: Expr, shift: Option<Expr>) -> Expr {
        let op = Conv {
            strides: vec![1; self.spatial],
            pads: vec![0; 2 * self.spatial],
            dilations: vec![1; self.spatial],
            group: self.channels as i64,
            auto_pad: AutoPad::NotSet,
        };
        Expr::op(op, vec![Some(self.class.into()), Some(scale), shift])
    }

    /// Whether a convolution may stand where the map was read: it fails where the map is empty.
    fn not_empty(&self, view: &dyn View) -> Verdict {
        let windows = |app: &App<'_>| matches!(app.op, Op::Conv(_) | Op::ConvTranspose(_));
        let sizes = view.fact(self.class).and_then(|f| f.shape.get(2..)).unwrap_or_default();
        match sizes.iter().enumerate().find(|(_, d)| !view.positive().holds(d)) {
            Some((a, size)) if !view.apps(self.class).iter().any(windows) => {
                Verdict::Unknown(format!("spatial axis {a} (size {size}) may be 0"))
            }
            _ => Verdict::Holds,
        }
    }

    fn kernel_shape(&self) -> Vec<usize> {
        [self.channels, 1].into_iter().chain(vec![1; self.spatial]).collect()
    }

    /// Reads `c` as one value for all channels or one for each: `[C]` as a term, and whether broadcasting reads it so. `None` if
    /// it has another number of values.
    fn per_channel(&self, view: &dyn View, c: Class) -> Option<(Expr, bool)> {
        let fact = view.fact(c)?;
        let shape = fact.fixed_shape()?;
        let count: usize = shape.iter().product();
        if fact.dtype != self.dtype || !(count == 1 || count == self.channels) {
            return None;
        }
        let flat = reshape(c.into(), &[count as i64]);
        let value = if count == self.channels { flat } else { mul(flat, ones(self.dtype, &[self.channels])) };
        // Channels are the axis before the spatial ones, whatever the sizes coincide with.
        let along_channels = shape.iter().rev().nth(self.spatial) == Some(&count);
        Some((value, shape.len() <= self.spatial + 2 && (count == 1 || along_channels)))
    }

    fn as_kernel(&self, per_channel: Expr) -> Expr {
        let shape: Vec<i64> = self.kernel_shape().iter().map(|&n| n as i64).collect();
        reshape(per_channel, &shape)
    }
}

const NOT_EMPTY: Condition = Condition {
    name: "map-not-empty",
    text: "the map has at least one element along each spatial axis wherever the model runs: a convolution fails on an empty map",
};

pub(super) const SCALE: Condition = Condition {
    name: "scale-is-sane",
    text: "variance + epsilon is positive, no channel is scaled by more than 10000, and the shift is a finite number",
};

/// Sound over the reals: inference-time BatchNormalization is affine in each channel.
/// Requires: constant parameters; a map that is never empty.
/// Not sound for: training mode, whose statistics are the batch's own; sizes at which the map is empty and a convolution fails.
/// Exactness: reassociated.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const BN_AS_CONV: Rule = Rule {
    name: "bn-as-conv",
    equation: "BatchNormalization(x, g, b, m, v) => Conv(x, s, b - m * s; depthwise 1x1) where s = g / Sqrt(v + eps)",
    conditions: &[SCALE, NOT_EMPTY],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    folds: true,
    proposals: None,
    roots: &["BatchNormalization"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(map) = app.operand(0).and_then(|x| map_at(view, x)) else { return };
        let Some((scale, shift)) = scale_and_shift(cx, app, map.dtype) else { return };
        if !cx.require(NOT_EMPTY.name, map.not_empty(view)) {
            return;
        }
        let rhs = map.scaled(map.as_kernel(scale), Some(shift));
        cx.rewrite(Expr::of(app), rhs);
    },
};

/// What a BatchNormalization of this type multiplies each channel by and then adds, as terms, if its parameters are constants and
/// sane.
pub(super) fn scale_and_shift(cx: &mut Cx<'_>, app: &App<'_>, dtype: DType) -> Option<(Expr, Expr)> {
    let Op::BatchNormalization(bn) = app.op else { return None };
    let view = cx.view;
    let parameters: Option<Vec<Class>> = (1..5).map(|i| app.operand(i).filter(|&p| view.is_constant(p))).collect();
    let Some([gamma, beta, mean, variance]) = parameters.as_deref() else { return None };
    // Mixed precision keeps its parameters in another type than its map.
    if parameters.iter().flatten().any(|p| view.fact(*p).map(|f| f.dtype) != Some(dtype)) {
        return None;
    }
    let epsilon = f64::from(bn.epsilon);
    if !cx.require(SCALE.name, sane_scale(view, [*gamma, *beta, *mean, *variance], dtype, epsilon)) {
        return None;
    }
    let eps = floats(dtype, &[1], vec![epsilon]);
    let scale = div((*gamma).into(), sqrt(add((*variance).into(), eps)));
    let shift = sub((*beta).into(), mul((*mean).into(), scale.clone()));
    Some((scale, shift))
}

fn sane_scale(view: &dyn View, parameters: [Class; 4], dtype: DType, epsilon: f64) -> Verdict {
    let values = |c: Class| view.constant(c).and_then(|c| c.to_tensor().ok()?.to_f64s());
    let [Some(g), Some(b), Some(m), Some(v)] = parameters.map(values) else {
        return Verdict::Unknown("the parameters are not folded to constants".into());
    };
    // The term holds epsilon in the parameters' type, which may round it to 0.
    let epsilon = Tensor::scalar(epsilon).rounded_to(dtype).to_f64s().map_or(epsilon, |e| e[0]);
    for (i, (((g, b), m), v)) in g.iter().zip(&b).zip(&m).zip(&v).enumerate() {
        let square = v + epsilon;
        if square.is_nan() || square <= 0.0 {
            return Verdict::Fails(format!("variance + epsilon is {square} in channel {i}"));
        }
        let scale = g / square.sqrt();
        if scale.is_nan() || scale.abs() > LARGEST_SCALE {
            return Verdict::Fails(format!("channel {i} is scaled by {:e}", scale.abs()));
        }
        let shift = b - m * scale;
        if !is_finite_in(dtype, shift) {
            return Verdict::Fails(format!("channel {i} is shifted by {shift:e}"));
        }
    }
    Verdict::Holds
}

const PER_CHANNEL: Condition = Condition {
    name: "per-channel",
    text: "the constant has one value, or one for each channel, and does not widen the map",
};

/// The map `x`, and the constant `c` as one value per channel.
fn map_and_constant(cx: &mut Cx<'_>, x: Class, c: Class) -> Option<(Map, Expr)> {
    let view = cx.view;
    let map = map_at(view, x)?;
    let reading = map.per_channel(view, c);
    let verdict = match &reading {
        Some((_, true)) => Verdict::Holds,
        _ => {
            let shape = view.fact(c).map_or_else(|| "unknown".into(), ToString::to_string);
            Verdict::Fails(format!(
                "the constant is {shape}, the map has {} channels and {} spatial axes",
                map.channels, map.spatial
            ))
        }
    };
    cx.require(PER_CHANNEL.name, verdict).then_some(())?;
    cx.require(NOT_EMPTY.name, map.not_empty(view)).then_some(())?;
    Some((map, reading?.0))
}

fn binary_kind(app: &App<'_>) -> Option<BinaryKind> {
    match app.op {
        Op::Binary(b) => Some(b.kind),
        _ => None,
    }
}

const FINITE: Condition = Condition {
    name: "finite-scale",
    text: "every value of the scale, or 1 over it where it divides, is a finite number",
};

/// Sound over the reals for a scale that is one number per channel.
/// Requires: a constant scale that does not vary over the batch or the map; finite, since a kernel is set between zeros
/// later, and 0 times infinity is no number; a map that is never empty.
/// Not sound for: `s / x`.
/// Exactness: reassociated once it is composed.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const SCALE_AS_CONV: Rule = Rule {
    name: "scale-as-conv",
    equation: "x * s => Conv(x, s; depthwise 1x1); x / s => Conv(x, 1 / s; depthwise 1x1)",
    conditions: &[PER_CHANNEL, NOT_EMPTY, FINITE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    folds: true,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, _, app| {
        let view = cx.view;
        // A constant over a map is not linear in the map, and no scaling.
        let Some(Scaling { y, factor, divides, .. }) = scaling(view, app) else { return };
        let Some((map, value)) = map_and_constant(cx, y, factor) else { return };
        if !cx.require(FINITE.name, finite_factors(view, factor, divides)) {
            return;
        }
        let scale = if divides { div(ones(map.dtype, &[map.channels]), value) } else { value };
        let rhs = map.scaled(map.as_kernel(scale), None);
        cx.rewrite(Expr::of(app), rhs);
    },
};

/// Sound over the reals for a shift that is one number per channel.
/// Requires: a constant shift that does not vary over the batch or the map; a map that is never empty.
/// Not sound for: `t - x` without negating the kernel.
/// Exactness: reassociated once it is composed.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const SHIFT_AS_CONV: Rule = Rule {
    name: "shift-as-conv",
    equation: "x + t => Conv(x, 1, t; depthwise 1x1); \
               x - t => Conv(x, 1, -t; depthwise 1x1); \
               t - x => Conv(x, -1, t; depthwise 1x1)",
    conditions: &[PER_CHANNEL, NOT_EMPTY],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    folds: true,
    proposals: None,
    roots: &["Add", "Sub"],
    search: |cx, _, app| {
        let kind = binary_kind(app);
        let (Some(a), Some(b)) = (app.operand(0), app.operand(1)) else { return };
        let (x, c, map_first) = match (cx.view.is_constant(a), cx.view.is_constant(b)) {
            (false, true) => (a, b, true),
            (true, false) => (b, a, false),
            _ => return,
        };
        let Some((map, value)) = map_and_constant(cx, x, c) else { return };
        let filled = |v: f64| floats(map.dtype, &map.kernel_shape(), vec![v; map.channels]);
        let zero = floats(map.dtype, &[map.channels], vec![0.0; map.channels]);
        let (kernel, shift) = match (kind, map_first) {
            (Some(BinaryKind::Add), _) => (filled(1.0), value),
            (Some(BinaryKind::Sub), true) => (filled(1.0), sub(zero, value)),
            (Some(BinaryKind::Sub), false) => (filled(-1.0), value),
            _ => return,
        };
        let rhs = map.scaled(kernel, Some(shift));
        cx.rewrite(Expr::of(app), rhs);
    },
};

/// Whether two classes have the same shape for all values of the symbols.
pub(super) fn equal_shapes(view: &dyn View, a: Class, b: Class) -> Option<bool> {
    let shape = |c: Class| -> Option<&[Dim]> { Some(&view.fact(c)?.shape) };
    same_shape(shape(a)?, shape(b)?)
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BN_AS_CONV, &SCALE_AS_CONV, &SHIFT_AS_CONV];
