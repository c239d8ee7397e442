//! Inputs made up from a seed, such that what is computed from them means something.

use convc_runtime::{Constant, DType, Tensor};

/// How the integers of an input are drawn. Floating-point elements come from the standard normal distribution, booleans by
/// chance, both values among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// Numbers of both signs, small and large, as far as the type goes: never all 0.
    Mixed,
    /// From 0 up to below this number.
    Below(i64),
    /// From 1 to 3.
    Sizes,
    /// 0 only.
    Zero,
}

/// A tensor of random elements; `None` if no elements of this type can be made up. The same seed and stream give the same
/// tensor. `flip` turns booleans around.
#[must_use]
pub fn random(
    dtype: DType,
    shape: &[usize],
    integers: Integers,
    (seed, stream): (u64, u64),
    flip: bool,
) -> Option<Tensor> {
    let count = convc_runtime::dim::element_count(shape)?;
    let shape = shape.to_vec();
    let mut random = Random::new(seed, stream);
    let tensor = match dtype {
        DType::F64 => Tensor::new(shape, (0..count).map(|_| random.normal()).collect::<Vec<f64>>()),
        #[allow(clippy::cast_possible_truncation)]
        DType::F32 | DType::F16 | DType::BF16 => {
            Tensor::new(shape, (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>())
        }
        DType::Bool => {
            let mut bits: Vec<bool> = (0..count).map(|_| (random.next() & 1 == 1) != flip).collect();
            if let [first, rest @ ..] = bits.as_mut_slice()
                && let Some(last) = rest.last_mut()
            {
                *last = !*first;
            }
            Tensor::new(shape, bits)
        }
        DType::Str => Tensor::new(shape, vec![String::new(); count]),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
            let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
            let width = dtype.bytes_for(1)?;
            let mut bytes = Vec::with_capacity(count.checked_mul(width)?);
            for i in 0..count {
                let v = random.integer(integers, signed, i);
                bytes.extend(v.to_le_bytes().into_iter().take(width));
            }
            Constant::new(dtype, shape, bytes.into()).and_then(|c| c.to_tensor())
        }
        dtype => {
            // Types that are carried only: any bits will do that are the same twice.
            let bytes = vec![0; dtype.bytes_for(count)?];
            Constant::new(dtype, shape, bytes.into()).and_then(|c| c.to_tensor())
        }
    };
    tensor.ok().map(|t| t.rounded_to(dtype))
}

/// splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
pub struct Random(u64);

impl Random {
    /// The generator of this stream under this seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut mixed = Random(seed);
        Random(mixed.next() ^ Random(stream).next())
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1);
        low.saturating_add(i64::try_from(self.next() % span.max(1)).unwrap_or(0))
    }

    /// Uniform in (0, 1].
    #[allow(clippy::cast_precision_loss)]
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    fn integer(&mut self, integers: Integers, signed: bool, place: usize) -> i64 {
        match integers {
            Integers::Mixed => {
                // Odd numbers that are not 0 come first: with them, a quotient that is rounded shows.
                let magnitude = match self.next() % 4 {
                    0 => self.between(0, 120),
                    1 => 2 * self.between(0, 9) + 1,
                    _ => self.between(0, 9),
                };
                let v = if place == 0 { magnitude | 1 } else { magnitude };
                if signed && self.next() & 1 == 1 { -v } else { v }
            }
            Integers::Below(limit) => self.between(0, limit.max(1) - 1),
            Integers::Sizes => self.between(1, 3),
            Integers::Zero => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEGERS: [DType; 8] =
        [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

    #[test]
    fn integers_mean_something() {
        for dtype in INTEGERS {
            for seed in 0..20 {
                let draw = |how| random(dtype, &[64], how, (seed, 1), false).unwrap().to_i64s().unwrap();
                let mixed = draw(Integers::Mixed);
                assert!(mixed.iter().any(|v| v % 2 != 0) && mixed.iter().any(|v| v.abs() > 20), "{dtype} {mixed:?}");
                let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
                assert_eq!(mixed.iter().any(|v| *v < 0), signed, "{dtype} {mixed:?}");
                let one = random(dtype, &[1], Integers::Mixed, (seed, 1), false).unwrap().to_i64s().unwrap();
                assert_ne!(one, [0], "a single integer is never 0");
                let below = draw(Integers::Below(5));
                assert!((0..5).all(|i| below.contains(&i)) && below.iter().all(|v| (0..5).contains(v)), "{below:?}");
                assert!(draw(Integers::Sizes).iter().all(|v| (1..=3).contains(v)));
            }
        }
    }

    #[test]
    fn booleans_have_both_values() {
        for seed in 0..20 {
            let draw = |n: usize, flip| random(DType::Bool, &[n], Integers::Zero, (seed, 0), flip).unwrap();
            let two = draw(2, false);
            assert_ne!(two.as_slice::<bool>().unwrap()[0], two.as_slice::<bool>().unwrap()[1]);
            assert_ne!(
                draw(1, false),
                draw(1, true),
                "a single boolean has one value, and the other when turned around"
            );
        }
    }
}
