//! Keys by which operators and constants are told apart: equal exactly where these are equal bit for bit.

use std::fmt;

use convc_runtime::{AttrValue, Constant, DType, Op, Tensor};
use sha2::{Digest, Sha256};

/// A constant, by its type, its shape and the hash of its elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstantKey {
    dtype: DType,
    shape: Vec<usize>,
    sha256: [u8; 32],
}

impl ConstantKey {
    /// The key of a constant.
    #[must_use]
    pub fn of(c: &Constant) -> ConstantKey {
        let mut hash = Sha256::new();
        hash.update(c.bytes().as_bytes());
        for s in c.as_strings() {
            hash.update((s.len() as u64).to_le_bytes());
            hash.update(s.as_bytes());
        }
        ConstantKey { dtype: c.dtype(), shape: c.shape().to_vec(), sha256: hash.finalize().into() }
    }

    /// The key of a constant whose elements have this SHA-256, 64 hexadecimal digits; `None` if they are none.
    #[must_use]
    pub fn from_hex(dtype: DType, shape: &[usize], sha256: &str) -> Option<ConstantKey> {
        // A sign would be read as part of a number.
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(sha256.get(at..at + 2)?, 16).ok()?;
        }
        Some(ConstantKey { dtype, shape: shape.to_vec(), sha256: bytes })
    }

    /// The hash as 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.sha256.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for ConstantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}:{}", self.dtype, self.shape, self.hex())
    }
}

/// An operator with its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpKey {
    name: &'static str,
    attributes: Vec<(String, AttrKey)>,
}

/// An attribute; floats by their bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum AttrKey {
    Int(i64),
    Float(u32),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<u32>),
    Strs(Vec<String>),
    Tensor(ConstantKey),
    /// A tensor of numbers that no constant holds.
    Numbers(Vec<usize>, Vec<u64>),
}

impl AttrKey {
    fn of(value: AttrValue) -> AttrKey {
        match value {
            AttrValue::Int(v) => AttrKey::Int(v),
            AttrValue::Float(v) => AttrKey::Float(v.to_bits()),
            AttrValue::Str(v) => AttrKey::Str(v),
            AttrValue::Ints(v) => AttrKey::Ints(v),
            AttrValue::Floats(v) => AttrKey::Floats(v.into_iter().map(f32::to_bits).collect()),
            AttrValue::Strs(v) => AttrKey::Strs(v),
            AttrValue::Tensor(t) => AttrKey::tensor(&t),
        }
    }

    fn tensor(t: &Tensor) -> AttrKey {
        match Constant::from_tensor(t) {
            Ok(c) => AttrKey::Tensor(ConstantKey::of(&c)),
            Err(_) => {
                let numbers = t.to_f64s().unwrap_or_default();
                AttrKey::Numbers(t.shape().to_vec(), numbers.into_iter().map(f64::to_bits).collect())
            }
        }
    }
}

impl OpKey {
    /// The key of an operator.
    #[must_use]
    pub fn of(op: &Op) -> OpKey {
        let attributes = op.to_attrs().into_iter().map(|(name, value)| (name, AttrKey::of(value)));
        OpKey { name: op.name(), attributes: attributes.collect() }
    }
}

impl fmt::Display for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=")?;
            match value {
                AttrKey::Int(v) => write!(f, "{v}")?,
                AttrKey::Float(v) => write!(f, "{:?}", f32::from_bits(*v))?,
                AttrKey::Str(v) => write!(f, "{v:?}")?,
                AttrKey::Ints(v) => write!(f, "{v:?}")?,
                AttrKey::Floats(v) => write!(f, "{:?}", v.iter().map(|b| f32::from_bits(*b)).collect::<Vec<f32>>())?,
                AttrKey::Strs(v) => write!(f, "{v:?}")?,
                AttrKey::Tensor(c) => write!(f, "{c}")?,
                AttrKey::Numbers(shape, _) => write!(f, "a tensor of {shape:?}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::ops::{Unary, unary::UnaryKind};

    use super::*;

    #[test]
    fn keys_of_constants_come_back_from_their_digits() {
        let key = ConstantKey::of(&Constant::from_tensor(&Tensor::vector(vec![1f32, -0.0])).unwrap());
        assert_eq!(ConstantKey::from_hex(DType::F32, &[2], &key.hex()), Some(key.clone()));
        for malformed in ["", "00", &key.hex().to_uppercase(), &format!("+{}", &key.hex()[1..]), &"é".repeat(32)] {
            assert_eq!(ConstantKey::from_hex(DType::F32, &[2], malformed), None, "{malformed:?}");
        }
        let zero = ConstantKey::of(&Constant::from_tensor(&Tensor::vector(vec![1f32, 0.0])).unwrap());
        assert_ne!(zero, key);
    }

    #[test]
    fn operators_are_told_apart_by_the_bits_of_their_attributes() {
        let leaky = |alpha: f32| OpKey::of(&Op::from(Unary { alpha: Some(alpha), ..Unary::new(UnaryKind::LeakyRelu) }));
        assert_eq!(leaky(f32::NAN), leaky(f32::NAN));
        assert_ne!(leaky(0.0), leaky(-0.0));
        assert_ne!(leaky(0.5), OpKey::of(&Op::from(Unary { alpha: Some(0.5), ..Unary::new(UnaryKind::Elu) })));
        assert_eq!(leaky(0.5).to_string(), "LeakyRelu alpha=0.5");
    }
}
