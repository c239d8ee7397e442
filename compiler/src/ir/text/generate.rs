//! Elements of constants by rule.

use std::fmt;

use convc_runtime::{Constant, DType, Tensor};

/// What the elements of a constant are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Pseudo-random multiples of 1/8 in -1..=1 (integers: -8..=8), so that short sums of products are exact in every type.
    Random(u64),
    /// Pseudo-random multiples of 1/8 in 1/8..=2 (integers: 1..=16).
    Positive(u64),
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Generator::Zeros => f.write_str("zeros"),
            Generator::Ones => f.write_str("ones"),
            Generator::Random(seed) => write!(f, "random({seed})"),
            Generator::Positive(seed) => write!(f, "positive({seed})"),
        }
    }
}

/// Element `index` of the sequence of `seed`: splitmix64.
fn draw(seed: u64, index: usize) -> u64 {
    let mut h = seed.wrapping_add(0x51_7C_C1_B7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    h = h.wrapping_add((index as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95));
    h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^ (h >> 31)
}

impl Generator {
    fn eighths(self, index: usize) -> i64 {
        let below = |seed, n: u64| i64::try_from(draw(seed, index) % n).unwrap_or(0);
        match self {
            Generator::Zeros => 0,
            Generator::Ones => 8,
            Generator::Random(seed) => below(seed, 17) - 8,
            Generator::Positive(seed) => below(seed, 16) + 1,
        }
    }

    /// A tensor of these elements; `None` for types that no element is made of (strings, complex, sub-byte) and for a size
    /// beyond memory.
    #[must_use]
    pub fn tensor(self, dtype: DType, shape: &[usize]) -> Option<Tensor> {
        let count = convc_runtime::dim::element_count(shape).filter(|&n| n <= super::LARGEST)?;
        if dtype.is_float() {
            let v: Vec<f64> = (0..count).map(|i| self.eighths(i) as f64 / 8.0).collect();
            return Some(Tensor::new(shape, v).ok()?.rounded_to(dtype));
        }
        let unit = if self == Generator::Ones { 8 } else { 1 };
        let v: Vec<i64> = (0..count).map(|i| self.eighths(i) / unit).collect();
        integers(dtype, shape, &v)
    }
}

/// An integer or boolean tensor; elements wrap into narrow types.
pub(super) fn integers(dtype: DType, shape: &[usize], v: &[i64]) -> Option<Tensor> {
    macro_rules! narrow {
        ($($variant:ident $t:ty),*) => {
            match dtype {
                $(DType::$variant => Tensor::new(shape, v.iter().map(|&x| x as $t).collect::<Vec<$t>>()).ok(),)*
                DType::Bool => Tensor::new(shape, v.iter().map(|&x| x != 0).collect::<Vec<bool>>()).ok(),
                _ => None,
            }
        };
    }
    narrow!(I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
}

/// How many seeds are tried to recognise a constant's generator.
const SEEDS: u64 = 32;

/// The generator that makes just these elements, among those with a small seed.
pub(super) fn recognise(constant: &Constant) -> Option<Generator> {
    if constant.len() > 1 << 16 {
        return None;
    }
    let tensor = constant.to_tensor().ok()?;
    let fixed = [Generator::Zeros, Generator::Ones];
    let seeded = (0..SEEDS).flat_map(|s| [Generator::Random(s), Generator::Positive(s)]);
    // A few elements coincide with some seed's by chance and say more as a list.
    let candidates = fixed.into_iter().chain(seeded.filter(|_| constant.len() > 8));
    candidates.into_iter().find(|g| g.tensor(constant.dtype(), constant.shape()).as_ref() == Some(&tensor))
}
