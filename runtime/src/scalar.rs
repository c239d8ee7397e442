//! The numbers that arithmetic operators are generic over.
//!
//! The same operator code runs in f32 (products), in f64 (verification and weight evaluation) and in the field
//! GF(2^61 - 1) (tests): there a polynomial identity that holds on random elements holds, but for a chance of
//! degree / 2^61. Functions that are not polynomials are keyed hashes in the field, so two sides agree only if they
//! apply the same function to the same value.

use std::fmt::Debug;

use half::{bf16, f16};

/// An element of the field of integers modulo the prime 2^61 - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Field(u64);

impl Field {
    /// The modulus.
    pub const P: u64 = (1 << 61) - 1;

    /// The element congruent to `v`.
    #[must_use]
    pub fn new(v: u64) -> Field {
        Field(v % Self::P)
    }

    /// The representative in `0..P`.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    fn pow(self, mut e: u64) -> Field {
        let (mut base, mut acc) = (self, Field(1));
        while e > 0 {
            if e & 1 == 1 {
                acc = Scalar::mul(acc, base);
            }
            base = Scalar::mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// A value that only equal arguments share, all but surely: splitmix64 of (`key`, `parts`).
    #[must_use]
    pub fn hash(key: u64, parts: &[u64]) -> Field {
        let mut h = key;
        for &p in parts {
            h = h.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_add(p);
            h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            h ^= h >> 31;
        }
        Field::new(h)
    }

    fn keyed(name: &str, parts: &[u64]) -> Field {
        let key =
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
        Field::hash(key, parts)
    }
}

/// A number type that real arithmetic can be carried out in.
pub trait Scalar: Copy + PartialEq + Debug + Default + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The nearest value to `v`. In the field the map is the ring homomorphism from dyadic rationals; not finite ones hash.
    fn from_f64(v: f64) -> Self;
    /// The value as f64; `None` in the field, which has no order and no size.
    fn to_f64(self) -> Option<f64>;
    /// Sum.
    fn add(self, o: Self) -> Self;
    /// Difference.
    fn sub(self, o: Self) -> Self;
    /// Product.
    fn mul(self, o: Self) -> Self;
    /// Quotient.
    fn div(self, o: Self) -> Self;
    /// The larger; NaN if either is. In the field a symmetric hash, so that `max(a, b) = max(b, a)`.
    fn max(self, o: Self) -> Self;
    /// The smaller; NaN if either is. In the field a symmetric hash.
    fn min(self, o: Self) -> Self;
    /// A named function of one argument that is not a polynomial. `f` computes it in f64 (f32 arguments are widened and
    /// the result rounded once), in the field it is a hash keyed by `name`.
    fn apply(self, name: &str, f: impl Fn(f64) -> f64) -> Self;
    /// A named function of two arguments; as [`Scalar::apply`].
    fn apply2(self, o: Self, name: &str, f: impl Fn(f64, f64) -> f64) -> Self;
    /// `-self`.
    #[must_use]
    fn neg(self) -> Self {
        Self::ZERO.sub(self)
    }
}

macro_rules! native_scalar {
    ($t:ty) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn to_f64(self) -> Option<f64> {
                Some(f64::from(self))
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                self + o
            }
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                self - o
            }
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                self * o
            }
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                self / o
            }
            #[inline(always)]
            fn max(self, o: Self) -> Self {
                if self.is_nan() || self > o { self } else { o }
            }
            #[inline(always)]
            fn min(self, o: Self) -> Self {
                if self.is_nan() || self < o { self } else { o }
            }
            #[inline(always)]
            fn apply(self, _: &str, f: impl Fn(f64) -> f64) -> Self {
                f(f64::from(self)) as $t
            }
            #[inline(always)]
            fn apply2(self, o: Self, _: &str, f: impl Fn(f64, f64) -> f64) -> Self {
                f(f64::from(self), f64::from(o)) as $t
            }
            #[inline(always)]
            fn neg(self) -> Self {
                -self
            }
        }
    };
}
native_scalar!(f32);
native_scalar!(f64);

macro_rules! half_scalar {
    ($t:ty) => {
        impl Scalar for $t {
            const ZERO: Self = <$t>::ZERO;
            const ONE: Self = <$t>::ONE;
            fn from_f64(v: f64) -> Self {
                <$t>::from_f64(v)
            }
            fn to_f64(self) -> Option<f64> {
                Some(f64::from(self))
            }
            fn add(self, o: Self) -> Self {
                self + o
            }
            fn sub(self, o: Self) -> Self {
                self - o
            }
            fn mul(self, o: Self) -> Self {
                self * o
            }
            fn div(self, o: Self) -> Self {
                self / o
            }
            fn max(self, o: Self) -> Self {
                if self.is_nan() || self > o { self } else { o }
            }
            fn min(self, o: Self) -> Self {
                if self.is_nan() || self < o { self } else { o }
            }
            fn apply(self, _: &str, f: impl Fn(f64) -> f64) -> Self {
                <$t>::from_f64(f(f64::from(self)))
            }
            fn apply2(self, o: Self, _: &str, f: impl Fn(f64, f64) -> f64) -> Self {
                <$t>::from_f64(f(f64::from(self), f64::from(o)))
            }
        }
    };
}
half_scalar!(f16);
half_scalar!(bf16);

impl Scalar for Field {
    const ZERO: Self = Field(0);
    const ONE: Self = Field(1);

    fn from_f64(v: f64) -> Self {
        if !v.is_finite() {
            return Field::keyed("not-finite", &[v.to_bits()]);
        }
        let bits = v.abs().to_bits();
        let (exponent, fraction) = ((bits >> 52) as i64, bits & ((1 << 52) - 1));
        let (mantissa, e) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
        // 2 has order 61 modulo 2^61 - 1, so a power of two is a rotation.
        let scale = Field(1u64 << e.rem_euclid(61));
        let m = Scalar::mul(Field::new(mantissa), scale);
        if v < 0.0 { Scalar::neg(m) } else { m }
    }

    fn to_f64(self) -> Option<f64> {
        None
    }

    fn add(self, o: Self) -> Self {
        Field::new(self.0 + o.0)
    }

    fn sub(self, o: Self) -> Self {
        Field::new(self.0 + Self::P - o.0)
    }

    fn mul(self, o: Self) -> Self {
        let wide = u128::from(self.0) * u128::from(o.0);
        let low = (wide & u128::from(Self::P)) as u64;
        let high = (wide >> 61) as u64;
        Field::new(low + high)
    }

    fn div(self, o: Self) -> Self {
        Scalar::mul(self, o.pow(Self::P - 2))
    }

    fn max(self, o: Self) -> Self {
        if self == o { self } else { Field::keyed("max", &[self.0.min(o.0), self.0.max(o.0)]) }
    }

    fn min(self, o: Self) -> Self {
        if self == o { self } else { Field::keyed("min", &[self.0.min(o.0), self.0.max(o.0)]) }
    }

    fn apply(self, name: &str, _: impl Fn(f64) -> f64) -> Self {
        Field::keyed(name, &[self.0])
    }

    fn apply2(self, o: Self, name: &str, _: impl Fn(f64, f64) -> f64) -> Self {
        Field::keyed(name, &[self.0, o.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_map_is_a_ring_homomorphism_on_dyadic_rationals() {
        for (a, b) in [(1.5, -0.375), (-3.0, 1e-3_f32 as f64), (0.0, 7.25), (1024.0, -1.0 / 1024.0)] {
            let (fa, fb) = (Field::from_f64(a), Field::from_f64(b));
            assert_eq!(Scalar::add(fa, fb), Field::from_f64(a + b), "{a} + {b}");
            assert_eq!(Scalar::mul(fa, fb), Field::from_f64(a * b), "{a} * {b}");
            assert_eq!(Scalar::sub(fa, fb), Field::from_f64(a - b), "{a} - {b}");
        }
        let third = Scalar::div(Field::ONE, Field::from_f64(3.0));
        assert_eq!(Scalar::mul(third, Field::from_f64(3.0)), Field::ONE);
    }

    #[test]
    fn max_hands_nan_on() {
        assert!(Scalar::max(f32::NAN, 1.0).is_nan() && Scalar::max(1.0, f32::NAN).is_nan());
        assert!(Scalar::min(f32::NAN, 1.0).is_nan() && Scalar::min(1.0, f32::NAN).is_nan());
    }
}
