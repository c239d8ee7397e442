//! Running sums and products: <https://onnx.ai/onnx/operators/onnx__CumSum.html>, <https://onnx.ai/onnx/operators/onnx__CumProd.html>.

use crate::{
    DType, Data, Element, Fact, OpError, Tensor, attribute_enum, attributes, match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::shape_error,
        helpers::{expect_dtype, fold, normalize_axis, required},
        integer::Integer,
        widened,
    },
    scalar::Scalar,
};

attribute_enum! {
    /// Which.
    pub enum CumulativeKind {
        /// Sums.
        CumSum = "CumSum",
        /// Products.
        CumProd = "CumProd",
    }
}

attributes! {
    /// `y[i]` is the sum or product of `x[0]` to `x[i]` along the axis that operand 1 (one int32 or int64) names; carried in
    /// the type of x.
    pub struct Cumulative {
        /// Sums or products.
        pub kind: CumulativeKind,
        /// Whether `x[i]` itself is left out of `y[i]`.
        pub exclusive: bool,
        /// Whether to start at the end of the axis.
        pub reverse: bool,
    }
}

impl Cumulative {
    fn scan<T: Copy>(&self, x: &[T], size: usize, inner: usize, neutral: T, step: impl Fn(T, T) -> T) -> Vec<T> {
        let mut y = x.to_vec();
        for block in y.chunks_exact_mut((size * inner).max(1)) {
            for j in 0..inner {
                let mut acc = neutral;
                for i in 0..size {
                    let at = if self.reverse { size - 1 - i } else { i } * inner + j;
                    let next = step(acc, block[at]);
                    block[at] = if self.exclusive { acc } else { next };
                    acc = next;
                }
            }
        }
        y
    }
}

impl Operator for Cumulative {
    family!(Cumulative, CumulativeKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, axis) = (required(inputs, 0, "x")?, required(inputs, 1, "axis")?);
        expect_dtype(x, 0, "x", "a number type", |d| d.is_float() || d.is_integer())?;
        expect_dtype(axis, 1, "axis", "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        match axis.i64s().as_deref() {
            Some([a]) => normalize_axis(*a, x.rank(), "axis").map(drop)?,
            Some(_) => return Err(shape_error(1, "axis", axis, "one element is needed")),
            None => {}
        }
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (x, axis) = (required(inputs, 0, "x")?, required(inputs, 1, "axis")?);
            let axis = match axis.to_i64s().as_deref() {
                Some([a]) => normalize_axis(*a, x.rank(), "axis")?,
                _ => {
                    let fact = Fact::fixed(axis.dtype(), axis.shape());
                    return Err(shape_error(1, "axis", &fact, "one integer is needed"));
                }
            };
            cx.count(x.shape())?;
            let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product());
            macro_rules! real {
                ($v:ident) => {
                    Element::wrap(match self.kind {
                        CumulativeKind::CumSum => self.scan($v, size, inner, Scalar::ZERO, Scalar::add),
                        CumulativeKind::CumProd => self.scan($v, size, inner, Scalar::ONE, Scalar::mul),
                    })
                };
            }
            let data = match x.data() {
                Data::F32(v) => real!(v),
                Data::F64(v) => real!(v),
                Data::Field(v) => real!(v),
                other => match_integer!(other, v => Element::wrap(match self.kind {
                    CumulativeKind::CumSum => self.scan(v, size, inner, Integer::ZERO, Integer::add),
                    CumulativeKind::CumProd => self.scan(v, size, inner, Integer::ONE, Integer::mul),
                }), else {
                    return Err(OpError::InputType { index: 0, name: "x", dtype: x.dtype(), expected: "a number type" });
                }),
            };
            Ok(vec![Tensor::from_data(x.shape(), data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn both_ways_with_and_without_the_element() {
        let x = Tensor::new([2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let of = |kind, axis, exclusive, reverse| {
            let y = run(&Cumulative { kind, exclusive, reverse }, &[&x, &Tensor::scalar::<i32>(axis)]).unwrap();
            y[0].as_slice::<f32>().unwrap().to_vec()
        };
        let sum = CumulativeKind::CumSum;
        assert_eq!(of(sum, 1, false, false), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(of(sum, -1, true, false), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
        assert_eq!(of(sum, 0, false, true), [5.0, 7.0, 9.0, 4.0, 5.0, 6.0]);
        assert_eq!(of(CumulativeKind::CumProd, 1, true, true), [6.0, 3.0, 1.0, 30.0, 6.0, 1.0]);
        let none = Tensor::new([2, 0], Vec::<i64>::new()).unwrap();
        let op = Cumulative { kind: sum, exclusive: false, reverse: false };
        assert_eq!(run(&op, &[&none, &Tensor::vector(vec![1i64])]).unwrap()[0], none);
        assert!(run(&op, &[&none, &Tensor::scalar(2i64)]).is_err());
    }
}
