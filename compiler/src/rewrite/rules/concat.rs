//! Concatenations of channels before and behind convolutions.

use convc_runtime::{
    Op,
    ops::{Concat, Conv},
};

use super::{
    branch::{Branch, Frame, SAME_GRID},
    channels::{MAPS, mapped},
    finite::{FINITE_ELEMENTS, finite_elements},
    read::{
        axes::axis,
        conv::{ConvAt, conv_at, convs_in},
        slice::{STEPS_OF_ONE, Sliced, part, slices_in, steps_of_one},
    },
    weights::{add, floats},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, fixed_dim},
};

/// The most operands of a concatenation that are looked at together.
const MOST: usize = 16;

/// `operands` one behind the other along `axis`.
pub(super) fn concat(axis: i64, operands: Vec<Expr>) -> Expr {
    Expr::op(Concat { axis }, operands.into_iter().map(Some).collect())
}

/// The operands of a Concat of two or more and its axis, counted from the front.
pub(super) fn concatenated(view: &dyn View, app: &App<'_>) -> Option<(usize, Vec<Class>)> {
    let Op::Concat(c) = app.op else { return None };
    let operands: Vec<Class> = app.operands.iter().copied().collect::<Option<_>>()?;
    let axis = axis(c.axis, view.fact(*operands.first()?)?.rank())?;
    (2..=MOST).contains(&operands.len()).then_some((axis, operands))
}

/// The kernels or biases of several convolutions along their output channels.
fn joined_bias(view: &dyn View, x: Class, branches: &[Branch]) -> Option<Expr> {
    if branches.iter().all(|b| b.bias.is_none()) {
        return None;
    }
    let dtype = view.fact(x)?.dtype;
    let each = branches.iter().map(|b| {
        let n = b.kernel.outputs;
        b.bias
            .clone()
            .unwrap_or_else(|| floats(dtype, &[n.unsigned_abs() as usize], vec![0.0; n.unsigned_abs() as usize]))
    });
    Some(concat(0, each.collect()))
}

/// One convolution whose output channels are those of several ones of one group, of the same input and strides, if their
/// taps lie on one grid.
pub(super) fn side_by_side(cx: &mut Cx<'_>, x: Class, convs: &[&ConvAt<'_>]) -> Option<Expr> {
    let branches: Vec<Branch> = convs.iter().map(|c| Branch::of(c)).collect();
    let frame = Frame::around(cx, &branches)?;
    let adds_reads = branches.iter().any(|b| !frame.is_covered([b].into_iter()));
    let finite = if adds_reads { finite_elements(cx.view, x) } else { Verdict::Holds };
    cx.require(FINITE_ELEMENTS.name, finite).then_some(())?;
    let kernels = branches.iter().map(|b| frame.place(b, b.kernel.clone()).weights).collect();
    let bias = joined_bias(cx.view, x, &branches);
    Some(Expr::op(frame.conv(1), vec![Some(x.into()), Some(concat(0, kernels)), bias]))
}

/// Sound over the reals: an output channel depends on its own row of the kernel; each kernel is set into the smallest window
/// that holds all.
/// Requires: constant kernels of one group; equal strides; taps on one grid; operands that stand next to each other.
/// Not sound for: kernels on grids that are shifted against each other.
/// Exactness: reassociated.
/// Pays: the input is read once and nothing is copied. Cost decides, since the smaller kernels grow.
pub const CAT_OUT: Rule = Rule {
    name: "cat-out",
    equation: "Concat(Conv(x, w[i], b[i]?)..) => Conv(x, Concat(embedded(w[i])..), Concat(b[i]?..)); \
               Concat(p.., Conv(x, w[i], b[i]?).., q..) => Concat(p.., Conv(x, Concat(embedded(w[i])..), Concat(b[i]?..)), q..)",
    conditions: &[SAME_GRID, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one convolution, and no copy",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some((1, operands)) = concatenated(view, app) else { return };
        let convs: Vec<Vec<ConvAt<'_>>> =
            operands.iter().map(|&c| convs_in(view, c).into_iter().filter(|c| c.op.group == 1).collect()).collect();
        for (from, here) in convs.iter().enumerate() {
            for lead in here {
                let fits = |c: &&ConvAt<'_>| c.x == lead.x && c.op.strides == lead.op.strides;
                // Of a run of convolutions that fit, the first leads.
                if from > 0 && convs[from - 1].iter().any(|c| fits(&c)) {
                    continue;
                }
                let run: Vec<&ConvAt<'_>> = convs[from..].iter().map_while(|at| at.iter().find(|c| fits(c))).collect();
                if run.len() < 2 {
                    continue;
                }
                cx.begin();
                let Some(one) = side_by_side(cx, lead.x, &run) else { continue };
                replace_run(cx, app, from, run.len(), &|i| run[i].expr(), one);
            }
        }
    },
};

/// Records that operands `from .. from + count` of a Concat become one.
fn replace_run(cx: &mut Cx<'_>, app: &App<'_>, from: usize, count: usize, before: &dyn Fn(usize) -> Expr, one: Expr) {
    let mut lhs = Expr::of(app);
    for i in 0..count {
        lhs = lhs.with_operand(from + i, before(i));
    }
    if count == app.operands.len() {
        cx.rewrite(lhs, one);
        return;
    }
    let mut operands: Vec<Option<Expr>> = app.operands.iter().map(|o| o.map(Expr::Class)).collect();
    operands.splice(from..from + count, [Some(one)]);
    cx.rewrite(lhs, Expr::op(app.op.clone(), operands));
}

/// Sound bit for bit: `f` acts on each element by itself.
/// Requires: one function of one argument with equal parameters, or Clip between the same constants; operands that stand
/// next to each other.
/// Exactness: bitwise.
/// Pays: nothing by itself; the convolutions behind the activations meet.
pub const CONCAT_MAP: Rule = Rule {
    name: "concat-map",
    equation: "Concat(f(x[i])..) => f(Concat(x[i]..)); Concat(p.., f(x[i]).., q..) => Concat(p.., f(Concat(x[i]..)), q..)",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "the convolutions behind the activations meet",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some((axis, operands)) = concatenated(view, app) else { return };
        let maps: Vec<Vec<App<'_>>> = operands
            .iter()
            .map(|&c| {
                view.apps(c).into_iter().filter(|f| MAPS.contains(&f.op.name()) && mapped(view, f).is_some()).collect()
            })
            .collect();
        for (from, here) in maps.iter().enumerate() {
            for lead in here {
                let fits = |f: &&App<'_>| f.op == lead.op && f.operands[1..] == lead.operands[1..];
                if from > 0 && maps[from - 1].iter().any(|f| fits(&f)) {
                    continue;
                }
                let run: Vec<&App<'_>> = maps[from..].iter().map_while(|at| at.iter().find(fits)).collect();
                if run.len() < 2 {
                    continue;
                }
                let inner = run.iter().filter_map(|f| f.operand(0)).map(Expr::Class).collect();
                let one = Expr::of(lead).with_operand(0, concat(axis as i64, inner));
                replace_run(cx, app, from, run.len(), &|i| Expr::of(run[i]), one);
            }
        }
    },
};

const SAME_WINDOW: Condition =
    Condition { name: "same-window", text: "the convolutions have the same window, and groups of one size" };

/// Sound bit for bit: a group reads its own inputs.
/// Requires: constant kernels; equal windows; groups of equal numbers of inputs and outputs; all operands.
/// Not sound for: groups of different sizes, which a grouped convolution does not have.
/// Exactness: bitwise.
/// Pays: where the inputs are neighbours in one map already (the branches of a split map), one convolution and no copies.
pub const CAT_GROUP: Rule = Rule {
    name: "cat-group",
    equation: "Concat(Conv(x[i], w[i], b[i]?)..) => Conv(Concat(x[i]..), Concat(w[i]..), Concat(b[i]?..))",
    conditions: &[SAME_WINDOW],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one convolution instead of several",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some((1, operands)) = concatenated(view, app) else { return };
        // The first convolution of each operand; others are equal to it.
        let convs: Option<Vec<ConvAt<'_>>> = operands.iter().map(|&c| convs_in(view, c).into_iter().next()).collect();
        let Some(convs) = convs else { return };
        let Some(lead) = convs.first() else { return };
        // Convolutions of one input are the business of `cat-out`.
        if convs.iter().any(|c| c.x == class) || convs.iter().all(|c| c.x == lead.x) {
            return;
        }
        cx.begin();
        let windows = |c: &ConvAt<'_>| Conv { group: 1, ..c.op.clone() };
        let each = |c: &ConvAt<'_>| (c.kernel.inputs, c.kernel.outputs / c.kernel.group.max(1));
        let odd = convs
            .iter()
            .find(|c| windows(c) != windows(lead) || c.kernel.taps != lead.kernel.taps || each(c) != each(lead));
        let verdict = match odd {
            None => Verdict::Holds,
            Some(c) => Verdict::Fails(format!(
                "{} to {} channels and {} to {}, kernels {:?} and {:?}, or other strides, pads or dilations",
                each(lead).0,
                each(lead).1,
                each(c).0,
                each(c).1,
                lead.kernel.taps,
                c.kernel.taps
            )),
        };
        if !cx.require(SAME_WINDOW.name, verdict) {
            return;
        }
        let group = convs.iter().map(|c| c.op.group).sum();
        let branches: Vec<Branch> = convs.iter().map(Branch::of).collect();
        let x = concat(1, convs.iter().map(|c| c.x.into()).collect());
        let w = concat(0, convs.iter().map(|c| c.kernel.weights.clone()).collect());
        let bias = joined_bias(view, lead.x, &branches);
        let one = Expr::op(Conv { group, ..lead.op.clone() }, vec![Some(x), Some(w), bias]);
        replace_run(cx, app, 0, convs.len(), &|i| convs[i].expr(), one);
    },
};

/// Sound over the reals: a convolution is a sum over its input channels.
/// Requires: a constant kernel of one group. Tried only where a part can fold on: a convolution, a slice or a constant
/// among the operands, or one operand twice.
/// Exactness: reassociated.
/// Pays: where the parts fold into what is before them.
pub const CAT_IN_SPLIT: Rule = Rule {
    name: "cat-in-split",
    equation: "Conv(Concat(x, y[i]..), w, b?) => sum(Conv(x, slice(w), b?), Conv(y[i], slice(w))..)",
    conditions: &[],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a part that is a convolution itself folds",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(conv) = conv_at(view, app) else { return };
        if conv.op.group != 1 {
            return;
        }
        for cat in view.apps(conv.x).iter().filter(|a| matches!(a.op, Op::Concat(_))) {
            let Some((1, operands)) = concatenated(view, cat) else { continue };
            if operands.contains(&class) || !folds(view, &operands) {
                continue;
            }
            let sizes: Option<Vec<i64>> = operands.iter().map(|&o| fixed_dim(view, o, 1)).collect();
            let Some(sizes) = sizes.filter(|s| s.iter().all(|&n| n > 0)) else { continue };
            let mut from = 0;
            let mut sum: Option<Expr> = None;
            for (operand, size) in operands.iter().zip(sizes) {
                let w = part(conv.kernel.weights.clone(), 1, from, size);
                from += size;
                let bias = conv.bias.filter(|_| sum.is_none()).map(Expr::Class);
                let term = Expr::op(conv.op.clone(), vec![Some((*operand).into()), Some(w), bias]);
                sum = Some(match sum {
                    None => term,
                    Some(rest) => add(rest, term),
                });
            }
            if let Some(sum) = sum {
                cx.rewrite(Expr::of(app).with_operand(0, Expr::of(cat)), sum);
            }
        }
    },
};

/// Whether a convolution of one of these could fold on.
fn folds(view: &dyn View, operands: &[Class]) -> bool {
    let twice = operands.iter().enumerate().any(|(i, o)| operands[..i].contains(o));
    twice
        || operands.iter().any(|&o| {
            let parts = view.apps(o).iter().any(|a| matches!(a.op, Op::Slice(_)));
            view.is_constant(o) || parts || !convs_in(view, o).is_empty()
        })
}

/// Sound bit for bit: what was cut apart comes together.
/// Requires: slices of one value along the axis alone, in steps of 1, each of which begins where the last one ends.
/// Not sound for: parts in another order; parts that leave elements out.
/// Exactness: bitwise.
/// Pays: nothing is copied.
pub const JOIN_SLICES: Rule = Rule {
    name: "join-slices",
    equation: "Concat(Slice(x, ..), Slice(x, ..)) => Slice(x, ..); \
               Concat(p.., Slice(x, ..), Slice(x, ..), q..) => Concat(p.., Slice(x, ..), q..)",
    conditions: &[STEPS_OF_ONE, ADJACENT],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "nothing is copied",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Concat"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some((axis, operands)) = concatenated(view, app) else { return };
        let slices: Vec<Vec<Sliced>> = operands.iter().map(|&c| slices_in(view, c)).collect();
        for (i, pair) in slices.windows(2).enumerate() {
            for (a, b) in pair[0].iter().flat_map(|a| pair[1].iter().map(move |b| (a, b))) {
                let (Some(first), Some(second)) = (a.only(axis), b.only(axis)) else { continue };
                let Some(size) = fixed_dim(view, a.x, axis).filter(|_| a.x == b.x) else { continue };
                cx.begin();
                let steps = steps_of_one([&first, &second]);
                let (Some(first), Some(second)) = (first.on(size), second.on(size)) else { continue };
                if !cx.require(STEPS_OF_ONE.name, steps) {
                    continue;
                }
                let verdict = if first.0 + first.1 == second.0 {
                    Verdict::Holds
                } else {
                    Verdict::Fails(format!(
                        "{} elements from {} on, then {} from {} on",
                        first.1, first.0, second.1, second.0
                    ))
                };
                if cx.require(ADJACENT.name, verdict) {
                    let whole = part(a.x.into(), axis, first.0, first.1 + second.1);
                    let both = [a.expr(), b.expr()];
                    replace_run(cx, app, i, 2, &|i| both[i].clone(), whole);
                }
            }
        }
    },
};

const ADJACENT: Condition = Condition { name: "adjacent", text: "each slice begins where the one before it ends" };

/// The rules of this file.
pub const RULES: &[&Rule] = &[&CAT_OUT, &CONCAT_MAP, &CAT_GROUP, &CAT_IN_SPLIT, &JOIN_SLICES];
