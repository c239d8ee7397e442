//! Maximum over windows: padding before it, monotone functions behind it, one behind another.

use convc_runtime::{
    DType, Dim, Op,
    ops::{MaxPool, pad::PadMode},
    window::AutoPad,
};

use super::pad::{SPATIAL, pads_of, pads_space_only};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, is_nonnegative},
};

/// A pool with explicit padding and a single result.
fn pool_at<'a>(app: &App<'a>) -> Option<&'a MaxPool> {
    match app.op {
        Op::MaxPool(p) if p.auto_pad == AutoPad::NotSet && !p.indices => Some(p),
        _ => None,
    }
}

const MEETS: Condition = Condition {
    name: "windows-meet-map",
    text: "every window has a tap inside the map: no padding is wider than the window's reach, and taps are no further apart \
           than the map is long",
};

/// Whether every window of a pool with these pads has a tap in a map of these sizes.
fn windows_meet(pool: &MaxPool, pads: &[i64], sizes: &[Dim]) -> Verdict {
    let n = pool.kernel_shape.len();
    for (a, size) in sizes.iter().enumerate() {
        let reach = pool.dilations[a] * (pool.kernel_shape[a] - 1);
        // A last window of ceil_mode begins inside the map or the padding before it.
        let end = if pool.ceil_mode { 0 } else { pads[n + a] };
        if pads[a] > reach || end > reach {
            return Verdict::Fails(format!("spatial axis {a} is padded by more than a window reaches"));
        }
        if size.at_least(pool.dilations[a]) != Some(true) {
            return Verdict::Unknown(format!("spatial axis {a} may be shorter than {}", pool.dilations[a]));
        }
    }
    Verdict::Holds
}

fn sizes(view: &dyn View, x: Class, pool: &MaxPool) -> Option<Vec<Dim>> {
    let shape = &view.fact(x)?.shape;
    (shape.len() == pool.kernel_shape.len() + 2).then(|| shape[2..].to_vec())
}

const NEVER_WINS: Condition = Condition {
    name: "never-wins",
    text: "the padding is no larger than any element: minus infinity, or not above 0 around a map that has no negative element",
};
const NO_CEIL: Condition = Condition {
    name: "no-ceil-mode",
    text: "no `ceil_mode`, which leaves out a last window that begins in the pool's own padding and not one that begins in a Pad's",
};

/// Sound over the reals: padding that is no larger than any element of the map decides no window that has one.
/// Requires: v minus infinity, or at most 0 where x is behind Relu, Sigmoid or the like; spatial padding; no `ceil_mode`,
/// whose last window would be another one.
/// Not sound for: 0 around a map with negative elements; windows that lie wholly in the padding.
/// Exactness: reassociated (the sign of zero).
/// Pays: a copy of the map disappears.
pub const PAD_INTO_MAXPOOL: Rule = Rule {
    name: "pad-into-maxpool",
    equation: "MaxPool(Pad(x, ..; pads p); pads q) => MaxPool(x; pads p + q)",
    conditions: &[NO_CEIL, SPATIAL, NEVER_WINS, MEETS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a copy of the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["MaxPool"],
    search: |cx, _, app| {
        let Some(pool) = pool_at(app) else { return };
        let Some(padded) = app.operand(0) else { return };
        let view = cx.view;
        for pad in view.apps(padded) {
            cx.begin();
            let Op::Pad(op) = pad.op else { continue };
            let Some(x) = pad.operand(0) else { continue };
            let Some(sizes) = sizes(view, x, pool) else { continue };
            let n = sizes.len();
            let other = || "the last window may be another one".to_owned();
            if !cx.require(NO_CEIL.name, Verdict::from_answer(Some(!pool.ceil_mode), other)) {
                continue;
            }
            let pads = pads_of(view, &pad, n + 2);
            let only = pads_space_only(pads.as_deref());
            let (true, Some(pads)) = (cx.require(SPATIAL.name, only), pads) else { continue };
            let value = match pad.operand(2) {
                None => Some(0.0),
                Some(v) => view.constant(v).and_then(|c| c.to_tensor().ok()?.to_f64s()?.first().copied()),
            };
            let nonnegative = is_nonnegative(view, x);
            let verdict = match value {
                _ if op.mode != PadMode::Constant => {
                    Verdict::Fails("the border is reflected or wrapped, or repeats the edge".into())
                }
                Some(f64::NEG_INFINITY) => Verdict::Holds,
                Some(v) if v <= 0.0 && nonnegative == Some(true) => Verdict::Holds,
                Some(v) if v <= 0.0 => Verdict::Unknown("the map may have negative elements".into()),
                Some(v) => Verdict::Fails(format!("the padding is {v}")),
                None => Verdict::Unknown("what is padded with is not known".into()),
            };
            if !cx.require(NEVER_WINS.name, verdict) || pads.len() != n + 2 || pool.pads.len() != 2 * n {
                continue;
            }
            let all: Vec<i64> = (0..n)
                .map(|a| pool.pads[a] + pads[a + 2].0)
                .chain((0..n).map(|a| pool.pads[n + a] + pads[a + 2].1))
                .collect();
            if cx.require(MEETS.name, windows_meet(pool, &all, &sizes)) {
                let op = MaxPool { pads: all, ..pool.clone() };
                cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&pad)), Expr::op(op, vec![Some(x.into())]));
            }
        }
    },
};

/// Sound bit for bit: what never decreases commutes with the maximum.
/// Requires: a convolution before the pool, which takes the activation up; a tap in every window, since an empty one is minus
/// infinity.
/// Not sound for: functions that decrease somewhere, such as SiLU.
/// Exactness: bitwise.
/// Pays: the activation becomes part of the convolution.
pub const ACTIVATION_BEFORE_MAXPOOL: Rule = Rule {
    name: "activation-before-maxpool",
    equation: "Relu|Clip(MaxPool(x), a?, b?) => MaxPool(Relu|Clip(x, a?, b?))",
    conditions: &[MEETS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "the activation becomes part of the convolution",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Relu", "Clip"],
    search: |cx, _, app| {
        let (Some(y), view) = (app.operand(0), cx.view) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let (Some(pool), Some(x)) = (pool_at(&inner), inner.operand(0)) else { continue };
            let Some(sizes) = sizes(view, x, pool) else { continue };
            if pool.pads.len() != 2 * sizes.len() || !view.apps(x).iter().any(|a| a.op.name() == "Conv") {
                continue;
            }
            if cx.require(MEETS.name, windows_meet(pool, &pool.pads, &sizes)) {
                let activated = Expr::of(app).with_operand(0, x.into());
                cx.rewrite(
                    Expr::of(app).with_operand(0, Expr::of(&inner)),
                    Expr::of(&inner).with_operand(0, activated),
                );
            }
        }
    },
};

const STEPS: Condition = Condition { name: "steps-of-one", text: "the inner pool has a stride of 1 along every axis" };
const ONE_GRID: Condition = Condition {
    name: "one-grid",
    text: "along every axis both pools have the same dilation, or one of them a single tap",
};
const SAME_WINDOWS: Condition = Condition {
    name: "same-windows",
    text: "no `ceil_mode`, or it leaves out the same windows at the end: the inner pool is padded there by as much as its window \
           reaches",
};

/// How far a window reaches beyond its first tap.
fn reach(pool: &MaxPool, a: usize) -> i64 {
    pool.dilations[a] * (pool.kernel_shape[a] - 1)
}

/// The dilation that both pools have along an axis.
fn dilation(first: &MaxPool, second: &MaxPool, a: usize) -> Option<i64> {
    let (d1, d2) = (first.dilations[a], second.dilations[a]);
    match (first.kernel_shape[a], second.kernel_shape[a]) {
        (1, _) => Some(d2),
        (_, 1) => Some(d1),
        _ => (d1 == d2).then_some(d1),
    }
}

/// Sound bit for bit: the windows that an outer window gathers cover one larger window without gaps. Where it hangs over the
/// border of the inner map, the next window inside covers all of the input that the one outside would.
/// Requires: a stride of 1 inside; one dilation; every outer window meets the inner map.
/// Not sound for: strides inside, which leave out positions between windows; `ceil_mode` that leaves out other windows.
/// Exactness: bitwise.
/// Pays: one pass over the map less, where the inner result is not needed otherwise. Read from right to left it takes several
/// pools of one map out of each other: `proposals`.
pub const MAXPOOL_MAXPOOL: Rule = Rule {
    name: "maxpool-maxpool",
    equation: "MaxPool(MaxPool(x; kernel_shape k, pads p); kernel_shape l, pads q) => MaxPool(x; kernel_shape k + l - 1, pads p \
               + q)",
    conditions: &[STEPS, ONE_GRID, SAME_WINDOWS, MEETS],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS.and(Types::of(&[DType::I8, DType::U8])),
    pays: "one pass over the map less, or a large window is made of smaller ones",
    phase: Phase::Explore,
    folds: false,
    proposals: Some(proposals),
    roots: &["MaxPool"],
    search: |cx, _, app| {
        let (Some(second), Some(y), view) = (pool_at(app), app.operand(0), cx.view) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let (Some(first), Some(x)) = (pool_at(&inner), inner.operand(0)) else { continue };
            let Some(sizes) = sizes(view, y, second) else { continue };
            let n = sizes.len();
            if first.pads.len() != 2 * n || second.pads.len() != 2 * n {
                continue;
            }
            let steps = first.strides.iter().all(|&s| s == 1);
            if !cx.require(
                STEPS.name,
                Verdict::from_answer(Some(steps), || format!("its strides are {:?}", first.strides)),
            ) {
                continue;
            }
            let grid = (0..n).all(|a| dilation(first, second, a).is_some());
            let differ = || format!("dilations {:?} and {:?}", first.dilations, second.dilations);
            if !cx.require(ONE_GRID.name, Verdict::from_answer(Some(grid), differ)) {
                continue;
            }
            let left_out = (0..n).find(|&a| {
                let (end, reach) = (first.pads[n + a], reach(first, a));
                (second.ceil_mode && end != reach) || (first.ceil_mode && end > reach)
            });
            let other = || format!("ceil_mode may leave out another window of spatial axis {}", left_out.unwrap_or(0));
            if !cx.require(SAME_WINDOWS.name, Verdict::from_answer(Some(left_out.is_none()), other))
                || !cx.require(MEETS.name, windows_meet(second, &second.pads, &sizes))
            {
                continue;
            }
            let op = MaxPool {
                kernel_shape: first.kernel_shape.iter().zip(&second.kernel_shape).map(|(a, b)| a + b - 1).collect(),
                pads: first.pads.iter().zip(&second.pads).map(|(a, b)| a + b).collect(),
                dilations: (0..n).map(|a| dilation(first, second, a).unwrap_or(first.dilations[a])).collect(),
                ..second.clone()
            };
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), Expr::op(op, vec![Some(x.into())]));
        }
    },
};

/// Left sides of [`MAXPOOL_MAXPOOL`] for the pools among `classes` of one map: each as a pool of every smaller one.
#[must_use]
fn proposals(view: &dyn View, classes: &[Class]) -> Vec<Expr> {
    let mut pools: Vec<(Class, Class, MaxPool)> = Vec::new();
    for &class in classes {
        let of = |app: &App<'_>| Some((app.operand(0)?, class, pool_at(app).filter(|p| !p.ceil_mode)?.clone()));
        if let Some(pool) = view.apps(class).iter().find_map(of)
            && !pools.contains(&pool)
        {
            pools.push(pool);
        }
    }
    let rest = |large: &MaxPool, small: &MaxPool| -> Option<MaxPool> {
        let n = large.kernel_shape.len();
        let alike =
            small.kernel_shape.len() == n && large.dilations == small.dilations && large.pads.len() == small.pads.len();
        let kernel: Vec<i64> = large.kernel_shape.iter().zip(&small.kernel_shape).map(|(l, s)| l - s + 1).collect();
        let pads: Vec<i64> = large.pads.iter().zip(&small.pads).map(|(l, s)| l - s).collect();
        let fits = alike && small.strides.iter().all(|&s| s == 1) && kernel.iter().all(|&k| k >= 1);
        let smaller = kernel.iter().any(|&k| k > 1) && pads.iter().all(|&p| p >= 0);
        (fits && smaller).then(|| MaxPool { kernel_shape: kernel, pads, ..large.clone() })
    };
    let pairs = pools.iter().flat_map(|l| pools.iter().map(move |s| (l, s)));
    pairs
        .filter(|(l, s)| l.0 == s.0)
        .filter_map(|(l, s)| Some(Expr::op(rest(&l.2, &s.2)?, vec![Some(s.1.into())])))
        .collect()
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&PAD_INTO_MAXPOOL, &ACTIVATION_BEFORE_MAXPOOL, &MAXPOOL_MAXPOOL];
