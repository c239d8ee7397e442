//! What is the same for every sample of a batch although it is written once for each: constant kernels as groups, constant
//! kernels sample by sample, constants with a row for each sample.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, binary::BinaryKind},
};

use super::super::{
    read::{
        axes::axis,
        conv::{ConvAt, conv_at},
        route::{sample_of, slice},
    },
    weights::reshape,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr, View},
};

/// Whether a constant consists of `n` equal parts, one behind the other.
fn repeats(view: &dyn View, c: Class, n: i64) -> Verdict {
    let Some(v) = view.constant(c).and_then(|c| c.to_tensor().ok()?.to_f64s()) else {
        return Verdict::Unknown("the constant is not folded".into());
    };
    let part = v.len() / usize::try_from(n).unwrap_or(1).max(1);
    if part > 0 && v.chunks(part).all(|c| c == &v[..part]) {
        Verdict::Holds
    } else {
        Verdict::Fails(format!("{n} samples have constants that differ"))
    }
}

const SAMPLES_ARE_GROUPS: Condition = Condition {
    name: "samples-are-groups",
    text: "the groups of the convolution are those of all samples, so that none reads two of them",
};
const SAME_KERNELS: Condition =
    Condition { name: "same-kernels", text: "all samples have the same kernels, and the same biases" };

/// Sound bit for bit: the groups do not see each other, and each sample's are the same.
/// Requires: constant kernels and biases that repeat for every sample.
/// Not sound for: a kernel of its own for each sample; a group that reads several samples.
/// Exactness: bitwise.
/// Pays: the kernel is stored once, and what follows meets a convolution of the batch.
pub const CONV_OF_FOLDED_BATCH: Rule = Rule {
    name: "conv-of-folded-batch",
    equation: "Conv(viewed(x), w, b?) => viewed(Conv(x, slice(w), slice(b?)))",
    conditions: &[SAMPLES_ARE_GROUPS, SAME_KERNELS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one kernel instead of one for each sample",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        if let Some((lhs, rhs)) = conv_at(cx.view, app).and_then(|c| unfold(cx, class, &c)) {
            cx.rewrite(lhs, rhs);
        }
    },
};

fn unfold(cx: &mut Cx<'_>, class: Class, c: &ConvAt<'_>) -> Option<(Expr, Expr)> {
    let view = cx.view;
    let folded = &view.fact(c.x)?.shape;
    let (viewed, x, n) = view.apps(c.x).into_iter().find_map(|app| {
        let x = app.operand(0).filter(|_| app.op.name() == "Reshape")?;
        let shape = &view.fact(x)?.shape;
        let n = shape.first()?.as_fixed().filter(|&n| n > 1)?;
        let channels = shape.get(1)?.as_fixed()?;
        let rest = shape.len() == folded.len() && shape[2..] == folded[2..];
        let all = folded[0].as_fixed() == Some(1) && folded[1].as_fixed() == Some(n * channels);
        (rest && all).then(|| (Expr::of(&app), x, n))
    })?;
    let grouped = c.op.group % n == 0 && c.kernel.outputs % n == 0;
    let reason = || format!("{} groups for {n} samples", c.op.group);
    cx.require(SAMPLES_ARE_GROUPS.name, Verdict::from_answer(Some(grouped), reason)).then_some(())?;
    let Expr::Class(weights) = c.kernel.weights else { return None };
    let mut verdict = repeats(view, weights, n);
    if let (Verdict::Holds, Some(b)) = (&verdict, c.bias) {
        verdict = repeats(view, b, n);
    }
    cx.require(SAME_KERNELS.name, verdict).then_some(())?;
    let outputs = c.kernel.outputs / n;
    let first = |c: Class| slice(c.into(), 0, 0, outputs);
    let op = Conv { group: (c.op.group / n).max(1), ..c.op.clone() };
    let y = Expr::op(op, vec![Some(x.into()), Some(first(weights)), c.bias.map(first)]);
    let sizes = view.fact(class)?.shape[2..].iter().map(|d| d.as_fixed().unwrap_or(0));
    let sizes: Vec<i64> = [1, n * outputs].into_iter().chain(sizes).collect();
    Some((c.expr().with_operand(0, viewed), reshape(y, &sizes)))
}

const ALL_SAMPLES: Condition =
    Condition { name: "all-samples", text: "the parts are all samples of one map, each once, in their order" };
const ONE_CONVOLUTION: Condition =
    Condition { name: "one-convolution", text: "every sample has the same kernel, bias and window" };

/// Sound bit for bit: a convolution does not look from one sample to another.
/// Requires: the same constant kernel, bias and window for every sample; all samples of one map, in order.
/// Not sound for: a batch whose size is open, of which the unrolled model takes the first samples only.
/// Exactness: bitwise.
/// Pays: one convolution and no copy.
pub const CONV_SAMPLES: Rule = Rule {
    name: "conv-samples",
    equation: "Concat(Conv(parts(x), w, b?)..) => Conv(x, w, b?)",
    conditions: &[ALL_SAMPLES, ONE_CONVOLUTION],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one convolution and no copy",
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
        let each = |y: &Option<Class>| {
            view.apps((*y)?).iter().find_map(|app| {
                let c = conv_at(view, app)?;
                let (x, of, row) = sample_of(view, c.x)?;
                let lhs = c.expr().with_operand(0, x);
                Some((lhs, of, row, c.op.clone(), c.kernel.weights.clone(), c.bias))
            })
        };
        let Some(samples) = app.operands.iter().map(each).collect::<Option<Vec<_>>>() else { return };
        let (_, of, _, op, weights, bias) = &samples[0];
        let n = Dim::from(samples.len());
        let Some(batch) = view.fact(*of).and_then(|f| f.shape.first().cloned()) else { return };
        let in_order = samples.iter().enumerate().all(|(i, s)| s.1 == *of && s.2 == i as i64);
        let verdict = match batch.equals(&n) {
            _ if !in_order => Verdict::Fails("the samples are of several maps, or not in order".into()),
            Some(true) => Verdict::Holds,
            Some(false) => Verdict::Fails(format!("{n} of {batch} samples")),
            None => {
                Verdict::Unknown(format!("{n} samples of a map that has {batch}: unrolled for one size of the batch"))
            }
        };
        if !cx.require(ALL_SAMPLES.name, verdict) {
            return;
        }
        let other = samples.iter().position(|s| s.3 != *op || s.4 != *weights || s.5 != *bias);
        let verdict = match other {
            None => Verdict::Holds,
            Some(i) => Verdict::Fails(format!("sample {i} has another kernel, bias or window than the first")),
        };
        if !cx.require(ONE_CONVOLUTION.name, verdict) {
            return;
        }
        let rhs = Expr::op(op.clone(), vec![Some((*of).into()), Some(weights.clone()), bias.map(Expr::Class)]);
        let lhs = samples.iter().enumerate().fold(Expr::of(app), |e, (i, s)| e.with_operand(i, s.0.clone()));
        cx.rewrite(lhs, rhs);
    },
};

const EQUAL_ROWS: Condition =
    Condition { name: "equal-rows", text: "the constant is the same for every sample, and does not widen the batch" };

/// Sound bit for bit: the one row is broadcast.
/// Requires: equal rows; as many samples in x as there are rows.
/// Exactness: bitwise.
/// Pays: what is the same for all samples is folded into weights.
pub const CONSTANT_OF_BATCH: Rule = Rule {
    name: "constant-of-batch",
    equation: "Mul|Add|Sub|Div(x, c) => Mul|Add|Sub|Div(x, slice(c)); \
               Mul|Add|Sub|Div(c, x) => Mul|Add|Sub|Div(slice(c), x) where `c` has equal rows",
    conditions: &[EQUAL_ROWS],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "what is the same for all samples folds into weights",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Add", "Sub", "Div"],
    search: |cx, _, app| {
        let view = cx.view;
        let Op::Binary(b) = app.op else { return };
        if !matches!(b.kind, BinaryKind::Mul | BinaryKind::Add | BinaryKind::Sub | BinaryKind::Div) {
            return;
        }
        let (Some(first), Some(second)) = (app.operand(0), app.operand(1)) else { return };
        for (place, c, x) in [(0, first, second), (1, second, first)] {
            cx.begin();
            let (Some(fc), Some(fx)) = (view.fact(c), view.fact(x)) else { continue };
            if !view.is_constant(c) || view.is_constant(x) || fc.rank() < 3 || fc.rank() != fx.rank() {
                continue;
            }
            let Some(rows) = fc.shape[0].as_fixed().filter(|&n| n > 1) else { continue };
            let verdict = match fx.shape[0].equals(&Dim::from(rows)) {
                Some(true) => repeats(view, c, rows),
                _ => Verdict::Fails(format!("{rows} rows meet {} samples", fx.shape[0])),
            };
            if cx.require(EQUAL_ROWS.name, verdict) {
                let row = slice(c.into(), 0, 0, 1);
                cx.rewrite(Expr::of(app), Expr::of(app).with_operand(place, row));
            }
        }
    },
};
