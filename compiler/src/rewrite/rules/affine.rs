//! Per-channel scales and shifts as 1x1 depthwise convolutions: the form in which [`super::compose`] and [`super::branch`]
//! fold them.

use convc_runtime::{
    DType, Dim, Op,
    ops::{Conv, binary::BinaryKind},
    window::AutoPad,
};

use super::weights::{add, div, floats, mul, ones, reshape, sqrt, sub};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    view::{App, Class, Expr, View, same_shape},
};

/// The largest factor by which a folded BatchNormalization may scale: beyond it, its variance is noise.
const LARGEST_SCALE: f64 = 1e4;

/// A tensor `[N, C, D1..Dn]` with a fixed number of channels and at least one spatial axis.
struct Map {
    class: Class,
    dtype: DType,
    channels: usize,
    spatial: usize,
}

fn map_at(view: &dyn View, class: Class) -> Option<Map> {
    let fact = view.fact(class)?;
    if fact.rank() < 3 || !fact.dtype.is_float() || view.is_constant(class) {
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

    fn kernel_shape(&self) -> Vec<usize> {
        [self.channels, 1].into_iter().chain(vec![1; self.spatial]).collect()
    }

    /// Reads `c` as one value per channel: `[C]` as a term, or `None` if it varies over another axis.
    fn per_channel(&self, view: &dyn View, c: Class) -> Option<Expr> {
        let fact = view.fact(c)?;
        let shape = fact.fixed_shape()?;
        if fact.dtype != self.dtype || shape.len() > self.spatial + 2 {
            return None;
        }
        let axis = (shape.len() > self.spatial).then(|| shape.len() - self.spatial - 1);
        let along = axis.map_or(1, |a| shape[a]);
        let others_are_one = shape.iter().enumerate().all(|(a, &n)| Some(a) == axis || n == 1);
        if !others_are_one || !(along == 1 || along == self.channels) {
            return None;
        }
        let flat = reshape(c.into(), &[along as i64]);
        Some(if along == self.channels { flat } else { mul(flat, ones(self.dtype, &[self.channels])) })
    }

    fn as_kernel(&self, per_channel: Expr) -> Expr {
        let shape: Vec<i64> = self.kernel_shape().iter().map(|&n| n as i64).collect();
        reshape(per_channel, &shape)
    }
}

const SCALE: Condition = Condition {
    name: "scale-is-sane",
    text: "variance + epsilon is positive and no channel is scaled by more than 10000",
};

/// `bn(x; g, b, m, v)  =>  conv(x, g / sqrt(v + eps), b - m g / sqrt(v + eps))`, depthwise 1x1
///
/// Sound over the reals: inference-time BatchNormalization is affine in each channel.
/// Requires: constant parameters.
/// Not sound for: training mode, whose statistics are the batch's own.
/// Exactness: reassociated.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const BN_AS_CONV: Rule = Rule {
    name: "bn-as-conv",
    equation: "bn(x, g, b, m, v) => conv(x, g / sqrt(v + eps), b - m * g / sqrt(v + eps))",
    conditions: &[SCALE],
    exactness: Exactness::Reassociated,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    roots: &["BatchNormalization"],
    search: |cx, _, app| {
        let Op::BatchNormalization(bn) = app.op else { return };
        let view = cx.view;
        let Some(map) = app.operand(0).and_then(|x| map_at(view, x)) else { return };
        let parameters: Option<Vec<Class>> = (1..5).map(|i| app.operand(i).filter(|&p| view.is_constant(p))).collect();
        let Some([gamma, beta, mean, variance]) = parameters.as_deref() else { return };
        // Mixed precision keeps its parameters in another type than its map.
        if parameters.iter().flatten().any(|p| view.fact(*p).map(|f| f.dtype) != Some(map.dtype)) {
            return;
        }
        let epsilon = f64::from(bn.epsilon);
        if !cx.require(SCALE.name, sane_scale(view, *gamma, *variance, epsilon)) {
            return;
        }
        let eps = floats(map.dtype, &[1], vec![epsilon]);
        let scale = div((*gamma).into(), sqrt(add((*variance).into(), eps)));
        let shift = sub((*beta).into(), mul((*mean).into(), scale.clone()));
        let rhs = map.scaled(map.as_kernel(scale), Some(shift));
        cx.rewrite(Expr::of(app), rhs);
    },
};

fn sane_scale(view: &dyn View, gamma: Class, variance: Class, epsilon: f64) -> Verdict {
    let values = |c: Class| view.constant(c).and_then(|c| c.to_tensor().ok()?.to_f64s());
    let (Some(g), Some(v)) = (values(gamma), values(variance)) else {
        return Verdict::Unknown("the parameters are not folded to constants".into());
    };
    for (i, (g, v)) in g.iter().zip(&v).enumerate() {
        let square = v + epsilon;
        if square.is_nan() || square <= 0.0 {
            return Verdict::Fails(format!("variance + epsilon is {square} in channel {i}"));
        }
        let scale = (g / square.sqrt()).abs();
        if scale.is_nan() || scale > LARGEST_SCALE {
            return Verdict::Fails(format!("channel {i} is scaled by {scale:e}"));
        }
    }
    Verdict::Holds
}

const PER_CHANNEL: Condition = Condition {
    name: "per-channel",
    text: "the constant has one value, or one for each channel, and does not widen the map",
};

/// The map and the constant of a binary operator, and whether the map comes first.
fn map_and_constant(cx: &mut Cx<'_>, app: &App<'_>) -> Option<(Map, Expr, bool)> {
    let view = cx.view;
    let (a, b) = (app.operand(0)?, app.operand(1)?);
    let (x, c, first) = match (view.is_constant(a), view.is_constant(b)) {
        (false, true) => (a, b, true),
        (true, false) => (b, a, false),
        _ => return None,
    };
    let map = map_at(view, x)?;
    let value = map.per_channel(view, c);
    let verdict = match &value {
        Some(_) => Verdict::Holds,
        None => {
            let shape = view.fact(c).map_or_else(|| "unknown".into(), ToString::to_string);
            Verdict::Fails(format!(
                "the constant is {shape}, the map has {} channels and {} spatial axes",
                map.channels, map.spatial
            ))
        }
    };
    cx.require(PER_CHANNEL.name, verdict).then_some(())?;
    Some((map, value?, first))
}

fn binary_kind(app: &App<'_>) -> Option<BinaryKind> {
    match app.op {
        Op::Binary(b) => Some(b.kind),
        _ => None,
    }
}

/// `x * s  =>  conv(x, s)`, `x / s  =>  conv(x, 1 / s)`, depthwise 1x1
///
/// Sound over the reals for a scale that is one number per channel.
/// Requires: a constant scale that does not vary over the batch or the map.
/// Not sound for: `s / x`.
/// Exactness: reassociated once it is composed.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const SCALE_AS_CONV: Rule = Rule {
    name: "scale-as-conv",
    equation: "x * s => conv(x, s); x / s => conv(x, 1 / s)",
    conditions: &[PER_CHANNEL],
    exactness: Exactness::Reassociated,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    roots: &["Mul", "Div"],
    search: |cx, _, app| {
        let kind = binary_kind(app);
        // A constant over a map is not linear in the map.
        if kind == Some(BinaryKind::Div) && app.operand(0).is_some_and(|a| cx.view.is_constant(a)) {
            return;
        }
        let Some((map, value, _)) = map_and_constant(cx, app) else { return };
        let scale = match kind {
            Some(BinaryKind::Mul) => value,
            Some(BinaryKind::Div) => div(ones(map.dtype, &[map.channels]), value),
            _ => return,
        };
        let rhs = map.scaled(map.as_kernel(scale), None);
        cx.rewrite(Expr::of(app), rhs);
    },
};

/// `x + t  =>  conv(x, 1, t)`, `x - t  =>  conv(x, 1, -t)`, `t - x  =>  conv(x, -1, t)`, depthwise 1x1
///
/// Sound over the reals for a shift that is one number per channel.
/// Requires: a constant shift that does not vary over the batch or the map.
/// Not sound for: `t - x` without negating the kernel.
/// Exactness: reassociated once it is composed.
/// Pays: nothing by itself; the convolution composes with its neighbours.
pub const SHIFT_AS_CONV: Rule = Rule {
    name: "shift-as-conv",
    equation: "x + t => conv(x, 1, t); x - t => conv(x, 1, -t); t - x => conv(x, -1, t)",
    conditions: &[PER_CHANNEL],
    exactness: Exactness::Reassociated,
    pays: "a convolution composes with its neighbours",
    phase: Phase::Explore,
    roots: &["Add", "Sub"],
    search: |cx, _, app| {
        let kind = binary_kind(app);
        let Some((map, value, map_first)) = map_and_constant(cx, app) else { return };
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
