//! What arithmetic operators need of the primitive integer types.

use crate::Element;

/// A primitive integer of 8 to 64 bits. Arithmetic wraps around, as ONNX's implementations do.
pub trait Integer: Element + Copy + Ord {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Number of bits.
    const BITS: u32;
    /// Sum.
    fn add(self, o: Self) -> Self;
    /// Difference.
    fn sub(self, o: Self) -> Self;
    /// Product.
    fn mul(self, o: Self) -> Self;
    /// Quotient rounded towards zero; `None` for a zero divisor.
    fn div(self, o: Self) -> Option<Self>;
    /// Remainder with the sign of the dividend; `None` for a zero divisor.
    fn rem(self, o: Self) -> Option<Self>;
    /// Magnitude.
    fn abs(self) -> Self;
    /// `-self`.
    fn neg(self) -> Self;
    /// Bits of both.
    fn and(self, o: Self) -> Self;
    /// Bits of either.
    fn or(self, o: Self) -> Self;
    /// Bits of exactly one.
    fn xor(self, o: Self) -> Self;
    /// The other bits.
    fn not(self) -> Self;
    /// Moved `n` bits up; 0 if `n` is negative or all of them.
    fn shl(self, n: Self) -> Self;
    /// Moved `n` bits down, the sign's bit repeated; only that bit if `n` is negative or all of them.
    fn shr(self, n: Self) -> Self;
    /// The value as i128, which holds all.
    fn wide(self) -> i128;
    /// The lowest bits of `v`.
    fn wrap_from(v: i128) -> Self;
    /// The nearest f64.
    fn to_f64(self) -> f64;
    /// `v` rounded towards zero, the nearest end of the range if it lies outside, 0 for NaN.
    fn from_f64(v: f64) -> Self;
}

macro_rules! integers {
    ($($t:ty: $abs:expr;)*) => { $(
        impl Integer for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const BITS: u32 = <$t>::BITS;
            #[inline]
            fn add(self, o: Self) -> Self { self.wrapping_add(o) }
            #[inline]
            fn sub(self, o: Self) -> Self { self.wrapping_sub(o) }
            #[inline]
            fn mul(self, o: Self) -> Self { self.wrapping_mul(o) }
            #[inline]
            fn div(self, o: Self) -> Option<Self> { (o != 0).then(|| self.wrapping_div(o)) }
            #[inline]
            fn rem(self, o: Self) -> Option<Self> { (o != 0).then(|| self.wrapping_rem(o)) }
            #[inline]
            fn abs(self) -> Self { $abs(self) }
            #[inline]
            fn neg(self) -> Self { self.wrapping_neg() }
            #[inline]
            fn and(self, o: Self) -> Self { self & o }
            #[inline]
            fn or(self, o: Self) -> Self { self | o }
            #[inline]
            fn xor(self, o: Self) -> Self { self ^ o }
            #[inline]
            fn not(self) -> Self { !self }
            #[inline]
            fn shl(self, n: Self) -> Self { u32::try_from(n).ok().and_then(|n| self.checked_shl(n)).unwrap_or(0) }
            #[inline]
            fn shr(self, n: Self) -> Self {
                match u32::try_from(n) {
                    Ok(n) if n < <$t>::BITS => self >> n,
                    _ => self >> (<$t>::BITS - 1) >> 1,
                }
            }
            #[inline]
            fn wide(self) -> i128 { i128::from(self) }
            #[inline]
            fn wrap_from(v: i128) -> Self { v as $t }
            #[inline]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline]
            fn from_f64(v: f64) -> Self { v as $t }
        }
    )* };
}
integers! {
    i8: i8::wrapping_abs;
    i16: i16::wrapping_abs;
    i32: i32::wrapping_abs;
    i64: i64::wrapping_abs;
    u8: std::convert::identity;
    u16: std::convert::identity;
    u32: std::convert::identity;
    u64: std::convert::identity;
}
