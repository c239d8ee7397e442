//! Convolutions of one input that nothing joins: one convolution with all their output channels, and slices of it.

use convc_runtime::{Op, ops::Conv};

use super::{
    compose::{ONE_GROUP, one_group},
    concat::{concat, concatenated},
    read::{
        conv::{ConvAt, conv_at, convs_in},
        slice::{part, sliced},
    },
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr, View},
};

/// The most convolutions that are merged.
const MOST: usize = 16;

const OWN_ROWS: Condition =
    Condition { name: "own-rows", text: "the slice takes the output channels of one of the kernels" };

/// Sound bit for bit: an output channel depends on its own row of the kernel. Read from right to left it merges siblings:
/// `proposals` puts the left sides of all convolutions of one input into the e-graph, and a joint choice takes them.
/// Requires: constant kernels of one group; a slice that takes the rows of one kernel, all of them.
/// Not sound for: a slice that takes rows of two kernels; several groups, to which the rows of one kernel are others than to all.
/// Exactness: bitwise.
/// Pays: the input is read once. The slices are copies, so it pays for convolutions of few outputs on large maps.
pub const H_MERGE: Rule = Rule {
    name: "h-merge",
    equation: "Slice(Conv(x, Concat(p.., w, q..)), ..) => Conv(x, w); \
               Slice(Conv(x, Concat(p.., w, q..), Concat(c.., b, d..)), ..) => Conv(x, w, b)",
    conditions: &[ONE_GROUP, OWN_ROWS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "the input of several convolutions is read once",
    phase: Phase::Explore,
    folds: false,
    proposals: Some(proposals),
    roots: &["Slice"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(s) = sliced(view, app) else { return };
        let Some(cut) = s.only(1) else { return };
        for conv in convs_in(view, s.x) {
            let Some((first, count)) = cut.on(conv.kernel.outputs) else { continue };
            let Some((w, kernels)) = parts(view, conv.weights()) else { continue };
            let bias = match conv.bias {
                None => None,
                Some(b) => match parts(view, Some(b)) {
                    Some(p) => Some(p),
                    None => continue,
                },
            };
            let sizes = |classes: &[Class]| -> Option<Vec<i64>> {
                classes.iter().map(|c| view.fact(*c)?.shape.first()?.as_fixed()).collect()
            };
            let Some(rows) = sizes(&kernels) else { continue };
            if bias.as_ref().is_some_and(|(_, b)| sizes(b).as_ref() != Some(&rows)) {
                continue;
            }
            cx.begin();
            if !cx.require(ONE_GROUP.name, one_group(conv.op)) {
                continue;
            }
            let starts: Vec<i64> = rows.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
            let exact = (0..rows.len()).find(|&i| starts[i] == first && rows[i] == count && cut.step == 1);
            let verdict = match exact {
                Some(_) => Verdict::Holds,
                None if cut.step == 1 => {
                    Verdict::Fails(format!("{count} channels from {first} on, the kernels have {rows:?}"))
                }
                None => Verdict::Fails(format!("{count} channels from {first} on in steps of {}", cut.step)),
            };
            if !cx.require(OWN_ROWS.name, verdict) {
                continue;
            }
            // Forced, a kernel of as many rows.
            let Some(i) = exact.or_else(|| rows.iter().position(|n| *n == count)) else { continue };
            let merged =
                Expr::op(conv.op.clone(), vec![Some(conv.x.into()), Some(w), bias.as_ref().map(|b| b.0.clone())]);
            let bias = bias.map(|b| Expr::Class(b.1[i]));
            let mut one = vec![Some(conv.x.into()), Some(kernels[i].into()), bias];
            let lhs = s.expr().with_operand(0, merged);
            cx.rewrite(lhs.clone(), Expr::op(conv.op.clone(), one.clone()));
            // A bias that is left out may be a hole or not there.
            if one.pop() == Some(None) {
                cx.rewrite(lhs, Expr::op(conv.op.clone(), one));
            }
        }
    },
};

/// A constant that is concatenated along its first axis: the term, and its parts.
fn parts(view: &dyn View, class: Option<Class>) -> Option<(Expr, Vec<Class>)> {
    let class = class?;
    view.apps(class).iter().find_map(|app| match (app.op, concatenated(view, app)?) {
        (Op::Concat(_), (0, operands)) => Some((Expr::of(app), operands)),
        _ => None,
    })
}

/// Left sides of [`H_MERGE`] for the convolutions among `classes` that read one input through windows of one kind: a slice
/// for each of them, of one convolution with all their outputs.
#[must_use]
fn proposals(view: &dyn View, classes: &[Class]) -> Vec<Expr> {
    let mut groups: Vec<(Class, Conv, Vec<ConvAt<'_>>)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for class in classes.iter().filter(|c| seen.insert(**c)) {
        let Some(conv) = view.apps(*class).iter().find_map(|app| conv_at(view, app)).filter(|c| c.op.group == 1) else {
            continue;
        };
        let fits = |g: &&mut (Class, Conv, Vec<ConvAt<'_>>)| {
            let lead = &g.2[0];
            let alike = lead.kernel.taps == conv.kernel.taps && lead.bias.is_some() == conv.bias.is_some();
            g.0 == conv.x && g.1 == *conv.op && alike && g.2.len() < MOST
        };
        match groups.iter_mut().find(fits) {
            Some(g) => g.2.push(conv),
            None => groups.push((conv.x, conv.op.clone(), vec![conv])),
        }
    }
    groups.iter().filter(|g| g.2.len() > 1).flat_map(|(x, op, convs)| slices(*x, op, convs)).collect()
}

fn slices(x: Class, op: &Conv, convs: &[ConvAt<'_>]) -> Vec<Expr> {
    let w = concat(0, convs.iter().map(|c| c.kernel.weights.clone()).collect());
    let biases: Option<Vec<Expr>> = convs.iter().map(|c| c.bias.map(Expr::Class)).collect();
    let bias = biases.map(|b| concat(0, b));
    let merged = Expr::op(op.clone(), vec![Some(x.into()), Some(w), bias]);
    let mut at = 0;
    let each = convs.iter().map(|c| {
        at += c.kernel.outputs;
        part(merged.clone(), 1, at - c.kernel.outputs, c.kernel.outputs)
    });
    each.collect()
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&H_MERGE];
