//! Products of matrices, blocked for registers and caches.
//!
//! The left operand's elements are broadcast, the right operand's columns fill the vectors. A tile of columns is packed into
//! a panel of slivers (at most three vectors wide) for a block of the inner dimension; between blocks the sums rest in the result,
//! which changes nothing in them.

use std::ops::Range;

use super::{Gemm, Isa, scratch, simd::Vector};
use crate::{ops::RunCx, scalar::Scalar, sys::Disjoint};

/// `c = a * b`: `c[i,j] = sum over l of a[i,l] * b[l,j]`, summed in ascending `l`, from 0.
///
/// a `[m, k]`, b `[k, n]`, c `[m, n]`, all row-major; what `c` held does not matter. With `k = 0`, `c` is filled with zeros.
///
/// # Panics
/// If a slice is not as long as its sizes say.
pub fn gemm<T: Gemm>(cx: &RunCx<'_>, m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "a slice does not fit its sizes");
    if c.is_empty() || k == 0 {
        c.fill(T::ZERO);
        return;
    }
    if m <= FEW_ROWS {
        return few_rows(cx, m, k, n, a, b, c);
    }
    let c = Disjoint::new(c);
    products(cx, Sizes { m, k, n }, 1, &|_| Product { a, b: RowMajor { b, n }, bias: None, c, at: 0 });
}

/// Up to so many rows, packing the right operand costs more than it saves.
const FEW_ROWS: usize = 3;

/// The product for few rows: row `l` of `b`, times an element of `a`, is added to a piece of a row of `c`.
fn few_rows<T: Gemm>(cx: &RunCx<'_>, m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    const PIECE: usize = 512;
    let c = Disjoint::new(c);
    let work = |piece: usize| {
        let columns = piece * PIECE..n.min((piece + 1) * PIECE);
        for i in 0..m {
            // SAFETY: `columns` of row `i` belong to this piece alone.
            let row =
                unsafe { std::slice::from_raw_parts_mut(c.get(i * n + columns.start, columns.len()), columns.len()) };
            row.fill(T::ZERO);
        }
        for l in 0..k {
            let weights = &b[l * n..][columns.clone()];
            for i in 0..m {
                let x = a[i * k + l];
                // SAFETY: as above.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(c.get(i * n + columns.start, columns.len()), columns.len())
                };
                for (y, &w) in row.iter_mut().zip(weights) {
                    *y = y.add(x.mul(w));
                }
            }
        }
    };
    share(cx, n.div_ceil(PIECE), m * k * n.min(PIECE), &work);
}

/// Multiplications below which other threads are not woken.
const WORTH: usize = 1 << 17;

/// Calls `work(i)` for `0..n`, on several threads if all of it is worth that; one costs about `cost` multiplications.
pub(super) fn share(cx: &RunCx<'_>, n: usize, cost: usize, work: &(dyn Fn(usize) + Sync)) {
    if cost.saturating_mul(n) < WORTH {
        (0..n).for_each(work);
    } else {
        cx.pool.for_each(n, work);
    }
}

/// The sizes of a product `[m, k] * [k, n]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
}

/// Part of the columns of a right operand, in the layout that the register tiles read.
pub(super) struct Sliver {
    /// The first column.
    pub(super) column: usize,
    /// Number of columns, at most [`Sliver::lanes`].
    pub(super) columns: usize,
    /// Elements per row of the sliver.
    pub(super) lanes: usize,
}

/// A right operand `[k, n]` that can be packed.
pub(super) trait Columns<T>: Sync {
    /// Writes rows `rows` of each sliver to `panel`: sliver after sliver, each row-major. Lanes without a column get any value.
    fn pack(&self, rows: Range<usize>, slivers: &[Sliver], panel: &mut [T]);
}

/// A row-major right operand.
struct RowMajor<'a, T> {
    b: &'a [T],
    n: usize,
}

impl<T: Gemm> Columns<T> for RowMajor<'_, T> {
    fn pack(&self, rows: Range<usize>, slivers: &[Sliver], panel: &mut [T]) {
        let mut rest = panel;
        for s in slivers {
            let (sliver, behind) = rest.split_at_mut(rows.len() * s.lanes);
            for (l, row) in rows.clone().zip(sliver.chunks_exact_mut(s.lanes)) {
                row[..s.columns].copy_from_slice(&self.b[l * self.n + s.column..][..s.columns]);
                row[s.columns..].fill(T::ZERO);
            }
            rest = behind;
        }
    }
}

/// One product `c = a * b (+ bias of the row)`.
pub(super) struct Product<'a, T, B> {
    /// `[m, k]`, row-major.
    pub(super) a: &'a [T],
    /// `[k, n]`.
    pub(super) b: B,
    /// `[m]`.
    pub(super) bias: Option<&'a [T]>,
    /// Where `c` lies, `[m, n]` row-major from element `at` on. No two products overlap.
    pub(super) c: Disjoint<'a, T>,
    pub(super) at: usize,
}

/// Computes `count` products of the same sizes, none of them 0.
pub(super) fn products<'a, T: Gemm, B: Columns<T>>(
    cx: &RunCx<'_>,
    sizes: Sizes,
    count: usize,
    product: &(dyn Fn(usize) -> Product<'a, T, B> + Sync),
) {
    let isa = cx.isa.available();
    let Sizes { m, k, n } = sizes;
    let small = (m * k).saturating_mul(n).saturating_mul(count) < WORTH;
    let threads = if small { 1 } else { cx.pool.threads() };
    let tiling = Tiling::new::<T>(sizes, count, threads, T::lanes(isa));
    let units = count * tiling.row_tiles * tiling.column_tiles;
    let cost = (m * k).saturating_mul(n) / (tiling.row_tiles * tiling.column_tiles);
    // Groups of units so that handing one out costs little beside the work in it.
    let group = ((1 << 15) / cost.max(1)).clamp(1, units.div_ceil(4 * threads).max(1));
    share(cx, units.div_ceil(group), cost.saturating_mul(group), &|g| {
        for unit in g * group..units.min((g + 1) * group) {
            let (row_tile, rest) = (unit % tiling.row_tiles, unit / tiling.row_tiles);
            let (column_tile, index) = (rest % tiling.column_tiles, rest / tiling.column_tiles);
            let rows = row_tile * tiling.rows..m.min((row_tile + 1) * tiling.rows);
            let columns = column_tile * tiling.columns..n.min((column_tile + 1) * tiling.columns);
            if !rows.is_empty() && !columns.is_empty() {
                tile(isa, sizes, &product(index), rows, columns, tiling.depth);
            }
        }
    });
}

/// How a product is divided. The sums do not depend on it.
struct Tiling {
    rows: usize,
    row_tiles: usize,
    columns: usize,
    column_tiles: usize,
    /// Inner dimension of a block.
    depth: usize,
}

impl Tiling {
    fn new<T>(Sizes { m, k, n }: Sizes, count: usize, threads: usize, lanes: usize) -> Tiling {
        const DEPTH: usize = 320;
        /// A packed panel should leave room in a second-level cache of 1 MiB.
        const PANEL_BYTES: usize = 640 << 10;
        let depth = k.div_ceil(k.div_ceil(DEPTH));
        let vectors = n.div_ceil(lanes);
        let fitting = (PANEL_BYTES / (depth * lanes * size_of::<T>())).max(1);
        let mut column_tiles = vectors.div_ceil(fitting);
        let wanted = if threads == 1 { 1 } else { (2 * threads).div_ceil(count) };
        if column_tiles < 8 * threads {
            // An equal share for every thread, but no tile so narrow that reading the left operand dominates.
            let even = column_tiles.max(wanted).next_multiple_of(threads);
            column_tiles = even.min((vectors / 6).max(1)).max(column_tiles);
        }
        let row_tiles = wanted.div_ceil(column_tiles).min(m.div_ceil(32));
        let columns = vectors.div_ceil(column_tiles) * lanes;
        let rows = m.div_ceil(row_tiles).next_multiple_of(8);
        Tiling { rows, row_tiles: m.div_ceil(rows), columns, column_tiles: n.div_ceil(columns), depth }
    }
}

/// Computes `rows` x `columns` of one product.
fn tile<T: Gemm, B: Columns<T>>(
    isa: Isa,
    Sizes { k, n, .. }: Sizes,
    product: &Product<'_, T, B>,
    rows: Range<usize>,
    columns: Range<usize>,
    depth: usize,
) {
    let slivers = slivers(&columns, T::lanes(isa), T::columns(isa));
    let lanes: usize = slivers.iter().map(|s| s.lanes).sum();
    scratch::with(EDGE + depth * lanes, |scratch: &mut [T]| {
        let (edge, panel) = scratch.split_at_mut(EDGE);
        for start in (0..k).step_by(depth) {
            let inner = start..k.min(start + depth);
            let panel = &mut panel[..inner.len() * lanes];
            product.b.pack(inner.clone(), &slivers, panel);
            let block = Block {
                a: &product.a[rows.start * k..rows.end * k],
                k,
                bias: if inner.end == k { product.bias.map(|b| &b[rows.clone()]) } else { None },
                inner,
                slivers: &slivers,
                panel,
                c: product.c,
                at: product.at + rows.start * n,
                n,
            };
            block.run(isa, edge);
        }
    });
}

/// `columns` in slivers of at most `most` vectors; a last sliver of one vector is avoided, as its sums would wait for each other.
fn slivers(columns: &Range<usize>, lanes: usize, most: usize) -> Vec<Sliver> {
    let mut slivers = Vec::with_capacity(columns.len().div_ceil(lanes * most) + 1);
    let mut column = columns.start;
    while column < columns.end {
        let vectors = (columns.end - column).div_ceil(lanes);
        let width = if vectors == most + 1 { vectors.div_ceil(2) } else { vectors.min(most) } * lanes;
        slivers.push(Sliver { column, columns: width.min(columns.end - column), lanes: width });
        column += width;
    }
    slivers
}

/// Elements of the largest register tile: a tile that reaches beyond the last column is computed aside.
const EDGE: usize = 8 * 3 * 16;

/// Rows of `a` times one packed panel.
pub(super) struct Block<'a, T> {
    /// Whole rows of `k` elements, of which `inner` are multiplied.
    a: &'a [T],
    k: usize,
    inner: Range<usize>,
    /// Added to the sums, one a row.
    bias: Option<&'a [T]>,
    slivers: &'a [Sliver],
    panel: &'a [T],
    c: Disjoint<'a, T>,
    /// Where the first row of `c` begins; rows are `n` apart.
    at: usize,
    n: usize,
}

impl<T: Gemm> Block<'_, T> {
    fn run(&self, isa: Isa, edge: &mut [T]) {
        assert!(isa <= Isa::detect() && edge.len() >= EDGE);
        match isa {
            // SAFETY: the machine has the instruction set; `edge` is long enough; no other unit of work has these
            // elements of `c`.
            Isa::Portable => unsafe { block::<T::Portable>(self, edge.as_mut_ptr()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::<T>(self, edge.as_mut_ptr()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { avx512::<T>(self, edge.as_mut_ptr()) },
            #[cfg(not(target_arch = "x86_64"))]
            // SAFETY: as above.
            _ => unsafe { block::<T::Portable>(self, edge.as_mut_ptr()) },
        }
    }
}

/// # Safety
/// As [`block`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<T: Gemm>(b: &Block<'_, T>, edge: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { block::<T::Avx2>(b, edge) }
}

/// # Safety
/// As [`block`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<T: Gemm>(b: &Block<'_, T>, edge: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { block::<T::Avx512>(b, edge) }
}

/// # Safety
/// The machine has the instruction set of `V`, `edge` is valid for [`EDGE`] elements, and no other thread uses the
/// elements of `c` that the block covers.
#[inline(always)]
unsafe fn block<V: Vector>(b: &Block<'_, V::T>, edge: *mut V::T) {
    let rows = b.a.len() / b.k;
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        // SAFETY: the caller's promises.
        row += unsafe {
            match left {
                5.. if V::ROWS == 8 => strip::<V, 8>(b, row, left.min(8), edge),
                3.. => strip::<V, 4>(b, row, left.min(4), edge),
                2 => strip::<V, 2>(b, row, 2, edge),
                _ => strip::<V, 1>(b, row, 1, edge),
            }
        };
    }
}

/// Multiplies `rows` rows (1 to `R`) from `first` on with every sliver; returns `rows`.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn strip<V: Vector, const R: usize>(b: &Block<'_, V::T>, first: usize, rows: usize, edge: *mut V::T) -> usize {
    let depth = b.inner.len();
    // A strip of fewer rows computes its last row several times.
    let row: [usize; R] = std::array::from_fn(|r| first + r.min(rows - 1));
    let a: [*const V::T; R] = row.map(|r| b.a[r * b.k..][b.inner.clone()].as_ptr());
    let bias: Option<[V::T; R]> = b.bias.map(|bias| row.map(|r| bias[r]));
    let mut panel = b.panel;
    for s in b.slivers {
        let (sliver, behind) = panel.split_at(depth * s.lanes);
        panel = behind;
        // SAFETY: the caller gives these elements to this thread alone.
        let c: [*mut V::T; R] = row.map(|r| unsafe { b.c.get(b.at + r * b.n + s.column, s.columns) });
        let aside = s.columns < s.lanes;
        let target: [*mut V::T; R] = if aside {
            // SAFETY: `edge` holds R rows of a sliver.
            std::array::from_fn(|r| unsafe { edge.add(r * s.lanes) })
        } else {
            c
        };
        let t = RegisterTile { depth, a, b: sliver.as_ptr(), c: target, bias, first: b.inner.start == 0 };
        // SAFETY: `a` and `sliver` hold `depth` steps, `target` and `c` as many elements as they are used for.
        unsafe {
            if aside && !t.first {
                (0..R).for_each(|r| std::ptr::copy_nonoverlapping(c[r], target[r], s.columns));
            }
            match s.lanes / V::LANES {
                1 => t.run::<V, 1>(),
                2 => t.run::<V, 2>(),
                _ if V::COLUMNS == 3 => t.run::<V, 3>(),
                _ => unreachable!("slivers are no wider than the register tile"),
            }
            if aside {
                (0..R).for_each(|r| std::ptr::copy_nonoverlapping(target[r], c[r], s.columns));
            }
        }
    }
    rows
}

/// `R` rows times one sliver.
struct RegisterTile<T, const R: usize> {
    depth: usize,
    a: [*const T; R],
    b: *const T,
    c: [*mut T; R],
    bias: Option<[T; R]>,
    /// Whether the sums begin at 0 rather than at what `c` holds.
    first: bool,
}

impl<T: Scalar, const R: usize> RegisterTile<T, R> {
    /// # Safety
    /// The machine has the instruction set of `V`; each of `a` is valid for `depth` elements, `b` for `depth * N` vectors,
    /// each of `c` for `N` vectors.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "indices let the compiler keep all sums in registers")]
    unsafe fn run<V: Vector<T = T>, const N: usize>(&self) {
        // SAFETY: the caller's promises, for every access below.
        unsafe {
            let mut sums = [[V::splat(T::ZERO); N]; R];
            if !self.first {
                for r in 0..R {
                    for v in 0..N {
                        sums[r][v] = V::load(self.c[r].add(v * V::LANES));
                    }
                }
            }
            let mut b = self.b;
            for l in 0..self.depth {
                let mut columns = [V::splat(T::ZERO); N];
                for v in 0..N {
                    columns[v] = V::load(b.add(v * V::LANES));
                }
                for r in 0..R {
                    let x = V::splat(*self.a[r].add(l));
                    for v in 0..N {
                        sums[r][v] = sums[r][v].add_product(x, columns[v]);
                    }
                }
                b = b.add(N * V::LANES);
            }
            for r in 0..R {
                for v in 0..N {
                    let sum = match self.bias {
                        Some(bias) => sums[r][v].add(V::splat(bias[r])),
                        None => sums[r][v],
                    };
                    sum.store(self.c[r].add(v * V::LANES));
                }
            }
        }
    }
}
