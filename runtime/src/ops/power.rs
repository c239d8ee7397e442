//! Powers: <https://onnx.ai/onnx/operators/onnx__Pow.html>.

use crate::{
    Data, Element, Fact, OpError, Tensor, attributes,
    match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, zip},
        helpers::{broadcast, expect_dtype, fold, required},
        integer::Integer,
        widened,
    },
    scalar::{Field, Scalar},
};

attributes! {
    /// `z = x ^ y`, elementwise, with NumPy's broadcasting; the type of x. Floats are computed in f64 and rounded once, but
    /// for exponent 2, which is `x * x`. A power of integers wraps around; one with a negative exponent is rounded
    /// towards zero.
    pub struct Pow {}
}

/// The largest exponent that is a polynomial in the field.
const MAX_DEGREE: u64 = 64;

trait Power: Scalar + Element {
    fn power(self, exponent: Self) -> Self;
}

impl Power for f32 {
    #[inline]
    fn power(self, exponent: Self) -> Self {
        if exponent == 2.0 { self * self } else { libm::pow(self.into(), exponent.into()) as f32 }
    }
}

impl Power for f64 {
    #[inline]
    fn power(self, exponent: Self) -> Self {
        if exponent == 2.0 { self * self } else { libm::pow(self, exponent) }
    }
}

impl Power for Field {
    fn power(self, exponent: Self) -> Self {
        if exponent == Field::from_f64(0.5) {
            return self.apply("Sqrt", libm::sqrt);
        }
        if exponent == Field::from_f64(-1.0) {
            return Field::ONE.div(self);
        }
        match exponent.get() {
            e @ 0..=MAX_DEGREE => (0..e).fold(Field::ONE, |acc, _| Scalar::mul(acc, self)),
            _ => self.apply2(exponent, "Pow", libm::pow),
        }
    }
}

/// `x ^ e` modulo the range of `T`; for negative `e` rounded towards zero, and 0 for `x = 0`.
fn integer_power<T: Integer>(x: T, e: i128) -> T {
    if e < 0 {
        return match x.wide() {
            1 => T::ONE,
            -1 if e % 2 == 0 => T::ONE,
            -1 => x,
            _ => T::ZERO,
        };
    }
    let (mut base, mut acc, mut e) = (x, T::ONE, e);
    while e > 0 {
        if e & 1 == 1 {
            acc = acc.mul(base);
        }
        base = base.mul(base);
        e >>= 1;
    }
    acc
}

fn reals<S: Power>(x: &Tensor, v: &[S], y: &Tensor, out: &[usize], cx: &RunCx<'_>) -> Result<Data, OpError> {
    let a = Operand { elements: v, shape: x.shape() };
    if let Some(e) = S::of(y.data()) {
        return Ok(S::wrap(zip(cx.pool, a, Operand { elements: e, shape: y.shape() }, out, |x, y| x.power(*y))));
    }
    // An exponent of another type: f64 holds every float, and every integer that matters as an exponent.
    let exponents: Vec<f64> = match y.to_f64s() {
        Some(e) => e,
        None => match_integer!(y.data(), v => v.iter().map(|&e| Integer::to_f64(e)).collect(), else {
            return Err(OpError::InputType { index: 1, name: "Y", dtype: y.dtype(), expected: "a number type" });
        }),
    };
    let e = Operand { elements: &exponents, shape: y.shape() };
    Ok(S::wrap(zip(cx.pool, a, e, out, |x, &y| match x.to_f64() {
        Some(v) if y != 2.0 => S::from_f64(libm::pow(v, y)),
        _ => x.power(S::from_f64(y)),
    })))
}

fn integers<T: Integer>(x: &Tensor, v: &[T], y: &Tensor, out: &[usize], cx: &RunCx<'_>) -> Result<Data, OpError> {
    let a = Operand { elements: v, shape: x.shape() };
    let data = match_integer!(y.data(), e => {
        T::wrap(zip(cx.pool, a, Operand { elements: e, shape: y.shape() }, out, |&x, y| integer_power(x, y.wide())))
    }, else match y.to_f64s() {
        Some(e) => {
            let e = Operand { elements: &e, shape: y.shape() };
            T::wrap(zip(cx.pool, a, e, out, |x, &y| T::from_f64(libm::pow(x.to_f64(), y))))
        }
        None => return Err(OpError::InputType { index: 1, name: "Y", dtype: y.dtype(), expected: "a number type" }),
    });
    Ok(data)
}

impl Operator for Pow {
    single!(Pow, "Pow");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, y) = (required(inputs, 0, "X")?, required(inputs, 1, "Y")?);
        for (index, name, fact) in [(0, "X", x), (1, "Y", y)] {
            expect_dtype(fact, index, name, "a number type", |d| d.is_float() || d.is_integer())?;
        }
        let shape = broadcast(&[&x.shape, &y.shape])?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, y) = (required(inputs, 0, "X")?, required(inputs, 1, "Y")?);
        let out = broadcast_pair(x.shape(), y.shape(), 1)?;
        cx.count(&out)?;
        let power = |x: &Tensor, y: &Tensor| -> Result<Tensor, OpError> {
            let data = match x.data() {
                Data::F32(v) => reals(x, v, y, &out, cx)?,
                Data::F64(v) => reals(x, v, y, &out, cx)?,
                Data::Field(v) => reals(x, v, y, &out, cx)?,
                other => match_integer!(other, v => integers(x, v, y, &out, cx)?, else {
                    return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "a number type" });
                }),
            };
            Ok(Tensor::from_data(out.clone(), data)?)
        };
        // Only the base decides the type of the result.
        widened(&[Some(x)], |x| Ok(vec![power(required(x, 0, "X")?, y)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Real, ops::testing::{run, run_as}};

    #[test]
    fn types_mix() {
        let x = Tensor::vector(vec![1f32, 2.0, -3.0]);
        let y = run(&Pow {}, &[&x, &Tensor::vector(vec![4i64, 5, 3])]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![1f32, 32.0, -27.0]));
        let i = Tensor::vector(vec![2i32, -3, 3]);
        assert_eq!(run(&Pow {}, &[&i, &Tensor::scalar(3i32)]).unwrap()[0], Tensor::vector(vec![8i32, -27, 27]));
        assert_eq!(run(&Pow {}, &[&i, &Tensor::scalar(-1i64)]).unwrap()[0], Tensor::vector(vec![0i32; 3]));
        assert_eq!(run(&Pow {}, &[&i, &Tensor::scalar(1.5f32)]).unwrap()[0], Tensor::vector(vec![2i32, 0, 5]));
        let h = Tensor::vector(vec![half::f16::from_f32(3.0)]);
        assert_eq!(run(&Pow {}, &[&h, &Tensor::scalar(2f32)]).unwrap()[0], Tensor::vector(vec![half::f16::from_f32(9.0)]));
    }

    #[test]
    fn a_square_is_a_product_in_the_field() {
        let x = Tensor::vector(vec![1.25f32, -3.0]);
        let (fx, two) = (x.to_real(Real::Field), Tensor::scalar(2f32).to_real(Real::Field));
        let y = run_as(&Pow {}, &[&fx, &two], Real::Field).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![1.5625f32, 9.0]).to_real(Real::Field));
    }
}
