//! The general matrix product: <https://onnx.ai/onnx/operators/onnx__Gemm.html>.

use crate::{
    Data, Fact, OpError, Tensor, attributes, match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, shape_error, zip},
        helpers::{broadcast, elements, expect_dtype, facts, optional, required},
        integer::Integer,
        matmul::Product,
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y = alpha * a' * b' + beta * c`. a' `[M, K]` and b' `[K, N]` are the operands, transposed if the attributes say so; c (optional)
    /// broadcasts to `[M, N]`. The product is summed in ascending order of K and c is added last.
    pub struct Gemm {
        /// Factor of the product.
        pub alpha: f32,
        /// Factor of c.
        pub beta: f32,
        /// Whether the first operand is `[K, M]`.
        pub trans_a: bool,
        /// Whether the second operand is `[N, K]`.
        pub trans_b: bool,
    }
}

/// The transpose of a row-major matrix.
fn transposed<T: Copy + Default>(v: &[T], rows: usize, columns: usize) -> Vec<T> {
    // Square blocks keep both sides in cache.
    const BLOCK: usize = 16;
    let mut out = vec![T::default(); v.len()];
    for r0 in (0..rows).step_by(BLOCK) {
        for c0 in (0..columns).step_by(BLOCK) {
            for r in r0..rows.min(r0 + BLOCK) {
                for c in c0..columns.min(c0 + BLOCK) {
                    out[c * rows + r] = v[r * columns + c];
                }
            }
        }
    }
    out
}

impl Gemm {
    /// The product before scaling, `[m, n]`.
    fn product<T: Product>(&self, cx: &RunCx<'_>, a: &Tensor, b: &Tensor, out: &[usize]) -> Result<Vec<T>, OpError> {
        let (va, vb) = (elements::<T>(a, 0, "A")?, elements::<T>(b, 1, "B")?);
        let (ra, ca, rb, cb) = (a.shape()[0], a.shape()[1], b.shape()[0], b.shape()[1]);
        let (turned_a, turned_b);
        let va = if self.trans_a {
            turned_a = transposed(va, ra, ca);
            &turned_a
        } else {
            va
        };
        let vb = if self.trans_b {
            turned_b = transposed(vb, rb, cb);
            &turned_b
        } else {
            vb
        };
        let k = if self.trans_a { ra } else { ca };
        let mut y = vec![T::default(); cx.count(out)?];
        T::product(cx, [out[0], k, out[1]], va, vb, &mut y);
        Ok(y)
    }

    fn reals<S: Product + Scalar>(
        &self,
        cx: &RunCx<'_>,
        [a, b]: [&Tensor; 2],
        c: Option<&Tensor>,
        out: &[usize],
    ) -> Result<Data, OpError> {
        let mut y = self.product::<S>(cx, a, b, out)?;
        if self.alpha != 1.0 {
            let alpha = S::from_f64(self.alpha.into());
            y.iter_mut().for_each(|v| *v = alpha.mul(*v));
        }
        // A factor of 0 leaves c out, whatever it holds.
        if let Some(c) = c.filter(|_| self.beta != 0.0) {
            let (left, c) = (Operand { elements: &y, shape: out }, Operand::of(c, 2, "C")?);
            let beta = S::from_f64(self.beta.into());
            y = if self.beta == 1.0 {
                zip(cx.pool, left, c, out, |y, c: &S| y.add(*c))
            } else {
                zip(cx.pool, left, c, out, |y, c: &S| y.add(beta.mul(*c)))
            };
        }
        Ok(S::wrap(y))
    }

    fn integers<T: Product + Integer>(
        &self,
        cx: &RunCx<'_>,
        [a, b]: [&Tensor; 2],
        c: Option<&Tensor>,
        out: &[usize],
    ) -> Result<Data, OpError> {
        let scale = |v: T, factor: f32| if factor == 1.0 { v } else { T::from_f64(f64::from(factor) * v.to_f64()) };
        let mut y = self.product::<T>(cx, a, b, out)?;
        y.iter_mut().for_each(|v| *v = scale(*v, self.alpha));
        if let Some(c) = c.filter(|_| self.beta != 0.0) {
            let (left, c) = (Operand { elements: &y, shape: out }, Operand::of(c, 2, "C")?);
            y = zip(cx.pool, left, c, out, |y, c: &T| y.add(scale(*c, self.beta)));
        }
        Ok(T::wrap(y))
    }
}

impl Operator for Gemm {
    single!(Gemm, "Gemm");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(a, 0, "A", "a number type", |d| d.is_float() || d.is_integer())?;
        same_type(a.dtype, b.dtype, 1, "B")?;
        let turned = |f: &Fact, index, name, turn: bool| match &f.shape[..] {
            [r, c] => Ok(if turn { (c.clone(), r.clone()) } else { (r.clone(), c.clone()) }),
            _ => Err(shape_error(index, name, f, "2 dimensions are needed")),
        };
        let ((m, ka), (kb, n)) = (turned(a, 0, "A", self.trans_a)?, turned(b, 1, "B", self.trans_b)?);
        if ka.equals(&kb) == Some(false) {
            return Err(shape_error(1, "B", b, format!("{ka} is needed where the sum runs")));
        }
        let shape = vec![m, n];
        if let Some(c) = optional(inputs, 2) {
            same_type(a.dtype, c.dtype, 2, "C")?;
            let both = broadcast(&[&shape, &c.shape])?;
            if both.len() != 2 || both.iter().zip(&shape).any(|(b, s)| b.equals(s) == Some(false)) {
                return Err(shape_error(2, "C", c, "which does not broadcast to the product"));
            }
        }
        Ok(vec![Fact::new(a.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (a, b, c) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?, optional(inputs, 2));
            let facts = facts(inputs);
            let refs: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
            let y = self.infer(&refs, &mut InferCx::new(&mut || crate::Dim::from(0)))?;
            let out = y.first().and_then(Fact::fixed_shape).unwrap_or_default();
            if let Some(c) = c
                && broadcast_pair(&out, c.shape(), 2)? != out
            {
                let fact = Fact::fixed(c.dtype(), c.shape());
                return Err(shape_error(2, "C", &fact, "which does not broadcast to the product"));
            }
            let data = match a.data() {
                Data::F32(_) => self.reals::<f32>(cx, [a, b], c, &out)?,
                Data::F64(_) => self.reals::<f64>(cx, [a, b], c, &out)?,
                Data::Field(_) => self.reals::<crate::scalar::Field>(cx, [a, b], c, &out)?,
                other => match_integer!(other, v => integers(self, v, cx, [a, b], c, &out)?, else {
                    return Err(OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "a number type" });
                }),
            };
            Ok(vec![Tensor::from_data(out, data)?])
        })
    }
}

/// [`Gemm::integers`] of the type of `_like`.
fn integers<T: Product + Integer>(
    op: &Gemm,
    _like: &[T],
    cx: &RunCx<'_>,
    operands: [&Tensor; 2],
    c: Option<&Tensor>,
    out: &[usize],
) -> Result<Data, OpError> {
    op.integers::<T>(cx, operands, c, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, indices, numbers, position, run};

    #[test]
    fn all_forms() {
        let (m, k, n) = (5, 20, 7);
        for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let (sa, sb) = (if trans_a { [k, m] } else { [m, k] }, if trans_b { [n, k] } else { [k, n] });
            let (a, b) = (numbers(&sa, 1), numbers(&sb, 2));
            let (va, vb) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
            for sc in [None, Some(&[][..]), Some(&[7]), Some(&[5, 1]), Some(&[1, 7]), Some(&[5, 7])] {
                let c = sc.map(|s| numbers(s, 3));
                let want: Vec<f32> = indices(&[m, n])
                    .iter()
                    .map(|o| {
                        let (i, j) = (o[0], o[1]);
                        let at = |t, r, c| if t { [c, r] } else { [r, c] };
                        let sum: f64 = (0..k)
                            .map(|l| va[position(&sa, &at(trans_a, i, l))] * vb[position(&sb, &at(trans_b, l, j))])
                            .sum();
                        let bias = c.as_ref().map_or(0.0, |c| c.to_f64s().unwrap()[position(c.shape(), o)]);
                        (0.5 * sum + 2.0 * bias) as f32
                    })
                    .collect();
                let op = Gemm { alpha: 0.5, beta: 2.0, trans_a, trans_b };
                let operands: Vec<&Tensor> = [&a, &b].into_iter().chain(c.as_ref()).collect();
                close(&run(&op, &operands).unwrap()[0], &Tensor::new([m, n], want).unwrap(), 1e-5);
            }
        }
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
        assert!(run(&op, &[&numbers(&[2, 3], 1), &numbers(&[3, 2], 1), &numbers(&[3], 1)]).is_err());
        assert!(run(&op, &[&numbers(&[2, 3], 1), &numbers(&[3, 2], 1), &numbers(&[1, 2, 2], 1)]).is_err());
        assert!(run(&op, &[&numbers(&[2, 3], 1), &numbers(&[2, 2], 1)]).is_err());
        assert!(run(&op, &[&numbers(&[1], 1), &numbers(&[1, 2], 1)]).is_err());
        let none = run(&op, &[&numbers(&[2, 0], 1), &numbers(&[0, 2], 1), &numbers(&[2], 1)]).unwrap();
        assert_eq!(none[0].shape(), [2, 2]);
        let i = Tensor::new([1, 2], vec![3i64, -4]).unwrap();
        let j = Tensor::new([2, 1], vec![2i64, 5]).unwrap();
        assert_eq!(run(&op, &[&i, &j, &Tensor::scalar(1i64)]).unwrap()[0].to_i64s().unwrap(), [-13]);
    }
}
