//! Convolution of single channels: each output row is a sum of shifted input rows, vectorised along the row.

use super::{Gemm, Isa, conv::Convolution, matmul::share, scratch, simd::Vector};
use crate::{ops::RunCx, sys::Disjoint, window::Axis};

/// Most output channels per input channel for which rows are summed one by one.
const MULTIPLIER: usize = 4;

/// Where the taps along the last axis read a padded row: rows are split by the residue of their positions modulo the stride, so that
/// neighbouring outputs read neighbours.
struct Phases {
    /// The residues that some tap needs.
    residues: Vec<usize>,
    /// For each tap, which of the residues it reads and from where on.
    taps: Vec<(usize, usize)>,
    /// Elements of a row of one residue, room for a whole last vector included.
    len: usize,
}

impl Phases {
    /// `None` if the rows would be out of proportion to input and output.
    fn new(a: &Axis, slack: usize) -> Option<Phases> {
        let mut residues: Vec<usize> = Vec::new();
        let taps: Vec<(usize, usize)> = (0..a.kernel)
            .map(|t| {
                let (residue, shift) = (t * a.dilation % a.stride, t * a.dilation / a.stride);
                let index = residues.iter().position(|&r| r == residue).unwrap_or_else(|| {
                    residues.push(residue);
                    residues.len() - 1
                });
                (index, shift)
            })
            .collect();
        let len = a.output + taps.last()?.1 + slack;
        (len <= 2 * (a.input + a.output) + 2 * slack && residues.len() <= 16).then_some(Phases { residues, taps, len })
    }
}

/// Computes `c` if it is of the kind that this module is for; returns whether it was.
pub(super) fn run<T: Gemm>(c: &mut Convolution<'_, T>, cx: &RunCx<'_>) -> bool {
    let Some((last, outer)) = c.axes.split_last() else { return false };
    if c.in_channels != 1 || c.out_channels > MULTIPLIER || c.groups == 1 {
        return false;
    }
    let isa = cx.isa.available();
    let slack = T::lanes(isa) * STEP;
    let Some(phases) = Phases::new(last, slack) else { return false };
    let product = |f: fn(&Axis) -> usize| -> usize { outer.iter().map(f).fold(1, usize::saturating_mul) };
    let (in_rows, out_rows, outer_taps) = (product(|a| a.input), product(|a| a.output), product(|a| a.kernel));
    let row_len = phases.len * phases.residues.len();
    // One more row, of zeros, stands for all beyond the border.
    let Some(padded) = in_rows.saturating_add(1).checked_mul(row_len).filter(|&n| n <= 1 << 26) else { return false };
    let (x, w, bias, multiplier, groups) = (c.x, c.w, c.bias, c.out_channels, c.groups);
    let y = Disjoint::new(&mut *c.y);
    let (plane, pixels, taps) = (in_rows * last.input, out_rows * last.output, outer_taps * last.kernel);
    share(cx, c.batch * groups, pixels.saturating_mul(taps * multiplier), &|channel| {
        let x = &x[channel * plane..][..plane];
        scratch::with(padded + EDGE, |scratch: &mut [T]| {
            let (edge, rows) = scratch.split_at_mut(EDGE);
            let rows = &mut rows[..padded];
            pad(last, &phases, x, rows);
            let mut starts: Vec<usize> = vec![0; taps];
            for row in 0..out_rows {
                for (t, starts) in starts.chunks_exact_mut(last.kernel).enumerate() {
                    let begin = source_row(outer, row, t).unwrap_or(in_rows) * row_len;
                    for (start, &(phase, shift)) in starts.iter_mut().zip(&phases.taps) {
                        *start = begin + phase * phases.len + shift;
                    }
                }
                for m in 0..multiplier {
                    let o = channel % groups * multiplier + m;
                    let at = (channel * multiplier + m) * pixels + row * last.output;
                    // SAFETY: every channel belongs to one unit of work.
                    let y = unsafe { std::slice::from_raw_parts_mut(y.get(at, last.output), last.output) };
                    let job = Row { rows, starts: &starts, w: &w[o * taps..][..taps], bias: bias.map(|b| b[o]) };
                    job.run(isa, y, edge);
                }
            }
        });
    });
    true
}

/// The input row that tap `tap` of output row `row` reads, over all axes but the last.
fn source_row(outer: &[Axis], mut row: usize, mut tap: usize) -> Option<usize> {
    let (mut index, mut step) = (0, 1);
    for a in outer.iter().rev() {
        index += a.source(row % a.output, tap % a.kernel)? * step;
        (step, row, tap) = (step * a.input, row / a.output, tap / a.kernel);
    }
    Some(index)
}

/// Splits every row of `x` by residue into `rows`, zeros around it, and ends with a row of zeros.
fn pad<T: Gemm>(a: &Axis, phases: &Phases, x: &[T], rows: &mut [T]) {
    let stride = a.stride as i64;
    for (i, row) in rows.chunks_exact_mut(phases.len * phases.residues.len()).enumerate() {
        let source = x.get(i * a.input..(i + 1) * a.input).unwrap_or(&[]);
        for (&residue, phase) in phases.residues.iter().zip(row.chunks_exact_mut(phases.len)) {
            // Element j holds input j * stride + shift.
            let shift = residue as i64 - a.pad_begin;
            let first = |bound: i64| ((((bound - shift).max(0) + stride - 1) / stride) as usize).min(phases.len);
            let (low, high) = (first(0), first(source.len() as i64));
            phase[..low].fill(T::ZERO);
            phase[high.max(low)..].fill(T::ZERO);
            if low >= high {
                continue;
            }
            let begin = ((low * a.stride) as i64 + shift) as usize;
            if a.stride == 1 {
                phase[low..high].copy_from_slice(&source[begin..][..high - low]);
            } else {
                let values = source[begin..].iter().step_by(a.stride);
                phase[low..high].iter_mut().zip(values).for_each(|(y, &x)| *y = x);
            }
        }
    }
}

/// Vectors that are summed at a time, so that the sums need not wait for each other.
const STEP: usize = 4;
/// Elements of as many of the widest vectors: the end of a row is computed aside.
const EDGE: usize = STEP * 16;

/// One output row: `y[i] = ((0 + w[0] * rows[starts[0] + i]) + ..) + bias`.
struct Row<'a, T> {
    rows: &'a [T],
    starts: &'a [usize],
    w: &'a [T],
    bias: Option<T>,
}

impl<T: Gemm> Row<'_, T> {
    fn run(&self, isa: Isa, y: &mut [T], edge: &mut [T]) {
        let reach = y.len().next_multiple_of(T::lanes(isa) * STEP);
        let inside = self.starts.iter().all(|&s| s <= self.rows.len() && reach <= self.rows.len() - s);
        assert!(inside && self.starts.len() == self.w.len() && edge.len() >= EDGE && isa <= Isa::detect());
        match isa {
            // SAFETY: the machine has the instruction set; the rows reach as far as the last vectors.
            Isa::Portable => unsafe { sum::<T::Portable>(self, y, edge) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::<T>(self, y, edge) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { avx512::<T>(self, y, edge) },
            #[cfg(not(target_arch = "x86_64"))]
            // SAFETY: as above.
            _ => unsafe { sum::<T::Portable>(self, y, edge) },
        }
    }
}

/// # Safety
/// As [`sum`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<T: Gemm>(row: &Row<'_, T>, y: &mut [T], edge: &mut [T]) {
    // SAFETY: the caller's promise.
    unsafe { sum::<T::Avx2>(row, y, edge) }
}

/// # Safety
/// As [`sum`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<T: Gemm>(row: &Row<'_, T>, y: &mut [T], edge: &mut [T]) {
    // SAFETY: the caller's promise.
    unsafe { sum::<T::Avx512>(row, y, edge) }
}

/// # Safety
/// The machine has the instruction set of `V`. There are as many weights as `starts`, each at least the length of `y`, rounded
/// up to [`STEP`] vectors, before the end of `rows`. `edge` has [`EDGE`] elements.
#[inline(always)]
unsafe fn sum<V: Vector>(row: &Row<'_, V::T>, y: &mut [V::T], edge: &mut [V::T]) {
    let mut i = 0;
    while i < y.len() {
        let left = y.len() - i;
        // SAFETY: the caller's promises; whole vectors go to `y` only where it has room for them.
        i += unsafe {
            match left.div_ceil(V::LANES) {
                1 => vectors::<V, 1>(row, i, y, edge),
                2 => vectors::<V, 2>(row, i, y, edge),
                3 => vectors::<V, 3>(row, i, y, edge),
                _ => vectors::<V, STEP>(row, i, y, edge),
            }
        };
    }
}

/// `N` vectors of `y` from `i` on; returns the number of their elements.
///
/// # Safety
/// As [`sum`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices let the compiler keep all sums in registers")]
unsafe fn vectors<V: Vector, const N: usize>(
    row: &Row<'_, V::T>,
    i: usize,
    y: &mut [V::T],
    edge: &mut [V::T],
) -> usize {
    use crate::scalar::Scalar;
    let whole = y.len() - i >= N * V::LANES;
    // SAFETY: the caller's promises.
    unsafe {
        let mut sums = [V::splat(V::T::ZERO); N];
        let source = row.rows.as_ptr().add(i);
        for (&start, &w) in row.starts.iter().zip(row.w) {
            let w = V::splat(w);
            for v in 0..N {
                sums[v] = sums[v].add_product(w, V::load(source.add(start + v * V::LANES)));
            }
        }
        let target = if whole { y.as_mut_ptr().add(i) } else { edge.as_mut_ptr() };
        for v in 0..N {
            let sum = match row.bias {
                Some(b) => sums[v].add(V::splat(b)),
                None => sums[v],
            };
            sum.store(target.add(v * V::LANES));
        }
    }
    if !whole {
        let left = y.len() - i;
        y[i..].copy_from_slice(&edge[..left]);
    }
    N * V::LANES
}
