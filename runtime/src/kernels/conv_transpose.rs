//! Transposed convolution as a product of the weights with the input, whose rows are added into the output tap by tap.

use super::{
    Gemm,
    matmul::{gemm, share},
};
use crate::{ops::RunCx, sys::Disjoint, window::Axis};

/// A transposed convolution: sizes, operands and result.
pub struct TransposedConvolution<'a, T> {
    /// The window along each spatial axis, at least one, of the convolution whose gradient this is: `input` counts elements of
    /// `y`, `output` those of `x`.
    pub axes: &'a [Axis],
    /// Images.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// Input channels of one group.
    pub in_channels: usize,
    /// Output channels of one group.
    pub out_channels: usize,
    /// Input `[batch, groups * in_channels, outputs of the axes]`.
    pub x: &'a [T],
    /// Weights `[groups * in_channels, out_channels, taps of the axes]`.
    pub w: &'a [T],
    /// Bias `[groups * out_channels]`.
    pub bias: Option<&'a [T]>,
    /// Result `[batch, groups * out_channels, inputs of the axes]`; what it held does not matter.
    pub y: &'a mut [T],
}

impl<T: Gemm> TransposedConvolution<'_, T> {
    /// Computes the transposed convolution. For each tap, in row-major order, the sum over the input channels, in order and
    /// from 0, is added to the output, which begins at 0.
    ///
    /// # Panics
    /// If a slice is not as long as its sizes say.
    pub fn run(self, cx: &RunCx<'_>) {
        /// Elements of the product that are made at a time.
        const PRODUCT: usize = 1 << 18;
        let size = |f: fn(&Axis) -> usize| -> usize { self.axes.iter().map(f).fold(1, usize::saturating_mul) };
        let (plane, pixels, taps) = (size(|a| a.output), size(|a| a.input), size(|a| a.kernel));
        let (groups, ci, co) = (self.groups, self.in_channels, self.out_channels);
        let fits = self.x.len() == self.batch * groups * ci * plane
            && self.w.len() == groups * ci * co * taps
            && self.bias.is_none_or(|b| b.len() == groups * co)
            && self.y.len() == self.batch * groups * co * pixels;
        assert!(fits && !self.axes.is_empty(), "a slice does not fit its sizes");
        if self.y.is_empty() {
            return;
        }
        let tap_block = (PRODUCT / plane.max(1)).clamp(1, taps);
        let most = (PRODUCT / tap_block.saturating_mul(plane).max(1)).max(1);
        let channels = most.min(co.div_ceil(cx.pool.threads()));
        let blocks = co.div_ceil(channels);
        let (x, w, axes, bias, y) = (self.x, self.w, self.axes, self.bias, Disjoint::new(self.y));
        let cost = channels.saturating_mul(taps).saturating_mul(ci * plane);
        share(cx, self.batch * groups * blocks, cost, &|unit| {
            let (first, image_group) = (unit % blocks * channels, unit / blocks);
            let block = first..co.min(first + channels);
            let at = (image_group * co + first) * pixels;
            // SAFETY: every output channel belongs to one unit.
            let y = unsafe {
                let len = block.len() * pixels;
                std::slice::from_raw_parts_mut(y.get(at, len), len)
            };
            y.fill(T::ZERO);
            let x = &x[image_group * ci * plane..][..ci * plane];
            let group = image_group % groups;
            let (mut a, mut product) = (Vec::new(), Vec::new());
            for tap in (0..taps).step_by(tap_block) {
                let tap_range = tap..taps.min(tap + tap_block);
                // w[c, o, t] becomes a[(o, t), c].
                a.clear();
                for o in block.clone() {
                    for t in tap_range.clone() {
                        a.extend((0..ci).map(|c| w[((group * ci + c) * co + o) * taps + t]));
                    }
                }
                let rows = block.len() * tap_range.len();
                product.resize(rows * plane, T::ZERO);
                gemm(cx, rows, ci, plane, &a, x, &mut product[..rows * plane]);
                for (i, y) in y.chunks_exact_mut(pixels).enumerate() {
                    for (j, t) in tap_range.clone().enumerate() {
                        scatter(axes, t, &product[(i * tap_range.len() + j) * plane..][..plane], y);
                    }
                }
            }
            if let Some(bias) = bias {
                for (o, y) in block.zip(y.chunks_exact_mut(pixels)) {
                    y.iter_mut().for_each(|v| *v = v.add(bias[group * co + o]));
                }
            }
        });
    }
}

/// Adds what tap `tap` takes of `row` `[outputs of the axes]` to `y` `[inputs of the axes]`.
fn scatter<T: Gemm>(axes: &[Axis], tap: usize, row: &[T], y: &mut [T]) {
    let Some((last, outer)) = axes.split_last() else { return };
    let shift = (tap % last.kernel * last.dilation) as i64 - last.pad_begin;
    let stride = last.stride as i64;
    let inside = |bound: i64| ((((bound - shift).max(0) + stride - 1) / stride) as usize).min(last.output);
    let (low, high) = (inside(0), inside(last.input as i64));
    if low >= high {
        return;
    }
    'rows: for (i, values) in row.chunks_exact(last.output).enumerate() {
        let (mut offset, mut step, mut rest, mut tap) = (0, last.input, i, tap / last.kernel);
        for a in outer.iter().rev() {
            let Some(p) = a.source(rest % a.output, tap % a.kernel) else { continue 'rows };
            offset += p * step;
            (step, rest, tap) = (step * a.input, rest / a.output, tap / a.kernel);
        }
        let begin = offset + ((low * last.stride) as i64 + shift) as usize;
        let targets = y[begin..offset + last.input].iter_mut().step_by(last.stride);
        targets.zip(&values[low..high]).for_each(|(y, &v)| *y = y.add(v));
    }
}
