//! Convolutions with one-hot kernels, which take neighbours of each position apart.

use convc_runtime::{
    Dim,
    ops::Conv,
    window::{AutoPad, Window},
};

use super::{Digit, HOLE, IndexMap, LIMIT, Table};
use crate::rewrite::view::{App, View, is_zero};

/// A kernel each of whose outputs takes one element: its channel within the group, and its tap along each axis.
pub(super) struct OneHot {
    taps: Vec<i64>,
    inputs: usize,
    picks: Vec<(usize, Vec<usize>)>,
}

/// Reads a convolution's constant kernel as one that only picks elements; it must have no bias, or one of zeros.
pub(super) fn one_hot(view: &dyn View, app: &App<'_>) -> Option<OneHot> {
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
pub(super) fn unfolded(conv: &Conv, kernel: &OneHot, x: IndexMap) -> Option<IndexMap> {
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
        may_be_empty: false,
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
