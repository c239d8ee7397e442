//! Remainders: <https://onnx.ai/onnx/operators/onnx__Mod.html>.

use crate::{
    DType, Data, Element, Fact, Known, OpError, Tensor, attributes,
    match_integer, match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, zip, zip_dims},
        helpers::{broadcast, expect_dtype, fold, required},
        integer::Integer,
    },
    scalar::Scalar,
};

attributes! {
    /// The remainder of `a / b`, elementwise, with NumPy's broadcasting. Without `fmod` a zero has the sign of the divisor.
    pub struct Mod {
        /// Whether the remainder has the sign of the dividend, not of the divisor.
        pub fmod: bool,
    }
}

/// `a - floor(a / b) * b`, exact but for one rounding where the signs differ.
fn floor_remainder(a: f64, b: f64) -> f64 {
    let r = libm::fmod(a, b);
    if r == 0.0 {
        0f64.copysign(b)
    } else if (r < 0.0) == (b < 0.0) {
        r
    } else {
        r + b
    }
}

impl Mod {
    fn integers<T: Integer>(&self, a: Operand<'_, T>, b: Operand<'_, T>, out: &[usize], cx: &RunCx<'_>) -> Result<Data, OpError> {
        if !out.contains(&0) && b.elements.contains(&T::ZERO) {
            return Err(OpError::InputValue { index: 1, name: "B", problem: "a zero divides integers".into() });
        }
        Ok(T::wrap(zip(cx.pool, a, b, out, |&x, &y| {
            let r = x.rem(y).unwrap_or(T::ZERO);
            let apart = r != T::ZERO && (r < T::ZERO) != (y < T::ZERO);
            if apart && !self.fmod { r.add(y) } else { r }
        })))
    }
}

impl Operator for Mod {
    single!(Mod, "Mod");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(a, 0, "A", "a number type", |d| d.is_float() || d.is_integer())?;
        same_type(a.dtype, b.dtype, 1, "B")?;
        let shape = broadcast(&[&a.shape, &b.shape])?;
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let dims = zip_dims(a, b, &shape, |x, y| {
            let same = !self.fmod || x.at_least(0) == Some(true);
            (same && y.at_least(1) == Some(true)).then(|| x.rem_floor(y)).filter(|d| !d.is_overflow())
        });
        let mut y = Fact::new(a.dtype, shape);
        if matches!(a.dtype, DType::I64 | DType::I32) {
            y.known = dims.map(Known::Dims);
        }
        Ok(vec![y])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let out = broadcast_pair(a.shape(), b.shape(), 1)?;
        cx.count(&out)?;
        let wrong = || OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "a number type" };
        let data = match_real!(
            a.data(),
            v => {
                let (a, b) = (Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?);
                Element::wrap(if self.fmod {
                    zip(cx.pool, a, b, &out, |x, y| x.apply2(*y, "fmod", libm::fmod))
                } else {
                    zip(cx.pool, a, b, &out, |x, y| x.apply2(*y, "mod", floor_remainder))
                })
            },
            else match_integer!(
                a.data(),
                v => self.integers(Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?, &out, cx)?,
                else return Err(wrong())
            )
        );
        Ok(vec![Tensor::from_data(out, data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn signs() {
        let (a, b) = (Tensor::vector(vec![-4i32, 7, 5, 4, -7, 8]), Tensor::vector(vec![2i32, -3, 8, -2, 3, 5]));
        assert_eq!(run(&Mod { fmod: false }, &[&a, &b]).unwrap()[0], Tensor::vector(vec![0i32, -2, 5, 0, 2, 3]));
        assert_eq!(run(&Mod { fmod: true }, &[&a, &b]).unwrap()[0], Tensor::vector(vec![0i32, 1, 5, 0, -1, 3]));
        let (a, b) = (Tensor::vector(vec![-4.5f32, 7.25]), Tensor::scalar(2f32));
        assert_eq!(run(&Mod { fmod: true }, &[&a, &b]).unwrap()[0], Tensor::vector(vec![-0.5f32, 1.25]));
        assert_eq!(run(&Mod { fmod: false }, &[&a, &b]).unwrap()[0], Tensor::vector(vec![1.5f32, 1.25]));
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let a = Tensor::vector(vec![0f32, -0.0, -3.0, 3.0, 1.0, inf, 1.0, nan]);
        let b = Tensor::vector(vec![-2f32, 2.0, inf, inf, -inf, 2.0, 0.0, 2.0]);
        let y = run(&Mod { fmod: false }, &[&a, &b]).unwrap().remove(0);
        assert_eq!(format!("{:?}", y.as_slice::<f32>().unwrap()), "[-0.0, 0.0, inf, 3.0, -inf, NaN, NaN, NaN]");
        assert!(run(&Mod { fmod: true }, &[&Tensor::scalar(1u8), &Tensor::scalar(0u8)]).is_err());
    }
}
