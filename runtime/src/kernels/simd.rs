//! Vectors of the element types on each instruction set. Products and sums are separate operations everywhere.

use crate::scalar::Scalar;

/// A vector of [`Vector::LANES`] elements.
///
/// # Safety
/// Every function requires that the machine has the instruction set of the type; pointers must be valid for `LANES`
/// elements and need not be aligned.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Vector: Copy {
    /// The element.
    type T: Scalar;
    /// Elements per vector.
    const LANES: usize;
    /// Rows of a register tile of 2 or 3 vectors that the registers hold.
    const ROWS: usize;
    /// Vectors across a register tile.
    const COLUMNS: usize;
    /// All lanes `x`.
    unsafe fn splat(x: Self::T) -> Self;
    /// The elements at `p`.
    unsafe fn load(p: *const Self::T) -> Self;
    /// Writes the elements to `p`.
    unsafe fn store(self, p: *mut Self::T);
    /// `self + a * b`, rounded twice.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `self + o`.
    unsafe fn add(self, o: Self) -> Self;
}

/// Four elements, in whatever registers the target has.
#[derive(Clone, Copy)]
pub struct Quad<T>([T; 4]);

// SAFETY: uses no instruction beyond the target's.
unsafe impl<T: Scalar> Vector for Quad<T> {
    type T = T;
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const COLUMNS: usize = 2;
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Quad([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: the caller gives four elements; an array has the alignment of its elements.
        Quad(unsafe { *p.cast() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: as in `load`.
        unsafe { *p.cast() = self.0 }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Quad(std::array::from_fn(|i| self.0[i].add(a.0[i].mul(b.0[i]))))
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Quad(std::array::from_fn(|i| self.0[i].add(o.0[i])))
    }
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    macro_rules! vector {
        ($name:ident, $t:ty, $v:ty, $lanes:literal, $rows:literal x $columns:literal, $isa:literal,
         $splat:ident, $load:ident, $store:ident, $mul:ident, $add:ident) => {
            #[doc = concat!("Elements of `", stringify!($t), "` under ", $isa, ".")]
            #[derive(Clone, Copy)]
            pub struct $name($v);

            // SAFETY: the functions use no instruction beyond the set that the trait lets them rely on.
            unsafe impl Vector for $name {
                type T = $t;
                const LANES: usize = $lanes;
                const ROWS: usize = $rows;
                const COLUMNS: usize = $columns;
                #[inline(always)]
                unsafe fn splat(x: $t) -> Self {
                    // SAFETY: the caller has checked the instruction set.
                    $name(unsafe { $splat(x) })
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> Self {
                    // SAFETY: the caller has checked the instruction set and gives a whole vector.
                    $name(unsafe { $load(p) })
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $t) {
                    // SAFETY: as in `load`.
                    unsafe { $store(p, self.0) }
                }
                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    // SAFETY: as in `splat`.
                    $name(unsafe { $add(self.0, $mul(a.0, b.0)) })
                }
                #[inline(always)]
                unsafe fn add(self, o: Self) -> Self {
                    // SAFETY: as in `splat`.
                    $name(unsafe { $add(self.0, o.0) })
                }
            }
        };
    }

    vector!(F32x16, f32, __m512, 16, 8 x 3, "AVX-512F",
        _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_mul_ps, _mm512_add_ps);
    vector!(F64x8, f64, __m512d, 8, 8 x 3, "AVX-512F",
        _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_mul_pd, _mm512_add_pd);
    vector!(F32x8, f32, __m256, 8, 4 x 2, "AVX2",
        _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_mul_ps, _mm256_add_ps);
    vector!(F64x4, f64, __m256d, 4, 4 x 2, "AVX2",
        _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_mul_pd, _mm256_add_pd);
}
