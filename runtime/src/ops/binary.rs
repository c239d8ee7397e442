//! Arithmetic of two operands: <https://onnx.ai/onnx/operators/onnx__Add.html> and its like.

use crate::{
    DType, Data, Dim, Element, Fact, Known, OpError, Tensor, attribute_enum, attributes,
    match_integer, match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, shape_error, zip, zip_dims},
        helpers::{broadcast, expect_dtype, fold, required},
        integer::Integer,
        unary::leaky,
    },
    scalar::Scalar,
};

attribute_enum! {
    /// Which function.
    pub enum BinaryKind {
        /// `a + b`.
        Add = "Add",
        /// `a - b`.
        Sub = "Sub",
        /// `a * b`.
        Mul = "Mul",
        /// `a / b`; of integers, rounded towards zero.
        Div = "Div",
        /// `a` where `a >= 0`, else `b*a`; b must broadcast to the shape of a.
        PRelu = "PRelu",
    }
}

attributes! {
    /// `y = f(a, b)`, elementwise, with NumPy's broadcasting. Both operands have the type of the result, floating-point or
    /// integer; integers wrap around.
    pub struct Binary {
        /// The function.
        pub kind: BinaryKind,
    }
}

/// `a / b` rounded towards zero, where that is `floor(a / b)` for certain.
fn quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    let both = a.at_least(0) == Some(true) && b.at_least(1) == Some(true);
    (both || b.as_fixed().is_some_and(|b| b > 0 && a.divisible_by(b) == Some(true))).then(|| a.floor_div(b))
}

impl Binary {
    /// The operator of this kind.
    #[must_use]
    pub fn new(kind: BinaryKind) -> Binary {
        Binary { kind }
    }

    fn reals<S: Scalar + Element>(
        &self,
        a: Operand<'_, S>,
        b: Operand<'_, S>,
        out: &[usize],
        cx: &RunCx<'_>,
    ) -> Data {
        S::wrap(match self.kind {
            BinaryKind::Add => zip(cx.pool, a, b, out, |x, y| x.add(*y)),
            BinaryKind::Sub => zip(cx.pool, a, b, out, |x, y| x.sub(*y)),
            BinaryKind::Mul => zip(cx.pool, a, b, out, |x, y| x.mul(*y)),
            BinaryKind::Div => zip(cx.pool, a, b, out, |x, y| x.div(*y)),
            BinaryKind::PRelu => zip(cx.pool, a, b, out, |x, y| leaky(*x, *y)),
        })
    }

    fn integers<T: Integer>(
        &self,
        a: Operand<'_, T>,
        b: Operand<'_, T>,
        out: &[usize],
        cx: &RunCx<'_>,
    ) -> Result<Data, OpError> {
        Ok(T::wrap(match self.kind {
            BinaryKind::Add => zip(cx.pool, a, b, out, |x, y| x.add(*y)),
            BinaryKind::Sub => zip(cx.pool, a, b, out, |x, y| x.sub(*y)),
            BinaryKind::Mul => zip(cx.pool, a, b, out, |x, y| x.mul(*y)),
            BinaryKind::Div => {
                if !out.contains(&0) && b.elements.contains(&T::ZERO) {
                    return Err(OpError::InputValue { index: 1, name: "B", problem: "a zero divides integers".into() });
                }
                zip(cx.pool, a, b, out, |x, y| x.div(*y).unwrap_or(T::ZERO))
            }
            BinaryKind::PRelu => zip(cx.pool, a, b, out, |&x, y| if x < T::ZERO { y.mul(x) } else { x }),
        }))
    }
}

impl Operator for Binary {
    family!(Binary, BinaryKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(a, 0, "A", "a number type", |d| d.is_float() || d.is_integer())?;
        same_type(a.dtype, b.dtype, 1, "B")?;
        let shape = broadcast(&[&a.shape, &b.shape])?;
        if self.kind == BinaryKind::PRelu {
            let fits = shape.len() == a.rank() && shape.iter().zip(&a.shape).all(|(o, a)| o.equals(a) != Some(false));
            if !fits {
                return Err(shape_error(1, "slope", b, "which does not broadcast to the first input"));
            }
            return Ok(vec![Fact::new(a.dtype, a.shape.clone())]);
        }
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let dims = zip_dims(a, b, &shape, |x, y| {
            match self.kind {
                BinaryKind::Add => Some(x + y),
                BinaryKind::Sub => Some(x - y),
                BinaryKind::Mul => Some(x * y),
                BinaryKind::Div => quotient(x, y),
                BinaryKind::PRelu => None,
            }
            .filter(|d| !d.is_overflow())
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
        if self.kind == BinaryKind::PRelu && out != a.shape() {
            let fact = Fact::fixed(b.dtype(), b.shape());
            return Err(shape_error(1, "slope", &fact, "which does not broadcast to the first input"));
        }
        let wrong = || OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "a number type" };
        let data = match_real!(
            a.data(),
            v => self.reals(Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?, &out, cx),
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
    use crate::ops::testing::{indices, numbers, position, run};

    #[test]
    fn broadcasting_of_floats() {
        let shapes: &[(&[usize], &[usize])] =
            &[(&[], &[]), (&[2, 3], &[]), (&[2, 3, 4], &[3, 1]), (&[1, 4], &[3, 1]), (&[0, 3], &[3]), (&[3, 5, 7], &[3, 5, 7])];
        for &(sa, sb) in shapes {
            let (a, b) = (numbers(sa, 1), numbers(sb, 2));
            let (va, vb) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
            for &kind in BinaryKind::ALL {
                let Ok(y) = run(&Binary::new(kind), &[&a, &b]) else {
                    assert!(kind == BinaryKind::PRelu && sa == [1, 4]);
                    continue;
                };
                let want: Vec<f32> = indices(y[0].shape())
                    .iter()
                    .map(|i| {
                        let (x, y) = (va[position(sa, i)], vb[position(sb, i)]);
                        match kind {
                            BinaryKind::Add => x + y,
                            BinaryKind::Sub => x - y,
                            BinaryKind::Mul => x * y,
                            BinaryKind::Div => x / y,
                            BinaryKind::PRelu => if x < 0.0 { x * y } else { x },
                        }
                    })
                    .collect();
                assert_eq!(y[0].as_slice::<f32>().unwrap(), want, "{kind:?} {sa:?} {sb:?}");
            }
        }
    }

    #[test]
    fn integers() {
        let div = Binary::new(BinaryKind::Div);
        let (a, b) = (Tensor::vector(vec![-7i64, 7, i64::MIN]), Tensor::vector(vec![2i64, -2, -1]));
        assert_eq!(run(&div, &[&a, &b]).unwrap()[0], Tensor::vector(vec![-3i64, -3, i64::MIN]));
        let zero = Tensor::scalar(0i64);
        assert!(matches!(run(&div, &[&a, &zero]), Err(OpError::InputValue { .. })));
        let none = Tensor::new([0], Vec::<i64>::new()).unwrap();
        assert_eq!(run(&div, &[&none, &zero]).unwrap()[0], none);
        let add = Binary::new(BinaryKind::Add);
        assert_eq!(
            run(&add, &[&Tensor::vector(vec![200u8]), &Tensor::vector(vec![100u8])]).unwrap()[0],
            Tensor::vector(vec![44u8])
        );
        assert!(run(&add, &[&a, &Tensor::vector(vec![1i32; 3])]).is_err());
        assert!(run(&add, &[&a, &Tensor::vector(vec![1i64; 2])]).is_err());
    }

    #[test]
    fn sizes_stay_expressions() {
        let n = Dim::symbol("N");
        let x = Fact::new(DType::I64, vec![Dim::from(2)]).with_dims(vec![n.clone(), Dim::from(6)]);
        let two = Fact::of(&Tensor::scalar(2i64));
        let mut fresh = || Dim::from(0);
        let mut cx = InferCx::new(&mut fresh);
        let mut known = |kind, a, b| Binary::new(kind).infer(&[Some(a), Some(b)], &mut cx).unwrap()[0].dims();
        assert_eq!(known(BinaryKind::Mul, &x, &two), Some(vec![&n * 2, Dim::from(12)]));
        assert_eq!(known(BinaryKind::Div, &x, &two), Some(vec![n.floor_div(&Dim::from(2)), Dim::from(3)]));
        assert_eq!(known(BinaryKind::Sub, &x, &two), Some(vec![&n - 2, Dim::from(4)]));
        let less = Fact::new(DType::I64, vec![Dim::from(1)]).with_dims(vec![&n - 3]);
        assert_eq!(known(BinaryKind::Div, &less, &two), None);
    }
}
