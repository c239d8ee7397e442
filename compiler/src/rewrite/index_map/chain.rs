//! The index map of a value over one that it is made of by movement alone.

use std::collections::BTreeMap;

use convc_runtime::{
    Dim, Op,
    ops::{Conv, depth_space::DepthMode, pad::PadMode, slice::resolve},
    window::{AutoPad, Window},
};

use super::{IndexMap, LIMIT, sizes::Sized};
use crate::rewrite::view::{App, Class, Expr, View, is_zero};

/// Operators nested in a chain at most.
const DEPTH: usize = 48;

/// Whether an operator may only move elements of its first operand (of all, for Concat).
#[must_use]
pub fn may_move(op: &Op) -> bool {
    match op {
        Op::Pad(p) => p.mode == PadMode::Constant,
        Op::Conv(c) => c.auto_pad == AutoPad::NotSet,
        Op::Identity(_)
        | Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Slice(_)
        | Op::Gather(_)
        | Op::GatherND(_)
        | Op::DepthToSpace(_)
        | Op::SpaceToDepth(_)
        | Op::Concat(_) => true,
        _ => false,
    }
}

/// The application in a class that moves elements, if there is one.
#[must_use]
pub fn movement<'v>(view: &'v dyn View, class: Class) -> Option<App<'v>> {
    if view.is_constant(class) {
        return None;
    }
    view.apps(class).into_iter().find(|app| {
        may_move(app.op)
            && match app.op {
                Op::Conv(_) => one_hot(view, app).is_some(),
                Op::Concat(_) => true,
                _ => app.operand(0).is_some_and(|x| !view.is_constant(x)),
            }
    })
}

/// The classes that all elements of `class` may be taken from, itself first, each made of the next ones by movement.
#[must_use]
pub fn sources(view: &dyn View, class: Class) -> Vec<Class> {
    fn go(view: &dyn View, class: Class, depth: usize, known: &mut BTreeMap<Class, Vec<Class>>) -> Vec<Class> {
        if let Some(found) = known.get(&class) {
            return found.clone();
        }
        let mut out = vec![class];
        if let Some(app) = movement(view, class).filter(|_| depth > 0) {
            let operands: &[Option<Class>] =
                if matches!(app.op, Op::Concat(_)) { &app.operands } else { app.operands.get(..1).unwrap_or_default() };
            let mut each = operands.iter().flatten().map(|o| go(view, *o, depth - 1, known));
            if let Some(first) = each.next() {
                let common = each.fold(first, |common, more| common.into_iter().filter(|c| more.contains(c)).collect());
                out.extend(common.into_iter().filter(|c| *c != class));
            }
        }
        known.insert(class, out.clone());
        out
    }
    go(view, class, DEPTH, &mut BTreeMap::new())
}

/// The term of a class down to `source`, every operator of the chain spelled out.
#[must_use]
pub fn spell(view: &dyn View, class: Class, source: Class) -> Expr {
    fn go(view: &dyn View, class: Class, source: Class, depth: usize) -> Expr {
        let app = movement(view, class).filter(|_| class != source && depth > 0);
        let Some(app) = app else { return Expr::Class(class) };
        let all = matches!(app.op, Op::Concat(_));
        let operands = app
            .operands
            .iter()
            .enumerate()
            .map(|(i, o)| o.map(|o| if all || i == 0 { go(view, o, source, depth - 1) } else { Expr::Class(o) }));
        Expr::op(app.op.clone(), operands.collect())
    }
    go(view, class, source, DEPTH)
}

/// Makes the maps of classes over one source.
pub struct Chains<'a, 's> {
    at: &'s Sized<'a>,
    source: Class,
    known: BTreeMap<Class, Option<IndexMap>>,
    /// Bounds of slices that the maps take not to be negative: inference cannot tell, and leaves such a slice's size open.
    pub assumed: Vec<Dim>,
}

impl<'a, 's> Chains<'a, 's> {
    /// Maps over `source` at these sizes.
    #[must_use]
    pub fn new(at: &'s Sized<'a>, source: Class) -> Chains<'a, 's> {
        Chains { at, source, known: BTreeMap::new(), assumed: Vec::new() }
    }

    /// The map of a class, if it is made of the source by movement that is understood.
    pub fn map(&mut self, class: Class) -> Option<IndexMap> {
        self.map_within(class, DEPTH)
    }

    fn map_within(&mut self, class: Class, depth: usize) -> Option<IndexMap> {
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        let map = self.make(class, depth);
        self.known.insert(class, map.clone());
        map
    }

    fn make(&mut self, class: Class, depth: usize) -> Option<IndexMap> {
        let shape = self.at.shape(class);
        if class == self.source {
            return IndexMap::identity(&shape?);
        }
        let depth = depth.checked_sub(1)?;
        let app = movement(self.at.view, class)?;
        let map = match app.op {
            Op::Concat(c) => {
                let parts: Vec<IndexMap> =
                    app.operands.iter().map(|o| self.map_within((*o)?, depth)).collect::<Option<_>>()?;
                let axis = axis_of(c.axis, parts.first()?.rank())?;
                IndexMap::concat(parts, axis)?
            }
            _ => {
                let x = self.map_within(app.operand(0)?, depth)?;
                let shape = match &shape {
                    Some(s) => s.clone(),
                    None => self.open_shape(&app, &x)?,
                };
                step(self.at, &app, &shape, x)?
            }
        };
        shape.is_none_or(|s| map.shape() == s).then_some(map)
    }

    /// The shape of a slice whose bounds may be negative for all that is known, and of what is made of one.
    fn open_shape(&mut self, app: &App<'_>, x: &IndexMap) -> Option<Vec<usize>> {
        let mut shape = x.shape();
        match app.op {
            Op::Slice(_) => self.assume_bounds(app)?,
            Op::Transpose(t) => {
                let order = t.order(shape.len()).ok()?;
                return order.iter().map(|&a| shape.get(a).copied()).collect();
            }
            Op::Unsqueeze(_) => {
                let axes = self.at.ints(app.operand(1)?)?;
                let rank = shape.len() + axes.len();
                let mut axes: Vec<usize> = axes.into_iter().map(|a| axis_of(a, rank)).collect::<Option<_>>()?;
                axes.sort_unstable();
                axes.into_iter().for_each(|a| shape.insert(a.min(shape.len()), 1));
            }
            _ => return None,
        }
        Some(shape)
    }

    /// Takes a slice's bounds for positions from the front, none of them beyond the end.
    fn assume_bounds(&mut self, app: &App<'_>) -> Option<()> {
        let view = self.at.view;
        let dims = |i: usize| view.fact(app.operand(i)?)?.dims();
        let (starts, ends) = (dims(1)?, dims(2)?);
        let of = &view.fact(app.operand(0)?)?.shape;
        let axes = match app.operand(3) {
            Some(c) => Some(self.at.ints(c)?),
            None => None,
        };
        let forwards = match app.operand(4) {
            Some(c) => self.at.ints(c)?.into_iter().all(|s| s > 0),
            None => true,
        };
        if !forwards {
            return None;
        }
        for (i, axis) in axes_of(axes, starts.len(), of.len())?.into_iter().enumerate() {
            let (start, end) = (&starts[i], ends.get(i)?);
            let within = [start, end].into_iter().all(|d| (&of[axis] - d).at_least(0) == Some(true));
            let fixed = [start, end].into_iter().all(|d| d.as_fixed().is_none_or(|d| d >= 0));
            if !within || !fixed {
                return None;
            }
            self.assumed.extend([start, end].into_iter().filter(|d| !d.is_fixed()).cloned());
        }
        Some(())
    }
}

fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&a| a < rank)
}

fn axes_of(axes: Option<Vec<i64>>, count: usize, rank: usize) -> Option<Vec<usize>> {
    match axes {
        Some(a) if a.len() == count => a.into_iter().map(|a| axis_of(a, rank)).collect(),
        Some(_) => None,
        None => (count <= rank).then(|| (0..count).collect()),
    }
}

/// What one operator that moves elements of its first operand makes of that operand's map; `shape` is that of its result.
#[must_use]
pub fn step(at: &Sized<'_>, app: &App<'_>, shape: &[usize], mut x: IndexMap) -> Option<IndexMap> {
    // An operand that is left out, or its integers.
    let ints = |i: usize| app.operand(i).map_or(Some(None), |c| at.ints(c).map(Some));
    match app.op {
        Op::Identity(_) => Some(x),
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => x.reshape(shape),
        Op::Transpose(t) => {
            let order = t.order(x.rank()).ok()?;
            x.transpose(&order)
        }
        Op::Expand(_) => x.broadcast(shape),
        Op::Tile(_) => {
            for (axis, (n, &tiled)) in x.shape().into_iter().zip(shape).enumerate() {
                let picks: Vec<i64> = (0..bounded(tiled)?).map(|i| (i % n) as i64).collect();
                x = x.reindex(axis, &[tiled], &picks)?;
            }
            Some(x)
        }
        Op::Slice(_) => {
            let (starts, ends) = (ints(1)??, ints(2)??);
            let axes = axes_of(ints(3)?, starts.len(), x.rank())?;
            let steps = ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
            for (i, axis) in axes.into_iter().enumerate() {
                let (step, n) = (*steps.get(i)?, x.shape()[axis]);
                if step == 0 {
                    return None;
                }
                let (first, count) = resolve(starts[i], *ends.get(i)?, step, n);
                let picks: Vec<i64> = (0..count as i64).map(|k| first as i64 + k * step).collect();
                x = x.reindex(axis, &[count], &picks)?;
            }
            Some(x)
        }
        Op::Pad(p) => {
            let zero = app.operand(2).is_none_or(|v| is_zero(at.view, v) == Some(true));
            if p.mode != PadMode::Constant || !zero {
                return None;
            }
            let pads = ints(1)??;
            let count = pads.len() / 2;
            let axes = axes_of(ints(3)?, count, x.rank())?;
            for (i, axis) in axes.into_iter().enumerate() {
                let (begin, end, n) = (pads[i], *pads.get(count + i)?, x.shape()[axis] as i64);
                let padded = usize::try_from(begin.checked_add(end)?.checked_add(n)?).ok()?;
                let picks: Vec<i64> = (0..bounded(padded)? as i64)
                    .map(|p| Some(p.checked_sub(begin)?).filter(|p| (0..n).contains(p)).or(Some(-1)))
                    .collect::<Option<_>>()?;
                x = x.reindex(axis, &[padded], &picks)?;
            }
            Some(x)
        }
        Op::Gather(g) => {
            let axis = axis_of(g.axis, x.rank())?;
            let indices = app.operand(1)?;
            let (picks, sizes, n) = (at.ints(indices)?, at.shape(indices)?, x.shape()[axis] as i64);
            x.reindex(axis, &sizes, &within(picks, n)?)
        }
        Op::GatherND(g) if g.batch_dims == 0 => {
            // Indices of one number each pick along the first axis.
            let (picks, sizes) = (at.ints(app.operand(1)?)?, at.shape(app.operand(1)?)?);
            let (&1, sizes) = sizes.split_last()? else { return None };
            let n = *x.shape().first()? as i64;
            x.reindex(0, sizes, &within(picks, n)?)
        }
        Op::DepthToSpace(d) => {
            let (&[n, c, h, w], b) = (x.shape().as_slice(), usize::try_from(d.blocksize).ok()?) else { return None };
            let rest = c.checked_div(b.checked_mul(b)?)?;
            let (split, order) = match d.mode {
                DepthMode::Dcr => ([n, b, b, rest, h, w], [0, 3, 4, 1, 5, 2]),
                DepthMode::Crd => ([n, rest, b, b, h, w], [0, 1, 4, 2, 5, 3]),
            };
            x.reshape(&split)?.transpose(&order)?.reshape(shape)
        }
        Op::SpaceToDepth(d) => {
            let (&[n, c, h, w], b) = (x.shape().as_slice(), usize::try_from(d.blocksize).ok()?) else { return None };
            let split = [n, c, h.checked_div(b)?, b, w.checked_div(b)?, b];
            let order = match d.mode {
                DepthMode::Dcr => [0, 3, 5, 1, 2, 4],
                DepthMode::Crd => [0, 1, 3, 5, 2, 4],
            };
            x.reshape(&split)?.transpose(&order)?.reshape(shape)
        }
        Op::Conv(c) => unfolded(c, &one_hot(at.view, app)?, x),
        _ => None,
    }
}

/// Indices counted from the front, all of which must lie within an axis of `n`.
fn within(picks: Vec<i64>, n: i64) -> Option<Vec<i64>> {
    let front = |p: i64| Some(if p < 0 { p.checked_add(n)? } else { p }).filter(|p| (0..n).contains(p));
    picks.into_iter().map(front).collect()
}

fn bounded(n: usize) -> Option<usize> {
    (n <= LIMIT).then_some(n)
}

/// A kernel each of whose outputs takes one element: its channel within the group, and its tap along each axis.
struct OneHot {
    taps: Vec<i64>,
    inputs: usize,
    picks: Vec<(usize, Vec<usize>)>,
}

/// Reads a convolution's constant kernel as one that only picks elements; it must have no bias, or one of zeros.
fn one_hot(view: &dyn View, app: &App<'_>) -> Option<OneHot> {
    let kernel = view.constant(app.operand(1)?)?;
    let [outputs, inputs, taps @ ..] = kernel.shape() else { return None };
    let count: usize = taps.iter().product::<usize>() * inputs;
    // A kernel of one tap and one channel picks nothing that needs picking; a dense one is told by its first output.
    if kernel.is_empty() || (count == 1 && *outputs == 1) || kernel.len() > LIMIT * 8 {
        return None;
    }
    if app.operand(2).is_some_and(|b| is_zero(view, b) != Some(true)) {
        return None;
    }
    let width = kernel.bytes().len() / kernel.len();
    let first = kernel.bytes().as_bytes().get(..width * count)?;
    if first.chunks(width).filter(|e| e.iter().any(|b| *b != 0)).count() != 1 {
        return None;
    }
    let values = kernel.to_tensor().ok()?.to_f64s()?;
    let mut picks = Vec::with_capacity(*outputs);
    for row in values.chunks(count) {
        let mut hot = row.iter().enumerate().filter(|(_, v)| **v != 0.0);
        let (Some((at, &1.0)), None) = (hot.next(), hot.next()) else { return None };
        let mut rest = at;
        let mut tap: Vec<usize> = Vec::with_capacity(taps.len());
        for &k in taps.iter().rev() {
            tap.push(rest % k);
            rest /= k;
        }
        tap.reverse();
        picks.push((rest, tap));
    }
    let taps = taps.iter().map(|&k| i64::try_from(k).ok()).collect::<Option<_>>()?;
    Some(OneHot { taps, inputs: *inputs, picks })
}

/// The map of what a convolution with a one-hot kernel makes of its input.
fn unfolded(conv: &Conv, kernel: &OneHot, x: IndexMap) -> Option<IndexMap> {
    let (outputs, group) = (kernel.picks.len(), usize::try_from(conv.group).ok()?);
    let shape = x.shape();
    let [_, channels, sizes @ ..] = shape.as_slice() else { return None };
    let window = Window {
        kernel: &kernel.taps,
        strides: &conv.strides,
        pads: &conv.pads,
        dilations: &conv.dilations,
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
    };
    window.check().ok()?;
    let axes = window.resolve(sizes).ok()?;
    if *channels != group * kernel.inputs || !outputs.is_multiple_of(group) {
        return None;
    }
    let per_group = outputs / group;
    let source: Vec<i64> = (0..outputs)
        .map(|o| Some((o / per_group * kernel.inputs + kernel.picks.get(o)?.0) as i64))
        .collect::<Option<_>>()?;
    // Outputs with taps that repeat from group to group need one table for a group.
    let regular = (0..outputs).all(|o| kernel.picks[o].1 == kernel.picks[o % per_group].1);
    let lead = if regular { vec![group, per_group] } else { vec![outputs] };
    let distinct = if regular { per_group } else { outputs };
    let mut map = x.reindex(1, &lead, &source)?;
    let first = 1 + lead.len();
    for (a, axis) in axes.iter().enumerate() {
        let mut picks = Vec::new();
        if distinct.checked_mul(axis.output).is_none_or(|n| n > LIMIT) {
            return None;
        }
        for (_, tap) in kernel.picks.iter().take(distinct) {
            for p in 0..axis.output {
                picks.push(axis.source(p, tap[a]).map_or(-1, |s| s as i64));
            }
        }
        map = pick_by(map, first - 1, first + a, axis.output, &picks)?;
    }
    let shape = map.shape();
    let merged: Vec<usize> = [shape[0], outputs].into_iter().chain(shape[first..].iter().copied()).collect();
    map.reshape(&merged)
}

/// Axis `axis` reindexed to `count` positions, by another list of `picks` for each position of axis `by`.
fn pick_by(map: IndexMap, by: usize, axis: usize, count: usize, picks: &[i64]) -> Option<IndexMap> {
    let choices = map.shape()[by];
    let by_digits = map.axes.get(by)?.clone();
    // The positions for all choices, along an axis of their own; then both axes of choices are one and the same.
    let mut wide = map.reindex(axis, &[choices, count], picks)?;
    let own = wide.axes.remove(axis);
    wide.identify(&own, &by_digits)?;
    Some(wide)
}
