//! Logic of two operands, on truth values or on bits: <https://onnx.ai/onnx/operators/onnx__And.html>,
//! <https://onnx.ai/onnx/operators/onnx__BitwiseAnd.html> and their like.

use crate::{
    DType, Data, Element, Fact, OpError, Tensor, attribute_enum, attributes,
    match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, zip},
        helpers::{broadcast, expect_dtype, fold, required},
        integer::Integer,
    },
};

attribute_enum! {
    /// Which function of what.
    pub enum BitwiseKind {
        /// Both booleans.
        And = "And",
        /// Either boolean.
        Or = "Or",
        /// Exactly one boolean.
        Xor = "Xor",
        /// Bits of both integers.
        BitwiseAnd = "BitwiseAnd",
        /// Bits of either integer.
        BitwiseOr = "BitwiseOr",
        /// Bits of exactly one integer.
        BitwiseXor = "BitwiseXor",
    }
}

attributes! {
    /// `y = f(a, b)`, elementwise, with NumPy's broadcasting; all of one type.
    pub struct Bitwise {
        /// The function.
        pub kind: BitwiseKind,
    }
}

impl Bitwise {
    fn logical(&self) -> bool {
        matches!(self.kind, BitwiseKind::And | BitwiseKind::Or | BitwiseKind::Xor)
    }

    fn integers<T: Integer>(&self, a: Operand<'_, T>, b: Operand<'_, T>, out: &[usize], cx: &RunCx<'_>) -> Data {
        T::wrap(match self.kind {
            BitwiseKind::And | BitwiseKind::BitwiseAnd => zip(cx.pool, a, b, out, |x, y| x.and(*y)),
            BitwiseKind::Or | BitwiseKind::BitwiseOr => zip(cx.pool, a, b, out, |x, y| x.or(*y)),
            BitwiseKind::Xor | BitwiseKind::BitwiseXor => zip(cx.pool, a, b, out, |x, y| x.xor(*y)),
        })
    }
}

impl Operator for Bitwise {
    family!(Bitwise, BitwiseKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        if self.logical() {
            expect_dtype(a, 0, "A", "bool", |d| d == DType::Bool)?;
        } else {
            expect_dtype(a, 0, "A", "an integer type", DType::is_integer)?;
        }
        same_type(a.dtype, b.dtype, 1, "B")?;
        let shape = broadcast(&[&a.shape, &b.shape])?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(a.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let out = broadcast_pair(a.shape(), b.shape(), 1)?;
        cx.count(&out)?;
        let wrong = || OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "bool or an integer type" };
        let data = if self.logical() {
            let (a, b) = (Operand::<bool>::of(a, 0, "A")?, Operand::<bool>::of(b, 1, "B")?);
            bool::wrap(match self.kind {
                BitwiseKind::And => zip(cx.pool, a, b, &out, |x, y| x & y),
                BitwiseKind::Or => zip(cx.pool, a, b, &out, |x, y| x | y),
                _ => zip(cx.pool, a, b, &out, |x, y| x ^ y),
            })
        } else {
            match_integer!(
                a.data(),
                v => self.integers(Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?, &out, cx),
                else return Err(wrong())
            )
        };
        Ok(vec![Tensor::from_data(out, data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn tables() {
        let a = Tensor::new([2, 1], vec![true, false]).unwrap();
        let b = Tensor::vector(vec![true, false]);
        let of = |kind| run(&Bitwise { kind }, &[&a, &b]).unwrap()[0].to_i64s().unwrap();
        assert_eq!(of(BitwiseKind::And), [1, 0, 0, 0]);
        assert_eq!(of(BitwiseKind::Or), [1, 1, 1, 0]);
        assert_eq!(of(BitwiseKind::Xor), [0, 1, 1, 0]);
        let (x, y) = (Tensor::vector(vec![12i16, -1]), Tensor::scalar(10i16));
        let of = |kind| run(&Bitwise { kind }, &[&x, &y]).unwrap()[0].to_i64s().unwrap();
        assert_eq!(of(BitwiseKind::BitwiseAnd), [8, 10]);
        assert_eq!(of(BitwiseKind::BitwiseOr), [14, -1]);
        assert_eq!(of(BitwiseKind::BitwiseXor), [6, -11]);
        assert!(run(&Bitwise { kind: BitwiseKind::And }, &[&x, &y]).is_err());
        assert!(run(&Bitwise { kind: BitwiseKind::BitwiseAnd }, &[&a, &b]).is_err());
    }
}
