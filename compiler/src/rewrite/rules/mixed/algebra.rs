//! What is folded into the experts of a mixed convolution on the graph itself: scales and shifts, mixed biases, constant
//! coefficients.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, MatMul, MixedConv, binary::BinaryKind},
    window::AutoPad,
};

use super::{
    super::{
        affine::{BN_AS_CONV, SCALE_AS_CONV, SHIFT_AS_CONV},
        read::route::{Coefficients, assemble, coefficients, large, part, slice, sums_to_one},
        weights::{add, mul, reshape},
    },
    mixture::mixture,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// A mixed convolution and its operands.
pub(super) struct MixedAt<'a> {
    pub(super) op: &'a MixedConv,
    pub(super) x: Class,
    pub(super) r: Class,
    pub(super) w: Class,
    pub(super) b: Option<Class>,
    /// Sizes of W: `[E, O, C/group, K..]`.
    pub(super) shape: Vec<i64>,
    lhs: Expr,
}

impl MixedAt<'_> {
    /// The term as it stands.
    pub(super) fn expr(&self) -> Expr {
        self.lhs.clone()
    }

    /// Whether the bias is one for each expert.
    pub(super) fn mixes_bias(&self, view: &dyn View) -> bool {
        self.b.and_then(|b| view.fact(b)).is_some_and(|f| f.rank() == 2)
    }

    /// The window as that of a convolution.
    pub(super) fn window(&self) -> Conv {
        let MixedConv { strides, pads, dilations, group, .. } = self.op.clone();
        Conv { strides, pads, dilations, group, auto_pad: AutoPad::NotSet }
    }
}

/// Reads an application as [`MixedAt`], if its experts and biases are constant.
pub(super) fn mixed_at<'a>(view: &dyn View, app: &App<'a>) -> Option<MixedAt<'a>> {
    let Op::MixedConv(op) = app.op else { return None };
    let (x, r, w, b) = (app.operand(0)?, app.operand(1)?, app.operand(2)?, app.operand(3));
    let shape: Vec<i64> = view.fact(w)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
    if !view.is_constant(w) || b.is_some_and(|b| !view.is_constant(b)) || shape.contains(&0) || shape.len() < 4 {
        return None;
    }
    Some(MixedAt { op, x, r, w, b, shape, lhs: Expr::of(app) })
}

/// The mixed convolutions in a class.
pub(super) fn mixed_in<'v>(view: &'v dyn View, class: Class) -> Vec<MixedAt<'v>> {
    view.apps(class).iter().filter_map(|app| mixed_at(view, app)).collect()
}

/// The coefficients of a matrix `[N, E]`.
fn routes_of(view: &dyn View, r: Class) -> Option<Coefficients> {
    let shape = &view.fact(r)?.shape;
    Some(coefficients(view, r, shape.first()?, shape.get(1)?.as_fixed()?)?.1)
}

/// Whether the coefficients of each sample sum to 1.
pub(super) fn whole(view: &dyn View, r: Class) -> bool {
    routes_of(view, r).is_some_and(|c| sums_to_one(view, &c))
}

pub(super) const SUM_TO_ONE: Condition = Condition {
    name: "sum-to-one",
    text: "the coefficients come out of a softmax over the experts, so that what is added to each expert's bias is added once; \
           or the bias is not mixed",
};

pub(super) fn sum_to_one(view: &dyn View, mixes: bool, r: Class) -> Verdict {
    if !mixes || whole(view, r) {
        Verdict::Holds
    } else {
        Verdict::Unknown("no softmax makes the coefficients, and the biases are mixed with them".into())
    }
}

/// The depthwise 1x1 convolution that an operator is to its map: the map, scale and shift of each channel.
fn affine(cx: &Cx<'_>, class: Class, app: &App<'_>) -> Option<(Class, Option<Expr>, Option<Expr>)> {
    let as_conv = |rhs: Expr| match rhs {
        Expr::Op(op, operands) if matches!(*op, Op::Conv(_)) => {
            let mut operands = operands.into_iter();
            let (x, scale) = (operands.next()??, operands.next()??);
            match x {
                Expr::Class(x) => Some((x, scale, operands.next().flatten())),
                _ => None,
            }
        }
        _ => None,
    };
    let adds = matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Add);
    [&BN_AS_CONV, &SCALE_AS_CONV, &SHIFT_AS_CONV].into_iter().find_map(|rule| {
        let found = Cx::search(cx.view, rule, class, app, None).0.into_iter().next()?;
        let (x, scale, shift) = as_conv(found.rhs)?;
        Some((x, (!adds).then_some(scale), shift))
    })
}

/// Sound over the reals: an output channel is linear in its kernels and biases, whatever mixes them. The left side is a
/// BatchNormalization, a scale or a shift, one number for each channel.
/// Requires: constant experts and biases. A shift joins a mixed bias only if the coefficients sum to 1; otherwise it stays an
/// addition behind the operator.
/// Not sound for: the shift in each expert's bias while sigmoids make the coefficients.
/// Exactness: reassociated.
/// Pays: a pass over the map disappears.
pub const MIXED_CONV_AFFINE: Rule = Rule {
    name: "mixed-conv-affine",
    equation: "CondConv|DynamicConv(x, r, w, b?) * s => CondConv|DynamicConv(x, r, w * s, b? * s); \
               CondConv|DynamicConv(x, r, w, b?) / s => CondConv|DynamicConv(x, r, w * (1 / s), b? * (1 / s)); \
               CondConv|DynamicConv(x, r, w, b?) + t => CondConv|DynamicConv(x, r, w, b? + t); \
               CondConv|DynamicConv(x, r, w, b?) - t => CondConv|DynamicConv(x, r, w, b? + -t); \
               CondConv|DynamicConv(x, r, w, b) - t => CondConv|DynamicConv(x, r, w, b) + -t; \
               t - CondConv|DynamicConv(x, r, w, b?) => CondConv|DynamicConv(x, r, -w, -b? + t); \
               t - CondConv|DynamicConv(x, r, w, b) => CondConv|DynamicConv(x, r, -w, -b) + t; \
               BatchNormalization(CondConv|DynamicConv(x, r, w, b?), g, c, m, v) => CondConv|DynamicConv(x, r, w * s, b? * s + \
               (c - m * s)) where s = g / Sqrt(v + eps); \
               BatchNormalization(CondConv|DynamicConv(x, r, w, b), g, c, m, v) => CondConv|DynamicConv(x, r, w * s, b * s) + (c \
               - m * s) where s = g / Sqrt(v + eps)",
    conditions: &[SUM_TO_ONE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a pass over the map disappears",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["BatchNormalization", "Mul", "Div", "Add", "Sub"],
    search: |cx, class, app| {
        let view = cx.view;
        let place = (0..app.operands.len()).find(|&i| app.operand(i).is_some_and(|x| !mixed_in(view, x).is_empty()));
        let Some(place) = place else { return };
        let Some((x, scale, shift)) = affine(cx, class, app) else { return };
        for m in mixed_in(view, x) {
            cx.begin();
            let channels = m.shape[1];
            let mut per_expert = vec![1; m.shape.len()];
            per_expert[1] = channels;
            let scaled = |w: Expr, shape: &[i64]| match &scale {
                Some(s) => mul(w, reshape(s.clone(), shape)),
                None => w,
            };
            let bias = m.b.map(|b| scaled(b.into(), &[channels]));
            let joins = shift.is_none() || cx.require(SUM_TO_ONE.name, sum_to_one(view, m.mixes_bias(view), m.r));
            let (bias, behind) = match (bias, shift.clone(), joins) {
                (Some(b), Some(t), true) => (Some(add(b, t)), None),
                (None, t, _) => (t, None),
                (b, t, false) => (b, t),
                (b, None, _) => (b, None),
            };
            // An addition that stays is what is there.
            if behind.is_some() && scale.is_none() {
                continue;
            }
            let experts = scaled(m.w.into(), &per_expert);
            let y = Expr::op(m.op.clone(), vec![Some(m.x.into()), Some(m.r.into()), Some(experts), bias]);
            let y = match behind {
                Some(t) => add(y, reshape(t, &per_expert[..per_expert.len() - 1])),
                None => y,
            };
            cx.rewrite(Expr::of(app).with_operand(place, m.expr()), y);
        }
    },
};

const SAME_ROUTES: Condition =
    Condition { name: "same-routes", text: "the biases are mixed by the coefficients that mix the kernels" };

/// Sound over the reals, by the definition of the operator.
/// Requires: the same coefficients for kernels and biases, which are laid out as `[N, O]`.
/// Not sound for: biases `[O, N]`, transposed, where there are as many samples as channels.
/// Exactness: reassociated.
/// Pays: a pass over the map disappears.
pub const MIXED_CONV_BIAS: Rule = Rule {
    name: "mixed-conv-bias",
    equation: "CondConv|DynamicConv(x, r, w) + mixed(r, b) => CondConv|DynamicConv(x, r, w, b)",
    conditions: &[SAMPLES_APART, SAME_ROUTES],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a pass over the map disappears",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Add"],
    search: |cx, _, app| {
        let view = cx.view;
        let (Some(a), Some(b)) = (app.operand(0), app.operand(1)) else { return };
        for (place, y, c) in [(0, a, b), (1, b, a)] {
            for m in mixed_in(view, y).into_iter().filter(|m| m.b.is_none()) {
                cx.begin();
                let Some(bias) = mixture(view, c) else { continue };
                let n = Dim::from(bias.samples);
                // `[N, O, 1, ..]`, or without the samples' axis if there is one sample.
                let Some(sizes) = view.fact(c).and_then(|f| f.fixed_shape()) else { continue };
                let rank = m.shape.len() - 1;
                let padded: Vec<usize> =
                    std::iter::repeat_n(1, rank.saturating_sub(sizes.len())).chain(sizes.iter().copied()).collect();
                let per_channel = padded.len() == rank
                    && padded[0] as i64 == bias.samples
                    && padded[1] as i64 == m.shape[1]
                    && padded[2..].iter().all(|&s| s == 1)
                    && view.fact(m.r).is_some_and(|f| f.shape[0] == n);
                let Some((routes, weights)) = assemble(&bias.blocks, &n) else { continue };
                // Samples and channels may be as many: sizes do not tell them apart.
                let verdict = if !per_channel {
                    Verdict::Fails(format!("what is added is {sizes:?}, the kernels have {} outputs", m.shape[1]))
                } else if bias.before == 1 || bias.samples == 1 {
                    Verdict::Holds
                } else {
                    Verdict::Fails(format!(
                        "the biases are [{}, {}]: channels, then samples",
                        bias.before, bias.samples
                    ))
                };
                if !cx.require(SAMPLES_APART.name, verdict) {
                    continue;
                }
                let of = routes_of(view, m.r).map(|c| c.value(&n));
                let verdict = if routes == Expr::Class(m.r) || of.as_ref() == Some(&routes) {
                    Verdict::Holds
                } else {
                    Verdict::Fails("the biases are mixed by other coefficients than the kernels".into())
                };
                if !cx.require(SAME_ROUTES.name, verdict) {
                    continue;
                }
                let lhs = Expr::of(app).with_operand(place, m.expr()).with_operand(1 - place, bias.lhs);
                let operands = vec![Some(m.x.into()), Some(m.r.into()), Some(m.w.into()), Some(weights)];
                cx.rewrite(lhs, Expr::op(m.op.clone(), operands));
            }
        }
    },
};

const SAMPLES_APART: Condition = Condition {
    name: "samples-first",
    text: "the biases of a sample stand along the first axis of what is added, one for each channel",
};

const SAME_FOR_ALL: Condition = Condition {
    name: "same-for-all",
    text: "the coefficients are constant and the same for all samples, or a softmax over one expert, which is 1",
};

/// The one constant row that is repeated for any number of samples, and the coefficients spelled out.
fn repeated(view: &dyn View, r: Class, experts: i64, depth: usize) -> Option<(Expr, Class)> {
    view.apps(r).into_iter().filter(|_| depth > 0).find_map(|app| {
        let x = app.operand(0)?;
        let shape = &view.fact(x)?.shape;
        if matches!(app.op, Op::Expand(_)) {
            // A column of as many samples as there are experts is no row.
            let row = large(shape) == large(&[Dim::from(experts)]) && shape.last() == Some(&Dim::from(experts));
            return (row && view.is_constant(x)).then(|| (Expr::of(&app), x));
        }
        part(view, &app).filter(|p| p.axis == 0 && shape.len() == 2)?;
        let (spelled, row) = repeated(view, x, experts, depth - 1)?;
        Some((Expr::of(&app).with_operand(0, spelled), row))
    })
}

/// The one row that all coefficients are: spelled out, and `[1, E]`; with why not, if they differ.
fn row(view: &dyn View, r: Class, experts: i64) -> (Expr, Option<Expr>, Verdict) {
    if experts == 1 && whole(view, r) {
        return (r.into(), None, Verdict::Holds);
    }
    if let Some((spelled, x)) = repeated(view, r, experts, 3) {
        return (spelled, Some(reshape(x.into(), &[1, experts])), Verdict::Holds);
    }
    let first = Some(slice(r.into(), 0, 0, 1));
    if !view.is_constant(r) {
        return (r.into(), first, Verdict::Fails("the coefficients depend on the input".into()));
    }
    let Some(v) = view.constant(r).and_then(|c| c.to_tensor().ok()?.to_f64s()) else {
        return (r.into(), first, Verdict::Unknown("the coefficients are not folded to a constant".into()));
    };
    let row = usize::try_from(experts).unwrap_or(1);
    let verdict = if v.len() >= row && v.chunks(row).all(|c| c == &v[..row]) {
        Verdict::Holds
    } else {
        Verdict::Fails("the samples have different constant coefficients".into())
    };
    (r.into(), first, verdict)
}

/// Sound over the reals: the kernel is the same for all samples.
/// Requires: constant coefficients with equal rows, or a softmax over a single expert.
/// Not sound for: a sigmoid over a single expert, which still scales each sample.
/// Exactness: reassociated.
/// Pays: nothing is mixed at run time.
pub const MIXED_CONV_CONSTANT: Rule = Rule {
    name: "mixed-conv-constant",
    equation: "CondConv|DynamicConv(x, row(r, ..), w, b?) => Conv(x, mixed(r, w), mixed(r, b?)); \
               CondConv|DynamicConv(x, row(r, ..), w, b?) => Conv(x, mixed(r, w), b?); \
               CondConv|DynamicConv(x, r, w, b?) => Conv(x, w, b?) where `r` is a softmax over one expert",
    conditions: &[SAME_FOR_ALL],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "nothing is mixed at run time",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["CondConv", "DynamicConv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(m) = mixed_at(view, app) else { return };
        let experts = m.shape[0];
        let (spelled, row, verdict) = row(view, m.r, experts);
        if !cx.require(SAME_FOR_ALL.name, verdict) {
            return;
        }
        let mixed = |w: Expr, shape: &[i64]| match &row {
            None => reshape(w, shape),
            Some(row) => {
                let flat = reshape(w, &[experts, shape.iter().product()]);
                reshape(Expr::op(MatMul {}, vec![Some(row.clone()), Some(flat)]), shape)
            }
        };
        let kernel = mixed(m.w.into(), &m.shape[1..]);
        let bias = m.b.map(|b| if m.mixes_bias(view) { mixed(b.into(), &m.shape[1..2]) } else { b.into() });
        let lhs = m.expr().with_operand(1, spelled);
        cx.rewrite(lhs, Expr::op(m.window(), vec![Some(m.x.into()), Some(kernel), bias]));
    },
};
