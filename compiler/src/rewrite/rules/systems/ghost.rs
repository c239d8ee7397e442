//! Ghost modules.

use convc_runtime::{
    Constant, Op,
    ops::{GhostModule, ghost_module::Activation},
};

use super::{
    super::{
        read::{axes::axis, conv::convs_in, slice::sliced},
        weights::zero_pad,
    },
    Activated, activated,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, fixed_dim},
};

const PRIMARY_FIRST: Condition = Condition {
    name: "primary-first",
    text: "what is concatenated, along channels, is the primary result and behind it one cheap convolution of it",
};
const SAME_ACTIVATION: Condition =
    Condition { name: "same-activation", text: "Relu follows both convolutions, or nothing does" };
const CHEAP_KEEPS: Condition = Condition {
    name: "cheap-keeps-sizes",
    text: "the cheap convolution has stride 1, and padding that makes up for its kernel's reach",
};

/// Sound bit for bit: it is the operator's definition. A cheap convolution of the first k primary channels alone is one of all
/// of them whose results behind those are not kept; so is one whose first results alone are concatenated.
/// Requires: constant kernels; the second convolution with one group for each channel it reads (any number of maps for each).
/// Not sound for: an activation that differs, or is another function than Relu; a cheap part that comes first.
/// Several cheap convolutions side by side are not one module: one with more maps orders its channels by primary channel.
/// Exactness: bitwise.
/// Pays: one operator, which computes the cheap part while the primary rows are at hand and copies nothing.
pub const GHOST_MODULE: Rule = Rule {
    name: "ghost-module",
    equation: "ghosts(Conv(x, w1, b1?), Conv(picked(activated(Conv(x, w1, b1?))), w2, b2?)) => GhostModule(x, w1, b1?, \
               embedded(w2), embedded(b2?))",
    conditions: &[PRIMARY_FIRST, SAME_ACTIVATION, CHEAP_KEEPS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one operator, which computes the cheap part while the primary one is at hand and copies nothing",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Concat", "Slice", "Gather"],
    search: |cx, class, app| {
        let view = cx.view;
        if let Op::Concat(_) = app.op {
            let count = fixed_dim(view, class, 1);
            modules(cx, app, count, &|cat| cat);
        } else if let Some((y, count)) = prefix(view, app) {
            for cat in view.apps(y) {
                modules(cx, &cat, Some(count), &|e| Expr::of(app).with_operand(0, e));
            }
        }
    },
};

/// The first channels of a value: which value, and how many.
fn prefix(view: &dyn View, app: &App<'_>) -> Option<(Class, i64)> {
    let x = app.operand(0)?;
    let size = fixed_dim(view, x, 1)?;
    let count = match app.op {
        Op::Slice(_) => {
            let cut = sliced(view, app)?.only(1)?;
            cut.on(size).filter(|(first, _)| *first == 0 && cut.step == 1)?.1
        }
        Op::Gather(g) if axis(g.axis, view.fact(x)?.rank()) == Some(1) => {
            let indices = view.fact(app.operand(1)?)?;
            let all = view.constant(app.operand(1)?).and_then(|c: &Constant| c.to_tensor().ok()?.to_i64s())?;
            let in_order = (0..).zip(&all).all(|(i, &v)| (if v < 0 { v + size } else { v }) == i);
            (indices.rank() == 1 && in_order).then_some(all.len() as i64)?
        }
        _ => return None,
    };
    (count > 0).then_some((x, count))
}

/// The cheap half of a module, as it reads the primary one.
struct Cheap<'a> {
    half: Activated<'a>,
    /// The term of what it reads.
    reads: Expr,
    /// The slice that leaves the first channels of it, if there is one.
    cut: Option<Cut<'a>>,
}

/// A slice of the first channels of an activated convolution.
struct Cut<'a> {
    app: App<'a>,
    count: i64,
    /// Whether the activation is behind it.
    inside: bool,
}

impl Cheap<'_> {
    /// The term, with the primary result spelt out.
    fn expr(&self, primary: &Activated<'_>) -> Expr {
        let x = match &self.reads {
            Expr::Op(..) => self.reads.clone().with_operand(0, primary.expr()),
            _ => primary.expr(),
        };
        let conv = self.half.conv.expr().with_operand(0, x);
        let cut = |e: Expr, inside: bool| match &self.cut {
            Some(c) if c.inside == inside => Expr::of(&c.app).with_operand(0, e),
            _ => e,
        };
        let conv = cut(conv, true);
        let all = match &self.half.function {
            None => conv,
            Some(f) => Expr::of(f).with_operand(0, conv),
        };
        cut(all, false)
    }
}

/// The activated convolutions in a class, or whose first channels it is.
fn halves<'v>(view: &'v dyn View, class: Class) -> Vec<(Activated<'v>, Option<Cut<'v>>)> {
    let mut out: Vec<_> = activated(view, class).into_iter().map(|half| (half, None)).collect();
    for app in view.apps(class) {
        if let Some((y, count)) = prefix(view, &app) {
            let cut = |half| (half, Some(Cut { app: app.clone(), count, inside: false }));
            out.extend(activated(view, y).into_iter().map(cut));
        } else if let (Op::Unary(_) | Op::Clip(_), Some(y)) = (app.op, app.operand(0)) {
            for inner in view.apps(y) {
                let Some((z, count)) = prefix(view, &inner) else { continue };
                let cut = |conv| {
                    let half = Activated { conv, function: Some(app.clone()) };
                    (half, Some(Cut { app: inner.clone(), count, inside: true }))
                };
                out.extend(convs_in(view, z).into_iter().map(cut));
            }
        }
    }
    out
}

/// The depthwise convolutions in a class, or whose first channels it is, that read `p` or its first channels.
fn cheap_of<'v>(view: &'v dyn View, class: Class, p: Class) -> Vec<Cheap<'v>> {
    let mut out = Vec::new();
    for (half, cut) in halves(view, class) {
        let kernel = &half.conv.kernel;
        if kernel.inputs != 1 || fixed_dim(view, half.conv.x, 1) != Some(kernel.group) {
            continue;
        }
        let x = half.conv.x;
        let reads = if x == p {
            Some(p.into())
        } else {
            let of_p = |s: &Expr, y: Class| (y == p).then(|| s.clone());
            view.apps(x).iter().find_map(|a| of_p(&Expr::of(a), prefix(view, a)?.0))
        };
        if let Some(reads) = reads {
            out.push(Cheap { half, reads, cut });
        }
    }
    out
}

/// Recognises the modules that a concatenation is, of which the first `kept` channels are kept.
fn modules(cx: &mut Cx<'_>, cat: &App<'_>, kept: Option<i64>, around: &dyn Fn(Expr) -> Expr) {
    let view = cx.view;
    let Op::Concat(concat) = cat.op else { return };
    let Some(operands) = cat.operands.iter().copied().collect::<Option<Vec<Class>>>() else { return };
    for (i, &p) in operands.iter().enumerate() {
        for (j, &q) in operands.iter().enumerate() {
            if p == q || !(2..=8).contains(&operands.len()) {
                continue;
            }
            for primary in activated(view, p) {
                for cheap in cheap_of(view, q, p) {
                    cx.begin();
                    let rank = primary.conv.spatial() + 2;
                    let verdict = if operands.len() > 2 {
                        Verdict::Fails(format!("{} parts are concatenated", operands.len()))
                    } else if i > j {
                        Verdict::Fails("the cheap part comes first".into())
                    } else if axis(concat.axis, rank) != Some(1) {
                        Verdict::Fails(format!("they are concatenated along axis {}", concat.axis))
                    } else {
                        Verdict::Holds
                    };
                    if cx.require(PRIMARY_FIRST.name, verdict)
                        && let Some(rhs) = module(cx, &primary, &cheap, kept)
                    {
                        let lhs = Expr::of(cat).with_operand(i, primary.expr()).with_operand(j, cheap.expr(&primary));
                        cx.rewrite(around(lhs), rhs);
                    }
                }
            }
        }
    }
}

fn module(cx: &mut Cx<'_>, primary: &Activated<'_>, cheap: &Cheap<'_>, kept: Option<i64>) -> Option<Expr> {
    let second = &cheap.half;
    let verdict = match (primary.activation(), second.activation()) {
        (Ok(a), Ok(b)) if a == b => Verdict::Holds,
        (Ok(a), Ok(b)) => {
            Verdict::Fails(format!("{} follows the primary convolution, {} the cheap one", named(a), named(b)))
        }
        (Err(f), _) | (_, Err(f)) => Verdict::Fails(format!("{f} follows a convolution")),
    };
    if !cx.require(SAME_ACTIVATION.name, verdict) {
        return None;
    }
    let (first, conv) = (&primary.conv, &second.conv);
    if !cx.require(CHEAP_KEEPS.name, keeps_sizes(second)) {
        return None;
    }
    let (p, read, maps) = (first.kernel.outputs, conv.kernel.group, conv.kernel.outputs / conv.kernel.group);
    let made = cheap.cut.as_ref().map_or(read * maps, |c| c.count);
    let kept = kept?.min(p + made);
    if kept <= p || conv.kernel.outputs % conv.kernel.group != 0 {
        return None;
    }
    // What is made of the channels that the cheap convolution does not read is not kept.
    let rows = |w: Expr, rank: usize| {
        let pads: Vec<i64> = (0..2 * rank).map(|i| if i == rank { (p - read) * maps } else { 0 }).collect();
        zero_pad(w, &pads)
    };
    let spatial = conv.spatial();
    let op = GhostModule {
        out_channels: kept,
        activation: primary.activation().unwrap_or(Activation::Identity),
        strides: first.op.strides.clone(),
        pads: first.op.pads.clone(),
        dilations: first.op.dilations.clone(),
        group: first.op.group,
        cheap_pads: conv.op.pads.clone(),
        cheap_dilations: conv.op.dilations.clone(),
    };
    let operands = vec![
        Some(first.x.into()),
        Some(first.kernel.weights.clone()),
        first.bias.map(Expr::Class),
        Some(rows(conv.kernel.weights.clone(), spatial + 2)),
        conv.bias.map(|b| rows(b.into(), 1)),
    ];
    Some(Expr::op(op, operands))
}

fn named(a: Activation) -> &'static str {
    match a {
        Activation::Identity => "nothing",
        Activation::Relu => "Relu",
    }
}

fn keeps_sizes(cheap: &Activated<'_>) -> Verdict {
    let c = &cheap.conv;
    if let Some(s) = c.op.strides.iter().find(|s| **s != 1) {
        return Verdict::Fails(format!("the cheap convolution has stride {s}"));
    }
    for a in 0..c.spatial() {
        let reach = c.op.dilations[a] * (c.kernel.taps[a] - 1);
        if c.pad_begin(a) + c.pad_end(a) != reach {
            return Verdict::Fails(format!("the cheap convolution changes the size of spatial axis {a}"));
        }
    }
    Verdict::Holds
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&GHOST_MODULE];
