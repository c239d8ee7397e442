//! The two affine functions between the means and the weights, brought into the operator's order.

use convc_runtime::{
    Op,
    ops::{Concat, Slice},
};

use super::{
    heads::Head,
    weighed::{Logits, Weighed},
};
use crate::rewrite::{
    rule::Verdict,
    rules::weights::{Kernel, floats, ints, mul, reshape},
    view::{Expr, View},
};

fn values(view: &dyn View, e: &Expr) -> Option<Vec<f64>> {
    match e {
        Expr::Class(c) => view.constant(*c)?.to_tensor().ok()?.to_f64s(),
        _ => None,
    }
}

/// Whether row `logits[channels + c]` of the excitation is the negative of row `logits[c]`.
pub(super) fn opposite(view: &dyn View, head: &Head, logits: &[usize]) -> Verdict {
    let unknown = || Verdict::Unknown("the excitation's weights are not folded to constants".into());
    let Some(w) = head.weights.and_then(|w| values(view, &w.into())) else { return unknown() };
    let bias = match &head.bias {
        None => None,
        Some(b) => match values(view, b) {
            Some(b) => Some(b),
            None => return unknown(),
        },
    };
    let (channels, width) = (logits.len() / 2, w.len() / head.kernel.outputs.max(1) as usize);
    // Rows of different groups read different inputs.
    let group_of = |l: usize| l as i64 * head.kernel.group / head.kernel.outputs.max(1);
    for c in 0..channels {
        let (a, b) = (logits[c], logits[channels + c]);
        let negated = |v: &[f64], n: usize| {
            (0..n).all(|i| v.get(a * n + i).zip(v.get(b * n + i)).is_some_and(|(x, y)| *x == -*y))
        };
        if !negated(&w, width) || bias.as_ref().is_some_and(|b| !negated(b, 1)) || group_of(a) != group_of(b) {
            return Verdict::Fails(format!("rows {a} and {b} of the excitation are not opposite"));
        }
    }
    Verdict::Holds
}

/// The squeeze's kernel for one part, if it is the same for all: what the rule takes, and whether that is so.
pub(super) fn one_for_all(view: &dyn View, head: Head, radix: usize, channels: usize) -> Option<(Head, Verdict)> {
    let w = head.weights?;
    let inputs = usize::try_from(head.kernel.inputs).ok()?;
    if head.kernel.group != 1 || inputs != radix * channels {
        return None;
    }
    let written = view.apps(w).into_iter().find_map(|app| match app.op {
        Op::Concat(Concat { axis: 1 })
            if app.operands.len() == radix && app.operands.windows(2).all(|p| p[0] == p[1]) =>
        {
            app.operand(0)
        }
        _ => None,
    });
    let (weights, verdict) = match (written, view.constant(w).and_then(|c| c.to_tensor().ok()?.to_f64s())) {
        (Some(part), _) => (part.into(), Verdict::Holds),
        (None, values) => {
            let bound = |n: usize| Some(Expr::Constant(ints(&[n as i64])));
            let part = Expr::op(Slice {}, vec![Some(w.into()), bound(0), bound(channels), bound(1), None]);
            let alike =
                values.map(|v| v.chunks_exact(inputs).all(|row| (0..inputs).all(|i| row[i] == row[i % channels])));
            (
                part,
                Verdict::from_answer(alike, || {
                    "the squeeze weighs parts differently, or is not folded to a constant".into()
                }),
            )
        }
    };
    let kernel = Kernel { weights, inputs: channels as i64, ..head.kernel };
    Some((Head { kernel, weights: None, ..head }, verdict))
}

/// Brings the excitation's channels into the operator's order `[K, R, C/K]`, with as large a K as both heads' groups allow.
pub(super) fn arranged(view: &dyn View, squeeze: Head, excite: Head, weighed: &Weighed) -> Option<(i64, Head, Head)> {
    let (radix, channels) = (weighed.radix, weighed.channels);
    let outputs = usize::try_from(excite.kernel.outputs).ok()?;
    let rows = match &weighed.logits {
        Logits::Each(logits) | Logits::Pair(logits) => logits,
        Logits::Rest { of, .. } => of,
    };
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    if outputs != rows.len() || sorted.iter().enumerate().any(|(i, &r)| i != r) {
        return None;
    }
    let parts = rows.len() / channels;
    let order = |k: usize| -> Vec<usize> {
        let width = channels / k;
        let at = |i: usize| (i / (parts * width), i / width % parts, i % width);
        (0..rows.len()).map(at).map(|(g, r, j)| rows[r * channels + g * width + j]).collect()
    };
    let groups = usize::try_from(excite.kernel.group).ok()?;
    let follows = squeeze.kernel.group == excite.kernel.group
        && channels % groups == 0
        && order(groups).iter().enumerate().all(|(i, &row)| i * groups / outputs == row * groups / outputs);
    let (cardinality, squeeze, excite) =
        if follows { (groups, squeeze, excite) } else { (1, squeeze.dense(view)?, excite.dense(view)?) };
    let excite = excite.permuted(&order(cardinality));
    let excite = match &weighed.logits {
        Logits::Each(_) => excite,
        Logits::Pair(_) => halved(view, excite)?,
        Logits::Rest { part, .. } => beside_zeros(view, excite, *part, radix, cardinality)?,
    };
    Some((cardinality as i64, squeeze, excite))
}

/// `softmax(a / 2, -a / 2) = (sigmoid(a), sigmoid(-a))`.
fn halved(view: &dyn View, mut head: Head) -> Option<Head> {
    let half = floats(view.fact(head.x)?.dtype, &[1], vec![0.5]);
    head.kernel.weights = mul(head.kernel.weights, half.clone());
    Some(Head { bias: head.bias.map(|b| mul(b, half)), weights: None, ..head })
}

/// `softmax(a, 0) = (sigmoid(a), 1 - sigmoid(a))`: rows of zeros for the parts other than `part`.
fn beside_zeros(view: &dyn View, mut head: Head, part: usize, radix: usize, cardinality: usize) -> Option<Head> {
    let dtype = view.fact(head.x)?.dtype;
    let (outputs, inputs) = (head.kernel.outputs, head.kernel.inputs);
    let (k, width) = (cardinality as i64, outputs / cardinality as i64);
    let spread = |e: Expr, inner: &[i64], shape: &[i64]| {
        let rows: Vec<i64> = [k, 1, width].into_iter().chain(inner.iter().copied()).collect();
        let sizes: Vec<usize> = rows.iter().map(|&n| n as usize).collect();
        let zeros = floats(dtype, &sizes, vec![0.0; sizes.iter().product()]);
        let rows = reshape(e, &rows);
        let parts = (0..radix).map(|r| Some(if r == part { rows.clone() } else { zeros.clone() })).collect();
        reshape(Expr::op(Concat { axis: 1 }, parts), shape)
    };
    let all = outputs * radix as i64;
    let shape: Vec<i64> = [all, inputs].into_iter().chain(head.kernel.taps.iter().copied()).collect();
    head.kernel.weights = spread(head.kernel.weights, &[inputs], &shape);
    head.kernel.outputs = all;
    Some(Head { bias: head.bias.map(|b| spread(b, &[], &[all])), weights: None, ..head })
}
