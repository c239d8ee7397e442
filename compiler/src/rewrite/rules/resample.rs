//! Pointwise convolutions across averages of positions: pooling and resampling act on each channel alike.

use convc_runtime::{
    Dim, Fact, Op,
    ops::{
        AveragePool, Resize, Slice,
        concat::Concat,
        resize::{AspectPolicy, CoordinateMode, ResizeMode},
    },
    window::AutoPad,
};

use super::{
    pool::{WINDOW_FITS, window_fits},
    read::conv::{ConvAt, conv_at, convs_in},
    weights::ints,
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_zero},
};

/// The convolution on another input.
fn on(conv: &ConvAt<'_>, x: Expr) -> Expr {
    let operands = vec![Some(x), Some(conv.kernel.weights.clone()), conv.bias.map(Expr::Class)];
    Expr::op(conv.op.clone(), operands)
}

const KEEPS_CONSTANTS: Condition = Condition {
    name: "keeps-constants",
    text: "the bias is 0, or the average of a constant is that constant in every window: padding is not counted, or there is \
           none, and every window has a tap inside the map",
};

fn keeps_constants(view: &dyn View, pool: &AveragePool, conv: &ConvAt<'_>, sizes: &[Dim]) -> Verdict {
    if conv.bias.map_or(Some(true), |b| is_zero(view, b)) == Some(true) {
        return Verdict::Holds;
    }
    if pool.pads.iter().all(|&p| p == 0) {
        return Verdict::Holds;
    }
    if pool.count_include_pad {
        return Verdict::Fails("the padding is counted, where the bias is not added".into());
    }
    let n = pool.kernel_shape.len();
    for (a, size) in sizes.iter().enumerate() {
        let reach = pool.dilations[a] * (pool.kernel_shape[a] - 1);
        let end = if pool.ceil_mode { 0 } else { pool.pads[n + a] };
        if pool.pads[a] > reach || end > reach {
            return Verdict::Fails(format!("a window of spatial axis {a} may lie in the padding"));
        }
        if size.at_least(pool.dilations[a]) != Some(true) {
            return Verdict::Unknown(format!("spatial axis {a} may be shorter than {}", pool.dilations[a]));
        }
    }
    Verdict::Holds
}

fn average_at<'a>(app: &App<'a>) -> Option<(&'a AveragePool, Class)> {
    match app.op {
        Op::AveragePool(p) if p.auto_pad == AutoPad::NotSet => Some((p, app.operand(0)?)),
        _ => None,
    }
}

fn sizes(view: &dyn View, x: Class, pool: &AveragePool) -> Option<Vec<Dim>> {
    let shape = &view.fact(x)?.shape;
    let n = pool.kernel_shape.len();
    (shape.len() == n + 2 && pool.pads.len() == 2 * n).then(|| shape[2..].to_vec())
}

/// Sound over the reals: averages of positions and sums over channels commute.
/// Requires: a pointwise convolution; no bias, or windows whose average of a constant is that constant; a map that is
/// never smaller than the window, since the convolution would see an empty one.
/// Not sound for: a bias and padding that counts; an activation between.
/// Exactness: reassociated.
/// Pays: the convolution works at the lower resolution.
pub const POOL_BEFORE_POINTWISE: Rule = Rule {
    name: "pool-before-pointwise",
    equation: "AveragePool(Conv(x, w, b?; pointwise)) => Conv(AveragePool(x), w, b?; pointwise)",
    conditions: &[KEEPS_CONSTANTS, WINDOW_FITS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the convolution works at the lower resolution",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["AveragePool"],
    search: |cx, _, app| {
        let (view, Some((pool, y))) = (cx.view, average_at(app)) else { return };
        for conv in convs_in(view, y).iter().filter(|c| c.is_pointwise()) {
            cx.begin();
            let Some(sizes) = sizes(view, conv.x, pool) else { continue };
            if cx.require(KEEPS_CONSTANTS.name, keeps_constants(view, pool, conv, &sizes))
                && cx.require(WINDOW_FITS.name, window_fits(pool, &sizes))
            {
                let pooled = Expr::op(pool.clone(), vec![Some(conv.x.into())]);
                cx.rewrite(Expr::of(app).with_operand(0, conv.expr()), on(conv, pooled));
            }
        }
    },
};

/// Sound over the reals, as the other direction.
/// Requires: as the other direction.
/// Not sound for: a bias and padding that counts; an activation between.
/// Exactness: reassociated.
/// Pays: fewer channels are pooled, or the convolution composes with what made x.
pub const POINTWISE_BEFORE_POOL: Rule = Rule {
    name: "pointwise-before-pool",
    equation: "Conv(AveragePool(x), w, b?; pointwise) => AveragePool(Conv(x, w, b?; pointwise))",
    conditions: &[KEEPS_CONSTANTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "fewer channels are pooled",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app).filter(ConvAt::is_pointwise) else { return };
        for inner in view.apps(conv.x) {
            cx.begin();
            let Some((pool, x)) = average_at(&inner) else { continue };
            let Some(sizes) = sizes(view, x, pool) else { continue };
            if cx.require(KEEPS_CONSTANTS.name, keeps_constants(view, pool, &conv, &sizes)) {
                let lhs = Expr::of(app).with_operand(0, Expr::of(&inner));
                cx.rewrite(lhs, Expr::op(pool.clone(), vec![Some(on(&conv, x.into()))]));
            }
        }
    },
};

const KEEPS_CHANNELS: Condition =
    Condition { name: "keeps-channels", text: "the channels are resampled by a scale of 1: each stays what it is" };

/// The operand of `sizes` with another number of channels: `[N, O, D1..Dn]`.
fn with_channels(view: &dyn View, op: &Resize, sizes: Class, rank: usize, channels: i64) -> Option<Expr> {
    let Some(place) = op.place_of(1, rank).map(|p| p as i64) else { return Some(sizes.into()) };
    let count = view.fact(sizes)?.shape.first()?.as_fixed()?;
    let part = |from: i64, to: i64| {
        let bounds = [from, to, 0].map(|n| Some(Expr::Constant(ints(&[n]))));
        Some(Expr::op(Slice {}, std::iter::once(Some(sizes.into())).chain(bounds).collect()))
    };
    let parts = [
        (place > 0).then(|| part(0, place)).flatten(),
        Some(Expr::Constant(ints(&[channels]))),
        (place + 1 < count).then(|| part(place + 1, count)).flatten(),
    ];
    Some(Expr::op(Concat { axis: 0 }, parts.into_iter().filter(Option::is_some).collect()))
}

/// Whether a Resize leaves the channels as they are.
fn keeps_channels(view: &dyn View, op: &Resize, app: &App<'_>, x: &Fact) -> Verdict {
    let Some(place) = op.place_of(1, x.rank()) else { return Verdict::Holds };
    let given =
        |i: usize| app.operand(i).and_then(|o| view.fact(o)).filter(|f| f.element_count().as_fixed() != Some(0));
    let answer = match (given(2), given(3)) {
        (Some(scales), None) => scales.f64s().and_then(|s| s.get(place).map(|s| *s == 1.0)),
        (None, Some(sizes)) => sizes.dims().and_then(|s| s.get(place)?.equals(&x.shape[1])),
        _ => None,
    };
    Verdict::from_answer(answer, || "the channels may be resampled".into())
}

/// Sound over the reals: every output of a nearest or linear resampling is an average of positions with weights that sum
/// to 1, the same for each channel.
/// Requires: a pointwise convolution; mode nearest or linear without a value from outside; channels that stay.
/// Not sound for: an activation between; tf_crop_and_resize, which fills with another value.
/// Exactness: reassociated.
/// Pays: the convolution works at the lower resolution, and composes with what is before.
pub const POINTWISE_BEFORE_RESIZE: Rule = Rule {
    name: "pointwise-before-resize",
    equation: "Conv(Resize(x, ..), w, b?; pointwise) => Resize(Conv(x, w, b?; pointwise), ..)",
    conditions: &[KEEPS_CHANNELS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the convolution works at the lower resolution",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app).filter(ConvAt::is_pointwise) else { return };
        for inner in view.apps(conv.x) {
            cx.begin();
            let (Op::Resize(op), Some(x)) = (inner.op, inner.operand(0)) else { continue };
            let averages = matches!(op.mode, ResizeMode::Nearest | ResizeMode::Linear);
            let crops = op.coordinate_transformation_mode == CoordinateMode::TfCropAndResize;
            let other = op.antialias || op.exclude_outside || op.keep_aspect_ratio_policy != AspectPolicy::Stretch;
            let Some(fact) = view.fact(x).filter(|_| averages && !crops && !other) else { continue };
            if fact.rank() != conv.spatial() + 2
                || !cx.require(KEEPS_CHANNELS.name, keeps_channels(view, op, &inner, fact))
            {
                continue;
            }
            let mut operands: Vec<Option<Expr>> = inner.operands.iter().map(|o| o.map(Expr::Class)).collect();
            operands[0] = Some(on(&conv, x.into()));
            if let Some(sizes) = inner.operand(3)
                && view.fact(sizes).is_some_and(|f| f.element_count().as_fixed() != Some(0))
                && conv.kernel.outputs != conv.kernel.channels()
            {
                let Some(sizes) = with_channels(view, op, sizes, fact.rank(), conv.kernel.outputs) else { continue };
                operands[3] = Some(sizes);
            }
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), Expr::op(op.clone(), operands));
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&POOL_BEFORE_POINTWISE, &POINTWISE_BEFORE_POOL, &POINTWISE_BEFORE_RESIZE];
