//! [`Types`]: sets of element types.

use std::fmt;

use convc_runtime::DType;

/// A set of element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types(u64);

const fn bit(dtype: DType) -> u64 {
    1 << dtype as u32
}

impl Types {
    /// None.
    pub const NONE: Types = Types(0);
    /// The floating-point types that are executed.
    pub const FLOATS: Types = Types::of(&[DType::F32, DType::F64, DType::F16, DType::BF16]);
    /// Those of floating-point numbers that a number of type f32 is near enough to: constants and attributes of that type stand for
    /// fractions that it does not hold.
    pub const UP_TO_F32: Types = Types::of(&[DType::F32, DType::F16, DType::BF16]);
    /// The signed integers.
    pub const SIGNED: Types = Types::of(&[DType::I8, DType::I16, DType::I32, DType::I64]);
    /// The unsigned integers.
    pub const UNSIGNED: Types = Types::of(&[DType::U8, DType::U16, DType::U32, DType::U64]);
    /// Floating-point numbers and integers.
    pub const NUMBERS: Types = Types::FLOATS.and(Types::SIGNED).and(Types::UNSIGNED);
    /// Every type, those that are only carried included.
    pub const ALL: Types = Types::of(DType::ALL);

    /// The set of these types.
    #[must_use]
    pub const fn of(types: &[DType]) -> Types {
        let (mut set, mut i) = (0, 0);
        while i < types.len() {
            set |= bit(types[i]);
            i += 1;
        }
        Types(set)
    }

    /// The types that are in one set or the other.
    #[must_use]
    pub const fn and(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    /// Whether a type is in the set.
    #[must_use]
    pub const fn contains(self, dtype: DType) -> bool {
        self.0 & bit(dtype) != 0
    }

    /// The types of the set, in the order of [`DType::ALL`].
    pub fn iter(self) -> impl Iterator<Item = DType> {
        DType::ALL.iter().copied().filter(move |d| self.contains(*d))
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Types::ALL {
            return f.write_str("all types");
        }
        let names: Vec<&str> = self.iter().map(DType::name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_is_made_of() {
        for &dtype in DType::ALL {
            assert!(Types::ALL.contains(dtype) && !Types::NONE.contains(dtype), "{dtype}");
            assert_eq!(Types::FLOATS.contains(dtype), dtype.is_float(), "{dtype}");
            assert_eq!(Types::NUMBERS.contains(dtype), dtype.is_float() || dtype.is_integer(), "{dtype}");
        }
        assert_eq!(Types::FLOATS.and(Types::of(&[DType::Bool])).to_string(), "f32, f64, f16, bf16, bool");
        assert_eq!(Types::ALL.to_string(), "all types");
    }
}
