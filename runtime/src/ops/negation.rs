//! Negation of truth values and of bits: <https://onnx.ai/onnx/operators/onnx__Not.html>,
//! <https://onnx.ai/onnx/operators/onnx__BitwiseNot.html>.

use crate::{
    DType, Data, Fact, OpError, Tensor, attribute_enum, attributes,
    match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::map,
        helpers::{expect_dtype, fold, required},
        integer::Integer,
    },
};

attribute_enum! {
    /// Of what.
    pub enum NegationKind {
        /// Of booleans.
        Not = "Not",
        /// Of all bits of integers.
        BitwiseNot = "BitwiseNot",
    }
}

attributes! {
    /// `y = not x`, elementwise, same type and shape.
    pub struct Negation {
        /// Of what.
        pub kind: NegationKind,
    }
}

impl Operator for Negation {
    family!(Negation, NegationKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        match self.kind {
            NegationKind::Not => expect_dtype(x, 0, "X", "bool", |d| d == DType::Bool)?,
            NegationKind::BitwiseNot => expect_dtype(x, 0, "X", "an integer type", DType::is_integer)?,
        }
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        use crate::Element;
        let x = required(inputs, 0, "X")?;
        cx.count(x.shape())?;
        let wrong = || OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "bool or an integer type" };
        let data = match (self.kind, x.data()) {
            (NegationKind::Not, Data::Bool(v)) => bool::wrap(map(cx.pool, v, |b| !b)),
            (NegationKind::BitwiseNot, d) => {
                match_integer!(d, v => Element::wrap(map(cx.pool, v, |x| Integer::not(*x))), else return Err(wrong()))
            }
            _ => return Err(wrong()),
        };
        Ok(vec![Tensor::from_data(x.shape(), data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn both() {
        let y = run(&Negation { kind: NegationKind::Not }, &[&Tensor::vector(vec![true, false])]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![false, true]));
        let y = run(&Negation { kind: NegationKind::BitwiseNot }, &[&Tensor::vector(vec![0u8, 5])]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![255u8, 250]));
        assert!(run(&Negation { kind: NegationKind::Not }, &[&Tensor::vector(vec![1u8])]).is_err());
    }
}
