//! The order of elements, for operators that sort: that of the numbers, not-a-numbers behind all others.

use std::cmp::Ordering;

use half::{bf16, f16};

use crate::{Element, scalar::Field};

/// Elements that can be sorted.
pub(crate) trait Order: Element {
    /// How `self` compares with `other`; equal for zeros of either sign and for all not-a-numbers.
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! by_value {
    ($($t:ty)*) => { $(impl Order for $t {
        fn order(&self, other: &Self) -> Ordering {
            self.cmp(other)
        }
    })* };
}
by_value!(i8 i16 i32 i64 u8 u16 u32 u64 bool String);

macro_rules! by_number {
    ($($t:ty)*) => { $(impl Order for $t {
        fn order(&self, other: &Self) -> Ordering {
            self.partial_cmp(other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
        }
    })* };
}
by_number!(f32 f64 f16 bf16);

/// The field has no order of its own; its representatives lend it one.
impl Order for Field {
    fn order(&self, other: &Self) -> Ordering {
        self.get().cmp(&other.get())
    }
}
