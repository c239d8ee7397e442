//! Values that are a map with a border: how assignments to slices, as exporters write them, are read.
//!
//! A frame is a source in the middle of a larger map whose border is painted slab by slab: rows and columns that each span
//! the map as it is when they are painted. Every row or column of a border that is painted after it was put on covers all of
//! it, corners included, so the order of painting is of no matter if all are painted with the same values.

use std::collections::BTreeSet;

use convc_runtime::{
    Dim, Op,
    ops::{pad::PadMode, scatter::Reduction},
};

use super::{
    pad::pads_of,
    read::{
        axes::axis,
        slice::{Cut, bounds},
    },
};
use crate::rewrite::view::{App, Class, Expr, View};

/// One row or column (or plane) of a border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slab {
    /// The axis of the source across which it lies.
    axis: usize,
    /// Whether it lies behind the source rather than before it.
    behind: bool,
    /// How many others lie between it and the source.
    distance: i64,
}

/// A position along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Counted from the first, 0.
    Front(i64),
    /// Counted from the last, 0, backwards.
    Back(i64),
}

/// A map with a border.
pub(super) struct Frame {
    /// The map.
    pub(super) source: Class,
    /// Sizes of the border before and behind the source, for each of its axes.
    pub(super) pads: Vec<(i64, i64)>,
    /// The values painted, each one number or one for each channel.
    pub(super) values: Vec<Vec<f64>>,
    /// Whether something may be painted over the source.
    pub(super) spoiled: bool,
    /// The term that was read.
    pub(super) term: Expr,
    /// Which axis of the source each axis of the value is.
    axes: Vec<usize>,
    painted: BTreeSet<Slab>,
}

/// The most elements of an index or a mask that are looked at.
const MOST: usize = 1 << 22;

/// The most places along an axis that are looked at.
const FARTHEST: i64 = 1 << 16;

impl Frame {
    fn bare(view: &dyn View, source: Class) -> Option<Frame> {
        let rank = view.fact(source)?.rank();
        Some(Frame {
            source,
            pads: vec![(0, 0); rank],
            values: Vec::new(),
            spoiled: false,
            term: source.into(),
            axes: (0..rank).collect(),
            painted: BTreeSet::new(),
        })
    }

    /// The frame that a class is, looked at through at most `depth` operators.
    pub(super) fn at(view: &dyn View, class: Class, depth: usize) -> Option<Frame> {
        if depth > 0
            && !view.is_constant(class)
            && let Some(f) = view.apps(class).iter().find_map(|app| Frame::of(view, app, depth))
        {
            return Some(f);
        }
        Frame::bare(view, class)
    }

    /// The frame that an application makes; `None` if it is another operator, or one that does more than paint.
    pub(super) fn of(view: &dyn View, app: &App<'_>, depth: usize) -> Option<Frame> {
        let inner = |i: usize| Frame::at(view, app.operand(i)?, depth - 1);
        let (operand, frame) = match app.op {
            Op::Transpose(t) => {
                let mut f = inner(0)?;
                let axes: Option<Vec<usize>> =
                    t.perm.iter().map(|&p| f.axes.get(usize::try_from(p).ok()?).copied()).collect();
                f.axes = axes.filter(|a| a.len() == f.axes.len())?;
                (0, f)
            }
            Op::Pad(p) if p.mode == PadMode::Constant => {
                let mut f = inner(0)?;
                let pads = pads_of(view, app, f.axes.len())?;
                if pads.iter().any(|p| p.0 < 0 || p.1 < 0) {
                    return None;
                }
                f.grow(&pads);
                (0, f)
            }
            Op::ScatterND(s) if s.reduction == Reduction::None => {
                let mut f = inner(0)?;
                f.scatter(view, app)?;
                (0, f)
            }
            Op::Where(_) => {
                let mask = view.constant(app.operand(0)?)?.to_tensor().ok()?;
                let shape = view.fact(app.operand(1)?)?.shape.len().max(view.fact(app.operand(2)?)?.shape.len());
                let picked = view.is_constant(app.operand(1)?);
                let (kept, painted) = if picked { (2, 1) } else { (1, 2) };
                let mut f = inner(kept)?;
                let sizes = f.fixed_sizes(view, app.operand(kept)?)?;
                // The mask must not widen the map.
                if shape > sizes.len() || mask.shape().len() > sizes.len() || mask.len() > MOST {
                    return None;
                }
                let bits: Vec<bool> = mask.to_i64s()?.into_iter().map(|b| (b != 0) == picked).collect();
                let channels = f.axes.iter().position(|&a| a == 1)?;
                let value = per_channel(view, app.operand(painted)?, channels, sizes.len())?;
                let lead = sizes.len() - mask.shape().len();
                let shape: Vec<usize> = vec![1; lead].into_iter().chain(mask.shape().iter().copied()).collect();
                f.mask(&sizes, &shape, &bits, value);
                (kept, f)
            }
            Op::Concat(c) => {
                let rank = view.fact(app.operand(0)?)?.rank();
                let axis = axis(c.axis, rank)?;
                let open: Vec<usize> = (0..app.operands.len())
                    .filter(|&i| app.operand(i).is_none_or(|o| filling(view, o).is_none()))
                    .collect();
                let [middle] = open[..] else { return None };
                let mut f = inner(middle)?;
                let channels = f.axes.iter().position(|&a| a == 1).filter(|&c| c != axis)?;
                let size = |i: usize| view.fact(app.operand(i)?)?.shape.get(axis)?.as_fixed();
                let (mut before, mut behind) = (0, 0);
                for i in (0..app.operands.len()).filter(|&i| i != middle) {
                    *(if i < middle { &mut before } else { &mut behind }) += size(i)?;
                }
                let mut pads = vec![(0, 0); rank];
                *pads.get_mut(axis)? = (before, behind);
                f.grow(&pads);
                for i in (0..app.operands.len()).filter(|&i| i != middle) {
                    f.values.push(per_channel(view, app.operand(i)?, channels, rank)?);
                }
                (0..before).for_each(|p| f.paint(axis, Place::Front(p), None));
                (0..behind).for_each(|p| f.paint(axis, Place::Back(p), None));
                (middle, f)
            }
            _ => return None,
        };
        Some(Frame { term: Expr::of(app).with_operand(operand, frame.term.clone()), ..frame })
    }

    /// Whether the axes are in the source's order.
    pub(super) fn in_order(&self) -> bool {
        self.axes.is_sorted()
    }

    /// Whether there is a border, around spatial axes only, and all of it is painted.
    pub(super) fn covered(&self) -> bool {
        let all = |axis: usize, behind: bool, n: i64| {
            (0..n).all(|distance| self.painted.contains(&Slab { axis, behind, distance }))
        };
        self.pads.iter().take(2).all(|p| *p == (0, 0))
            && self.pads.iter().any(|p| *p != (0, 0))
            && self.pads.iter().enumerate().all(|(a, p)| all(a, false, p.0) && all(a, true, p.1))
    }

    /// Puts more border around the value, one pair for each of the value's axes.
    fn grow(&mut self, pads: &[(i64, i64)]) {
        for (p, &axis) in pads.iter().zip(&self.axes) {
            self.pads[axis].0 += p.0;
            self.pads[axis].1 += p.1;
        }
    }

    fn fixed_sizes(&self, view: &dyn View, class: Class) -> Option<Vec<usize>> {
        view.fact(class)?.fixed_shape()
    }

    /// Paints across an axis of the value; the axis's size decides where a place far from its own end lies.
    fn paint(&mut self, axis: usize, place: Place, size: Option<i64>) {
        let axis = self.axes[axis];
        let (begin, end) = self.pads[axis];
        let (front, back) = match (place, size) {
            (Place::Front(p), n) => (Some(p), n.map(|n| n - 1 - p)),
            (Place::Back(p), n) => (n.map(|n| n - 1 - p), Some(p)),
        };
        let slab = |behind: bool, distance: i64| Slab { axis, behind, distance };
        match (front, back) {
            (Some(p), _) if p < begin => self.painted.insert(slab(false, begin - 1 - p)),
            (_, Some(p)) if p < end => self.painted.insert(slab(true, end - 1 - p)),
            _ => {
                self.spoiled = true;
                false
            }
        };
    }

    /// Paints what a mask of the value's rank chooses: whole slabs, or else the source is spoiled.
    fn mask(&mut self, sizes: &[usize], shape: &[usize], bits: &[bool], value: Vec<f64>) {
        self.values.push(value);
        let index = |i: usize, a: usize| i / shape[a + 1..].iter().product::<usize>() % shape[a];
        let mut chosen: Vec<Vec<usize>> = shape.iter().map(|&n| vec![0; n]).collect();
        for i in (0..bits.len()).filter(|&i| bits[i]) {
            (0..shape.len()).for_each(|a| chosen[a][index(i, a)] += 1);
        }
        // A mask that is broadcast along an axis chooses no slab across it.
        let whole = |a: usize, p: usize| {
            shape[a] == sizes[a] && chosen[a][p] == bits.len() / shape[a] && self.is_border(a, p, sizes[a])
        };
        let slabs: Vec<Vec<bool>> = (0..shape.len()).map(|a| (0..shape[a]).map(|p| whole(a, p)).collect()).collect();
        let stray = (0..bits.len()).any(|i| bits[i] && !(0..shape.len()).any(|a| slabs[a][index(i, a)]));
        self.spoiled |= stray;
        for (axis, places) in slabs.iter().enumerate() {
            for p in (0..places.len()).filter(|&p| places[p]) {
                self.paint(axis, Place::Front(p as i64), Some(sizes[axis] as i64));
            }
        }
    }

    fn is_border(&self, axis: usize, p: usize, size: usize) -> bool {
        let (begin, end) = self.pads[self.axes[axis]];
        (p as i64) < begin || p as i64 >= size as i64 - end
    }

    /// Paints what a ScatterND on this value writes.
    fn scatter(&mut self, view: &dyn View, app: &App<'_>) -> Option<()> {
        let (data, index, updates) = (app.operand(0)?, app.operand(1)?, app.operand(2)?);
        let depth = view.fact(index)?.shape.last()?.as_fixed()?;
        let rank = self.axes.len();
        let channels = self.axes.iter().position(|&a| a == 1)?;
        if depth == 1 {
            // Whole rows of the first axis: the updates have the index's axes but its last, then the map's but its first.
            let lead = view.fact(index)?.rank() - 1;
            let size = view.fact(data)?.shape.first()?;
            let places = places(view, index, size, 8)?;
            let value = per_channel(view, updates, (lead + channels).checked_sub(1)?, lead + rank - 1)?;
            if channels == 0 {
                return None;
            }
            self.values.push(value);
            places.into_iter().for_each(|p| self.paint(0, p, size.as_fixed()));
            return Some(());
        }
        if usize::try_from(depth) != Ok(rank) {
            return None;
        }
        // Single elements: constant indices that make up whole slabs.
        let sizes = self.fixed_sizes(view, data)?;
        let count: usize = sizes.iter().product();
        let index = view.constant(index)?.to_tensor().ok()?.to_i64s()?;
        let updates = view.constant(updates)?.to_tensor().ok()?.to_f64s()?;
        if count > MOST || index.len() > MOST || index.len() != updates.len() * rank {
            return None;
        }
        let mut hit = vec![false; count];
        let mut value: Vec<Option<f64>> = vec![None; sizes[channels]];
        for (at, v) in index.chunks(rank).zip(&updates) {
            let mut flat = 0;
            for (&i, &n) in at.iter().zip(&sizes) {
                let n = n as i64;
                let i = if i < 0 { i + n } else { i };
                if !(0..n).contains(&i) {
                    return None;
                }
                flat = flat * n as usize + i as usize;
            }
            hit[flat] = true;
            let n = sizes[channels] as i64;
            let c = (if at[channels] < 0 { at[channels] + n } else { at[channels] }) as usize;
            if value[c].is_some_and(|w| w.to_bits() != v.to_bits()) {
                return None;
            }
            value[c] = Some(*v);
        }
        let value: Vec<f64> = value.into_iter().collect::<Option<_>>()?;
        self.mask(&sizes, &sizes, &hit, value);
        Some(())
    }
}

/// The number that all elements of a class are at each index of `axis`, one if they are the same at all; the class has `rank`
/// axes, or fewer that count from the back.
fn per_channel(view: &dyn View, class: Class, axis: usize, rank: usize) -> Option<Vec<f64>> {
    let value = filling(view, class)?;
    let missing = rank.checked_sub(value.shape.len())?;
    let axis = axis.checked_sub(missing);
    let channels = axis.map_or(1, |a| value.shape[a]);
    let inner: usize = axis.map_or(1, |a| value.shape[a + 1..].iter().product());
    let mut out = vec![None; channels];
    for (i, &v) in value.elements.iter().enumerate() {
        let c = i / inner.max(1) % channels.max(1);
        if out[c].is_some_and(|w: f64| w.to_bits() != v.to_bits()) {
            return None;
        }
        out[c] = Some(v);
    }
    out.into_iter().collect()
}

/// The elements of a constant, or of one that is spread over open sizes: 1 then stands for any size.
struct Filling {
    shape: Vec<usize>,
    elements: Vec<f64>,
}

fn filling(view: &dyn View, class: Class) -> Option<Filling> {
    if let Some(c) = view.constant(class) {
        let t = c.to_tensor().ok().filter(|t| t.len() <= MOST)?;
        return Some(Filling { shape: t.shape().to_vec(), elements: t.to_f64s()? });
    }
    view.apps(class).iter().find_map(|app| {
        let x = app.operand(0)?;
        match app.op {
            Op::Expand(_) => {
                let inner = filling(view, x)?;
                let rank = view.fact(class)?.rank();
                let lead = rank.checked_sub(inner.shape.len())?;
                let shape = vec![1; lead].into_iter().chain(inner.shape).collect();
                Some(Filling { shape, elements: inner.elements })
            }
            Op::Transpose(t) => {
                let inner = filling(view, x)?;
                let axes: Vec<usize> = t.perm.iter().map(|&p| usize::try_from(p)).collect::<Result<_, _>>().ok()?;
                // With one long axis the elements keep their order.
                let long = inner.shape.iter().filter(|&&n| n != 1).count();
                let shape: Option<Vec<usize>> = axes.iter().map(|&a| inner.shape.get(a).copied()).collect();
                (long <= 1).then_some(Filling { shape: shape?, elements: inner.elements })
            }
            Op::Identity(_) => filling(view, x),
            _ => None,
        }
    })
}

/// The places that an index of single numbers names along an axis of this size.
fn places(view: &dyn View, index: Class, size: &Dim, depth: usize) -> Option<Vec<Place>> {
    let fact = view.fact(index)?;
    if let Some(v) = fact.dims() {
        return v
            .iter()
            .map(|i| match i.as_fixed() {
                // The last is -1; `!i` is -1 - i, which has no overflow.
                Some(i) if i < 0 => Some(Place::Back(!i)),
                Some(i) => Some(Place::Front(i)),
                None => (size - i).as_fixed().filter(|&back| back > 0).map(|back| Place::Back(back - 1)),
            })
            .collect();
    }
    if depth == 0 {
        return None;
    }
    view.apps(index).iter().find_map(|app| match app.op {
        Op::Unsqueeze(_) | Op::Squeeze(_) | Op::Reshape(_) | Op::Flatten(_) | Op::Identity(_) | Op::Cast(_) => {
            places(view, app.operand(0)?, size, depth - 1)
        }
        Op::Slice(_) => {
            let [(0, Cut { start, end, step: 1 })] = bounds(view, app, 1)?[..] else { return None };
            counts_to(view, app.operand(0)?, size).then_some(())?;
            // The places must be the same for every size, so there must be so many in any case.
            match start {
                ..0 => {
                    let end = if end >= i64::from(i32::MAX) { 0 } else { end };
                    let there = size.at_least(start.checked_neg()?) == Some(true);
                    (there && start < end && end <= 0 && start > -FARTHEST)
                        .then(|| (start..end).map(|i| Place::Back(-i - 1)).collect())
                }
                0.. => (start < end && end < FARTHEST && size.at_least(end) == Some(true))
                    .then(|| (start..end).map(Place::Front).collect()),
            }
        }
        _ => None,
    })
}

/// Whether a class is 0, 1, .. up to but without `size`.
fn counts_to(view: &dyn View, class: Class, size: &Dim) -> bool {
    view.apps(class).iter().any(|app| {
        let known = |i: usize| app.operand(i).and_then(|o| view.fact(o)?.dims()).filter(|d| d.len() == 1);
        matches!(app.op, Op::Range(_))
            && known(0).is_some_and(|d| d[0].as_fixed() == Some(0))
            && known(1).is_some_and(|d| d[0].equals(size) == Some(true))
            && known(2).is_some_and(|d| d[0].as_fixed() == Some(1))
    })
}
