//! Explicit padding: before convolutions, and twice.

use convc_runtime::{
    Op,
    ops::{Conv, pad::PadMode},
    window::AutoPad,
};

use super::{read::axes::listed, weights::ints};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Expr, View, is_zero},
};

pub(super) const ZEROS: Condition = Condition { name: "pads-with-zeros", text: "the padding is constant and 0" };
pub(super) const SPATIAL: Condition = Condition {
    name: "pads-space-only",
    text: "only spatial axes are padded, by numbers that are known and not negative",
};

/// What a `Pad` adds before and behind each axis, if that is known.
pub(super) fn pads_of(view: &dyn View, app: &App<'_>, rank: usize) -> Option<Vec<(i64, i64)>> {
    let pads = view.fact(app.operand(1)?)?.i64s()?;
    let axes = match app.operand(3) {
        None => (0..rank).collect(),
        Some(a) => listed(view, a, rank)?,
    };
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut out = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        *out.get_mut(axis)? = (pads[i], pads[axes.len() + i]);
    }
    Some(out)
}

/// Whether a `Pad` of this mode fills with zeros.
pub(super) fn fills_with_zeros(view: &dyn View, app: &App<'_>, mode: PadMode) -> Verdict {
    if mode != PadMode::Constant {
        return Verdict::Fails("the border is reflected or wrapped, or repeats the edge".into());
    }
    let zeros = app.operand(2).map_or(Some(true), |v| is_zero(view, v));
    Verdict::from_answer(zeros, || "the map is padded with another value than 0".into())
}

/// Whether these pads, if they are known, are those of spatial axes alone, and none is negative.
pub(super) fn pads_space_only(pads: Option<&[(i64, i64)]>) -> Verdict {
    match pads {
        None => Verdict::Unknown("how much is padded is not known".into()),
        Some(p) if p.iter().take(2).any(|p| *p != (0, 0)) => Verdict::Fails("batch or channels are padded".into()),
        Some(p) if p.iter().any(|p| p.0 < 0 || p.1 < 0) => Verdict::Fails("a pad is negative".into()),
        Some(_) => Verdict::Holds,
    }
}

/// Sound bit for bit: a convolution reads zeros beyond its input's border either way.
/// Requires: constant mode with value 0; known pads on spatial axes only. The convolution may crop: positions count through.
/// Not sound for: reflected, replicated or wrapped borders, another value, padded channels; and negative pads, which remove
/// values that the convolution's own padding would not.
/// Exactness: bitwise.
/// Pays: a copy of the map disappears.
pub const PAD_INTO_CONV: Rule = Rule {
    name: "pad-into-conv",
    equation: "Conv(Pad(x, ..; pads p), w, b?; pads q) => Conv(x, w, b?; pads p + q)",
    conditions: &[ZEROS, SPATIAL],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "a copy of the map disappears",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let Op::Conv(conv) = app.op else { return };
        let (Some(x), AutoPad::NotSet) = (app.operand(0), conv.auto_pad) else { return };
        let view = cx.view;
        for pad in view.apps(x) {
            let Op::Pad(op) = pad.op else { continue };
            cx.begin();
            let Some(source) = pad.operand(0) else { continue };
            let Some(rank) = view.fact(source).map(convc_runtime::Fact::rank) else { continue };
            if !cx.require(ZEROS.name, fills_with_zeros(view, &pad, op.mode)) {
                continue;
            }
            let pads = pads_of(view, &pad, rank);
            if !cx.require(SPATIAL.name, pads_space_only(pads.as_deref())) {
                continue;
            }
            let Some(pads) = pads else { continue };
            let n = rank.saturating_sub(2);
            if conv.pads.len() != 2 * n {
                continue;
            }
            let sum =
                (0..n).map(|a| conv.pads[a] + pads[a + 2].0).chain((0..n).map(|a| conv.pads[n + a] + pads[a + 2].1));
            let op = Conv { pads: sum.collect(), ..conv.clone() };
            let lhs = Expr::of(app).with_operand(0, Expr::of(&pad));
            let operands = vec![Some(source.into()), app.operand(1).map(Expr::Class), app.operand(2).map(Expr::Class)];
            cx.rewrite(lhs, Expr::op(op, operands));
        }
    },
};

const ONE_BORDER: Condition =
    Condition { name: "one-border", text: "both pads fill with the same known value, or both repeat the edge" };
const GROWS: Condition = Condition { name: "pads-grow", text: "all pads are known and none is negative" };

/// What a `Pad` fills with: the bytes of one element, which are 0 where nothing is given, or `None` for the edge.
fn filling(view: &dyn View, app: &App<'_>, mode: PadMode) -> Result<Option<Vec<u8>>, String> {
    match (mode, app.operand(2)) {
        (PadMode::Constant, None) => {
            let dtype = app.operand(0).and_then(|x| view.fact(x)).map(|f| f.dtype);
            let size = dtype.and_then(|d| d.bytes_for(1)).ok_or("how large an element is is not known")?;
            Ok(Some(vec![0; size]))
        }
        (PadMode::Constant, Some(v)) => {
            let value = view.constant(v).map(|c| c.bytes().as_bytes().to_vec()).filter(|b| !b.is_empty());
            value.map(Some).ok_or_else(|| "what is padded with is not known".into())
        }
        (PadMode::Edge, _) => Ok(None),
        _ => Err("the border is reflected or wrapped".into()),
    }
}

/// Sound bit for bit: the same border grows outwards; so it does where both repeat the edge.
/// Requires: one value; known pads, none negative.
/// Not sound for: another value; reflection, which reads what the first one put there; negative pads, which remove elements.
/// Exactness: bitwise.
/// Pays: a copy of the map disappears.
pub const PAD_PAD: Rule = Rule {
    name: "pad-pad",
    equation: "Pad(Pad(x, p, v?, ..), q, ..) => Pad(x, pads, v?) where `pads` is p + q, and both fill with `v`",
    conditions: &[ONE_BORDER, GROWS],
    exactness: Exactness::Bitwise,
    types: Types::ALL,
    pays: "a copy of the map disappears",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["Pad"],
    search: |cx, _, app| {
        let (Op::Pad(outer), Some(y), view) = (app.op, app.operand(0), cx.view) else { return };
        for inner in view.apps(y) {
            cx.begin();
            let (Op::Pad(first), Some(x)) = (inner.op, inner.operand(0)) else { continue };
            let Some(rank) = view.fact(x).map(convc_runtime::Fact::rank) else { continue };
            let verdict = match (filling(view, &inner, first.mode), filling(view, app, outer.mode)) {
                (Ok(a), Ok(b)) if a == b => Verdict::Holds,
                (Ok(_), Ok(_)) => Verdict::Fails("the borders are of different kinds".into()),
                (Err(why), _) | (_, Err(why)) => Verdict::Unknown(why),
            };
            if !cx.require(ONE_BORDER.name, verdict) {
                continue;
            }
            let pads = (pads_of(view, &inner, rank), pads_of(view, app, rank));
            let negative = |p: &[(i64, i64)]| p.iter().any(|p| p.0 < 0 || p.1 < 0);
            let verdict = match &pads {
                (Some(p), Some(q)) if negative(p) || negative(q) => Verdict::Fails("a pad is negative".into()),
                (Some(_), Some(_)) => Verdict::Holds,
                _ => Verdict::Unknown("how much is padded is not known".into()),
            };
            let (true, (Some(p), Some(q))) = (cx.require(GROWS.name, verdict), pads) else { continue };
            let begins = p.iter().zip(&q).map(|(p, q)| p.0 + q.0);
            let sum: Vec<i64> = begins.chain(p.iter().zip(&q).map(|(p, q)| p.1 + q.1)).collect();
            let value = inner.operand(2).filter(|_| outer.mode == PadMode::Constant).map(Expr::Class);
            let operands = vec![Some(x.into()), Some(Expr::Constant(ints(&sum))), value, None];
            cx.rewrite(Expr::of(app).with_operand(0, Expr::of(&inner)), Expr::op(outer.clone(), operands));
        }
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&PAD_INTO_CONV, &PAD_PAD];
