//! Space to depth, in whatever operators it is written: any number of them that only move elements, for which one operator stands.

use convc_runtime::{
    Dim, Op,
    ops::{Conv, DepthToSpace, Gather, SpaceToDepth, depth_space::DepthMode},
};

use super::{
    compose::{ONE_GROUP, one_group},
    read::conv::conv_at,
    space::{UNDILATED, undilated},
    weights::ints,
};
use crate::rewrite::{
    index_map::{
        IndexMap, Table,
        chain::{Chains, movement, sources, spell},
        generic::describe,
        sizes::Sized,
    },
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{Class, Expr, View},
};

const BLOCKS: Condition = Condition {
    name: "is-blocks",
    text: "element q of an output channel is element b*q + i of a channel of x along both spatial axes, whatever the sizes",
};
const WHOLE: Condition = Condition { name: "whole-blocks", text: "blocks make up all of x, whatever the sizes" };

/// The place of each output channel in the blocks of a map.
struct Blocks {
    x: Class,
    side: i64,
    /// Which channel of the rearranged map, of rows, columns and channels, each output channel is; each of them once.
    from: Vec<i64>,
    misfit: Option<String>,
    /// What the shape should be, if it may be another one.
    broken: Option<String>,
}

/// The blocks that a value is made of: of the deepest source that fits, or else of the deepest that has the form.
fn blocks(view: &dyn View, class: Class) -> Option<Blocks> {
    // A look at what is there, before any map is made.
    let fact = view.fact(class)?;
    if fact.rank() != 4 || fact.shape[1].as_fixed()? < 4 {
        return None;
    }
    // Whether a convolution moves elements is in its kernel, which takes longer to see.
    let ends = |op: &Op| matches!(op, Op::Concat(_) | Op::Reshape(_) | Op::Transpose(_));
    if !view.apps(class).iter().any(|app| ends(app.op)) || !movement(view, class).is_some_and(|app| ends(app.op)) {
        return None;
    }
    let mut almost = None;
    for x in sources(view, class).into_iter().rev() {
        let Some(found) = side(view, class, x).and_then(|b| blocks_of(view, class, x, b)) else { continue };
        if found.misfit.is_none() && found.broken.is_none() {
            return Some(found);
        }
        almost.get_or_insert(found);
    }
    almost
}

/// The side of the blocks that the shapes speak of.
fn side(view: &dyn View, class: Class, x: Class) -> Option<i64> {
    let (to, from) = (view.fact(class)?, view.fact(x)?);
    if from.rank() != 4 || x == class || to.shape[0].equals(&from.shape[0]) != Some(true) {
        return None;
    }
    let (channels, of) = (to.shape[1].as_fixed()?, from.shape[1].as_fixed()?);
    let square = channels.checked_div(of).filter(|s| s * of == channels && *s > 1)?;
    let side = square.isqrt();
    let fits = |a: usize| match (from.shape[a].as_fixed(), to.shape[a].as_fixed()) {
        (Some(n), Some(m)) => n == m * side,
        (None, None) => true,
        _ => false,
    };
    (side * side == square && fits(2) && fits(3)).then_some(side)
}

fn blocks_of(view: &dyn View, class: Class, x: Class, side: i64) -> Option<Blocks> {
    let mut found: Option<Blocks> = None;
    // Other sizes are not cut into blocks.
    let spatial = view.fact(x)?.shape[2..].iter().flat_map(Dim::symbols).collect();
    let at = Sized::at_multiples(view, &[class, x], &spatial, side);
    let mut chains = Chains::new(&at, x);
    let map = chains.map(class)?;
    if !chains.assumed.is_empty() {
        return None;
    }
    for sizes in map.generic_sizes()? {
        let (from, misfit) = read(&map.at(&sizes)?, side)?;
        let misfit = misfit.map(|why| format!("{why}{}", describe(&sizes)));
        match &mut found {
            None => found = Some(Blocks { x, side, from, misfit, broken: None }),
            Some(first) if first.from == from => first.misfit = first.misfit.take().or(misfit),
            Some(_) => return None,
        }
    }
    let mut found = found?;
    found.broken = broken(view, class, x, side);
    Some(found)
}

/// Why a map may not be cut into blocks where it is rearranged. Views and transpositions keep the number of elements, so
/// that their result has the size that blocks would have only if these make up all of the map.
fn broken(view: &dyn View, class: Class, x: Class, side: i64) -> Option<String> {
    let (to, from) = (&view.fact(class)?.shape, &view.fact(x)?.shape);
    (2..4).find_map(|a| {
        let whole = (&to[a] * side).equals(&from[a]) == Some(true);
        let kept = || to[a].equals(&from[a].floor_div(&Dim::from(side))) == Some(true) && keeps(view, class, x);
        (!whole && !kept()).then(|| format!("{side} times {} may not be {} along axis {a}", to[a], from[a]))
    })
}

/// Whether a value is made of another by views and transpositions alone.
fn keeps(view: &dyn View, class: Class, x: Class) -> bool {
    let mut at = class;
    // A chain that goes round in a circle has an end too.
    for _ in 0..64 {
        if at == x {
            return true;
        }
        let Some(app) = movement(view, at) else { return false };
        if !matches!(app.op.name(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity") {
            return false;
        }
        let Some(next) = app.operand(0) else { return false };
        at = next;
    }
    false
}

/// Reads off a map over `[N, C, H, W]` which place of a block each channel is, and why some position is another one's.
fn read(map: &IndexMap, side: i64) -> Option<(Vec<i64>, Option<String>)> {
    let b = usize::try_from(side).ok()?;
    let [batch, channel, row, column] = map.tables.as_slice() else { return None };
    let extent = |t: &Table| usize::try_from(t.extent.as_fixed()?).ok();
    let [n, c, h, w] = [extent(batch)?, extent(channel)?, extent(row)?, extent(column)?];
    let (rows, columns) = (h / b, w / b);
    if map.fixed_shape()? != [n, c * b * b, rows, columns] || rows * b != h || columns * b != w {
        return None;
    }
    let axes = &map.axes;
    let batches = map.over(batch, &axes[0])?;
    if !batches.iter().enumerate().all(|(i, &v)| v == i as i64) {
        return None;
    }
    let channels = map.over(channel, &axes[1])?;
    let along = |table, axis: usize| map.over(table, &[axes[1].as_slice(), &axes[axis]].concat());
    let places = [(along(row, 2)?, rows), (along(column, 3)?, columns)];
    let mut from = Vec::with_capacity(channels.len());
    let mut misfit = None;
    for (d, &channel) in channels.iter().enumerate() {
        let mut place = 0;
        for ((values, count), axis) in places.iter().zip(2..) {
            let values = values.get(d * count..(d + 1) * count)?;
            let first = *values.first()?;
            if !(0..side).contains(&first) {
                return None;
            }
            place = place * side + first;
            let other = values.iter().zip(0..).find(|(v, q)| **v != side * q + first);
            if let Some((v, q)) = other {
                misfit.get_or_insert_with(|| {
                    format!("element {q} of channel {d} is element {v} along axis {axis} and not {}", side * q + first)
                });
            }
        }
        from.push(place * c as i64 + channel);
    }
    let mut sorted = from.clone();
    sorted.sort_unstable();
    sorted.iter().enumerate().all(|(i, &v)| v == i as i64).then_some((from, misfit))
}

fn holds(cx: &mut Cx<'_>, found: &Blocks) -> bool {
    cx.begin();
    let blocks = found.misfit.clone().map_or(Verdict::Holds, Verdict::Fails);
    let whole = found.broken.clone().map_or(Verdict::Holds, Verdict::Unknown);
    cx.require(BLOCKS.name, blocks) && cx.require(WHOLE.name, whole)
}

/// Sound bit for bit: every element is moved to the same place. The index map of the operators (see `index_map`) says so,
/// whichever they are: a Concat of strided Slices as in YOLOv5's Focus, or Reshape, Transpose, Reshape.
/// Requires: the places of blocks of one side along both axes, for all sizes; that blocks make up all of
/// x, which is what the operator asks for.
/// Not sound for: channels that are neighbouring rows and not every b-th; sizes that are no multiples of b.
/// Recognised and not explored: it stands for many operators at once, and maps are made of the graph alone.
/// Exactness: bitwise.
/// Pays: one pass over the map instead of several.
pub const SPACE: Rule = Rule {
    name: "blocks-as-space-to-depth",
    equation: "blocks(x) => SpaceToDepth(x); blocks(x) => Gather(SpaceToDepth(x), order)",
    conditions: &[BLOCKS, WHOLE],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one pass over the map instead of several",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Concat", "Reshape", "Transpose"],
    search: |cx, class, _| {
        let view = cx.view;
        let Some(found) = blocks(view, class) else { return };
        if holds(cx, &found) {
            let op = SpaceToDepth { blocksize: found.side, mode: DepthMode::Dcr };
            let all = Expr::op(op, vec![Some(found.x.into())]);
            let in_order = found.from.iter().enumerate().all(|(i, &c)| c == i as i64);
            let rhs = if in_order { all } else { gather(all, &found.from) };
            cx.rewrite(spell(view, class, found.x), rhs);
        }
    },
};

fn gather(x: Expr, channels: &[i64]) -> Expr {
    Expr::op(Gather { axis: 1 }, vec![Some(x), Some(Expr::Constant(ints(channels)))])
}

/// Sound over the reals: where `blocks` rearranges blocks of `b` into channels in the order `q`, tap `t` of the channel that
/// is place `i` of the blocks reads `b t + i` of the map.
/// Requires: the places of blocks as for `blocks-as-space-to-depth`; one group, no dilation, 2 spatial axes.
/// Not sound for: dilated kernels, whose taps lie `b d` apart in blocks of `b`; channels that are neighbouring rows and not every b-th; sizes that are no multiples of b.
/// Recognised and not explored: the order of channels, which costs a pass over the map of its own, never stands in the graph.
/// Exactness: reassociated (channels and taps are summed in another order).
/// Pays: no rearrangement, the same arithmetic.
pub const CONV: Rule = Rule {
    name: "space-to-depth-into-conv",
    equation: "Conv(blocks(x), w, b?) => Conv(x, DepthToSpace(gather(w)), b?)",
    conditions: &[BLOCKS, WHOLE, UNDILATED, ONE_GROUP],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "no rearrangement",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(rearranged) = app.operand(0) else { return };
        let Some(found) = blocks(view, rearranged) else { return };
        let Some(conv) = conv_at(view, app) else { return };
        if conv.spatial() != 2
            || !holds(cx, &found)
            || !cx.require(UNDILATED.name, undilated(&conv))
            || !cx.require(ONE_GROUP.name, one_group(conv.op))
        {
            return;
        }
        let b = found.side;
        let op = Conv {
            strides: conv.op.strides.iter().map(|s| s * b).collect(),
            pads: conv.op.pads.iter().map(|p| p * b).collect(),
            dilations: vec![1; 2],
            ..conv.op.clone()
        };
        let mut inverse = vec![0; found.from.len()];
        for (to, &from) in (0..).zip(&found.from) {
            inverse[from as usize] = to;
        }
        let spread = DepthToSpace { blocksize: b, mode: DepthMode::Dcr };
        let w = Expr::op(spread, vec![Some(gather(conv.kernel.weights.clone(), &inverse))]);
        let lhs = Expr::of(app).with_operand(0, spell(view, rearranged, found.x));
        cx.rewrite(lhs, Expr::op(op, vec![Some(found.x.into()), Some(w), conv.bias.map(Expr::Class)]));
    },
};

/// The rules of this file.
pub const RULES: &[&Rule] = &[&CONV, &SPACE];
