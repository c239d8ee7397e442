//! The index map of a value over one that it is made of by movement alone.

use std::collections::BTreeMap;

use convc_runtime::{
    Dim, Op,
    ops::{Conv, depth_space::DepthMode, pad::PadMode, slice::resolve},
    window::{AutoPad, Window},
};

use super::{Digit, HOLE, IndexMap, LIMIT, Table, sizes::Sized};
use crate::rewrite::view::{App, Class, Expr, View, is_zero, same_shape};

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

/// Makes the maps of classes over one source, for all values of the symbols at once.
pub struct Chains<'a, 's> {
    at: &'s Sized<'a>,
    source: Class,
    known: BTreeMap<Class, Option<IndexMap>>,
    /// Bounds of slices, and distances between them, that the maps take not to be negative: inference cannot tell, and leaves
    /// such a slice's size open or clamps it.
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
        let known = self.at.shape(class);
        if class == self.source {
            return IndexMap::identity(&known?);
        }
        // What inference clamps is one expression where the map is not empty, and another one where it is.
        let shape = known.clone().filter(|s| !s.iter().any(Dim::has_extremum));
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
                let from = if shape.is_some() { self.behind_views(&app)? } else { app.operand(0)? };
                let x = self.map_within(from, depth)?;
                let shape = match &shape {
                    Some(s) => s.clone(),
                    None => self.open_shape(&app, &x).or(known)?,
                };
                step(self.at, &app, &shape, x)?
            }
        };
        shape.is_none_or(|s| same_shape(&map.shape(), &s) == Some(true)).then_some(map)
    }

    /// What an operator moves the elements of: for a view of views, what the innermost one is a view of, since the shapes between
    /// need not cut the same digits.
    fn behind_views(&self, app: &App<'_>) -> Option<Class> {
        let is_view = |op: &Op| {
            matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Identity(_))
        };
        let mut below = app.operand(0)?;
        if !is_view(app.op) {
            return Some(below);
        }
        for _ in 0..DEPTH {
            let inner = movement(self.at.view, below).filter(|inner| below != self.source && is_view(inner.op));
            let Some(next) = inner.and_then(|inner| inner.operand(0)) else { break };
            below = next;
        }
        Some(below)
    }

    /// The shape of a slice whose bounds may be negative or cross for all that is known, and of what is made of one.
    fn open_shape(&mut self, app: &App<'_>, x: &IndexMap) -> Option<Vec<Dim>> {
        let shape = x.shape();
        match app.op {
            Op::Slice(_) => self.assume_bounds(app, shape),
            Op::Transpose(t) => {
                let order = t.order(shape.len()).ok()?;
                order.iter().map(|&a| shape.get(a).cloned()).collect()
            }
            Op::Unsqueeze(_) => {
                let mut shape = shape;
                let axes = self.at.ints(app.operand(1)?)?;
                let rank = shape.len() + axes.len();
                let mut axes: Vec<usize> = axes.into_iter().map(|a| axis_of(a, rank)).collect::<Option<_>>()?;
                axes.sort_unstable();
                axes.into_iter().for_each(|a| shape.insert(a.min(shape.len()), Dim::fixed(1)));
                Some(shape)
            }
            _ => None,
        }
    }

    /// The shape of a slice whose bounds are taken for positions from the front, none of them beyond the end.
    fn assume_bounds(&mut self, app: &App<'_>, mut shape: Vec<Dim>) -> Option<Vec<Dim>> {
        let (starts, ends) = (self.at.dims(app.operand(1)?)?, self.at.dims(app.operand(2)?)?);
        let axes = match app.operand(3) {
            Some(c) => Some(self.at.ints(c)?),
            None => None,
        };
        let steps = match app.operand(4) {
            Some(c) => self.at.ints(c)?,
            None => vec![1; starts.len()],
        };
        if steps.len() != starts.len() || steps.iter().any(|s| *s <= 0) {
            return None;
        }
        let of = shape.clone();
        for (i, axis) in axes_of(axes, starts.len(), of.len())?.into_iter().enumerate() {
            let (start, end) = (&starts[i], ends.get(i)?);
            let within = [start, end].into_iter().all(|d| (&of[axis] - d).at_least(0) == Some(true));
            let fixed = [start, end].into_iter().all(|d| d.as_fixed().is_none_or(|d| d >= 0));
            if !within || !fixed {
                return None;
            }
            let count = end - start;
            let unproved = |d: &&Dim| d.at_least(0) != Some(true);
            self.assumed.extend([start, end, &count].into_iter().filter(unproved).cloned());
            shape[axis] = count.ceil_div(&Dim::fixed(steps[i]));
        }
        Some(shape)
    }
}

pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&a| a < rank)
}

/// The axes that lists of `count` entries speak of, each once.
fn axes_of(axes: Option<Vec<i64>>, count: usize, rank: usize) -> Option<Vec<usize>> {
    let axes: Vec<usize> = match axes {
        Some(a) if a.len() == count => a.into_iter().map(|a| axis_of(a, rank)).collect::<Option<_>>()?,
        Some(_) => return None,
        None if count <= rank => (0..count).collect(),
        None => return None,
    };
    let distinct = axes.iter().enumerate().all(|(i, a)| !axes[..i].contains(a));
    distinct.then_some(axes)
}

/// What one operator that moves elements of its first operand makes of that operand's map; `shape` is that of its result.
#[must_use]
pub fn step(at: &Sized<'_>, app: &App<'_>, shape: &[Dim], mut x: IndexMap) -> Option<IndexMap> {
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
            for (axis, (n, tiled)) in x.shape().into_iter().zip(shape).enumerate() {
                if n.equals(tiled) == Some(true) {
                    continue;
                }
                let (n, tiled) = (n.as_fixed()?, bounded(tiled)?);
                let picks: Vec<i64> = (0..tiled as i64).map(|i| i.checked_rem(n)).collect::<Option<_>>()?;
                x = x.reindex(axis, &[tiled], &picks)?;
            }
            Some(x)
        }
        Op::Slice(_) => {
            let (starts, ends) = (at.dims(app.operand(1)?)?, at.dims(app.operand(2)?)?);
            let axes = axes_of(ints(3)?, starts.len(), x.rank())?;
            let steps = ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
            for (i, axis) in axes.into_iter().enumerate() {
                x = sliced(x, axis, [&starts[i], ends.get(i)?], *steps.get(i)?, shape.get(axis)?)?;
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
                x = padded(x, axis, pads[i], *pads.get(count + i)?)?;
            }
            Some(x)
        }
        Op::Gather(g) => {
            let axis = axis_of(g.axis, x.rank())?;
            let index = at.index(app.operand(1)?)?.within(x.shape().get(axis)?)?;
            x.gather(axis, &index)
        }
        Op::GatherND(g) if g.batch_dims == 0 => {
            // Indices of one number each pick along the first axis.
            let index = at.index(app.operand(1)?)?;
            let sizes = index.shape();
            let (last, sizes) = sizes.split_last()?;
            if *last != Dim::fixed(1) {
                return None;
            }
            let index = index.reshape(sizes)?.within(x.shape().first()?)?;
            x.gather(0, &index)
        }
        Op::DepthToSpace(d) => {
            let (Ok([n, c, h, w]), b) = (<[Dim; 4]>::try_from(x.shape()), d.blocksize) else { return None };
            let rest = Dim::fixed(c.as_fixed()?.checked_div(b.checked_mul(b)?)?);
            let b = Dim::fixed(b);
            let (split, order) = match d.mode {
                DepthMode::Dcr => ([n, b.clone(), b, rest, h, w], [0, 3, 4, 1, 5, 2]),
                DepthMode::Crd => ([n, rest, b.clone(), b, h, w], [0, 1, 4, 2, 5, 3]),
            };
            x.reshape(&split)?.transpose(&order)?.reshape(shape)
        }
        Op::SpaceToDepth(d) => {
            let (Ok([n, c, h, w]), b) = (<[Dim; 4]>::try_from(x.shape()), Dim::fixed(d.blocksize)) else { return None };
            let (rows, columns) = (h.floor_div(&b), w.floor_div(&b));
            let split = [n, c, rows, b.clone(), columns, b];
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

/// The elements `first, first + step, ..` along an axis, `count` of them. Along an open axis the slice must begin at a number; its
/// length is what inference made of its end, which may be clamped at some sizes and not at others.
fn sliced(x: IndexMap, axis: usize, [start, end]: [&Dim; 2], step: i64, count: &Dim) -> Option<IndexMap> {
    let of = x.shape().get(axis)?.clone();
    if step == 0 {
        return None;
    }
    if let (Some(start), Some(end), Some(n)) = (start.as_fixed(), end.as_fixed(), of.as_fixed()) {
        let (first, count) = resolve(start, end, step, usize::try_from(n).ok()?);
        let picks: Vec<i64> = (0..count as i64).map(|k| first as i64 + k * step).collect();
        return x.reindex(axis, &[count], &picks);
    }
    // Where the axis ends before this, the slice is empty.
    let first = start.as_fixed().filter(|s| *s >= 0 && step > 0)?;
    if first == 0 && step == 1 && count.equals(&of) == Some(true) {
        return Some(x);
    }
    affine(x, axis, count, first, step)
}

/// An axis padded with zeros, or cropped where a number is negative.
fn padded(x: IndexMap, axis: usize, begin: i64, end: i64) -> Option<IndexMap> {
    let n = x.shape().get(axis)?.clone();
    if begin == 0 && end == 0 {
        return Some(x);
    }
    let size = &n + &Dim::fixed(begin.checked_add(end)?);
    let Some(n) = n.as_fixed() else {
        let kept = (begin <= 0 || x.zero_before(axis)) && (end <= 0 || x.zero_behind(axis));
        return kept.then(|| affine(x, axis, &size, begin.checked_neg()?, 1)).flatten();
    };
    let size = bounded(&size)?;
    let picks: Vec<i64> = (0..size as i64)
        .map(|p| Some(p.checked_sub(begin)?).filter(|p| (0..n).contains(p)).or(Some(HOLE)))
        .collect::<Option<_>>()?;
    x.reindex(axis, &[size], &picks)
}

/// The positions `first + step * p` of an axis for p below `count`.
fn affine(x: IndexMap, axis: usize, count: &Dim, first: i64, step: i64) -> Option<IndexMap> {
    let mut index = IndexMap::identity(std::slice::from_ref(count))?;
    let table = index.tables.first_mut()?;
    for v in &mut table.values {
        *v = v.checked_mul(step)?.checked_add(first)?;
    }
    table.along.iter_mut().for_each(|(_, s)| *s = step);
    x.gather(axis, &index)
}

impl IndexMap {
    /// Whether what stands before the first position of an open axis is a 0, were the axis extended there.
    fn zero_before(&self, axis: usize) -> bool {
        // One step back from the first position lies before the source's first element, wherever the closed digits are.
        self.of_axis(axis).any(|(t, stride)| t.values.iter().all(|&v| v == HOLE || v < stride))
    }

    /// Whether what stands behind the last position of an open axis is a 0, were the axis extended there.
    fn zero_behind(&self, axis: usize) -> bool {
        let size = self.axes.get(axis).map(|digits| self.dim_of(digits)).unwrap_or(Dim::fixed(0));
        self.of_axis(axis).any(|(t, stride)| {
            let least = t.values.iter().copied().filter(|v| *v != HOLE).min();
            least.is_none_or(|v| (&size * stride + v - &t.extent).at_least(0) == Some(true))
        })
    }

    /// The tables that depend on no open digit but the one that an axis consists of, with the positive step along it.
    fn of_axis(&self, axis: usize) -> impl Iterator<Item = (&Table, i64)> {
        let digit = match self.axes.get(axis).map(Vec::as_slice) {
            Some([d]) => Some(*d),
            _ => None,
        };
        self.tables.iter().filter_map(move |t| match t.along.as_slice() {
            [(d, stride)] if Some(*d) == digit && *stride > 0 => Some((t, *stride)),
            _ => None,
        })
    }
}

fn bounded(n: &Dim) -> Option<usize> {
    usize::try_from(n.as_fixed()?).ok().filter(|n| *n <= LIMIT)
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
    let channels = usize::try_from(channels.as_fixed()?).ok()?;
    let window = Window {
        kernel: &kernel.taps,
        strides: &conv.strides,
        pads: &conv.pads,
        dilations: &conv.dilations,
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
    };
    window.check().ok()?;
    let positions = window.output(sizes).ok()?;
    if channels != group * kernel.inputs || !outputs.is_multiple_of(group) {
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
    for (a, count) in positions.iter().enumerate() {
        let by = map.axes.get(first - 1)?.clone();
        let offsets: Vec<i64> = kernel
            .picks
            .iter()
            .take(distinct)
            .map(|(_, tap)| (*tap.get(a)? as i64).checked_mul(conv.dilations[a])?.checked_sub(*conv.pads.get(a)?))
            .collect::<Option<_>>()?;
        map = map.window(first + a, &by, &offsets, conv.strides[a], count)?;
    }
    let shape = map.shape();
    let merged: Vec<Dim> =
        [shape[0].clone(), Dim::from(outputs)].into_iter().chain(shape[first..].iter().cloned()).collect();
    map.reshape(&merged)
}

impl IndexMap {
    /// An axis reindexed to `count` positions, of which number `p` is `stride * p + offset`, by another offset for each choice of
    /// the digits `by`, and a 0 outside of the axis.
    fn window(mut self, axis: usize, by: &[Digit], offsets: &[i64], stride: i64, count: &Dim) -> Option<IndexMap> {
        let old = self.axes.get(axis)?.clone();
        let size = self.dim_of(&old);
        let new = self.digits_of_dim(count)?;
        let form = match (size.as_fixed(), count.as_fixed()) {
            (Some(n), Some(count)) => {
                if usize::try_from(count).ok()?.checked_mul(offsets.len()).is_none_or(|n| n > LIMIT) {
                    return None;
                }
                let place = |v: i64| if (0..n).contains(&v) { v } else { HOLE };
                let row = |&o: &i64| (0..count).map(move |p| place(stride * p + o));
                let values = offsets.iter().flat_map(row).collect();
                Table { digits: [by, &new].concat(), values, along: Vec::new(), extent: size }
            }
            (None, _) => {
                if !self.zero_before(axis) || !self.zero_behind(axis) {
                    return None;
                }
                let along: Vec<(Digit, i64)> = new.iter().map(|d| (*d, stride)).collect();
                // A fixed number of positions along an open axis stands in no window that rules look for.
                if !count.is_fixed() || *count == Dim::fixed(1) {
                    Table { digits: by.to_vec(), values: offsets.to_vec(), along, extent: size }
                } else {
                    return None;
                }
            }
            (Some(_), None) => return None,
        };
        self.replace(&old, &form)?;
        self.axes[axis] = new;
        Some(self)
    }
}
