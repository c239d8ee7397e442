//! Pointwise convolutions across what acts on each channel alike: pooling, resampling, and views that keep channels.

use convc_runtime::{
    Dim, Fact, Op,
    ops::{
        AveragePool, Conv, Resize, Slice,
        concat::Concat,
        resize::{AspectPolicy, CoordinateMode, ResizeMode},
    },
    window::AutoPad,
};

use super::{
    pool::{WINDOW_FITS, window_fits},
    read::{
        conv::{ConvAt, conv_at, convs_in},
        reshape::VIEWS,
    },
    weights::{ints, reshape},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_zero, same_shape},
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

const CHANNELS_STAY: Condition = Condition {
    name: "view-keeps-channels",
    text: "the view keeps the axes of samples and of channels as they are, and joins or parts positions alone",
};

fn channels_stay(before: &Fact, after: &Fact) -> Verdict {
    Verdict::from_answer(same_shape(&before.shape[..2], &after.shape[..2]), || {
        format!("the view makes {after} of {before}")
    })
}

/// Sound over the reals: a depthwise 1x1 convolution gives each channel a factor and a shift, whatever the place of a position.
/// Requires: a view whose first two axes are those of its operand, with at least one spatial axis on either side.
/// Not sound for: a view that joins samples, or channels with positions.
/// Exactness: reassociated.
/// Pays: a BatchNormalization meets the products, pools and convolutions that read a map as a row of tokens.
pub const VIEW_BEFORE_SCALE: Rule = Rule {
    name: "view-before-scale",
    equation: "viewed(Conv(x, s, t?; depthwise 1x1)) => Conv(viewed(x), s, t?)",
    conditions: &[CHANNELS_STAY],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a BatchNormalization meets what reads a map as a row of tokens",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: VIEWS,
    search: |cx, class, app| {
        let view = cx.view;
        let Some(y) = app.operand(0) else { return };
        let (Some(before), Some(after)) = (view.fact(y), view.fact(class)) else { return };
        if before.rank() < 3 || after.rank() < 3 {
            return;
        }
        for conv in convs_in(view, y).iter().filter(|c| c.is_pointwise() && c.is_scale()) {
            cx.begin();
            if !cx.require(CHANNELS_STAY.name, channels_stay(before, after)) {
                continue;
            }
            let spatial = after.rank() - 2;
            let op = Conv {
                strides: vec![1; spatial],
                dilations: vec![1; spatial],
                pads: vec![0; 2 * spatial],
                ..conv.op.clone()
            };
            let taps: Vec<i64> = [conv.kernel.outputs, 1].into_iter().chain(vec![1; spatial]).collect();
            let weights = reshape(conv.kernel.weights.clone(), &taps);
            let viewed = Expr::of(app).with_operand(0, conv.x.into());
            let moved = Expr::op(op, vec![Some(viewed), Some(weights), conv.bias.map(Expr::Class)]);
            cx.rewrite(Expr::of(app).with_operand(0, conv.expr()), moved);
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] =
    &[&POOL_BEFORE_POINTWISE, &POINTWISE_BEFORE_POOL, &POINTWISE_BEFORE_RESIZE, &VIEW_BEFORE_SCALE];
