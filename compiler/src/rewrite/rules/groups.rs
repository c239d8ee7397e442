//! Groups that are there in fact.

use convc_runtime::{
    Constant,
    ops::{Conv, Reduce, reduce::ReduceKind},
};

use super::{
    branch::gcd,
    read::conv::{ConvAt, conv_at},
    weights::{floats, ints, mul, reshape},
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::Expr,
};

const BLOCKS: Condition =
    Condition { name: "block-diagonal", text: "the kernel's values are 0 outside of blocks along the diagonal" };

/// Sound over the reals: what is multiplied by 0 adds nothing.
/// Requires: a folded kernel of one group that is 0 outside of equal blocks on the diagonal; numbers, not infinities, in the
/// map.
/// Not sound for: a single weight outside that is not 0.
/// Exactness: reassociated.
/// Pays: a fraction of the work.
pub const GROUP_DENSE: Rule = Rule {
    name: "group-dense",
    equation: "Conv(x, w, b?) => Conv(x, diagonal(w), b?; groups)",
    conditions: &[BLOCKS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a fraction of the work",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        let Some(dtype) = app.operand(1).and_then(|w| view.fact(w)).map(|f| f.dtype) else { return };
        let Some(constant) = app.operand(1).and_then(|w| view.constant(w)) else { return };
        let most = gcd(conv.kernel.outputs, conv.kernel.inputs);
        if conv.op.group != 1 || most < 2 || !is_zero_at(constant, &conv) {
            return;
        }
        let group = (2..=most).rev().filter(|g| most % g == 0).find(|g| is_blocks(constant, &conv, *g));
        cx.begin();
        let verdict = match group {
            Some(_) => Verdict::Holds,
            None => Verdict::Fails(format!("no blocks of 1 to {most} groups hold all weights that are not 0")),
        };
        if !cx.require(BLOCKS.name, verdict) {
            return;
        }
        // Forced, the most groups.
        let group = group.unwrap_or(most);
        let kernel = &conv.kernel;
        let (o, i) = (kernel.outputs / group, kernel.inputs / group);
        let g = usize::try_from(group).unwrap_or(1);
        let mut eye = vec![0.0; g * g];
        (0..g).for_each(|k| eye[k * g + k] = 1.0);
        let mask: Vec<usize> = [g, 1, g, 1].into_iter().chain(kernel.taps.iter().map(|_| 1)).collect();
        let with = |lead: &[i64]| -> Vec<i64> { lead.iter().chain(&kernel.taps).copied().collect() };
        let rows = mul(reshape(kernel.weights.clone(), &with(&[group, o, group, i])), floats(dtype, &mask, eye));
        let sum = Reduce { kind: ReduceKind::ReduceSum, keepdims: true, noop_with_empty_axes: false };
        let blocks = Expr::op(sum, vec![Some(rows), Some(Expr::Constant(ints(&[2])))]);
        let w = reshape(blocks, &with(&[kernel.outputs, i]));
        let op = Conv { group, ..conv.op.clone() };
        cx.rewrite(Expr::of(app), Expr::op(op, vec![Some(conv.x.into()), Some(w), conv.bias.map(Expr::Class)]));
    },
};

/// The elements of a kernel by output and input channel, whether all of them are 0 bits.
fn zeros(constant: &Constant, conv: &ConvAt<'_>, output: i64, input: i64) -> bool {
    let taps: i64 = conv.kernel.taps.iter().product();
    let bytes = constant.bytes().as_bytes();
    let count = conv.kernel.outputs * conv.kernel.inputs * taps;
    let (Ok(taps), Ok(count)) = (usize::try_from(taps), usize::try_from(count)) else { return false };
    if count == 0 || !bytes.len().is_multiple_of(count) {
        return false;
    }
    let size = taps * (bytes.len() / count);
    let Ok(at) = usize::try_from(output * conv.kernel.inputs + input) else { return false };
    bytes.get(at * size..(at + 1) * size).is_some_and(|b| b.iter().all(|b| *b == 0))
}

/// Whether the two corners off the diagonal are 0: what any blocks need, seen at a glance.
fn is_zero_at(constant: &Constant, conv: &ConvAt<'_>) -> bool {
    let (o, i) = (conv.kernel.outputs - 1, conv.kernel.inputs - 1);
    zeros(constant, conv, 0, i) && zeros(constant, conv, o, 0)
}

fn is_blocks(constant: &Constant, conv: &ConvAt<'_>, group: i64) -> bool {
    let (o, i) = (conv.kernel.outputs / group, conv.kernel.inputs / group);
    (0..conv.kernel.outputs)
        .all(|row| (0..conv.kernel.inputs).all(|column| row / o == column / i || zeros(constant, conv, row, column)))
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&GROUP_DENSE];
