//! Mixed kernels in one convolution, the samples of the batch as its groups.

use std::collections::BTreeSet;

use convc_runtime::{
    Dim, Op,
    ops::{Conv, MixedConv, mixed_conv::MixedConvKind},
    window::AutoPad,
};

use super::{
    super::{
        read::{
            reshape::is_view,
            route::{Block, assemble, slice, sums_to_one},
        },
        weights::reshape,
    },
    mixture::{Mixture, mixture},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// A convolution whose kernel is a mixture, sample by sample.
pub(super) struct Mixed {
    /// The convolution, spelled out.
    pub(super) lhs: Expr,
    /// Coefficients and experts as they were found.
    pub(super) blocks: Vec<Block>,
    /// The coefficients, `[N, E]`.
    pub(super) routes: Expr,
    /// `[E, O, C/group, K..]`.
    pub(super) experts: Expr,
    /// `[E, O]` or `[O]`.
    pub(super) bias: Option<Expr>,
    /// Step, padding and dilation, and the groups of one sample.
    pub(super) window: Conv,
}

impl Mixed {
    /// The operator on `x`.
    pub(super) fn on(self, kind: MixedConvKind, x: Expr) -> Expr {
        let Conv { strides, pads, dilations, group, .. } = self.window;
        let op = MixedConv { kind, strides, pads, dilations, group };
        Expr::op(op, vec![Some(x), Some(self.routes), Some(self.experts), self.bias])
    }
}

/// What makes the coefficients, for the operator's name.
pub(super) fn kind_of(view: &dyn View, blocks: &[Block]) -> MixedConvKind {
    let attention = blocks.first().is_some_and(|first| {
        let columns: BTreeSet<i64> = blocks.iter().filter_map(|b| b.column).collect();
        let each = columns.len() == blocks.len() && blocks.len() as i64 == first.of.experts;
        let whole = blocks.len() == 1 && first.column.is_none() || each;
        whole && blocks.iter().all(|b| b.of == first.of) && sums_to_one(view, &first.of)
    });
    if attention { MixedConvKind::DynamicConv } else { MixedConvKind::CondConv }
}

/// Number of experts.
pub(super) fn count(blocks: &[Block]) -> i64 {
    blocks.iter().map(|b| if b.column.is_some() { 1 } else { b.of.experts }).sum()
}

/// How a bias fits the samples.
pub(super) enum Bias {
    None,
    /// Spelled out, and `[E, O]` or `[O]`; and why not, if it does not fit.
    Some(Expr, Expr, Verdict),
}

/// Reads the bias `b` of a convolution of `n` samples with `outputs` channels each, whose coefficients are `routes`.
pub(super) fn bias_of(view: &dyn View, b: Option<Class>, n: i64, outputs: i64, routes: &Expr) -> Bias {
    let Some(b) = b else { return Bias::None };
    if let Some(m) = mixture(view, b)
        && (m.before == 1 || n == 1)
        && m.samples == n
        && m.before * m.after == outputs
        && let Some((r, weights)) = assemble(&m.blocks, &Dim::from(n))
        && r == *routes
    {
        return Bias::Some(m.lhs, weights, Verdict::Holds);
    }
    if n == 1 {
        return Bias::Some(b.into(), b.into(), Verdict::Holds);
    }
    let verdict = match view.constant(b).and_then(|c| c.to_tensor().ok()?.to_f64s()) {
        _ if !view.is_constant(b) => Verdict::Fails("the bias is another one for each sample".into()),
        None => Verdict::Unknown("the bias is not folded to a constant".into()),
        Some(v) => {
            let per_sample = usize::try_from(outputs).unwrap_or(1).max(1);
            if v.chunks(per_sample).all(|c| c == &v[..c.len()]) {
                Verdict::Holds
            } else {
                Verdict::Fails("the constant bias differs between samples".into())
            }
        }
    };
    Bias::Some(b.into(), slice(b.into(), 0, 0, outputs), verdict)
}

/// A convolution with a kernel that is mixed, as far as its form goes.
pub(super) struct Candidate<'a> {
    pub(super) op: &'a Conv,
    pub(super) x: Class,
    pub(super) kernel: Mixture,
    /// Sizes of the kernel.
    pub(super) shape: Vec<i64>,
}

/// Reads an application as [`Candidate`].
pub(super) fn candidate<'a>(view: &dyn View, app: &App<'a>) -> Option<Candidate<'a>> {
    let Op::Conv(op) = app.op else { return None };
    let (x, k) = (app.operand(0)?, app.operand(1)?);
    if op.auto_pad != AutoPad::NotSet || view.is_constant(k) || view.is_constant(x) {
        return None;
    }
    let shape: Vec<i64> = view.fact(k)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
    if view.fact(x)?.rank() != shape.len() || op.strides.len() + 2 != shape.len() {
        return None;
    }
    Some(Candidate { op, x, kernel: mixture(view, k)?, shape })
}

/// `x` as `[n, C/n, ..]`: the view's operand if it is one of that, spelled out, and what it is.
fn unfolded(view: &dyn View, x: Class, n: i64) -> Option<(Expr, Expr)> {
    let shape = &view.fact(x)?.shape;
    let channels = shape[1].as_fixed()?;
    let wanted: Vec<Dim> = [n, channels / n].into_iter().map(Dim::from).chain(shape[2..].iter().cloned()).collect();
    let viewed = view.apps(x).into_iter().find_map(|app| {
        let of = app.operand(0).filter(|_| is_view(&app))?;
        (view.fact(of)?.shape == wanted).then(|| (Expr::of(&app), of.into()))
    });
    Some(viewed.unwrap_or_else(|| {
        let sizes: Vec<i64> = wanted.iter().map(|d| d.as_fixed().unwrap_or(0)).collect();
        (x.into(), reshape(x.into(), &sizes))
    }))
}

const SAMPLES_FIRST: Condition = Condition {
    name: "samples-first",
    text: "the kernel's first axis is that of the samples, each with the channels of its own output",
};
const SAMPLES_ARE_GROUPS: Condition = Condition {
    name: "samples-are-groups",
    text: "the map is one sample that holds the channels of all, and the groups are those of all samples",
};
const SAME_BIAS: Condition = Condition {
    name: "same-bias",
    text: "the bias is mixed by the kernel's coefficients, or is the same for all samples",
};

/// Sound over the reals: the groups of a convolution do not see each other, so the kernels of sample `n` are what `r[n]` makes of
/// the experts. Whatever makes the kernel (a product of matrices, einsum, a sum over experts, a 1x1 convolution, views and
/// transposes) is read as what it is: linear in r, with constant experts.
/// Requires: constant experts; a known number of samples, outermost in the kernel; a map with the channels of all samples, in
/// as many times the groups; biases mixed by the same r, or the same for all samples.
/// Not sound for: a bias of its own for each sample; a map with other samples than r.
/// Exactness: reassociated.
/// Pays: one operator instead of many; what follows can be folded into the experts.
pub const MIXED_CONV_GROUPS: Rule = Rule {
    name: "mixed-conv-groups",
    equation: "Conv(viewed(x), mixed(r.., w..), b?) => viewed(CondConv|DynamicConv(x, parts(r..), scaled(w..), b?)); \
               Conv(viewed(x), mixed(r.., w..), mixed(r.., b..)) => viewed(CondConv|DynamicConv(x, parts(r..), scaled(w..), \
               scaled(b..)))",
    conditions: &[SAMPLES_FIRST, SAMPLES_ARE_GROUPS, SAME_BIAS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one operator that rules can fold into",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let Some(c) = candidate(cx.view, app) else { return };
        if let Some((lhs, rhs)) = recognise(cx, class, app, c) {
            cx.rewrite(lhs, rhs);
        }
    },
};

fn recognise(cx: &mut Cx<'_>, class: Class, app: &App<'_>, c: Candidate<'_>) -> Option<(Expr, Expr)> {
    let view = cx.view;
    let n = c.kernel.samples;
    let [rows, rest @ ..] = c.shape.as_slice() else { return None };
    let apart = n == 1 || (c.kernel.before == 1 && rows % n == 0);
    let verdict = if apart {
        Verdict::Holds
    } else {
        Verdict::Fails(format!("{n} samples lie behind {} other elements of a kernel {:?}", c.kernel.before, c.shape))
    };
    cx.require(SAMPLES_FIRST.name, verdict).then_some(())?;
    let batch = view.fact(c.x)?.shape.first()?.clone();
    let grouped = c.op.group % n == 0;
    let verdict = match batch.equals(&Dim::from(1)) {
        Some(true) if grouped => Verdict::Holds,
        Some(true) => Verdict::Fails(format!("{} groups for {n} samples", c.op.group)),
        Some(false) => Verdict::Fails(format!("the map has {batch} samples, the kernel is that of {n}")),
        None => Verdict::Unknown(format!("the map has {batch} samples, the kernel is that of {n}")),
    };
    cx.require(SAMPLES_ARE_GROUPS.name, verdict).then_some(())?;
    let outputs = rows / n;
    let (routes, weights) = assemble(&c.kernel.blocks, &Dim::from(n))?;
    let mut lhs = Expr::of(app).with_operand(1, c.kernel.lhs.clone());
    let bias = match bias_of(view, app.operand(2), n, outputs, &routes) {
        Bias::None => None,
        Bias::Some(spelled, value, verdict) => {
            cx.require(SAME_BIAS.name, verdict).then_some(())?;
            lhs = lhs.with_operand(2, spelled);
            Some(value)
        }
    };
    let x = if n == 1 {
        c.x.into()
    } else {
        let (spelled, x) = unfolded(view, c.x, n)?;
        lhs = lhs.with_operand(0, spelled);
        x
    };
    let experts = [count(&c.kernel.blocks), outputs].into_iter().chain(rest.iter().copied()).collect::<Vec<_>>();
    let kind = kind_of(view, &c.kernel.blocks);
    let window = Conv { group: (c.op.group / n).max(1), ..c.op.clone() };
    let mixed = Mixed { lhs, blocks: c.kernel.blocks, routes, experts: reshape(weights, &experts), bias, window };
    let lhs = mixed.lhs.clone();
    let y = mixed.on(kind, x);
    if n == 1 {
        return Some((lhs, y));
    }
    let shape = &view.fact(class)?.shape;
    let sizes: Vec<i64> =
        [1, n * outputs].into_iter().chain(shape[2..].iter().map(|d| d.as_fixed().unwrap_or(0))).collect();
    Some((lhs, reshape(y, &sizes)))
}
