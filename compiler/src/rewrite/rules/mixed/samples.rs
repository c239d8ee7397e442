//! Mixed kernels sample by sample: one convolution for each sample of the batch, one behind the other.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, mixed_conv::MixedConvKind},
};

use super::{
    super::{
        read::{
            axes::axis,
            route::{Block, Coefficients, assemble, coefficients, concat, sample_of, sums_to_one},
        },
        weights::reshape,
    },
    groups::{Bias, Mixed, bias_of, candidate, count, kind_of},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// The convolution of one sample.
struct Sample {
    mixed: Mixed,
    kind: MixedConvKind,
    /// The map it is taken from, and its place there.
    of: Class,
    row: i64,
}

/// Reads a value `[1, O, ..]` as the convolution of a sample with a kernel of its own.
fn sample(view: &dyn View, class: Class) -> Option<Sample> {
    view.apps(class).iter().find_map(|app| convolved(view, app).or_else(|| recognised(view, app)))
}

fn convolved(view: &dyn View, app: &App<'_>) -> Option<Sample> {
    let c = candidate(view, app)?;
    let [outputs, rest @ ..] = c.shape.as_slice() else { return None };
    if c.kernel.samples != 1 {
        return None;
    }
    let (x, of, row) = sample_of(view, c.x)?;
    let (routes, weights) = assemble(&c.kernel.blocks, &Dim::from(1))?;
    let mut lhs = Expr::of(app).with_operand(0, x).with_operand(1, c.kernel.lhs);
    let bias = match bias_of(view, app.operand(2), 1, *outputs, &routes) {
        Bias::None => None,
        Bias::Some(spelled, value, _) => {
            lhs = lhs.with_operand(2, spelled);
            Some(value)
        }
    };
    let shape: Vec<i64> = [count(&c.kernel.blocks), *outputs].into_iter().chain(rest.iter().copied()).collect();
    let kind = kind_of(view, &c.kernel.blocks);
    let experts = reshape(weights, &shape);
    let mixed = Mixed { lhs, blocks: c.kernel.blocks, routes, experts, bias, window: c.op.clone() };
    Some(Sample { mixed, kind, of, row })
}

fn recognised(view: &dyn View, app: &App<'_>) -> Option<Sample> {
    let Op::MixedConv(op) = app.op else { return None };
    let (x, r, w) = (app.operand(0)?, app.operand(1)?, app.operand(2)?);
    let experts = view.fact(r)?.shape.get(1)?.as_fixed()?;
    let (x, of, row) = sample_of(view, x)?;
    let (r, read) = coefficients(view, r, &Dim::from(1), experts)?;
    let lhs = Expr::of(app).with_operand(0, x).with_operand(1, r);
    let window = Conv {
        strides: op.strides.clone(),
        pads: op.pads.clone(),
        dilations: op.dilations.clone(),
        group: op.group,
        auto_pad: convc_runtime::window::AutoPad::NotSet,
    };
    let routes = read.value(&Dim::from(1));
    let blocks = vec![Block { of: read, column: None, weights: w.into() }];
    let bias = app.operand(3).map(Expr::Class);
    Some(Sample { mixed: Mixed { lhs, blocks, routes, experts: w.into(), bias, window }, kind: op.kind, of, row })
}

const ALL_SAMPLES: Condition =
    Condition { name: "all-samples", text: "the parts are all samples of one map, each once, in their order" };
const SAME_EXPERTS: Condition =
    Condition { name: "same-experts", text: "every sample has the same experts, biases and window" };

/// Sound over the reals, by the definition of the operator.
/// Requires: the same constant experts, biases and window for every sample; all samples of one map, in order.
/// Not sound for: a batch whose size is open, of which the unrolled model takes the first samples only.
/// Exactness: reassociated.
/// Pays: one operator instead of one for each sample.
pub const MIXED_CONV_SAMPLES: Rule = Rule {
    name: "mixed-conv-samples",
    equation: "Concat(Conv(parts(x), mixed(r.., w..))..) => CondConv|DynamicConv(x, parts(r..), parts(w..)); \
               Concat(Conv(parts(x), mixed(r.., w..), mixed(r.., b..))..) => CondConv|DynamicConv(x, parts(r..), parts(w..), \
               parts(b..))",
    conditions: &[ALL_SAMPLES, SAME_EXPERTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one operator instead of one for each sample",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, _, app| {
        let Op::Concat(c) = app.op else { return };
        let view = cx.view;
        let rank = app.operand(0).and_then(|x| view.fact(x)).map_or(0, |f| f.rank());
        if app.operands.len() < 2 || axis(c.axis, rank) != Some(0) {
            return;
        }
        let samples: Option<Vec<Sample>> = app.operands.iter().map(|x| sample(view, (*x)?)).collect();
        let Some(samples) = samples else { return };
        if let Some(rhs) = joined(cx, &samples) {
            let lhs =
                samples.iter().enumerate().fold(Expr::of(app), |e, (i, s)| e.with_operand(i, s.mixed.lhs.clone()));
            cx.rewrite(lhs, rhs);
        }
    },
};

fn joined(cx: &mut Cx<'_>, samples: &[Sample]) -> Option<Expr> {
    let view = cx.view;
    let first = samples.first()?;
    let n = Dim::from(samples.len());
    let batch = view.fact(first.of)?.shape.first()?;
    let in_order = samples.iter().enumerate().all(|(i, s)| s.of == first.of && s.row == i as i64);
    let verdict = match batch.equals(&n) {
        _ if !in_order => Verdict::Fails("the samples are of several maps, or not in order".into()),
        Some(true) => Verdict::Holds,
        Some(false) => Verdict::Fails(format!("{n} of {batch} samples")),
        None => Verdict::Unknown(format!("{n} samples of a map that has {batch}: unrolled for one size of the batch")),
    };
    cx.require(ALL_SAMPLES.name, verdict).then_some(())?;
    let other = samples.iter().position(|s| {
        s.mixed.experts != first.mixed.experts
            || s.mixed.bias != first.mixed.bias
            || s.mixed.window != first.mixed.window
    });
    let verdict = match other {
        None => Verdict::Holds,
        Some(i) => Verdict::Fails(format!("sample {i} has other experts, biases or another window than the first")),
    };
    cx.require(SAME_EXPERTS.name, verdict).then_some(())?;
    let kind = if samples.iter().all(|s| s.kind == MixedConvKind::DynamicConv) {
        MixedConvKind::DynamicConv
    } else {
        MixedConvKind::CondConv
    };
    let (routes, kind) = rows(samples)
        .map(|r| (r, kind))
        .or_else(|| elements(view, samples))
        .unwrap_or_else(|| (concat(samples.iter().map(|s| s.mixed.routes.clone()).collect(), 0), kind));
    let mixed = Mixed {
        lhs: first.mixed.lhs.clone(),
        blocks: Vec::new(),
        routes,
        experts: first.mixed.experts.clone(),
        bias: first.mixed.bias.clone(),
        window: first.mixed.window.clone(),
    };
    Some(mixed.on(kind, first.of.into()))
}

/// The coefficients of all samples, if each has its row of them.
fn rows(samples: &[Sample]) -> Option<Expr> {
    let n = Dim::from(samples.len());
    let whole = |(i, s): (usize, &Sample)| {
        let row = |b: &Block| {
            let of = Coefficients { row: None, ..b.of.clone() };
            (b.of.row == Some(i as i64) && b.of.samples == n).then(|| Block { of, ..b.clone() })
        };
        let blocks: Option<Vec<Block>> = s.mixed.blocks.iter().map(row).collect();
        Some(assemble(&blocks?, &n)?.0)
    };
    let mut all = samples.iter().enumerate().map(whole);
    let first = all.next()??;
    all.all(|r| r.as_ref() == Some(&first)).then_some(first)
}

/// As [`rows`], if a single expert's coefficient is an element for each sample.
fn elements(view: &dyn View, samples: &[Sample]) -> Option<(Expr, MixedConvKind)> {
    let n = samples.len();
    let [Block { of, .. }] = samples.first()?.mixed.blocks.as_slice() else { return None };
    let single = samples.iter().enumerate().all(|(i, s)| match s.mixed.blocks.as_slice() {
        [b] => b.of == *of && b.column == Some(i as i64),
        _ => false,
    });
    if !single || of.row.is_some() || of.samples != Dim::from(1) || of.experts != n as i64 {
        return None;
    }
    let (_, of) = coefficients(view, of.class, &Dim::from(n), 1)?;
    let kind = if sums_to_one(view, &of) { MixedConvKind::DynamicConv } else { MixedConvKind::CondConv };
    Some((of.value(&Dim::from(n)), kind))
}
