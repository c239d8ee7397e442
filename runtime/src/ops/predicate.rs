//! Questions about single floats: <https://onnx.ai/onnx/operators/onnx__IsNaN.html>, <https://onnx.ai/onnx/operators/onnx__IsInf.html>.

use crate::{
    DType, Fact, OpError, Tensor, attribute_enum, attributes,
    match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::map,
        helpers::{expect_float, fold, required},
    },
    scalar::Scalar,
};

attribute_enum! {
    /// Which question.
    pub enum PredicateKind {
        /// Whether it is not a number.
        IsNaN = "IsNaN",
        /// Whether it is infinite.
        IsInf = "IsInf",
    }
}

attributes! {
    /// `y` (bool, the shape of x) says of each float whether it is NaN or infinite. No element of the field is either.
    pub struct Predicate {
        /// The question.
        pub kind: PredicateKind,
        /// Whether minus infinity counts; IsInf only.
        pub detect_negative: Option<bool>,
        /// Whether plus infinity counts; IsInf only.
        pub detect_positive: Option<bool>,
    }
}

impl Operator for Predicate {
    family!(Predicate, PredicateKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(DType::Bool, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "X")?;
        cx.count(x.shape())?;
        let (negative, positive) = (self.detect_negative.unwrap_or(true), self.detect_positive.unwrap_or(true));
        let ask = |x: Option<f64>| match (self.kind, x) {
            (_, None) => false,
            (PredicateKind::IsNaN, Some(x)) => x.is_nan(),
            (PredicateKind::IsInf, Some(x)) => (positive && x == f64::INFINITY) || (negative && x == f64::NEG_INFINITY),
        };
        let y = match_real!(x.data(), v => map(cx.pool, v, |x| ask(Scalar::to_f64(*x))), else {
            let expected = "a floating-point type";
            return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected });
        });
        Ok(vec![Tensor::new(x.shape(), y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn infinities_by_sign() {
        let x = Tensor::vector(vec![f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY]);
        let ask = |kind, detect_negative, detect_positive| {
            let y = run(&Predicate { kind, detect_negative, detect_positive }, &[&x]).unwrap();
            y[0].to_i64s().unwrap()
        };
        assert_eq!(ask(PredicateKind::IsNaN, None, None), [1, 0, 0, 0]);
        assert_eq!(ask(PredicateKind::IsInf, None, None), [0, 1, 0, 1]);
        assert_eq!(ask(PredicateKind::IsInf, Some(false), None), [0, 1, 0, 0]);
        assert_eq!(ask(PredicateKind::IsInf, Some(true), Some(false)), [0, 0, 0, 1]);
    }
}
