//! Permutations of channels, whatever they are spelled with, before and behind convolutions.

use convc_runtime::{
    Fact, Op,
    ops::{Gather, Reshape},
};

use super::{
    channels::{MAPS, mapped},
    concat::concatenated,
    read::{
        conv::{conv_at, convs_in},
        slice::slices_in,
    },
    weights::ints,
};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, fixed_dim},
};

/// A map whose channel `i` is channel `from[i]` of `x`.
struct Picked {
    x: Class,
    from: Vec<i64>,
    /// The term as it stands.
    term: Expr,
}

/// Channels picked from a map of as many: a Gather with constant indices, a transposition between two reshapes, or a
/// concatenation of slices.
fn picked(view: &dyn View, app: &App<'_>) -> Option<Picked> {
    let p = match app.op {
        Op::Gather(g) => gathered(view, app, g)?,
        Op::Reshape(_) => shuffled(view, app)?,
        Op::Concat(_) => rearranged(view, app)?,
        _ => return None,
    };
    let channels = fixed_dim(view, p.x, 1)?;
    (view.fact(p.x)?.rank() > 2 && p.from.len() as i64 == channels && !view.is_constant(p.x)).then_some(p)
}

fn picked_in(view: &dyn View, class: Class) -> Vec<Picked> {
    view.apps(class).iter().filter_map(|app| picked(view, app)).collect()
}

fn gathered(view: &dyn View, app: &App<'_>, op: &Gather) -> Option<Picked> {
    let (x, indices) = (app.operand(0)?, app.operand(1)?);
    let fact = view.fact(indices)?;
    if op.axis != 1 || fact.rank() != 1 {
        return None;
    }
    let channels = fixed_dim(view, x, 1)?;
    let from: Vec<i64> = fact.i64s()?.into_iter().map(|i| if i < 0 { i + channels } else { i }).collect();
    from.iter().all(|i| (0..channels).contains(i)).then(|| Picked { x, from, term: Expr::of(app) })
}

/// `reshape(transpose(reshape(x)))`: the channels as a block of several axes, which change places.
fn shuffled(view: &dyn View, app: &App<'_>) -> Option<Picked> {
    let class = app.operand(0)?;
    for turn in view.apps(class) {
        let (Op::Transpose(t), Some(split)) = (turn.op, turn.operand(0)) else { continue };
        for view_of in view.apps(split) {
            let (Op::Reshape(Reshape { .. }), Some(x)) = (view_of.op, view_of.operand(0)) else { continue };
            if let Some(from) = turned(view.fact(x)?, view.fact(split)?, &t.perm) {
                // The result has the shape of the source: the last reshape joins what the first split.
                let target = app.operand(1).and_then(|s| view.fact(s)).and_then(Fact::i64s);
                let rejoined = target.is_some_and(|t| rejoins(view, x, &t));
                if rejoined {
                    let inner = Expr::of(&turn).with_operand(0, Expr::of(&view_of));
                    return Some(Picked { x, from, term: Expr::of(app).with_operand(0, inner) });
                }
            }
        }
    }
    None
}

/// Whether a Reshape to `target` gives the shape of `x`: sizes that are its, copied or left open, one of these at most.
fn rejoins(view: &dyn View, x: Class, target: &[i64]) -> bool {
    let Some(fact) = view.fact(x) else { return false };
    // The batch may be copied or left open; what is fixed has to agree.
    target.len() == fact.rank()
        && target.iter().filter(|t| **t == -1).count() <= 1
        && target.iter().enumerate().all(|(a, &t)| match fact.shape[a].as_fixed() {
            Some(n) => t == n || (t == 0 && a == 0) || t == -1,
            None => (t == 0 && a == 0) || t == -1,
        })
}

/// Where each channel comes from if the channels of `x`, split as in `split`, are permuted by `perm`.
fn turned(x: &Fact, split: &Fact, perm: &[i64]) -> Option<Vec<i64>> {
    let channels = x.shape.get(1)?.as_fixed()?;
    if x.shape.first() != split.shape.first() || perm.len() != split.rank() {
        return None;
    }
    let mut factors: Vec<i64> = Vec::new();
    let mut product = 1i64;
    while product < channels {
        let n = split.shape.get(1 + factors.len())?.as_fixed()?;
        product = product.checked_mul(n)?;
        factors.push(n);
    }
    let k = factors.len();
    let tail_stays = split.shape[1 + k..] == x.shape[2..];
    let stays = |i: usize| perm.get(i) == Some(&(i as i64));
    if product != channels || k < 2 || !tail_stays || !stays(0) || !(1 + k..perm.len()).all(stays) {
        return None;
    }
    let order: Vec<usize> =
        perm[1..=k].iter().map(|p| usize::try_from(p - 1).ok().filter(|p| *p < k)).collect::<Option<_>>()?;
    let step = |axis: usize| factors[axis + 1..].iter().product::<i64>();
    let mut from = vec![0];
    for axis in order {
        from = from.iter().flat_map(|base| (0..factors[axis]).map(move |i| base + i * step(axis))).collect();
    }
    Some(from)
}

/// A concatenation of slices of one map along channels.
fn rearranged(view: &dyn View, app: &App<'_>) -> Option<Picked> {
    let (1, operands) = concatenated(view, app)? else { return None };
    let first = slices_in(view, *operands.first()?).into_iter().next()?;
    let channels = fixed_dim(view, first.x, 1)?;
    let (mut from, mut terms) = (Vec::new(), Vec::new());
    for o in operands {
        let s = slices_in(view, o).into_iter().find(|s| s.x == first.x)?;
        let cut = s.only(1)?;
        let (start, count) = cut.on(channels)?;
        from.extend((0..count).map(|i| start + i * cut.step));
        terms.push(Some(s.expr()));
    }
    Some(Picked { x: first.x, from, term: Expr::op(app.op.clone(), terms) })
}

/// `x[.., indices, ..]` along an axis.
fn gather(x: Expr, axis: i64, indices: &[i64]) -> Expr {
    Expr::op(Gather { axis }, vec![Some(x), Some(Expr::Constant(ints(indices)))])
}

const EACH_ONCE: Condition = Condition { name: "each-once", text: "every channel of the map is picked once" };

/// Sound over the reals: a convolution is a sum over its input channels, in whatever order.
/// Requires: a constant kernel of one group; a permutation, whether by Gather, by reshapes around a transposition or by
/// slices.
/// Not sound for: a channel that is picked twice while another is left out.
/// Exactness: reassociated.
/// Pays: the map is not copied.
pub const PERM_FOLD: Rule = Rule {
    name: "perm-fold",
    equation: "Conv(picked(x), w, b?) => Conv(x, gather(w), b?)",
    conditions: &[EACH_ONCE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the map is not copied",
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
        for p in picked_in(view, conv.x) {
            if p.x == class {
                continue;
            }
            cx.begin();
            let place = |c: i64| p.from.iter().position(|f| *f == c);
            let missing = (0..p.from.len() as i64).find(|c| place(*c).is_none());
            let verdict = match missing {
                None => Verdict::Holds,
                Some(c) => Verdict::Fails(format!("channel {c} is left out")),
            };
            if !cx.require(EACH_ONCE.name, verdict) {
                continue;
            }
            let inverse: Vec<i64> = (0..p.from.len() as i64).map(|c| place(c).unwrap_or(0) as i64).collect();
            let w = gather(conv.kernel.weights.clone(), 1, &inverse);
            let operands = vec![Some(p.x.into()), Some(w), conv.bias.map(Expr::Class)];
            cx.rewrite(Expr::of(app).with_operand(0, p.term), Expr::op(conv.op.clone(), operands));
        }
    },
};

const WITHIN_GROUPS: Condition = Condition {
    name: "within-groups",
    text: "each output channel comes from a group of the convolution that reads the same input channels as the one it goes to",
};

/// Sound bit for bit: an output channel depends on its own row of the kernel and on the inputs of its group.
/// Requires: a constant kernel.
/// Not sound for: channels that change their group.
/// Exactness: bitwise.
/// Pays: the map is not copied.
pub const PERM_OUT: Rule = Rule {
    name: "perm-out",
    equation: "picked(Conv(x, w, b?)) => Conv(x, gather(w), gather(b?))",
    conditions: &[WITHIN_GROUPS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "the map is not copied",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Gather", "Reshape", "Concat"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(p) = picked(view, app) else { return };
        for conv in convs_in(view, p.x) {
            if p.x == class {
                continue;
            }
            cx.begin();
            let per_group = (conv.kernel.outputs / conv.op.group.max(1)).max(1);
            let moved = (0..).zip(&p.from).find(|(to, from)| to / per_group != **from / per_group);
            let verdict = match moved {
                None => Verdict::Holds,
                Some((to, from)) => Verdict::Fails(format!(
                    "channel {to} comes from channel {from}, and each of {} groups has {per_group}",
                    conv.op.group
                )),
            };
            if !cx.require(WITHIN_GROUPS.name, verdict) {
                continue;
            }
            let w = gather(conv.kernel.weights.clone(), 0, &p.from);
            let bias = conv.bias.map(|b| gather(b.into(), 0, &p.from));
            let rhs = Expr::op(conv.op.clone(), vec![Some(conv.x.into()), Some(w), bias]);
            cx.rewrite(replaced(&p.term, p.x, &conv.expr()), rhs);
        }
    },
};

/// Sound bit for bit: `f` acts on each element by itself.
/// Requires: a function of one argument, or Clip between constants.
/// Exactness: bitwise.
/// Pays: nothing by itself; the permutation reaches the convolution behind the activation.
pub const PERM_MAP: Rule = Rule {
    name: "perm-map",
    equation: "picked(f(x)) => f(Gather(x, order))",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::NUMBERS,
    pays: "the permutation reaches the convolution behind an activation",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Gather", "Reshape", "Concat"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(p) = picked(view, app) else { return };
        for f in view.apps(p.x).iter().filter(|f| MAPS.contains(&f.op.name())) {
            let Some(x) = mapped(view, f).filter(|x| *x != class) else { continue };
            let rhs = Expr::of(f).with_operand(0, gather(x.into(), 1, &p.from));
            cx.rewrite(replaced(&p.term, p.x, &Expr::of(f)), rhs);
        }
    },
};

/// A term with a class spelled out.
fn replaced(term: &Expr, class: Class, by: &Expr) -> Expr {
    match term {
        Expr::Class(c) if *c == class => by.clone(),
        Expr::Op(op, operands) => {
            Expr::Op(op.clone(), operands.iter().map(|o| o.as_ref().map(|o| replaced(o, class, by))).collect())
        }
        other => other.clone(),
    }
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&PERM_FOLD, &PERM_OUT, &PERM_MAP];
