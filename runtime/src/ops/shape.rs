//! Sizes as data: [Shape](https://onnx.ai/onnx/operators/onnx__Shape.html) and [Size](https://onnx.ai/onnx/operators/onnx__Size.html).

use crate::{
    DType, Fact, OpError, Tensor, attributes,
    ops::{InferCx, Operator, RunCx, helpers::required, },
};

attributes! {
    /// The sizes of `data` from axis `start` up to, not including, `end`, as a list of i64. Both count from the back if
    /// negative and are clamped to the rank.
    pub struct Shape {
        /// The first axis.
        pub start: i64,
        /// The axis behind the last; the rank if absent.
        pub end: Option<i64>,
    }
}

impl Shape {
    /// The axes meant in a tensor of this rank.
    #[must_use]
    pub fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let r = rank as i64;
        let front = |v: i64| if v < 0 { v.saturating_add(r) } else { v }.clamp(0, r) as usize;
        let (start, end) = (front(self.start), front(self.end.unwrap_or(r)));
        start..end.max(start)
    }
}

impl Operator for Shape {
    single!(Shape, "Shape");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "data")?;
        let sizes = &x.shape[self.range(x.rank())];
        Ok(vec![Fact::fixed(DType::I64, &[sizes.len()]).with_dims(sizes.to_vec())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let sizes = &x.shape()[self.range(x.rank())];
        Ok(vec![Tensor::vector(sizes.iter().map(|&n| n as i64).collect())])
    }
}

attributes! {
    /// The number of elements of `data`, a scalar of i64.
    pub struct Size {}
}

impl Operator for Size {
    single!(Size, "Size");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "data")?;
        Ok(vec![Fact::fixed(DType::I64, &[]).with_dims(vec![x.element_count()])])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::scalar(required(inputs, 0, "data")?.len() as i64)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked};

    #[test]
    fn sizes_and_their_product() {
        let x = Random::new(1).tensor(&[2, 3, 0, 5]);
        let shape = |start, end| checked(&Shape { start, end }, &[Some(&x)], &[0]).remove(0).to_i64s().unwrap();
        assert_eq!(shape(0, None), [2, 3, 0, 5]);
        assert_eq!(shape(1, None), [3, 0, 5]);
        assert_eq!(shape(-3, Some(-1)), [3, 0]);
        assert_eq!(shape(-9, Some(99)), [2, 3, 0, 5]);
        assert_eq!(shape(3, Some(1)), [0i64; 0]);
        assert_eq!(shape(i64::MIN, Some(i64::MAX)), [2, 3, 0, 5]);
        assert_eq!(checked(&Size {}, &[Some(&x)], &[0]).remove(0), Tensor::scalar(0i64));
        assert_eq!(checked(&Size {}, &[Some(&Tensor::scalar(1.0f32))], &[0]).remove(0), Tensor::scalar(1i64));
        assert_eq!(checked(&Shape { start: 0, end: None }, &[Some(&Tensor::scalar(1.0f32))], &[0])[0].shape(), [0]);
    }
}
