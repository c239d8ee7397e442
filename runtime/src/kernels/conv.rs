//! Convolution as a product of the weights with columns of input that are gathered tile by tile.

use std::ops::Range;

use super::{
    Gemm, depthwise,
    matmul::{Columns, Product, Sizes, Sliver, products},
};
use crate::{ops::RunCx, sys::Disjoint, window::Axis};

/// A convolution: sizes, operands and result.
pub struct Convolution<'a, T> {
    /// The window along each spatial axis, at least one.
    pub axes: &'a [Axis],
    /// Images.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// Input channels of one group.
    pub in_channels: usize,
    /// Disjoint channels of one group.
    pub out_channels: usize,
    /// Input `[batch, groups * in_channels, inputs of the axes]`.
    pub x: &'a [T],
    /// Weights `[groups * out_channels, in_channels, taps of the axes]`.
    pub w: &'a [T],
    /// Bias `[groups * out_channels]`.
    pub bias: Option<&'a [T]>,
    /// Result `[batch, groups * out_channels, outputs of the axes]`; what it held does not matter.
    pub y: &'a mut [T],
}

impl<T: Gemm> Convolution<'_, T> {
    /// Computes the convolution. Every output is summed over (input channel, taps in row-major order), from 0; taps beyond
    /// the border contribute products with 0.
    ///
    /// # Panics
    /// If a slice is not as long as its sizes say.
    pub fn run(mut self, cx: &RunCx<'_>) {
        let size = |f: fn(&Axis) -> usize| -> usize { self.axes.iter().map(f).fold(1, usize::saturating_mul) };
        let (plane, pixels, taps) = (size(|a| a.input), size(|a| a.output), size(|a| a.kernel));
        let (groups, ci, co) = (self.groups, self.in_channels, self.out_channels);
        let fits = self.x.len() == self.batch * groups * ci * plane
            && self.w.len() == groups * co * ci * taps
            && self.bias.is_none_or(|b| b.len() == groups * co)
            && self.y.len() == self.batch * groups * co * pixels;
        assert!(fits && !self.axes.is_empty(), "a slice does not fit its sizes");
        if self.y.is_empty() {
            return;
        }
        let k = ci * taps;
        if k == 0 {
            for (i, channel) in self.y.chunks_exact_mut(pixels).enumerate() {
                channel.fill(self.bias.map_or(T::ZERO, |b| T::ZERO.add(b[i % (groups * co)])));
            }
            return;
        }
        if depthwise::run(&mut self, cx) {
            return;
        }
        let y = Disjoint::new(self.y);
        let (x, w, axes, bias) = (self.x, self.w, self.axes, self.bias);
        products(cx, Sizes { m: co, k, n: pixels }, self.batch * groups, &|i| {
            let group = i % groups;
            Product {
                a: &w[group * co * k..][..co * k],
                b: Patches { x: &x[i * ci * plane..][..ci * plane], axes, plane, taps },
                bias: bias.map(|b| &b[group * co..][..co]),
                c: y,
                at: i * co * pixels,
            }
        });
    }
}

/// The matrix `[channels * taps, outputs]` of the inputs that the taps of each output read.
struct Patches<'a, T> {
    /// The channels of one group of one image.
    x: &'a [T],
    axes: &'a [Axis],
    plane: usize,
    taps: usize,
}

/// Outputs of a sliver that lie in one row of the last axis.
struct Segment {
    lane: usize,
    len: usize,
    /// The row, counted over all axes but the last.
    row: usize,
    /// The first output along the last axis.
    x: usize,
}

/// Elements of a channel that go to neighbouring lanes.
struct Run {
    lane: usize,
    len: usize,
    source: usize,
}

impl<T: Gemm> Columns<T> for Patches<'_, T> {
    fn pack(&self, rows: Range<usize>, slivers: &[Sliver], panel: &mut [T]) {
        let Some((last, outer)) = self.axes.split_last() else { return };
        let used = self.taps.min(rows.len());
        let (mut segments, mut runs, mut ends) = (Vec::new(), Vec::new(), Vec::with_capacity(used));
        let mut rest = panel;
        for s in slivers {
            let (sliver, behind) = rest.split_at_mut(rows.len() * s.lanes);
            rest = behind;
            split_rows(s, last.output, &mut segments);
            runs.clear();
            ends.clear();
            for t in 0..used {
                self.runs((rows.start + t) % self.taps, last, outer, &segments, &mut runs);
                ends.push(runs.len());
            }
            for (i, row) in sliver.chunks_exact_mut(s.lanes).enumerate() {
                let (t, channel) = (i % used, (rows.start + i) / self.taps);
                let runs = &runs[if t == 0 { 0 } else { ends[t - 1] }..ends[t]];
                if runs.iter().map(|r| r.len).sum::<usize>() < s.lanes {
                    row.fill(T::ZERO);
                }
                let plane = &self.x[channel * self.plane..][..self.plane];
                for r in runs {
                    let target = &mut row[r.lane..r.lane + r.len];
                    if last.stride == 1 {
                        for (y, &x) in target.iter_mut().zip(&plane[r.source..r.source + r.len]) {
                            *y = x;
                        }
                    } else {
                        for (y, &x) in target.iter_mut().zip(plane[r.source..].iter().step_by(last.stride)) {
                            *y = x;
                        }
                    }
                }
            }
        }
    }
}

impl<T> Patches<'_, T> {
    /// Adds the runs of tap `t`: what of `segments` it reads inside the border.
    fn runs(&self, t: usize, last: &Axis, outer: &[Axis], segments: &[Segment], runs: &mut Vec<Run>) {
        let begin = runs.len();
        let stride = last.stride as i64;
        // The first output whose source is at least 0, and the first whose source is at least the input's size.
        let shift = (t % last.kernel * last.dilation) as i64 - last.pad_begin;
        let inside = |bound: i64| (((bound - shift).max(0) + stride - 1) / stride) as usize;
        let (low, high) = (inside(0), inside(last.input as i64));
        'segments: for s in segments {
            let (x, end) = (s.x.max(low), (s.x + s.len).min(high));
            if x >= end {
                continue;
            }
            let (mut offset, mut step, mut row, mut tap) = (0, last.input, s.row, t / last.kernel);
            for a in outer.iter().rev() {
                let Some(p) = a.source(row % a.output, tap % a.kernel) else { continue 'segments };
                offset += p * step;
                (step, row, tap) = (step * a.input, row / a.output, tap / a.kernel);
            }
            let source = offset + ((x * last.stride) as i64 + shift) as usize;
            let (lane, len) = (s.lane + x - s.x, end - x);
            match runs[begin..].last_mut() {
                Some(r) if r.lane + r.len == lane && r.source + r.len * last.stride == source => r.len += len,
                _ => runs.push(Run { lane, len, source }),
            }
        }
    }
}

/// The rows of the last axis, `width` outputs each, that the columns of a sliver lie in.
fn split_rows(s: &Sliver, width: usize, segments: &mut Vec<Segment>) {
    segments.clear();
    let mut lane = 0;
    while lane < s.columns {
        let (row, x) = ((s.column + lane) / width, (s.column + lane) % width);
        let len = (width - x).min(s.columns - lane);
        segments.push(Segment { lane, len, row, x });
        lane += len;
    }
}
