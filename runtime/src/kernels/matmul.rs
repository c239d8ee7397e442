//! Products of matrices.

use super::Gemm;
use crate::ops::RunCx;

/// `c = a * b`: `c[i,j] = sum over l of a[i,l] * b[l,j]`, summed in ascending `l`, from 0.
///
/// a `[m, k]`, b `[k, n]`, c `[m, n]`, all row-major; what `c` held does not matter. With `k = 0`, `c` is filled with zeros.
///
/// # Panics
/// If a slice is not as long as its sizes say.
pub fn gemm<T: Gemm>(cx: &RunCx<'_>, m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "a slice does not fit its sizes");
    if c.is_empty() {
        return;
    }
    cx.pool.for_each_chunk(c, n, &|i, row| {
        row.fill(T::ZERO);
        for l in 0..k {
            let x = a[i * k + l];
            for (y, &w) in row.iter_mut().zip(&b[l * n..(l + 1) * n]) {
                *y = y.add(x.mul(w));
            }
        }
    });
}
