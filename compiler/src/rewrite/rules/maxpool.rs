//! Maximum over windows: padding before it, monotone functions behind it.

use convc_runtime::{
    Dim, Op,
    ops::{MaxPool, pad::PadMode},
    window::AutoPad,
};

use super::{facts::is_nonnegative, pad::pads_of};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    view::{App, Class, Expr, View},
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
const SPATIAL: Condition = Condition {
    name: "pads-space-only",
    text: "only spatial axes are padded, by numbers that are known and not negative",
};

/// `maxpool(pad(x, p, v); q)  =>  maxpool(x; p + q)`
///
/// Sound over the reals: padding that is no larger than any element of the map decides no window that has one.
/// Requires: v minus infinity, or at most 0 where x is behind Relu, Sigmoid or the like; spatial padding; no `ceil_mode`,
/// whose last window would be another one.
/// Not sound for: 0 around a map with negative elements; windows that lie wholly in the padding.
/// Exactness: reassociated (the sign of zero).
/// Pays: a copy of the map disappears.
pub const PAD_INTO_MAXPOOL: Rule = Rule {
    name: "pad-into-maxpool",
    equation: "maxpool(pad(x, p, v); pads q) => maxpool(x; pads p + q)",
    conditions: &[SPATIAL, NEVER_WINS, MEETS],
    exactness: Exactness::Reassociated,
    pays: "a copy of the map disappears",
    phase: Phase::Normalise,
    roots: &["MaxPool"],
    search: |cx, _, app| {
        let Some(pool) = pool_at(app).filter(|p| !p.ceil_mode) else { return };
        let Some(padded) = app.operand(0) else { return };
        let view = cx.view;
        for pad in view.apps(padded) {
            cx.begin();
            if !matches!(pad.op, Op::Pad(p) if p.mode == PadMode::Constant) {
                continue;
            }
            let Some(x) = pad.operand(0) else { continue };
            let Some(sizes) = sizes(view, x, pool) else { continue };
            let n = sizes.len();
            let pads = pads_of(view, &pad, n + 2);
            let verdict = match &pads {
                None => Verdict::Unknown("how much is padded is not known".into()),
                Some(p) if p.iter().take(2).any(|p| *p != (0, 0)) => {
                    Verdict::Fails("batch or channels are padded".into())
                }
                Some(p) if p.iter().any(|p| p.0 < 0 || p.1 < 0) => Verdict::Fails("a pad is negative".into()),
                Some(_) => Verdict::Holds,
            };
            let (true, Some(pads)) = (cx.require(SPATIAL.name, verdict), pads) else { continue };
            let value = match pad.operand(2) {
                None => Some(0.0),
                Some(v) => view.constant(v).and_then(|c| c.to_tensor().ok()?.to_f64s()?.first().copied()),
            };
            let nonnegative = is_nonnegative(view, x);
            let verdict = match value {
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

/// `relu(maxpool(conv(..)))  =>  maxpool(relu(conv(..)))`, and Clip likewise
///
/// Sound bit for bit: what never decreases commutes with the maximum.
/// Requires: a convolution before the pool, which takes the activation up; a tap in every window, since an empty one is minus
/// infinity.
/// Not sound for: functions that decrease somewhere, such as SiLU.
/// Exactness: bitwise.
/// Pays: the activation becomes part of the convolution.
pub const ACTIVATION_BEFORE_MAXPOOL: Rule = Rule {
    name: "activation-before-maxpool",
    equation: "relu(maxpool(conv(x, w, b))) => maxpool(relu(conv(x, w, b)))",
    conditions: &[MEETS],
    exactness: Exactness::Bitwise,
    pays: "the activation becomes part of the convolution",
    phase: Phase::Normalise,
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

/// The rules of this file.
pub const RULES: &[&Rule] = &[&PAD_INTO_MAXPOOL, &ACTIVATION_BEFORE_MAXPOOL];
