//! Working memory that each thread keeps between calls.

use std::cell::Cell;

use super::Gemm;

/// A cache line.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// What a thread keeps at most, in bytes.
const KEPT: usize = 8 << 20;

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of unspecified value, aligned to a cache line.
pub(super) fn with<T: Gemm, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut lines = SCRATCH.take();
    let needed = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < needed {
        lines.resize(needed, bytemuck::Zeroable::zeroed());
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
    if lines.len() * size_of::<Line>() <= KEPT {
        SCRATCH.set(lines);
    }
    result
}
