//! Shifts of integers: <https://onnx.ai/onnx/operators/onnx__BitShift.html>.

use crate::{
    DType, Element, Fact, OpError, Tensor, attribute_enum, attributes,
    match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, zip},
        helpers::{broadcast, expect_dtype, fold, required},
        integer::Integer,
    },
};

attribute_enum! {
    /// Which way.
    pub enum Direction {
        /// Towards the high bits.
        Left = "LEFT",
        /// Towards the low bits.
        Right = "RIGHT",
    }
}

attributes! {
    /// `y = x` shifted by as many bits as the second operand says, elementwise, with NumPy's broadcasting. To the right the
    /// sign's bit is repeated; by a negative number or by all bits nothing else is left.
    pub struct BitShift {
        /// Which way.
        pub direction: Direction,
    }
}

impl Operator for BitShift {
    single!(BitShift, "BitShift");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, y) = (required(inputs, 0, "X")?, required(inputs, 1, "Y")?);
        expect_dtype(x, 0, "X", "an integer type", DType::is_integer)?;
        same_type(x.dtype, y.dtype, 1, "Y")?;
        let shape = broadcast(&[&x.shape, &y.shape])?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, y) = (required(inputs, 0, "X")?, required(inputs, 1, "Y")?);
        let out = broadcast_pair(x.shape(), y.shape(), 1)?;
        cx.count(&out)?;
        let wrong = || OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "an integer type" };
        let data = match_integer!(x.data(), v => {
            let (x, y) = (Operand { elements: v, shape: x.shape() }, Operand::of(y, 1, "Y")?);
            Element::wrap(match self.direction {
                Direction::Left => zip(cx.pool, x, y, &out, |x, y| Integer::shl(*x, *y)),
                Direction::Right => zip(cx.pool, x, y, &out, |x, y| Integer::shr(*x, *y)),
            })
        }, else return Err(wrong()));
        Ok(vec![Tensor::from_data(out, data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn both_ways_and_too_far() {
        let (x, y) = (Tensor::vector(vec![16u8, 4, 255]), Tensor::vector(vec![1u8, 2, 8]));
        assert_eq!(run(&BitShift { direction: Direction::Left }, &[&x, &y]).unwrap()[0].to_i64s().unwrap(), [32, 16, 0]);
        assert_eq!(run(&BitShift { direction: Direction::Right }, &[&x, &y]).unwrap()[0].to_i64s().unwrap(), [8, 1, 0]);
    }

    #[test]
    fn signs_are_kept_to_the_right() {
        let (x, y) = (Tensor::vector(vec![-8i8, -1, 64, 4, -1, 4]), Tensor::vector(vec![1i8, 1, 1, -1, -8, 9]));
        let of = |direction| run(&BitShift { direction }, &[&x, &y]).unwrap()[0].to_i64s().unwrap();
        assert_eq!(of(Direction::Right), [-4, -1, 32, 0, -1, 0]);
        assert_eq!(of(Direction::Left), [-16, -2, -128, 0, 0, 0]);
    }
}
