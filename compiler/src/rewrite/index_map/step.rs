//! What one operator that moves elements makes of the map of its operand.

use convc_runtime::{
    Dim, Op,
    ops::{depth_space::DepthMode, pad::PadMode, slice::resolve},
};

use super::{
    HOLE, IndexMap, LIMIT, Table,
    sizes::Sized,
    unfold::{one_hot, unfolded},
};
use crate::rewrite::view::{App, is_zero};

pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&a| a < rank)
}

/// The axes that lists of `count` entries speak of, each once.
pub(super) fn axes_of(axes: Option<Vec<i64>>, count: usize, rank: usize) -> Option<Vec<usize>> {
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
    pub(super) fn zero_before(&self, axis: usize) -> bool {
        // One step back from the first position lies before the source's first element, wherever the closed digits are.
        self.of_axis(axis).any(|(t, stride)| t.values.iter().all(|&v| v == HOLE || v < stride))
    }

    /// Whether what stands behind the last position of an open axis is a 0, were the axis extended there.
    pub(super) fn zero_behind(&self, axis: usize) -> bool {
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
