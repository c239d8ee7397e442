//! Element types.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bits:literal,)*) => {
        /// The type of a tensor's elements: every type ONNX has. All are carried; the executed ones are those of [`crate::Data`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every type, in declaration order.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// The short name used by the text form, the plan and messages, such as `f32`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// Bits that one element takes in a constant's bytes; 0 for strings, which have no fixed size.
            #[must_use]
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// The type of this [`DType::name`].
            #[must_use]
            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "f32" 32,
    /// IEEE 754 binary64.
    F64 "f64" 64,
    /// IEEE 754 binary16.
    F16 "f16" 16,
    /// bfloat16.
    BF16 "bf16" 16,
    /// Signed 8-bit integer.
    I8 "i8" 8,
    /// Signed 16-bit integer.
    I16 "i16" 16,
    /// Signed 32-bit integer.
    I32 "i32" 32,
    /// Signed 64-bit integer.
    I64 "i64" 64,
    /// Unsigned 8-bit integer.
    U8 "u8" 8,
    /// Unsigned 16-bit integer.
    U16 "u16" 16,
    /// Unsigned 32-bit integer.
    U32 "u32" 32,
    /// Unsigned 64-bit integer.
    U64 "u64" 64,
    /// Boolean, one byte an element.
    Bool "bool" 8,
    /// UTF-8 string.
    Str "str" 0,
    /// Complex of two f32.
    C64 "c64" 64,
    /// Complex of two f64.
    C128 "c128" 128,
    /// Signed 4-bit integer, two a byte.
    I4 "i4" 4,
    /// Unsigned 4-bit integer, two a byte.
    U4 "u4" 4,
    /// Signed 2-bit integer, four a byte.
    I2 "i2" 2,
    /// Unsigned 2-bit integer, four a byte.
    U2 "u2" 2,
    /// 8-bit float, 4 exponent bits, finite.
    F8E4M3FN "f8e4m3fn" 8,
    /// 8-bit float, 4 exponent bits, finite, no negative zero.
    F8E4M3FNUZ "f8e4m3fnuz" 8,
    /// 8-bit float, 5 exponent bits.
    F8E5M2 "f8e5m2" 8,
    /// 8-bit float, 5 exponent bits, finite, no negative zero.
    F8E5M2FNUZ "f8e5m2fnuz" 8,
    /// 8-bit power-of-two scale.
    F8E8M0 "f8e8m0" 8,
    /// 4-bit float, two a byte.
    F4E2M1 "f4e2m1" 4,
}

impl DType {
    /// Whether this is a real floating-point type that is executed (f16, bf16, f32, f64).
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// Whether operators compute with this type; others are carried only.
    #[must_use]
    pub fn is_executed(self) -> bool {
        self.is_float() || self.is_integer() || matches!(self, DType::Bool | DType::Str)
    }

    /// Whether this is an executed integer type (8 to 64 bits).
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(
            self,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64
        )
    }

    /// Bytes that `elements` of this type take, `None` on overflow or for strings.
    #[must_use]
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits => Some(elements.checked_mul(bits)?.div_ceil(8)),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
