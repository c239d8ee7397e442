//! Folds of one or more operands: <https://onnx.ai/onnx/operators/onnx__Max.html> and its like.

use crate::{
    DType, Data, Dim, Element, Fact, Known, OpError, Tensor, attribute_enum, attributes,
    match_integer, match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, map, same_type, zip, zip_dims},
        helpers::{broadcast, expect_dtype, fold, required},
        widened,
    },
    scalar::Scalar,
};

attribute_enum! {
    /// Which function.
    pub enum VariadicKind {
        /// The largest; NaN if one is. Integers too.
        Max = "Max",
        /// The smallest; NaN if one is. Integers too.
        Min = "Min",
        /// The sum, from the first operand to the last.
        Sum = "Sum",
        /// The sum divided by the number of operands.
        Mean = "Mean",
    }
}

attributes! {
    /// `y = f(x1, .., xn)`, elementwise, with NumPy's broadcasting; all of one type.
    pub struct Variadic {
        /// The function.
        pub kind: VariadicKind,
    }
}

impl Variadic {
    fn takes(&self, dtype: DType) -> bool {
        dtype.is_float() || (matches!(self.kind, VariadicKind::Max | VariadicKind::Min) && dtype.is_integer())
    }

    fn pair(&self, a: &Tensor, b: &Tensor, index: usize, cx: &RunCx<'_>) -> Result<Tensor, OpError> {
        let out = broadcast_pair(a.shape(), b.shape(), index)?;
        cx.count(&out)?;
        let wrong = || OpError::InputType { index, name: "data", dtype: a.dtype(), expected: "a number type" };
        macro_rules! operands {
            ($v:ident) => {
                (Operand { elements: $v, shape: a.shape() }, Operand::of(b, index, "data")?)
            };
        }
        let data: Data = match_real!(a.data(), v => {
            let (a, b) = operands!(v);
            Element::wrap(match self.kind {
                VariadicKind::Max => zip(cx.pool, a, b, &out, |x, y| Scalar::max(*x, *y)),
                VariadicKind::Min => zip(cx.pool, a, b, &out, |x, y| Scalar::min(*x, *y)),
                VariadicKind::Sum | VariadicKind::Mean => zip(cx.pool, a, b, &out, |x, y| Scalar::add(*x, *y)),
            })
        }, else match_integer!(a.data(), v => {
            let (a, b) = operands!(v);
            Element::wrap(match self.kind {
                VariadicKind::Max => zip(cx.pool, a, b, &out, |x, y| Ord::max(*x, *y)),
                VariadicKind::Min => zip(cx.pool, a, b, &out, |x, y| Ord::min(*x, *y)),
                VariadicKind::Sum | VariadicKind::Mean => return Err(wrong()),
            })
        }, else return Err(wrong())));
        Ok(Tensor::from_data(out, data)?)
    }
}

impl Operator for Variadic {
    family!(Variadic, VariadicKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let first = required(inputs, 0, "data")?;
        expect_dtype(first, 0, "data", "a type that the function is defined on", |d| self.takes(d))?;
        let mut shapes = Vec::with_capacity(inputs.len());
        for index in 0..inputs.len() {
            let x = required(inputs, index, "data")?;
            same_type(first.dtype, x.dtype, index, "data")?;
            shapes.push(x.shape.as_slice());
        }
        let shape = broadcast(&shapes)?;
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let mut y = first.clone();
        for x in inputs[1..].iter().flatten() {
            let shape = broadcast(&[&y.shape, &x.shape])?;
            let extreme = if self.kind == VariadicKind::Max { Dim::maximum } else { Dim::minimum };
            let dims = zip_dims(&y, x, &shape, |x, y| Some(extreme(x, y)).filter(|d| !d.is_overflow()));
            y = Fact { dtype: y.dtype, shape, known: dims.map(Known::Dims) };
        }
        if !matches!(y.dtype, DType::I64 | DType::I32) {
            y.known = None;
        }
        Ok(vec![Fact { shape, ..y }])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let mut y = required(inputs, 0, "data")?.clone();
            let wrong = |dtype| OpError::InputType { index: 0, name: "data", dtype, expected: "a number type" };
            if !self.takes(y.dtype()) {
                return Err(wrong(y.dtype()));
            }
            for index in 1..inputs.len() {
                y = self.pair(&y, required(inputs, index, "data")?, index, cx)?;
            }
            if self.kind == VariadicKind::Mean {
                let n = inputs.len() as f64;
                let data: Data = match_real!(y.data(), v => {
                    let n = Scalar::from_f64(n);
                    Element::wrap(map(cx.pool, v, |x| Scalar::div(*x, n)))
                }, else return Err(wrong(y.dtype())));
                y = Tensor::from_data(y.shape(), data)?;
            }
            Ok(vec![y])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn three_operands_broadcast() {
        let a = Tensor::new([2, 1], vec![1f32, -4.0]).unwrap();
        let (b, c) = (Tensor::vector(vec![0f32, 5.0, -1.0]), Tensor::scalar(0.5f32));
        let of = |kind| run(&Variadic { kind }, &[&a, &b, &c]).unwrap()[0].as_slice::<f32>().unwrap().to_vec();
        assert_eq!(of(VariadicKind::Max), [1.0, 5.0, 1.0, 0.5, 5.0, 0.5]);
        assert_eq!(of(VariadicKind::Min), [0.0, 0.5, -1.0, -4.0, -4.0, -4.0]);
        assert_eq!(of(VariadicKind::Sum), [1.5, 6.5, 0.5, -3.5, 1.5, -4.5]);
        assert_eq!(of(VariadicKind::Mean), [0.5, 6.5 / 3.0, 0.5 / 3.0, -3.5 / 3.0, 0.5, -1.5]);
        assert_eq!(run(&Variadic { kind: VariadicKind::Mean }, &[&b]).unwrap()[0], b);
        assert!(run(&Variadic { kind: VariadicKind::Sum }, &[&Tensor::scalar(1i64), &Tensor::scalar(1i64)]).is_err());
    }

    #[test]
    fn sizes_stay_expressions() {
        let n = Dim::symbol("N");
        let x = Fact::new(DType::I64, vec![]).with_dims(vec![n.clone()]);
        let mut fresh = || Dim::from(0);
        let five = Fact::of(&Tensor::scalar(5i64));
        let y = Variadic { kind: VariadicKind::Min }.infer(&[Some(&x), Some(&five)], &mut InferCx::new(&mut fresh)).unwrap();
        assert_eq!(y[0].dims(), Some(vec![n.minimum(&Dim::from(5))]));
    }
}
